/* flux/train/draws.c: everything random in a training step. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/train/draws.h"

#include <math.h>

static float
round_bf16 (float x)
{
  return fx_bf16_to_f32 (fx_f32_to_bf16 (x));
}

/* What a bf16 transformer makes of a timestep or guidance before it is embedded: rounded,
 * multiplied by 1000, rounded again. */
static float
parity_condition (float x)
{
  return round_bf16 (round_bf16 (x) * 1000.0f) / 1000.0f;
}

void
flux_draw_scalars (
    const FluxTrainConfig *c, guint64 seed, guint64 step, guint position, FluxDraw *draw)
{
  float u, dropout;
  double density;
  int index;

  if (c->weighting == FLUX_WEIGHTING_LOGIT_NORMAL)
    fx_philox_normal (seed, (uint32_t)step, position, FLUX_DRAW_TIMESTEP, &u, 1);
  else
    fx_philox_uniform (seed, (uint32_t)step, position, FLUX_DRAW_TIMESTEP, &u, 1);
  density = flux_density (c->weighting, u, c->logit_mean, c->logit_std, c->mode_scale);
  /* The reference indexes timesteps 1000, 999 .. 1 with floor (1000 u); u = 1, which
   * "mode" reaches at its end, is beyond its table. */
  index = (int)CLAMP (floor (density * 1000.0), 0.0, 999.0);
  draw->sigma = draw->timestep = (float)(1000 - index) / 1000.0f;
  draw->guidance = (float)c->guidance;
  if (c->timestep_precision == FLUX_TIMESTEP_PARITY) {
    draw->sigma = round_bf16 (draw->sigma);
    draw->timestep = parity_condition (draw->timestep);
    draw->guidance = parity_condition (draw->guidance);
  }
  draw->weight = (float)flux_loss_weight (c->weighting, draw->sigma);
  fx_philox_uniform (seed, (uint32_t)step, position, FLUX_DRAW_DROPOUT, &dropout, 1);
  draw->drop_caption = dropout < c->caption_dropout;
}

void
flux_draw_latent (const FluxTrainConfig *c, guint64 seed, guint64 step, guint position,
    const float *moments, gsize n, float *latent)
{
  const float *mean = moments, *logvar = moments + n;

  fx_philox_normal (seed, (uint32_t)step, position, FLUX_DRAW_POSTERIOR, latent, n);
  for (gsize i = 0; i < n; i++) {
    float std = expf (0.5f * CLAMP (logvar[i], -30.0f, 20.0f));

    latent[i] = (mean[i] + std * latent[i] - c->vae_shift) * c->vae_scaling;
  }
}

void
flux_draw_noise (guint64 seed, guint64 step, guint position, float *noise, gsize n)
{
  fx_philox_normal (seed, (uint32_t)step, position, FLUX_DRAW_NOISE, noise, n);
}

/* Fisher-Yates; Lemire's multiplication with rejection keeps it free of bias. */
void
flux_train_permutation (guint64 seed, guint64 epoch, guint n, guint32 *order)
{
  uint32_t words[4], index = 0;
  guint left = 0;

  for (guint i = 0; i < n; i++)
    order[i] = i;
  for (guint32 i = n; i-- > 1;) {
    guint32 range = i + 1, threshold = -range % range, swap;
    guint64 product;

    do {
      if (left == 0) {
        fx_philox (seed, (uint32_t)epoch, (uint32_t)(epoch >> 32), FLUX_DRAW_PERMUTATION,
            index++, words);
        left = 4;
      }
      product = (guint64)words[--left] * range;
    } while ((guint32)product < threshold);
    swap = order[i];
    order[i] = order[product >> 32];
    order[product >> 32] = swap;
  }
}
