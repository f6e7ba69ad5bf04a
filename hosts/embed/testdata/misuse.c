/* Everything that a program should not do with the library, and how streams end. */
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "libweir.h"

static uintptr_t loop;
static int64_t stream;
static int mades, losts, closing;
static size_t received;
static char reason[500];

static char *endpoint; /* echoes */

static void made(void *arg);
static void got(void *arg, const void *data, size_t n);
static void lost(void *arg, const char *why);
static const weir_callbacks calls = {made, got, NULL, lost};
static const weir_callbacks none = {NULL, NULL, NULL, NULL};

static void made(void *arg)
{
	(void)arg;
	mades++;
	assert(weir_turn(loop) == -1);  /* a turn inside a turn */
	assert(weir_close(loop) == -1); /* the end of a loop inside its turn */
	assert(weir_write(loop, stream, "hello", 5) == 0);
	assert(weir_write(loop, stream, "", 0) == 0);
	assert(weir_write(loop, stream, NULL, 0) == 0);
	assert(weir_write(loop, stream, NULL, 1) == -1);
	assert(weir_write(loop, stream, "", (size_t)-1) == -1);
}

static void got(void *arg, const void *data, size_t n)
{
	(void)arg;
	(void)data;
	received += n;
	weir_end(loop, stream, 0);
	weir_end(loop, stream, 0); /* again */
}

static void lost(void *arg, const char *why)
{
	assert(arg == &losts);
	losts++;
	snprintf(reason, sizeof reason, "%s", why ? why : "");
	if (closing) {
		/* Connecting again during weir_close. */
		assert(weir_connect(loop, endpoint, (weir_callbacks *)&calls, (uintptr_t)&losts) == -1);
		assert(strstr(weir_error(loop), "being closed"));
	} else {
		assert(weir_write(loop, stream, "x", 1) == -1);
	}
	weir_end(loop, stream, 0);
}

static void run_until(int *what, int n)
{
	while (*what < n) {
		int64_t us = weir_next(loop);
		struct pollfd p = {weir_fd(loop), POLLIN, 0};
		poll(&p, 1, us < 0 ? 5000 : (int)((us + 999) / 1000));
		assert(weir_turn(loop) == 0);
	}
}

int main(int argc, char **argv)
{
	(void)argc;
	/* Loops that there are not. */
	uintptr_t wrong[] = {0, 1, 77, (uintptr_t)-1};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		assert(weir_fd(wrong[i]) == -1);
		assert(weir_next(wrong[i]) == -1);
		assert(weir_turn(wrong[i]) == -1);
		assert(weir_error(wrong[i]) == NULL);
		assert(weir_close(wrong[i]) == -1);
		assert(weir_connect(wrong[i], "tcp:127.0.0.1:1", (weir_callbacks *)&calls, 0) == -1);
		assert(weir_write(wrong[i], 1, "x", 1) == -1);
		assert(weir_pause(wrong[i], 1, 1) == -1);
		assert(weir_buffered(wrong[i], 1) == 0);
		weir_end(wrong[i], 1, 0);
	}
	endpoint = argv[1];
	loop = weir_open();
	assert(loop);
	assert(weir_error(loop) == NULL);
	/* No endpoints to connect to. */
	assert(weir_connect(loop, "tcp-listen:1", (weir_callbacks *)&calls, 0) == -1 && weir_error(loop));
	assert(weir_connect(loop, "nonsense+", (weir_callbacks *)&calls, 0) == -1 && weir_error(loop));
	assert(weir_connect(loop, NULL, (weir_callbacks *)&calls, 0) == -1);
	assert(weir_connect(loop, argv[1], NULL, 0) == -1);
	/* A port that refuses, and one that echoes. */
	stream = weir_connect(loop, "tcp:127.0.0.1:1", (weir_callbacks *)&calls, (uintptr_t)&losts);
	assert(stream > 0 && losts == 0);
	run_until(&losts, 1);
	assert(strstr(reason, "refused"));
	stream = weir_connect(loop, argv[1], (weir_callbacks *)&calls, (uintptr_t)&losts);
	run_until(&losts, 2);
	assert(mades == 1 && received == 5 && !*reason);
	/* Ended while it connects; without callbacks; left for weir_close. */
	stream = weir_connect(loop, argv[1], (weir_callbacks *)&calls, (uintptr_t)&losts);
	weir_end(loop, stream, 0);
	weir_end(loop, stream, 0);
	run_until(&losts, 3);
	assert(mades == 1 && *reason);
	assert(weir_connect(loop, argv[1], (weir_callbacks *)&none, 0) > 0);
	stream = weir_connect(loop, argv[1], (weir_callbacks *)&calls, (uintptr_t)&losts);
	run_until(&mades, 2);
	weir_connect(loop, argv[1], (weir_callbacks *)&calls, (uintptr_t)&losts);
	int64_t ended = weir_connect(loop, argv[1], (weir_callbacks *)&calls, (uintptr_t)&losts);
	weir_end(loop, ended, 0);
	closing = 1;
	assert(weir_close(loop) == 0);
	assert(losts == 6);
	assert(weir_close(loop) == -1);
	assert(weir_fd(loop) == -1);
	printf("kept\n");
	return 0;
}
