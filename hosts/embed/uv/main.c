/* A program whose loop is libuv's downloads over weir. */
#include "../fetch.h"
#include "weir_uv.h"

static uv_timer_t tick, later;
static flags f;
static fetch download;
static ticks record;
static weir_uv guest;
static uintptr_t loop;
static int64_t began;

static void ticked(uv_timer_t *t)
{
	(void)t;
	ticks_tick(&record);
}

static void finish(uv_timer_t *t)
{
	(void)t;
	weir_uv_close(&guest, NULL);
	weir_close(loop);
	uv_close((uv_handle_t *)&tick, NULL);
	uv_close((uv_handle_t *)&later, NULL);
}

static void done(const char *error)
{
	if (error) {
		printf("failed %s\n", error);
		exit(1);
	}
	printf("downloaded bytes=%lld sum=%08x ms=%lld\n", (long long)download.bytes, download.sum, (long long)(now_us() - began) / 1000);
	ticks_print(&record, "busy");
	uv_timer_stop(&tick);
	printf("idle\n");
	fflush(stdout);
	uv_timer_start(&later, finish, f.idle * 1000, 0);
}

static void begin(uv_timer_t *t)
{
	(void)t;
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
	uv_loop_t *uv = uv_default_loop();
	if (flags_read(&f, argc, argv) != 0)
		return 2;
	fetch_init(&download);
	loop = weir_open();
	if (!loop || weir_uv_attach(&guest, uv, loop, failed) != 0)
		return 1;
	uv_timer_init(uv, &tick);
	uv_timer_init(uv, &later);
	uv_timer_start(&tick, ticked, 16, 16);
	uv_timer_start(&later, begin, f.alone * 1000, 0);
	uv_run(uv, UV_RUN_DEFAULT);
	if (uv_loop_close(uv) != 0)
		return 1;
	printf("closed\n");
	return 0;
}
