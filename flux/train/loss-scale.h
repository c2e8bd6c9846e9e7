/* flux/train/loss-scale.h: dynamic scaling of the loss for fp16.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Gradients of activations below 6e-8 are 0 in fp16, and above 65504 infinite, so the
 * loss is multiplied by a power of two before the backward pass and the gradients divided
 * by it after. Start, halving and doubling are those of torch.amp.GradScaler (its
 * defaults: init_scale 2^16, backoff_factor 0.5, growth_factor 2, growth_interval 2000).
 * Unlike there a window whose gradients were not finite is not lost: it goes again at
 * half the scale, so what is learnt is that of a run that began at that scale. */
#pragma once

#include <glib.h>

#include "kernels/fx.h"

G_BEGIN_DECLS

#define FLUX_LOSS_SCALE_START 65536.0
#define FLUX_LOSS_SCALE_INTERVAL 2000

typedef struct {
  gboolean dynamic; /* FALSE: scale stays 1 */
  double scale;     /* a power of two, 1 or more */
  guint64 interval; /* good steps before it doubles */
  guint64 good;     /* good steps since it last changed */
} FluxLossScale;

/* A power of two from 1 to 2^64. */
gboolean flux_loss_scale_is_valid (double scale);
/* wanted, or when that is 0 what compute needs: none but for fp16. */
void flux_loss_scale_init (
    FluxLossScale *self, double wanted, guint64 interval, fx_dtype compute);
/* The gradients were not finite: halves the scale. FALSE when that cannot be the cause
 * (any more), as the scale has come down to 1. */
gboolean flux_loss_scale_back_off (FluxLossScale *self);
/* A step was done. */
void flux_loss_scale_succeed (FluxLossScale *self);

G_END_DECLS
