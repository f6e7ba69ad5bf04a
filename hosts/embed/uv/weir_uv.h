/* A weir loop in a libuv loop. */
#pragma once

#include <stdint.h>
#include <uv.h>

typedef struct {
	uintptr_t loop;
	uv_poll_t poll;
	uv_timer_t timer;
	uv_prepare_t prepare;
	int open;      /* handles that libuv has not closed yet */
	int closing;
	void (*failed)(const char *error);
	void (*closed)(void);
} weir_uv;

/* weir_uv_attach makes a loop of weir_open a guest of uv, on uv's thread. Its handles
 * keep uv_run running until weir_uv_close. failed (or NULL) is told why the loop cannot go
 * on; the guest is closed then. 0, or a negative error of libuv. */
int weir_uv_attach(weir_uv *w, uv_loop_t *uv, uintptr_t loop, void (*failed)(const char *error));

/* weir_uv_close ends the guest. *w must stay, and uv_run be running, until closed (or
 * NULL) is called; weir_close may be called at once, unless a callback of weir calls this.
 * Calling it again has no effect. */
void weir_uv_close(weir_uv *w, void (*closed)(void));
