#include <gtk/gtk.h>
#include "window.h"
#include "_cgo_export.h"

static GtkWidget *window, *bar, *label, *button;
static guint ticker;

static void clicked(GtkButton *b, gpointer p)
{
	(void)b;
	(void)p;
	gtkClicked();
}

static void destroyed(GtkWidget *w, gpointer p)
{
	(void)w;
	(void)p;
	window = NULL;
	gtk_main_quit();
}

static gboolean drawn(GtkWidget *w, cairo_t *c, gpointer p)
{
	(void)w;
	(void)c;
	(void)p;
	gtkDrawn();
	return FALSE;
}

static gboolean ticked(gpointer p)
{
	(void)p;
	gtkTicked();
	return G_SOURCE_CONTINUE;
}

static gboolean later(gpointer p)
{
	(void)p;
	gtkLater();
	return G_SOURCE_REMOVE;
}

static gboolean press(gpointer p)
{
	(void)p;
	gtk_button_clicked(GTK_BUTTON(button));
	return G_SOURCE_REMOVE;
}

void window_open(int start)
{
	if (!gtk_init_check(NULL, NULL)) {
		g_printerr("gtkdownload: there is no display: set DISPLAY or WAYLAND_DISPLAY\n");
		exit(1);
	}
	window = gtk_window_new(GTK_WINDOW_TOPLEVEL);
	gtk_window_set_title(GTK_WINDOW(window), "weir in GTK");
	gtk_window_set_default_size(GTK_WINDOW(window), 420, 140);
	gtk_container_set_border_width(GTK_CONTAINER(window), 16);
	g_signal_connect(window, "destroy", G_CALLBACK(destroyed), NULL);
	GtkWidget *box = gtk_box_new(GTK_ORIENTATION_VERTICAL, 12);
	button = gtk_button_new_with_label("Download");
	bar = gtk_progress_bar_new();
	label = gtk_label_new("Nothing has been downloaded.");
	g_signal_connect(button, "clicked", G_CALLBACK(clicked), NULL);
	g_signal_connect(bar, "draw", G_CALLBACK(drawn), NULL);
	gtk_box_pack_start(GTK_BOX(box), button, FALSE, FALSE, 0);
	gtk_box_pack_start(GTK_BOX(box), bar, FALSE, FALSE, 0);
	gtk_box_pack_start(GTK_BOX(box), label, FALSE, FALSE, 0);
	gtk_container_add(GTK_CONTAINER(window), box);
	gtk_widget_show_all(window);
	if (start)
		g_timeout_add(start, press, NULL);
}

void window_progress(double part, const char *text)
{
	if (!window)
		return;
	gtk_progress_bar_set_fraction(GTK_PROGRESS_BAR(bar), part);
	gtk_label_set_text(GTK_LABEL(label), text);
}

void window_every(unsigned ms) { ticker = g_timeout_add(ms, ticked, NULL); }

void window_every_stop(void)
{
	if (ticker)
		g_source_remove(ticker);
	ticker = 0;
}

void window_after(unsigned ms) { g_timeout_add(ms, later, NULL); }

void window_run(void) { gtk_main(); }

void window_quit(void)
{
	if (window)
		gtk_widget_destroy(window);
}
