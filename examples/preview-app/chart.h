/* examples/preview-app/chart.h: the loss as a curve. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gtk/gtk.h>

G_BEGIN_DECLS

typedef struct {
  GtkWidget *area;
  GArray *losses; /* double, one a step */
  guint64 steps;  /* that the curve has room for */
} Chart;

/* area belongs to whoever puts it into a window. */
void chart_init (Chart *self);
void chart_clear (Chart *self, guint64 steps);
void chart_add (Chart *self, double loss);

G_END_DECLS
