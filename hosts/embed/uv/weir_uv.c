#include "weir_uv.h"
#include "libweir.h"

static void turn(weir_uv *w)
{
	if (w->closing)
		return;
	if (weir_turn(w->loop) != 0 && !w->closing) {
		if (w->failed)
			w->failed(weir_error(w->loop));
		weir_uv_close(w, NULL);
	}
}

static void readable(uv_poll_t *p, int status, int events)
{
	(void)status;
	(void)events;
	turn(p->data);
}

static void due(uv_timer_t *t) { turn(t->data); }

/* Before each poll: since the last turn, the program may have set a timer of weir's. */
static void prepare(uv_prepare_t *p)
{
	weir_uv *w = p->data;
	int64_t us = weir_next(w->loop);
	if (us < 0) {
		uv_timer_stop(&w->timer);
	} else {
		uv_update_time(p->loop);
		uv_timer_start(&w->timer, due, (us + 999) / 1000, 0);
	}
}

int weir_uv_attach(weir_uv *w, uv_loop_t *uv, uintptr_t loop, void (*failed)(const char *error))
{
	int err = uv_poll_init(uv, &w->poll, weir_fd(loop));
	if (err)
		return err;
	uv_timer_init(uv, &w->timer);
	uv_prepare_init(uv, &w->prepare);
	w->loop = loop;
	w->failed = failed;
	w->closed = NULL;
	w->closing = 0;
	w->open = 3;
	w->poll.data = w->timer.data = w->prepare.data = w;
	uv_prepare_start(&w->prepare, prepare);
	uv_poll_start(&w->poll, UV_READABLE, readable);
	return 0;
}

static void handle_closed(uv_handle_t *h)
{
	weir_uv *w = h->data;
	if (--w->open == 0 && w->closed)
		w->closed();
}

void weir_uv_close(weir_uv *w, void (*closed)(void))
{
	if (w->closing)
		return;
	w->closing = 1;
	w->closed = closed;
	uv_close((uv_handle_t *)&w->poll, handle_closed);
	uv_close((uv_handle_t *)&w->timer, handle_closed);
	uv_close((uv_handle_t *)&w->prepare, handle_closed);
}
