/* tests/elements/testhub.h: a Hub with the tiny model, an adapter and pictures.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/elements/testlaunch.h"
#include "tests/elements/testtrain.h"
#include "tests/hub/server.h"

#define TOKEN TEST_HUB_WRITE_TOKEN
#define MODEL "hf://" TEST_HUB_REPO
#define PICTURES "hf://datasets/tests/pictures"
#define ADAPTER "hf://tests/adapter"
#define FAST "steps=2 max-sequence-length=32 text-quantization=none"
#define CROP "fluximagedec ! fluximagecrop width=64 height=64"
#define EMBED "max-sequence-length=32 text-quantization=none"

static TestHub *hub;
static gchar *images, *adapter;

/* ---- what the Hub has ---- */

/* A new Hub and an empty cache for each test. */
static inline void
setup (void)
{
  gchar *endpoint, *data;
  gsize length;

  begin ();
  hub = test_hub_new ();
  test_hub_add_folder (hub, TEST_HUB_REPO, model);
  test_hub_add_folder (hub, "datasets/tests/pictures", images);
  g_assert_true (g_file_get_contents (adapter, &data, &length, NULL));
  test_hub_add_to (
      hub, "tests/adapter", "pytorch_lora_weights.safetensors", data, length, TRUE);
  g_free (data);
  endpoint = g_strdup_printf ("http://127.0.0.1:%u", hub->port);
  g_setenv ("HF_ENDPOINT", endpoint, TRUE);
  g_setenv ("HF_HOME", at ("cache"), TRUE);
  g_setenv ("HF_TOKEN", TOKEN, TRUE);
  g_setenv ("HF_HUB_DOWNLOAD_TIMEOUT", "60", TRUE);
  g_unsetenv ("HF_HUB_CACHE");
  g_unsetenv ("HUGGINGFACE_HUB_CACHE");
  g_unsetenv ("HF_HUB_OFFLINE");
  g_free (endpoint);
}

static inline void
teardown (void)
{
  test_hub_free (hub);
  g_unsetenv ("HF_HUB_OFFLINE");
  end ();
}

/* ---- what is done with it ---- */

static inline void
draw (const gchar *from, const gchar *loras, const gchar *to)
{
  TestRun run;

  test_run_init (&run,
      "fluxsamplersrc model=%s loras=\"%s\" prompt=fox num-buffers=1 " FAST
      " ! video/x-raw,width=64,height=48 ! filesink location=%s",
      from, loras, to);
  test_run_all (&run);
  test_run_clear (&run);
}

static inline void
train_from (const gchar *data, const gchar *from, const gchar *to)
{
  TestRun run;

  test_run_init (&run,
      "fluxdatasetsrc location=%s ! " CROP " ! fluxvaeenc model=%s ! "
      "fluxembed text-model=%s " EMBED " ! fluxtrainsink model=%s max-steps=2 seed=3 "
      "learning-rate=1e-3 location=%s",
      data, from, from, from, to);
  test_run_all (&run);
  g_assert_cmpuint (run.n_errors + run.n_warnings, ==, 0);
  test_run_clear (&run);
}

/* Runs the tests that add_tests adds. */
static inline gint
test_hub_main (int argc, char **argv, void (*add_tests) (void))
{
  static const gchar *const names[] = {"fox", "owl", "castle"};
  gint ret;

  adapter = g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "adapters",
      "emoji-a-diffusers.safetensors", NULL);
  images = test_style_pictures (names, G_N_ELEMENTS (names));
  ret = test_main (argc, argv, add_tests);
  test_remove (images);
  g_free (images);
  g_free (adapter);
  return ret;
}
