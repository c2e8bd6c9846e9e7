/* tests/flux/trainer-common.h: a model, samples and trials for the tests of training.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/train/trainer.h"

/* The tiny model of examples/, whose transformer is stored in 4 bits. */
static inline char *
test_model_dir (void)
{
  return g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "..", "examples", "models", "tiny-flux-emoji", NULL);
}

static inline FluxModel *
test_model (void)
{
  g_autofree char *dir = test_model_dir ();
  FluxModelKey key = {dir, FX_Q_NF4, FX_F32, FLUX_DEVICE_CPU};
  g_autoptr (GError) error = NULL;
  FluxModel *model = flux_model_acquire (&key, NULL, NULL, &error);

  g_assert_no_error (error);
  return model;
}

static inline const FluxConfig *
test_config (FluxModel *model)
{
  return flux_transformer_get_config (flux_model_get_transformer (model));
}

static inline GBytes *
test_normals (guint64 seed, guint32 which, gsize n, float scale)
{
  float *x = g_new (float, n);

  fx_philox_normal (seed, which, 0, 99, x, n);
  for (gsize i = 0; i < n; i++)
    x[i] *= scale;
  return g_bytes_new_take (x, n * sizeof (float));
}

/* Sample i: moments and embeddings of its own; key "sample-I". */
static inline FluxSample *
test_sample (FluxModel *model, guint i, int height, int width, int text_tokens)
{
  const FluxConfig *c = test_config (model);
  FluxSample *s = g_new0 (FluxSample, 1);
  gsize n;

  g_atomic_ref_count_init (&s->ref_count);
  s->key = g_strdup_printf ("sample-%u", i);
  s->channels = c->in_channels / 4;
  s->height = height;
  s->width = width;
  n = (gsize)s->channels * (gsize)height * (gsize)width;
  s->moments = test_normals (7, i, 2 * n, 1);
  s->text_tokens = text_tokens;
  s->joint_dim = c->joint_attention_dim;
  s->prompt_embeds = test_normals (8, i, (gsize)text_tokens * (gsize)s->joint_dim, 0.3f);
  s->pooled = test_normals (9, i, (gsize)c->pooled_projection_dim, 0.5f);
  return s;
}

/* A trial that shows the mean of the sample's posterior; noise is owned by the caller. */
static inline FluxTrial
test_trial (const FluxSample *s, const float *noise, float sigma)
{
  FluxTrial t = {.latent = g_bytes_get_data (s->moments, NULL),
      .noise = noise,
      .channels = s->channels,
      .height = s->height,
      .width = s->width,
      .prompt_embeds = g_bytes_get_data (s->prompt_embeds, NULL),
      .pooled = g_bytes_get_data (s->pooled, NULL),
      .text_tokens = s->text_tokens,
      .sigma = sigma,
      .timestep = sigma,
      .guidance = 1,
      .weight = 1};
  return t;
}

static inline void
test_config_init (FluxTrainConfig *c)
{
  flux_train_config_init (c);
  c->accumulate = 2;
  c->learning_rate = 1e-3;
  c->seed = 5;
  c->vae_scaling = 0.7f;
  c->vae_shift = 0.05f;
}

static inline FluxTrainer *
test_trainer (FluxModel *model, const FluxTrainConfig *c)
{
  g_autoptr (GError) error = NULL;
  FluxTrainer *t = flux_trainer_new (model, c, 8, 16, &error);

  g_assert_no_error (error);
  return t;
}

/* All parameters of the trainer's adapter. g_free() it. */
static inline float *
test_parameters (FluxModel *model, FluxTrainer *t, gsize *n)
{
  FluxLora *lora = flux_trainer_get_lora (t);
  float *x;

  *n = flux_lora_n_flat (lora);
  x = g_new (float, *n);
  g_assert_cmpint (fx_download (flux_model_get_backend (model), x,
                       flux_lora_parameters (lora), *n * sizeof (float)),
      ==, FX_OK);
  return x;
}

static inline gboolean
test_same_parameters (FluxModel *model, FluxTrainer *a, FluxTrainer *b)
{
  gsize n, m;
  g_autofree float *x = test_parameters (model, a, &n);
  g_autofree float *y = test_parameters (model, b, &m);

  return n == m && memcmp (x, y, n * sizeof (float)) == 0;
}

/* |a - b| / |a - start| over all parameters. */
static inline double
test_distance (FluxModel *model, FluxTrainer *a, FluxTrainer *b, const float *start)
{
  gsize n, m;
  g_autofree float *x = test_parameters (model, a, &n);
  g_autofree float *y = test_parameters (model, b, &m);
  double d = 0, moved = 0;

  g_assert_cmpuint (n, ==, m);
  for (gsize i = 0; i < n; i++) {
    d += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    moved += ((double)x[i] - start[i]) * ((double)x[i] - start[i]);
  }
  g_assert_cmpfloat (moved, >, 0);
  return sqrt (d / moved);
}

static inline FluxStepResult
test_step (FluxModel *model, FluxTrainer *t, FluxSample *const *samples, guint n)
{
  g_autoptr (GError) error = NULL;
  FluxStepResult result = {0};

  flux_model_lock (model);
  flux_trainer_step (t, samples, n, &result, &error);
  flux_model_unlock (model);
  g_assert_no_error (error);
  return result;
}

static inline FluxStepResult
test_step_trials (FluxModel *model, FluxTrainer *t, const FluxTrial *trials, guint n)
{
  g_autoptr (GError) error = NULL;
  FluxStepResult result = {0};
  double losses[16];

  flux_model_lock (model);
  flux_trainer_step_trials (t, trials, n, losses, &result, &error);
  flux_model_unlock (model);
  g_assert_no_error (error);
  return result;
}
