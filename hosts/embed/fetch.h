/* What the C examples share: a download over HTTP on a weir stream, and a record of how
 * punctually the host's timer ticks. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libweir.h"

typedef struct {
	uintptr_t loop;
	int64_t stream;
	char endpoint[300], path[300];
	char match; /* how much of the blank line after the head was seen */
	int64_t bytes;
	uint32_t sum; /* CRC-32 */
	void (*done)(const char *error);
	uint32_t table[8][256];
} fetch;

static inline int64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void fetch_init(fetch *f)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
		f->table[0][i] = c;
	}
	for (int k = 1; k < 8; k++)
		for (int i = 0; i < 256; i++)
			f->table[k][i] = f->table[k - 1][i] >> 8 ^ f->table[0][f->table[k - 1][i] & 255];
}

static void fetch_add(fetch *f, const unsigned char *p, size_t n)
{
	uint32_t c = ~f->sum;
	f->bytes += n;
	for (; n >= 8; p += 8, n -= 8) {
		uint32_t a, b;
		memcpy(&a, p, 4);
		memcpy(&b, p + 4, 4);
		a ^= c;
		c = f->table[7][a & 255] ^ f->table[6][a >> 8 & 255] ^ f->table[5][a >> 16 & 255] ^ f->table[4][a >> 24] ^
		    f->table[3][b & 255] ^ f->table[2][b >> 8 & 255] ^ f->table[1][b >> 16 & 255] ^ f->table[0][b >> 24];
	}
	for (; n; p++, n--)
		c = c >> 8 ^ f->table[0][(c ^ *p) & 255];
	f->sum = ~c;
}

static void fetch_made(void *arg)
{
	fetch *f = arg;
	char request[700];
	int n = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nConnection: close\r\n\r\n", f->path);
	weir_write(f->loop, f->stream, request, n);
}

static void fetch_received(void *arg, const void *data, size_t n)
{
	fetch *f = arg;
	const char *p = data;
	for (; n && f->match < 4; p++, n--)
		f->match = *p == "\r\n\r\n"[(int)f->match] ? f->match + 1 : *p == '\r';
	fetch_add(f, (const unsigned char *)p, n);
}

static void fetch_lost(void *arg, const char *reason)
{
	fetch *f = arg;
	f->stream = 0;
	f->done(reason);
}

/* fetch_start begins to fetch http://host:port/path. done comes from inside a turn. */
static int fetch_start(fetch *f, uintptr_t loop, const char *url, void (*done)(const char *error))
{
	static const weir_callbacks calls = {fetch_made, fetch_received, NULL, fetch_lost};
	char host[256];
	f->loop = loop;
	f->done = done;
	if (sscanf(url, "http://%255[^/]%299s", host, f->path) != 2) {
		fprintf(stderr, "%s is not http://host:port/path\n", url);
		return -1;
	}
	snprintf(f->endpoint, sizeof f->endpoint, "tcp:%s", host);
	f->stream = weir_connect(loop, f->endpoint, (weir_callbacks *)&calls, (uintptr_t)f);
	if (f->stream < 0) {
		fprintf(stderr, "%s: %s\n", f->endpoint, weir_error(loop));
		return -1;
	}
	return 0;
}

/* Intervals between ticks of the host's timer, in µs. */
typedef struct {
	int64_t last;
	int n;
	int gaps[1 << 16];
} ticks;

static void ticks_tick(ticks *k)
{
	int64_t now = now_us();
	if (k->last && k->n < 1 << 16)
		k->gaps[k->n++] = now - k->last;
	k->last = now;
}

static int by_size(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void ticks_print(ticks *k, const char *word)
{
	qsort(k->gaps, k->n, sizeof k->gaps[0], by_size);
	if (k->n == 0)
		printf("%s ticks=0\n", word);
	else
		printf("%s ticks=%d p50=%.2fms p99=%.2fms max=%.2fms\n", word, k->n, k->gaps[(k->n - 1) / 2] / 1e3,
		       k->gaps[(int)((k->n - 1) * 0.99)] / 1e3, k->gaps[k->n - 1] / 1e3);
	fflush(stdout);
	k->n = 0;
	k->last = 0;
}

/* An example's flags; times in seconds. */
typedef struct {
	const char *url;
	double alone, idle;
} flags;

static double seconds(const char *s)
{
	char *unit;
	double d = strtod(s, &unit);
	return strcmp(unit, "ms") == 0 ? d / 1000 : d;
}

static int flags_read(flags *f, int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "-url") == 0)
			f->url = argv[i + 1];
		else if (strcmp(argv[i], "-alone") == 0)
			f->alone = seconds(argv[i + 1]);
		else if (strcmp(argv[i], "-idle") == 0)
			f->idle = seconds(argv[i + 1]);
	}
	if (!f->url)
		fprintf(stderr, "usage: %s -url http://host:port/path [-alone 1s] [-idle 1s]\n", argv[0]);
	return f->url ? 0 : -1;
}
