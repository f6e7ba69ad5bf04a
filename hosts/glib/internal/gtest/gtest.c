#include <glib-unix.h>
#include "gtest.h"
#include "_cgo_export.h"

static gboolean call(gpointer handle) { return gtestCall((uintptr_t)handle); }

static gboolean call_fd(gint fd, GIOCondition c, gpointer handle)
{
	(void)fd;
	(void)c;
	return gtestCall((uintptr_t)handle);
}

void gtest_add(GMainContext *ctx, int kind, int arg, int priority, uintptr_t handle)
{
	GSource *s;
	switch (kind) {
	case kind_idle:
		s = g_idle_source_new();
		break;
	case kind_timeout:
		s = g_timeout_source_new(arg);
		break;
	default:
		s = g_unix_fd_source_new(arg, G_IO_IN);
	}
	g_source_set_priority(s, priority);
	if (kind == kind_fd)
		g_source_set_callback(s, (GSourceFunc)(void *)call_fd, (gpointer)handle, NULL);
	else
		g_source_set_callback(s, call, (gpointer)handle, NULL);
	g_source_attach(s, ctx);
	g_source_unref(s);
}
