#pragma once

#include <glib.h>
#include <stdint.h>

GSource *weir_source_new(uintptr_t handle, int fd, int priority);
void weir_idle(GMainContext *ctx, uintptr_t handle);
