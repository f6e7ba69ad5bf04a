#include "calls.h"

void call_made(weir_callbacks *c, void *arg)
{
	if (c->made)
		c->made(arg);
}

void call_received(weir_callbacks *c, void *arg, const void *data, size_t n)
{
	if (c->received)
		c->received(arg, data, n);
}

void call_drained(weir_callbacks *c, void *arg)
{
	if (c->drained)
		c->drained(arg);
}

void call_lost(weir_callbacks *c, void *arg, const char *reason)
{
	if (c->lost)
		c->lost(arg, reason);
}
