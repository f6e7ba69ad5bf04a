/* A weir loop in a libev loop. */
#pragma once

#include <ev.h>
#include <stdint.h>

typedef struct {
	uintptr_t loop;
	ev_io io;
	ev_timer timer;
	ev_prepare prepare;
	int open;
	void (*failed)(const char *error);
} weir_ev;

/* weir_ev_attach makes a loop of weir_open a guest of ev, on ev's thread. Its watchers keep
 * ev_run running until weir_ev_close. failed (or NULL) is told why the loop cannot go on;
 * the guest is closed then. */
void weir_ev_attach(weir_ev *w, struct ev_loop *ev, uintptr_t loop, void (*failed)(const char *error));

/* weir_ev_close ends the guest; *w is the caller's again. It may be called in a callback of
 * weir. Calling it again has no effect. */
void weir_ev_close(weir_ev *w, struct ev_loop *ev);
