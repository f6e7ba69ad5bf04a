/* weir for programs in other languages: a loop that a foreign loop drives, and streams.
 *
 *	go build -buildmode=c-archive -o libweir.a .      (and libweir.h)
 *	go build -buildmode=c-shared -o libweir.so .
 *
 * Everything here belongs to the thread that called weir_open: call every function there.
 * No function blocks, except weir_close while it sends. Callbacks come from inside weir_turn
 * and weir_close only. They may call every function except those two; during weir_close
 * nothing can be connected. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* What a stream's owner is told. Any function may be NULL. arg is what weir_connect was
 * given: a uintptr_t there, which may be a pointer or any number.
 *	made      it is connected, all layers included
 *	received  bytes arrived; they are lent until the function returns
 *	drained   all that was written was handed to the system
 *	lost      the stream has ended, or could not be connected: reason is NULL if
 *	          everything arrived and the end was clean, else a text that is lent until
 *	          the function returns. It comes once and last; the stream's number is then
 *	          free. */
typedef struct {
	void (*made)(void *arg);
	void (*received)(void *arg, const void *data, size_t n);
	void (*drained)(void *arg);
	void (*lost)(void *arg, const char *reason);
} weir_callbacks;
