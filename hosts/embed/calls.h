#pragma once

#include "types.h"

/* Go cannot call a function by its pointer. */
void call_made(weir_callbacks *c, uintptr_t arg);
void call_received(weir_callbacks *c, uintptr_t arg, const void *data, size_t n);
void call_drained(weir_callbacks *c, uintptr_t arg);
void call_lost(weir_callbacks *c, uintptr_t arg, const char *reason);
