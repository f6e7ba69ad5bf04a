#pragma once

#include <expat.h>
#include <stdint.h>

XML_Parser weir_parser_new(uintptr_t handle);
