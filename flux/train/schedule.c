/* flux/train/schedule.c: learning-rate schedules, timestep densities, loss weights.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/train/schedule.h"

#include <math.h>

/* Where diffusers' polynomial schedule ends (optimization.py, lr_end). */
#define LR_END 1e-7

static double
polynomial (const FluxLrSchedule *s, guint64 step, double lr)
{
  double remaining;

  /* diffusers refuses a start below the end; without a range there is nothing to decay.
   */
  if (lr <= LR_END)
    return 1.0;
  if (step > s->total_steps || s->total_steps <= s->warmup_steps)
    return LR_END / lr;
  remaining =
      1.0 - (double)(step - s->warmup_steps) / (double)(s->total_steps - s->warmup_steps);
  return ((lr - LR_END) * pow (remaining, s->power) + LR_END) / lr;
}

double
flux_lr_factor (const FluxLrSchedule *s, guint64 step, double lr)
{
  double total = (double)s->total_steps, warmup = (double)s->warmup_steps, progress;

  if (s->kind == FLUX_LR_CONSTANT)
    return 1.0;
  if (step < s->warmup_steps)
    return (double)step / MAX (1.0, warmup);

  progress = ((double)step - warmup) / MAX (1.0, total - warmup);
  switch (s->kind) {
    case FLUX_LR_LINEAR:
      return MAX (0.0, (total - (double)step) / MAX (1.0, total - warmup));
    case FLUX_LR_COSINE:
      return MAX (0.0, 0.5 * (1.0 + cos (G_PI * s->num_cycles * 2.0 * progress)));
    case FLUX_LR_COSINE_WITH_RESTARTS:
      if (progress >= 1.0)
        return 0.0;
      return MAX (0.0, 0.5 * (1.0 + cos (G_PI * fmod (s->num_cycles * progress, 1.0))));
    case FLUX_LR_POLYNOMIAL:
      return polynomial (s, step, lr);
    case FLUX_LR_CONSTANT:
    case FLUX_LR_CONSTANT_WITH_WARMUP:
      break;
  }
  return 1.0;
}

double
flux_density (FluxWeightingScheme scheme, double draw, double logit_mean,
    double logit_std, double mode_scale)
{
  double c;

  switch (scheme) {
    case FLUX_WEIGHTING_LOGIT_NORMAL:
      return 1.0 / (1.0 + exp (-(logit_mean + logit_std * draw)));
    case FLUX_WEIGHTING_MODE:
      c = cos (G_PI * draw / 2.0);
      return 1.0 - draw - mode_scale * (c * c - 1.0 + draw);
    case FLUX_WEIGHTING_NONE:
    case FLUX_WEIGHTING_SIGMA_SQRT:
    case FLUX_WEIGHTING_COSMAP:
      break;
  }
  return draw;
}

double
flux_loss_weight (FluxWeightingScheme scheme, double sigma)
{
  switch (scheme) {
    case FLUX_WEIGHTING_SIGMA_SQRT:
      return 1.0 / (sigma * sigma);
    case FLUX_WEIGHTING_COSMAP:
      return 2.0 / (G_PI * (1.0 - 2.0 * sigma + 2.0 * sigma * sigma));
    case FLUX_WEIGHTING_NONE:
    case FLUX_WEIGHTING_LOGIT_NORMAL:
    case FLUX_WEIGHTING_MODE:
      break;
  }
  return 1.0;
}
