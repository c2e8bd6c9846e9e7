/* tests/flux/transformer-common.h: small transformers, inputs and adapters for tests.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/safetensors.h"
#include "flux/transformer/transformer.h"
#include <glib/gstdio.h>

/* Made by tests/reference/make_transformer.py. */
static inline char *
test_small_dir (void)
{
  return g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "transformer-small", NULL);
}

/* The tiny model of examples/, whose transformer is stored in 4 bits. */
static inline char *
test_tiny_dir (void)
{
  return g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "..", "examples", "models", "tiny-flux-emoji", NULL);
}

static inline fx_backend *
test_backend (void)
{
  fx_backend *b = fx_cpu_new (2);

  g_assert_nonnull (b);
  return b;
}

static inline FluxTransformer *
test_load (const char *dir, fx_backend *b, fx_qtype qtype)
{
  g_autoptr (GError) error = NULL;
  FluxTransformer *t =
      flux_transformer_load (dir, b, qtype, FX_HOME_DEVICE, NULL, NULL, NULL, &error);

  g_assert_no_error (error);
  return t;
}

/* n draws of a standard normal distribution, times scale; a number of its own for each
 * `which`. */
static inline float *
test_floats (guint32 which, gsize n, float scale)
{
  float *x = g_new (float, n);

  fx_philox_normal (3, which, 0, 77, x, n);
  for (gsize i = 0; i < n; i++)
    x[i] *= scale;
  return x;
}

/* An adapter with two random halves, so that both have gradients. */
static inline FluxLora *
test_adapter (FluxTransformer *t, guint32 which, int rank, const char *targets,
    gboolean with_gradients)
{
  fx_backend *b = flux_transformer_get_backend (t);
  g_autoptr (GError) error = NULL;
  FluxLora *lora = flux_lora_new (flux_transformer_get_config (t), b, rank, 2.0f * rank,
      targets, with_gradients, &error);
  gsize n;
  g_autofree float *values = NULL;

  g_assert_no_error (error);
  n = flux_lora_n_flat (lora);
  values = test_floats (which, n, 0.05f);
  g_assert_cmpint (
      fx_upload (b, flux_lora_parameters (lora), values, n * sizeof (float)), ==, FX_OK);
  return lora;
}

/* One micro-batch with everything it owns. */
typedef struct {
  float *latents, *prompt_embeds, *pooled, *target;
  FluxMicro micro;
} TestMicro;

static inline void
test_micro_init (TestMicro *m, const FluxConfig *c, guint32 which, int height, int width,
    int text_tokens)
{
  gsize tokens = (gsize)height * (gsize)width;

  m->latents = test_floats (which * 4, tokens * (gsize)c->in_channels, 1);
  m->prompt_embeds = test_floats (
      which * 4 + 1, (gsize)text_tokens * (gsize)c->joint_attention_dim, 0.5f);
  m->pooled = test_floats (which * 4 + 2, (gsize)c->pooled_projection_dim, 0.5f);
  m->target = test_floats (which * 4 + 3, tokens * (gsize)c->out_channels, 1);
  m->micro = (FluxMicro){.in = {.latents = m->latents,
                             .grid_height = height,
                             .grid_width = width,
                             .prompt_embeds = m->prompt_embeds,
                             .text_tokens = text_tokens,
                             .pooled = m->pooled,
                             .timestep = 0.1f + 0.2f * (float)(which % 5),
                             .guidance = 1 + (float)which},
      .target = m->target,
      .weight = 1 + 0.5f * (float)which};
}

static inline void
test_micro_clear (TestMicro *m)
{
  g_free (m->latents);
  g_free (m->prompt_embeds);
  g_free (m->pooled);
  g_free (m->target);
}

/* Host copies of the flat buffers. g_free() them. */
static inline float *
test_download (FluxTransformer *t, const float *p, gsize n)
{
  float *values = g_new (float, n);

  g_assert_cmpint (
      fx_download (flux_transformer_get_backend (t), values, p, n * sizeof (float)), ==,
      FX_OK);
  return values;
}

static inline void
test_zero_gradients (FluxTransformer *t, FluxLora *lora)
{
  g_assert_cmpint (fx_zero (flux_transformer_get_backend (t), flux_lora_gradients (lora),
                       flux_lora_n_flat (lora) * sizeof (float)),
      ==, FX_OK);
}

/* The largest difference, relative to the largest value of b. */
static inline double
test_relative (const float *a, const float *b, gsize n)
{
  double difference = 0, largest = 0;

  for (gsize i = 0; i < n; i++) {
    double d = fabs ((double)a[i] - (double)b[i]);
    difference = d > difference || isnan (d) ? d : difference;
    largest = fmax (largest, fabs ((double)b[i]));
  }
  return difference / largest;
}
