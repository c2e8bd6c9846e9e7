/* pipelines/progress.h: the progress line of gst-flux. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

typedef struct {
  gboolean tty; /* redraw one line; else print a line now and then */
  gint columns;
  gboolean line_open; /* something stands on the current line */
  gint64 first_time;  /* microseconds: of the first step seen */
  guint64 first_step, last_tenth;
  double first_reading; /* of the meter, 0: none yet */
  gint64 line_time;     /* of the activity's last line, or of its start */
  gint line_percent;
} GstFluxProgress;

void gst_flux_progress_init (GstFluxProgress *self, int fd);
/* Shows flux-step, flux-checkpoint, flux-sample and PROGRESS messages; ignores others. */
void gst_flux_progress_message (GstFluxProgress *self, GstMessage *message);
/* A FluxProgressFunc, always TRUE: a bar for bytes on their way; percent below 0: none
 * yet. */
gboolean gst_flux_progress_transfer (const char *what, gint percent, gpointer self);
/* Ends an open line, so that other text can be printed. */
void gst_flux_progress_break (GstFluxProgress *self);

G_END_DECLS
