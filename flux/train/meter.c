/* flux/train/meter.c: a loss that can be compared. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/train/meter.h"

/* Streams of the trainer's own draws are small numbers; the meter's noise is none of
 * them. */
#define METER_STREAM 0x6d657465u

struct _FluxMeter {
  FluxTrainConfig config;
  GPtrArray *samples;
  guint n_triples;
};

FluxMeter *
flux_meter_new (const FluxTrainConfig *config, FluxSample *const *samples,
    guint n_samples, guint n_triples)
{
  FluxMeter *self = g_new0 (FluxMeter, 1);

  g_return_val_if_fail (n_samples > 0 && n_triples > 0, NULL);
  self->config = *config;
  self->n_triples = n_triples;
  self->samples = g_ptr_array_new_with_free_func ((GDestroyNotify)flux_sample_unref);
  for (guint i = 0; i < n_samples; i++)
    g_ptr_array_add (self->samples, flux_sample_ref (samples[i]));
  return self;
}

void
flux_meter_free (FluxMeter *self)
{
  if (self == NULL)
    return;
  g_ptr_array_unref (self->samples);
  g_free (self);
}

guint
flux_meter_get_n_triples (FluxMeter *self)
{
  return self->n_triples;
}

/* The mean is the first half of the moments. */
static void
scaled_mean (const FluxMeter *self, const FluxSample *sample, float *latent, gsize n)
{
  const float *mean = g_bytes_get_data (sample->moments, NULL);

  for (gsize i = 0; i < n; i++)
    latent[i] = (mean[i] - self->config.vae_shift) * self->config.vae_scaling;
}

static gboolean
read_one (FluxMeter *self, FluxTrainer *trainer, guint i, double *loss, GError **error)
{
  const FluxSample *sample = g_ptr_array_index (self->samples, i % self->samples->len);
  gsize n = (gsize)sample->channels * sample->height * sample->width;
  g_autofree float *latent = g_new (float, n), *noise = g_new (float, n);
  float sigma = (i + 0.5f) / self->n_triples;
  FluxTrial trial = {
      .latent = latent,
      .noise = noise,
      .channels = sample->channels,
      .height = sample->height,
      .width = sample->width,
      .prompt_embeds = g_bytes_get_data (sample->prompt_embeds, NULL),
      .pooled = g_bytes_get_data (sample->pooled, NULL),
      .text_tokens = sample->text_tokens,
      .sigma = sigma,
      .timestep = sigma,
      .guidance = self->config.guidance,
      .weight = 1,
  };

  scaled_mean (self, sample, latent, n);
  fx_philox_normal (self->config.seed, 0, i, METER_STREAM, noise, n);
  return flux_trainer_evaluate (trainer, &trial, 1, loss, error);
}

gboolean
flux_meter_read (FluxMeter *self, FluxTrainer *trainer, double *loss, GError **error)
{
  double sum = 0;

  for (guint i = 0; i < self->n_triples; i++) {
    double one = 0;

    if (!read_one (self, trainer, i, &one, error))
      return FALSE;
    sum += one;
  }
  *loss = sum / self->n_triples;
  return TRUE;
}
