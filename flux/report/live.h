/* flux/report/live.h: what the page shows of a training. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Of a bounded size, however long the training: at most FLUX_LIVE_POINTS of the curve,
 * each the mean over `stride` steps, and the last pictures. All functions but new and
 * free may be called from any thread; whoever trains never waits for one who looks, but
 * for the copying of these points. */
#pragma once

#include "flux/report/report-private.h"

G_BEGIN_DECLS

enum {
  FLUX_LIVE_POINTS = 1024,
  FLUX_LIVE_PAIRED = 64, /* the first and the last ones */
  FLUX_LIVE_PICTURES = 48,
  FLUX_LIVE_PICTURE_BYTES = 64 << 20,
};

typedef struct _FluxLive FluxLive;

FluxLive *flux_live_new (const FluxReportRun *run);
void flux_live_free (FluxLive *self);

void flux_live_step (FluxLive *self, const FluxReportStep *step);
void flux_live_paired_loss (FluxLive *self, guint64 step, double loss);
void flux_live_image (FluxLive *self, const FluxReportImage *image);
void flux_live_state (FluxLive *self, const char *state);
void flux_live_saved (FluxLive *self, guint64 step);

/* A JSON object: "state", "saved_step", the members of a step, "seconds_left"; "curve",
 * an object of "stride", "from", and the arrays "step", "loss", "learning_rate" from
 * point `from` on (from the first one when the stride is another than the one given);
 * "paired", [step, loss] each; "pictures", "id", "step", "prompt", "width", "height"
 * each. */
GBytes *flux_live_get_json (FluxLive *self, guint64 stride, guint64 from);
/* The settings, a JSON object. */
GBytes *flux_live_get_settings (FluxLive *self);
/* A PNG; NULL: there is none (any more). */
GBytes *flux_live_get_picture (FluxLive *self, guint64 id);

G_END_DECLS
