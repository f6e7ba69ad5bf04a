#include "source.h"
#include "_cgo_export.h"

// A source for a weir loop: its descriptor is readable when the loop has something to
// do, and the loop says how long it can wait otherwise.
typedef struct {
	GSource source;
	uintptr_t handle;
	gpointer tag;
} weir_source;

// The loop is asked each time: since the last turn, the program may have set a timer.
static gboolean prepare(GSource *s, gint *timeout)
{
	*timeout = weirWait(((weir_source *)s)->handle);
	return *timeout == 0;
}

static gboolean check(GSource *s)
{
	weir_source *w = (weir_source *)s;
	return g_source_query_unix_fd(s, w->tag) != 0 || weirWait(w->handle) == 0;
}

static gboolean dispatch(GSource *s, GSourceFunc callback, gpointer data)
{
	(void)callback;
	(void)data;
	return weirTurn(((weir_source *)s)->handle) ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static GSourceFuncs funcs = {prepare, check, dispatch, NULL, NULL, NULL};

GSource *weir_source_new(uintptr_t handle, int fd, int priority)
{
	GSource *s = g_source_new(&funcs, sizeof(weir_source));
	weir_source *w = (weir_source *)s;
	w->handle = handle;
	w->tag = g_source_add_unix_fd(s, fd, G_IO_IN);
	g_source_set_name(s, "weir");
	g_source_set_priority(s, priority);
	return s;
}

static gboolean idle(gpointer handle)
{
	weirIdle((uintptr_t)handle);
	return G_SOURCE_REMOVE;
}

void weir_idle(GMainContext *ctx, uintptr_t handle)
{
	GSource *s = g_idle_source_new();
	g_source_set_priority(s, G_PRIORITY_DEFAULT);
	g_source_set_callback(s, idle, (gpointer)handle, NULL);
	g_source_attach(s, ctx);
	g_source_unref(s);
}
