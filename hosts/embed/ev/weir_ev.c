#include "weir_ev.h"
#include "libweir.h"

static void turn(weir_ev *w, struct ev_loop *ev)
{
	if (weir_turn(w->loop) != 0 && w->open) {
		if (w->failed)
			w->failed(weir_error(w->loop));
		weir_ev_close(w, ev);
	}
}

static void readable(struct ev_loop *ev, ev_io *io, int events)
{
	(void)events;
	turn(io->data, ev);
}

static void due(struct ev_loop *ev, ev_timer *t, int events)
{
	(void)events;
	turn(t->data, ev);
}

/* Before each poll: since the last turn, the program may have set a timer of weir's. */
static void prepare(struct ev_loop *ev, ev_prepare *p, int events)
{
	weir_ev *w = p->data;
	int64_t us = weir_next(w->loop);
	(void)events;
	ev_timer_stop(ev, &w->timer);
	if (us >= 0) {
		ev_now_update(ev);
		ev_timer_set(&w->timer, us / 1e6, 0.);
		ev_timer_start(ev, &w->timer);
	}
}

void weir_ev_attach(weir_ev *w, struct ev_loop *ev, uintptr_t loop, void (*failed)(const char *error))
{
	w->loop = loop;
	w->failed = failed;
	w->open = 1;
	ev_io_init(&w->io, readable, weir_fd(loop), EV_READ);
	ev_timer_init(&w->timer, due, 0., 0.);
	ev_prepare_init(&w->prepare, prepare);
	w->io.data = w->timer.data = w->prepare.data = w;
	ev_io_start(ev, &w->io);
	ev_prepare_start(ev, &w->prepare);
}

void weir_ev_close(weir_ev *w, struct ev_loop *ev)
{
	if (!w->open)
		return;
	w->open = 0;
	ev_io_stop(ev, &w->io);
	ev_timer_stop(ev, &w->timer);
	ev_prepare_stop(ev, &w->prepare);
}
