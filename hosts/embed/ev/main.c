/* A program whose loop is libev's downloads over weir. */
#include "../fetch.h"
#include "weir_ev.h"

static ev_timer tick, later;
static flags f;
static fetch download;
static ticks record;
static weir_ev guest;
static uintptr_t loop;
static int64_t began;

static void ticked(struct ev_loop *ev, ev_timer *t, int events)
{
	(void)ev;
	(void)t;
	(void)events;
	ticks_tick(&record);
}

static void finish(struct ev_loop *ev, ev_timer *t, int events)
{
	(void)t;
	(void)events;
	weir_ev_close(&guest, ev);
	weir_close(loop);
}

static void done(const char *error)
{
	if (error) {
		printf("failed %s\n", error);
		exit(1);
	}
	printf("downloaded bytes=%lld sum=%08x ms=%lld\n", (long long)download.bytes, download.sum, (long long)(now_us() - began) / 1000);
	ticks_print(&record, "busy");
	ev_timer_stop(EV_DEFAULT, &tick);
	printf("idle\n");
	fflush(stdout);
	ev_timer_init(&later, finish, f.idle, 0.);
	ev_timer_start(EV_DEFAULT, &later);
}

static void begin(struct ev_loop *ev, ev_timer *t, int events)
{
	(void)ev;
	(void)t;
	(void)events;
	ticks_print(&record, "alone");
	began = now_us();
	if (fetch_start(&download, loop, f.url, done) != 0)
		exit(1);
}

static void failed(const char *error)
{
	fprintf(stderr, "weir: %s\n", error);
	exit(1);
}

int main(int argc, char **argv)
{
	struct ev_loop *ev = EV_DEFAULT;
	if (flags_read(&f, argc, argv) != 0)
		return 2;
	fetch_init(&download);
	loop = weir_open();
	if (!loop)
		return 1;
	weir_ev_attach(&guest, ev, loop, failed);
	ev_timer_init(&tick, ticked, 0.016, 0.016);
	ev_timer_start(ev, &tick);
	ev_timer_init(&later, begin, f.alone, 0.);
	ev_timer_start(ev, &later);
	ev_run(ev, 0);
	printf("closed\n");
	return 0;
}
