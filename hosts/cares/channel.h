#pragma once

#include <ares.h>
#include <stdint.h>

int weir_channel_new(ares_channel *channel, uintptr_t handle, const char *servers, int timeout_ms, int tries);
void weir_channel_ask(ares_channel channel, const char *host, int family, uintptr_t question);
int64_t weir_channel_timeout(ares_channel channel);
