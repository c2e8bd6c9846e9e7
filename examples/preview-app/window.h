/* examples/preview-app/window.h: the window. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "training.h"

G_BEGIN_DECLS

typedef struct {
  TrainingSettings settings; /* its strings are not copied */
  const char *prompt;
  gboolean start;         /* at once */
  guint64 stop_at;        /* press Stop and save at that step; 0: nobody does */
  const char *screenshot; /* a PNG of the window when the training has ended, or NULL */
} WindowOptions;

/* failed: set when a training ends in an error. With a screenshot the window closes
 * when it is taken. */
void window_open (GtkApplication *app, const WindowOptions *options, gboolean *failed);

G_END_DECLS
