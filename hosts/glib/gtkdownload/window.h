#pragma once

#include <stdint.h>

/* A window with a button, a bar and a label. app is handed to the functions of main.go.
 * The window frees itself when window_run has returned. */
typedef struct window window;

window *window_open(uintptr_t app, int start);
void window_progress(window *w, double part, const char *text);
void window_every(window *w, unsigned ms);
void window_every_stop(window *w);
void window_after(window *w, unsigned ms);
void window_run(window *w);
void window_quit(window *w);
