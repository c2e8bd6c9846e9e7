/* flux/hub/card-chart.c: the loss as a picture: each step light, a running mean dark.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <string.h>

#include "flux/hub/card-private.h"

enum { WIDTH = 960, HEIGHT = 360, MARGIN = 12, GRID = 4 };

typedef struct {
  guint8 *rgb;
  double low, high;
  guint64 first, last;
} Chart;

static void
blend (Chart *self, int x, int y, const guint8 *colour, double share)
{
  guint8 *p = self->rgb + 3 * ((gsize)y * WIDTH + (gsize)x);

  if (x < 0 || y < 0 || x >= WIDTH || y >= HEIGHT)
    return;
  for (guint c = 0; c < 3; c++)
    p[c] = (guint8)lround (p[c] + (colour[c] - p[c]) * CLAMP (share, 0, 1));
}

static double
x_of (const Chart *self, guint64 step)
{
  double span = (double)(self->last - self->first);

  return MARGIN + (span > 0 ? (double)(step - self->first) / span : 0.5) *
                      (WIDTH - 1 - 2 * MARGIN);
}

static double
y_of (const Chart *self, double loss)
{
  double share =
      self->high > self->low ? (loss - self->low) / (self->high - self->low) : 0.5;

  return MARGIN + (1 - share) * (HEIGHT - 1 - 2 * MARGIN);
}

/* A column at a time: how much of each pixel the line covers there. */
static void
draw_line (Chart *self, double x0, double y0, double x1, double y1, double width,
    const guint8 *colour)
{
  int from = (int)floor (x0), to = (int)ceil (x1);

  for (int x = from; x <= to; x++) {
    double t0 = x1 > x0 ? CLAMP ((x - x0) / (x1 - x0), 0, 1) : 0;
    double t1 = x1 > x0 ? CLAMP ((x + 1 - x0) / (x1 - x0), 0, 1) : 1;
    double a = y0 + t0 * (y1 - y0), b = y0 + t1 * (y1 - y0);
    double top = MIN (a, b) - width / 2, bottom = MAX (a, b) + width / 2;

    for (int y = (int)floor (top); y <= (int)floor (bottom); y++)
      blend (self, x, y, colour, MIN (bottom, y + 1) - MAX (top, y));
  }
}

static gboolean
find_range (Chart *self, const GArray *losses)
{
  const FluxCardLoss *l = (const FluxCardLoss *)losses->data;
  guint n = 0;

  for (guint i = 0; i < losses->len; i++) {
    if (!isfinite (l[i].loss))
      continue;
    self->low = n == 0 ? l[i].loss : MIN (self->low, l[i].loss);
    self->high = n == 0 ? l[i].loss : MAX (self->high, l[i].loss);
    n++;
  }
  if (n < 2)
    return FALSE;
  self->first = l[0].step;
  self->last = MAX (l[losses->len - 1].step, self->first);
  return TRUE;
}

/* reach 0: each step; else the mean of those around it. */
static double
mean_around (const GArray *losses, guint i, guint reach)
{
  double sum = 0;
  guint n = 0;

  for (guint k = i > reach ? i - reach : 0; k < losses->len && k <= i + reach; k++) {
    double loss = g_array_index (losses, FluxCardLoss, k).loss;

    if (isfinite (loss)) {
      sum += loss;
      n++;
    }
  }
  return n > 0 ? sum / n : NAN;
}

/* Of very many steps, as many as there are pixels. */
static void
draw_curve (Chart *self, const GArray *losses, guint reach, const guint8 *colour)
{
  guint stride = MAX (1, losses->len / (2 * WIDTH));
  double x = NAN, y = NAN;

  for (guint i = 0; i < losses->len; i += stride) {
    double loss = mean_around (losses, i, reach);
    double next_x = x_of (self, g_array_index (losses, FluxCardLoss, i).step);
    double next_y = y_of (self, loss);

    if (!isfinite (loss))
      continue;
    if (isfinite (x) && next_x >= x)
      draw_line (self, x, y, next_x, next_y, reach > 0 ? 2.5 : 1.2, colour);
    x = next_x;
    y = next_y;
  }
}

GBytes *
flux_card_draw_loss (const FluxCard *self)
{
  static const guint8 grey[] = {225, 225, 225}, light[] = {165, 195, 235},
                      dark[] = {25, 85, 165};
  gsize size = 3 * (gsize)WIDTH * HEIGHT;
  Chart chart = {0};
  FluxReportPicture picture = {.width = WIDTH, .height = HEIGHT, .stride = 3 * WIDTH};
  GBytes *png;

  if (!find_range (&chart, self->losses))
    return NULL;
  chart.rgb = g_malloc (size);
  memset (chart.rgb, 255, size);
  for (guint i = 0; i <= GRID; i++) {
    double y = MARGIN + i * (double)(HEIGHT - 1 - 2 * MARGIN) / GRID;

    draw_line (&chart, MARGIN, y, WIDTH - 1 - MARGIN, y, 1, grey);
  }
  draw_curve (&chart, self->losses, 0, light);
  draw_curve (&chart, self->losses, MAX (1, self->losses->len / 40), dark);
  picture.rgb = chart.rgb;
  png = flux_report_png (&picture, NULL);
  g_free (chart.rgb);
  return png;
}
