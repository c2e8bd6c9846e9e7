/* tests/elements/testsamples.h: samples for trainers, without pictures.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxtensor.h"
#include "flux/text/text-encoder.h"
#include "flux/transformer/config.h"
#include "flux/vae/vae.h"
#include "tests/elements/testgst.h"

/* Of model: latents of width x height cells, text of TEST_TOKENS tokens. */
static inline GstFluxTensorInfo
test_sample_info (const gchar *model, gint width, gint height)
{
  GstFluxTensorInfo info = {.width = width, .height = height, .text_length = TEST_TOKENS};
  gchar *fingerprint = flux_vae_fingerprint (model, NULL);
  FluxConfig config;

  g_assert_true (flux_config_read (model, &config, NULL));
  info.channels = config.in_channels / 4;
  info.text_dim = config.joint_attention_dim;
  info.pooled_dim = config.pooled_projection_dim;
  g_strlcpy (info.model, fingerprint, sizeof info.model);
  g_free (fingerprint);
  return info;
}

static inline GBytes *
test_noise (GRand *rand, gsize bytes, float scale)
{
  float *x = g_malloc (bytes);

  for (gsize i = 0; i < bytes / sizeof (float); i++)
    x[i] = scale * (float)g_rand_double_range (rand, -1, 1);
  return g_bytes_new_take (x, bytes);
}

/* Sample `number`: the same for the same number. */
static inline GstBuffer *
test_sample (const GstFluxTensorInfo *info, guint number)
{
  GRand *rand = g_rand_new_with_seed (number + 1);
  GstBuffer *buffer = gst_buffer_new ();
  const float scales[] = {2, 0.3f, 1};
  gchar *key = g_strdup_printf ("%064x", number + 1);
  gchar *caption = g_strdup_printf ("picture %u", number);
  GstFluxSample sample = GST_FLUX_SAMPLE_INIT;

  for (guint i = 0; i < 3; i++) {
    GBytes *bytes = test_noise (rand, gst_flux_tensor_info_get_size (info, i), scales[i]);

    gst_buffer_append_memory (buffer, gst_flux_memory_new (bytes));
    g_bytes_unref (bytes);
  }
  sample.key = key;
  sample.caption = caption;
  sample.index = number;
  gst_flux_sample_meta_set (buffer, &sample);
  GST_BUFFER_PTS (buffer) = number * GST_SECOND;
  GST_BUFFER_DURATION (buffer) = GST_SECOND;
  g_free (caption);
  g_free (key);
  g_rand_free (rand);
  return buffer;
}

static inline GstEvent *
test_empty_prompt (const GstFluxTensorInfo *info)
{
  GRand *rand = g_rand_new_with_seed (12345);
  FluxEmbedding e = {.text_tokens = info->text_length,
      .joint_dim = info->text_dim,
      .pooled_dim = info->pooled_dim};
  GstEvent *event;

  e.prompt_embeds = test_noise (rand, gst_flux_tensor_info_get_size (info, 1), 0.3f);
  e.pooled = test_noise (rand, gst_flux_tensor_info_get_size (info, 2), 1);
  event = gst_flux_empty_prompt_event_new (&e);
  flux_embedding_clear (&e);
  g_rand_free (rand);
  return event;
}

/* Of sample `number` of test_write_cache(): 8x8, 8x4 or 4x8 cells. */
static inline GstFluxTensorInfo
test_cache_info (const gchar *model, guint number)
{
  const gint sizes[][2] = {{8, 8}, {8, 4}, {4, 8}};

  return test_sample_info (model, sizes[number % 3][0], sizes[number % 3][1]);
}

/* A cache of n samples of sizes that change. */
static inline void
test_write_cache (const gchar *model, const gchar *folder, guint n)
{
  GstElement *sink = gst_element_factory_make ("fluxcachesink", NULL);
  GstHarness *h;

  g_object_set (sink, "location", folder, NULL);
  h = gst_harness_new_with_element (sink, "sink", NULL);
  for (guint i = 0; i < n; i++) {
    GstFluxTensorInfo info = test_cache_info (model, i);

    gst_harness_set_src_caps (h, gst_flux_tensor_info_to_caps (&info));
    if (i == 0)
      g_assert_true (gst_harness_push_event (h, test_empty_prompt (&info)));
    g_assert_cmpint (gst_harness_push (h, test_sample (&info, i)), ==, GST_FLOW_OK);
  }
  g_assert_true (gst_harness_push_event (h, gst_event_new_eos ()));
  gst_harness_teardown (h);
  gst_object_unref (sink);
}
