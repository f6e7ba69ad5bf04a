#pragma once

#include <stdint.h>

void window_open(int start);
void window_progress(double part, const char *text);
void window_every(unsigned ms);
void window_after(unsigned ms);
void window_every_stop(void);
void window_run(void);
void window_quit(void);
