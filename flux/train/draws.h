/* flux/train/draws.h: everything random in a training step. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Each draw is a function of (seed, step, position in the window, stream) and of nothing
 * that happened before, so a resumed run draws what the uninterrupted one would have. */
#pragma once

#include "flux/train/trainer.h"

G_BEGIN_DECLS

/* Streams of fx_philox(). The adapter's initial values have a seed of their own. */
typedef enum {
  FLUX_DRAW_TIMESTEP = 1,
  FLUX_DRAW_POSTERIOR = 2,
  FLUX_DRAW_NOISE = 3,
  FLUX_DRAW_DROPOUT = 4,
  FLUX_DRAW_PERMUTATION = 5
} FluxDrawStream;

typedef struct {
  float sigma, timestep, guidance, weight;
  gboolean drop_caption;
} FluxDraw;

/* step: optimiser steps done before this one. */
void flux_draw_scalars (
    const FluxTrainConfig *c, guint64 seed, guint64 step, guint position, FluxDraw *draw);
/* moments: mean, then logvar; n values each. latent = (mean + exp (logvar / 2) eps -
 * shift) * scaling. */
void flux_draw_latent (const FluxTrainConfig *c, guint64 seed, guint64 step,
    guint position, const float *moments, gsize n, float *latent);
void flux_draw_noise (guint64 seed, guint64 step, guint position, float *noise, gsize n);

G_END_DECLS
