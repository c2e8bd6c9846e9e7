/* flux/train/loss-scale.c: dynamic scaling of the loss for fp16.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/train/loss-scale.h"

#include <math.h>

#define LARGEST 0x1p64 /* its inverse times a clipping factor is still a normal fp32 */

gboolean
flux_loss_scale_is_valid (double scale)
{
  int exponent;

  return scale >= 1 && scale <= LARGEST && frexp (scale, &exponent) == 0.5;
}

void
flux_loss_scale_init (
    FluxLossScale *self, double wanted, guint64 interval, fx_dtype compute)
{
  self->dynamic = wanted > 0 || compute == FX_F16;
  self->scale = wanted > 0 ? wanted : self->dynamic ? FLUX_LOSS_SCALE_START : 1;
  self->interval = interval;
  self->good = 0;
}

gboolean
flux_loss_scale_back_off (FluxLossScale *self)
{
  if (!self->dynamic || self->scale <= 1)
    return FALSE;
  self->scale /= 2;
  self->good = 0;
  return TRUE;
}

void
flux_loss_scale_succeed (FluxLossScale *self)
{
  if (!self->dynamic || ++self->good < self->interval)
    return;
  self->good = 0;
  if (self->scale < LARGEST)
    self->scale *= 2;
}
