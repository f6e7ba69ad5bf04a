#pragma once

#include <glib.h>
#include <stdint.h>

enum { kind_idle, kind_timeout, kind_fd };
void gtest_add(GMainContext *ctx, int kind, int arg, int priority, uintptr_t handle);
