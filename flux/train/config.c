/* flux/train/config.c: settings of a training run. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/train/loss-scale.h"
#include "flux/train/trainer.h"

void
flux_train_config_init (FluxTrainConfig *c)
{
  memset (c, 0, sizeof *c);
  c->rank = 4;
  c->targets = "attention";
  c->optimizer = FLUX_OPTIMIZER_ADAMW8BIT;
  c->learning_rate = 1e-4;
  c->beta1 = 0.9;
  c->beta2 = 0.999;
  c->epsilon = 1e-8;
  c->weight_decay = 1e-4;
  c->lr_scheduler = FLUX_LR_CONSTANT;
  c->max_steps = 700;
  c->lr_num_cycles = 1;
  c->lr_power = 1;
  c->accumulate = 4;
  c->max_grad_norm = 1;
  c->guidance = 1;
  c->weighting = FLUX_WEIGHTING_NONE;
  c->logit_std = 1;
  c->mode_scale = 1.29;
  c->timestep_precision = FLUX_TIMESTEP_EXACT;
  c->recompute = TRUE;
  c->layer_major = TRUE;
  c->vae_scaling = 0.3611f; /* FLUX.1's; flux_vae_read_info() knows a model's own */
  c->vae_shift = 0.1159f;
  c->loss_scale_interval = FLUX_LOSS_SCALE_INTERVAL;
}

gboolean
flux_train_config_check (const FluxTrainConfig *c, GError **error)
{
  const struct {
    const char *name;
    double value, min, max;
  } ranges[] = {{"rank", c->rank, 1, 1024}, {"alpha", c->alpha, 0, 1e6},
      {"learning rate", c->learning_rate, 0, 1e3}, {"beta1", c->beta1, 0, 0.999999},
      {"beta2", c->beta2, 0, 0.9999999}, {"epsilon", c->epsilon, 1e-30, 1},
      {"weight decay", c->weight_decay, 0, 1e3},
      {"number of learning-rate cycles", c->lr_num_cycles, 0, 1e6},
      {"power of the polynomial schedule", c->lr_power, 0, 100},
      {"accumulation", c->accumulate, 1, 4096},
      {"gradient norm limit", c->max_grad_norm, 0, 1e30},
      {"guidance", c->guidance, 0, 1000}, {"caption dropout", c->caption_dropout, 0, 1},
      {"logit mean", c->logit_mean, -20, 20}, {"logit std", c->logit_std, 0, 20},
      {"mode scale", c->mode_scale, -10, 10},
      {"VAE scaling factor", c->vae_scaling, 1e-6, 1e6},
      {"VAE shift factor", c->vae_shift, -1e6, 1e6}};

  for (guint i = 0; i < G_N_ELEMENTS (ranges); i++)
    if (!(ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max)) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "The %s is %g: it must be between %g and %g.", ranges[i].name, ranges[i].value,
          ranges[i].min, ranges[i].max);
      return FALSE;
    }
  if ((c->loss_scale != 0 && !flux_loss_scale_is_valid (c->loss_scale)) ||
      c->loss_scale_interval < 1) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The loss scale is %g for %" G_GUINT64_FORMAT
        " steps: it must be 0 or a power of two from 1 on, for at least one step.",
        c->loss_scale, c->loss_scale_interval);
    return FALSE;
  }
  if (c->targets == NULL || *c->targets == '\0') {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "No layers are named as targets: say \"attention\" for the usual ones.");
    return FALSE;
  }
  return TRUE;
}

FluxSample *
flux_sample_ref (FluxSample *s)
{
  g_atomic_ref_count_inc (&s->ref_count);
  return s;
}

void
flux_sample_unref (FluxSample *s)
{
  if (s == NULL || !g_atomic_ref_count_dec (&s->ref_count))
    return;
  g_clear_pointer (&s->moments, g_bytes_unref);
  g_clear_pointer (&s->prompt_embeds, g_bytes_unref);
  g_clear_pointer (&s->pooled, g_bytes_unref);
  g_free (s->key);
  g_free (s->caption);
  g_free (s);
}
