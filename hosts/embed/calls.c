#include "calls.h"

void call_made(weir_callbacks *c, uintptr_t arg)
{
	if (c->made)
		c->made((void *)arg);
}

void call_received(weir_callbacks *c, uintptr_t arg, const void *data, size_t n)
{
	if (c->received)
		c->received((void *)arg, data, n);
}

void call_drained(weir_callbacks *c, uintptr_t arg)
{
	if (c->drained)
		c->drained((void *)arg);
}

void call_lost(weir_callbacks *c, uintptr_t arg, const char *reason)
{
	if (c->lost)
		c->lost((void *)arg, reason);
}
