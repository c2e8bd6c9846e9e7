/* examples/preview-app/chart.c: the loss as a curve: each step's faint, and their running
 * mean. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "chart.h"

#define SMOOTH 0.06 /* weight of a new value in the running mean */
#define LEFT 44     /* pixels: room for numbers */
#define BOTTOM 20
#define MARGIN 8
#define LINES 4

typedef struct {
  double x, y, width, height, low, high;
  guint64 steps;
} Frame;

static void
find_range (const Chart *self, Frame *f)
{
  f->low = G_MAXDOUBLE;
  f->high = -G_MAXDOUBLE;
  for (guint i = 0; i < self->losses->len; i++) {
    double loss = g_array_index (self->losses, double, i);

    f->low = MIN (f->low, loss);
    f->high = MAX (f->high, loss);
  }
  if (self->losses->len == 0)
    f->low = 0, f->high = 1;
  if (f->high - f->low < 1e-3)
    f->low -= 5e-4, f->high += 5e-4;
}

static void
move (cairo_t *cr, const Frame *f, guint step, double loss)
{
  double x = f->x + f->width * (double)step / (double)MAX (f->steps - 1, 1);
  double y = f->y + f->height * (f->high - loss) / (f->high - f->low);

  step == 0 ? cairo_move_to (cr, x, y) : cairo_line_to (cr, x, y);
}

static void
draw_text (cairo_t *cr, double x, double y, double align, const char *text)
{
  cairo_text_extents_t e;

  cairo_text_extents (cr, text, &e);
  cairo_move_to (cr, x - align * e.x_advance, y);
  cairo_show_text (cr, text);
}

static void
draw_grid (cairo_t *cr, const Frame *f, const GdkRGBA *ink)
{
  char text[32];

  cairo_set_line_width (cr, 1);
  cairo_set_font_size (cr, 11);
  for (int i = 0; i <= LINES; i++) {
    double y = (int)(f->y + f->height * i / LINES) + 0.5;

    cairo_set_source_rgba (cr, ink->red, ink->green, ink->blue, 0.12);
    cairo_move_to (cr, f->x, y);
    cairo_line_to (cr, f->x + f->width, y);
    cairo_stroke (cr);
    cairo_set_source_rgba (cr, ink->red, ink->green, ink->blue, 0.6);
    g_snprintf (text, sizeof text, "%.3f", f->high - (f->high - f->low) * i / LINES);
    draw_text (cr, f->x - 6, y + 4, 1, text);
  }
  draw_text (cr, f->x, f->y + f->height + 16, 0, "1");
  g_snprintf (text, sizeof text, "step %" G_GUINT64_FORMAT, f->steps);
  draw_text (cr, f->x + f->width, f->y + f->height + 16, 1, text);
}

static void
draw_curves (cairo_t *cr, const Frame *f, const Chart *self)
{
  double mean = 0;

  cairo_set_line_join (cr, CAIRO_LINE_JOIN_ROUND);
  cairo_set_source_rgba (cr, 0.21, 0.52, 0.89, 0.3);
  for (guint i = 0; i < self->losses->len; i++)
    move (cr, f, i, g_array_index (self->losses, double, i));
  cairo_stroke (cr);
  cairo_set_source_rgba (cr, 0.21, 0.52, 0.89, 1);
  cairo_set_line_width (cr, 2.5);
  for (guint i = 0; i < self->losses->len; i++) {
    double loss = g_array_index (self->losses, double, i);

    /* A plain mean at first: one noisy step does not bend the beginning. */
    mean += (loss - mean) * MAX (SMOOTH, 1.0 / (i + 1));
    move (cr, f, i, mean);
  }
  cairo_stroke (cr);
}

static void
draw (GtkDrawingArea *area, cairo_t *cr, int width, int height, gpointer data)
{
  Chart *self = data;
  Frame f = {.x = LEFT,
      .y = MARGIN,
      .width = width - LEFT - MARGIN,
      .height = height - BOTTOM - MARGIN,
      .steps = MAX (self->steps, self->losses->len)};
  GdkRGBA ink;

  gtk_style_context_get_color (gtk_widget_get_style_context (self->area), &ink);
  find_range (self, &f);
  draw_grid (cr, &f, &ink);
  if (self->losses->len > 1)
    draw_curves (cr, &f, self);
}

static void
forget (gpointer data, GObject *area)
{
  g_array_unref (data);
}

void
chart_init (Chart *self)
{
  self->losses = g_array_new (FALSE, FALSE, sizeof (double));
  self->area = gtk_drawing_area_new ();
  gtk_drawing_area_set_draw_func (GTK_DRAWING_AREA (self->area), draw, self, NULL);
  g_object_weak_ref (G_OBJECT (self->area), forget, self->losses);
}

void
chart_clear (Chart *self, guint64 steps)
{
  g_array_set_size (self->losses, 0);
  self->steps = steps;
  gtk_widget_queue_draw (self->area);
}

void
chart_add (Chart *self, double loss)
{
  g_array_append_val (self->losses, loss);
  gtk_widget_queue_draw (self->area);
}
