/* The argument of callbacks may be a number. A turn has the host's thread for a few
 * milliseconds, however much is ready: here callbacks of 2 ms each. */
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>

#include "libweir.h"

#define STREAMS 64

static uintptr_t loop;
static uintptr_t sum;
static int mades;

static int64_t cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void made(void *arg)
{
	assert((uintptr_t)arg >= 1 && (uintptr_t)arg <= STREAMS);
	sum += (uintptr_t)arg;
	mades++;
	for (int64_t end = cpu_ns() + 2000000; cpu_ns() < end;)
		;
}

static const weir_callbacks calls = {made, NULL, NULL, NULL};

int main(int argc, char **argv)
{
	(void)argc;
	loop = weir_open();
	assert(loop);
	for (uintptr_t i = 1; i <= STREAMS; i++)
		assert(weir_connect(loop, argv[1], (weir_callbacks *)&calls, i) > 0);
	int most = 0;
	while (mades < STREAMS) {
		int before = mades;
		int64_t us = weir_next(loop);
		struct pollfd p = {weir_fd(loop), POLLIN, 0};
		poll(&p, 1, us < 0 ? 5000 : (int)((us + 999) / 1000));
		assert(weir_turn(loop) == 0);
		if (mades - before > most)
			most = mades - before;
	}
	assert(sum == STREAMS * (STREAMS + 1) / 2);
	assert(most <= 16);
	assert(weir_close(loop) == 0);
	printf("kept\n");
	return 0;
}
