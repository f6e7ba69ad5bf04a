#include <gtk/gtk.h>
#include "window.h"
#include "_cgo_export.h"

struct window {
	uintptr_t app;
	GtkWidget *top, *bar, *label, *button; /* top is NULL once it is closed */
	guint ticker;
};

static void clicked(GtkButton *b, gpointer p)
{
	(void)b;
	gtkClicked(((window *)p)->app);
}

static void destroyed(GtkWidget *t, gpointer p)
{
	(void)t;
	((window *)p)->top = NULL;
	gtk_main_quit();
}

static gboolean drawn(GtkWidget *t, cairo_t *c, gpointer p)
{
	(void)t;
	(void)c;
	gtkDrawn(((window *)p)->app);
	return FALSE;
}

static gboolean ticked(gpointer p)
{
	gtkTicked(((window *)p)->app);
	return G_SOURCE_CONTINUE;
}

static gboolean later(gpointer p)
{
	gtkLater(((window *)p)->app);
	return G_SOURCE_REMOVE;
}

static gboolean press(gpointer p)
{
	window *w = p;
	if (w->top)
		gtk_button_clicked(GTK_BUTTON(w->button));
	return G_SOURCE_REMOVE;
}

window *window_open(uintptr_t app, int start)
{
	if (!gtk_init_check(NULL, NULL))
		return NULL;
	window *w = g_new0(window, 1);
	w->app = app;
	w->top = gtk_window_new(GTK_WINDOW_TOPLEVEL);
	gtk_window_set_title(GTK_WINDOW(w->top), "weir in GTK");
	gtk_window_set_default_size(GTK_WINDOW(w->top), 420, 140);
	gtk_container_set_border_width(GTK_CONTAINER(w->top), 16);
	g_signal_connect(w->top, "destroy", G_CALLBACK(destroyed), w);
	GtkWidget *box = gtk_box_new(GTK_ORIENTATION_VERTICAL, 12);
	w->button = gtk_button_new_with_label("Download");
	w->bar = gtk_progress_bar_new();
	w->label = gtk_label_new("Nothing has been downloaded.");
	g_signal_connect(w->button, "clicked", G_CALLBACK(clicked), w);
	g_signal_connect(w->bar, "draw", G_CALLBACK(drawn), w);
	gtk_box_pack_start(GTK_BOX(box), w->button, FALSE, FALSE, 0);
	gtk_box_pack_start(GTK_BOX(box), w->bar, FALSE, FALSE, 0);
	gtk_box_pack_start(GTK_BOX(box), w->label, FALSE, FALSE, 0);
	gtk_container_add(GTK_CONTAINER(w->top), box);
	gtk_widget_show_all(w->top);
	if (start)
		g_timeout_add(start, press, w);
	return w;
}

void window_progress(window *w, double part, const char *text)
{
	if (!w->top)
		return;
	gtk_progress_bar_set_fraction(GTK_PROGRESS_BAR(w->bar), part);
	gtk_label_set_text(GTK_LABEL(w->label), text);
}

void window_every(window *w, unsigned ms) { w->ticker = g_timeout_add(ms, ticked, w); }

void window_every_stop(window *w)
{
	if (w->ticker)
		g_source_remove(w->ticker);
	w->ticker = 0;
}

void window_after(window *w, unsigned ms) { g_timeout_add(ms, later, w); }

void window_run(window *w)
{
	gtk_main();
	window_every_stop(w);
	/* What g_timeout_add still holds of w must not outlive it. */
	while (g_source_remove_by_user_data(w))
		;
	g_free(w);
}

void window_quit(window *w)
{
	if (w->top)
		gtk_widget_destroy(w->top);
}
