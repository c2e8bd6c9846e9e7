/* tests/flux/test-schedule.c: learning rates, densities, weights and sigmas against
 * diffusers. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reference values: tests/reference/make_schedules.py. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/safetensors.h"
#include "flux/sample/sampler.h"
#include "flux/train/schedule.h"
#include "golden.h"
#include <glib/gstdio.h>

static FluxSafetensors *
open_reference (void)
{
  g_autofree char *path = g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "data", "schedules.safetensors", NULL);
  g_autoptr (GError) error = NULL;
  FluxSafetensors *file = flux_safetensors_open (path, &error);

  g_assert_no_error (error);
  return file;
}

static const char *const kinds[] = {"constant", "constant_with_warmup", "linear",
    "cosine", "cosine_with_restarts", "polynomial"};

static void
test_learning_rates (void)
{
  g_autoptr (FluxSafetensors) file = open_reference ();
  double lr = g_ascii_strtod (flux_safetensors_get_metadata (file, "lr"), NULL);
  guint seen = 0;

  for (guint i = 0; i < flux_safetensors_get_n_tensors (file); i++) {
    const FluxTensor *t = flux_safetensors_get_nth (file, i);
    g_auto (GStrv) parts = g_strsplit (t->name, ".", 6);
    FluxLrSchedule s = {0};

    if (strcmp (parts[0], "lr") != 0)
      continue;
    g_assert_cmpint (t->dtype, ==, FX_F64);
    for (guint k = 0; k < G_N_ELEMENTS (kinds); k++)
      if (strcmp (parts[1], kinds[k]) == 0)
        s.kind = k;
    s.warmup_steps = g_ascii_strtoull (parts[2], NULL, 10);
    s.total_steps = g_ascii_strtoull (parts[3], NULL, 10);
    s.num_cycles = s.kind == FLUX_LR_COSINE ? 0.5 : g_ascii_strtod (parts[4], NULL);
    s.power = g_ascii_strtod (parts[5], NULL);
    for (gsize step = 0; step < t->n_elements; step++) {
      double want;

      memcpy (&want, (const char *)t->data + step * sizeof want, sizeof want);
      g_assert_cmpfloat_with_epsilon (flux_lr_factor (&s, step, lr), want, 1e-12);
    }
    seen++;
  }
  g_assert_cmpuint (seen, ==, 17);
}

static void
test_learning_rate_below_end (void)
{
  /* diffusers refuses; ours stays where it is instead of growing. */
  FluxLrSchedule s = {.kind = FLUX_LR_POLYNOMIAL, .total_steps = 10, .power = 1};

  g_assert_cmpfloat (flux_lr_factor (&s, 5, 1e-8), ==, 1.0);
  g_assert_cmpfloat (flux_lr_factor (&s, 5, 1e-3), <, 1.0);
}

static const char *const schemes[] = {
    "none", "logit_normal", "mode", "sigma_sqrt", "cosmap"};

static void
test_densities (void)
{
  g_autoptr (FluxSafetensors) file = open_reference ();

  for (guint i = 0; i < G_N_ELEMENTS (schemes); i++) {
    g_autofree char *draws_name = g_strconcat ("draws.", schemes[i], NULL);
    g_autofree char *name = g_strconcat ("density.", schemes[i], NULL);
    gsize n;
    g_autofree float *draws = golden_floats (file, draws_name, &n);
    g_autofree float *want = golden_floats (file, name, NULL);

    for (gsize j = 0; j < n; j++)
      g_assert_cmpfloat_with_epsilon (
          flux_density (i, draws[j], 0.25, 1.5, 1.29), want[j], 1e-6);
  }
}

static void
test_weights (void)
{
  g_autoptr (FluxSafetensors) file = open_reference ();
  gsize n;
  g_autofree float *sigmas = golden_floats (file, "weighting.sigmas", &n);

  for (guint i = 0; i < G_N_ELEMENTS (schemes); i++) {
    g_autofree char *name = g_strconcat ("weighting.", schemes[i], NULL);
    g_autofree float *want = golden_floats (file, name, NULL);

    for (gsize j = 0; j < n; j++)
      g_assert_cmpfloat_with_epsilon (
          flux_loss_weight (i, sigmas[j]) / want[j], 1.0, 1e-6);
  }
}

static void
test_sigmas (void)
{
  g_autoptr (FluxSafetensors) file = open_reference ();
  static const int cases[][2] = {{64, 1}, {1536, 28}, {4096, 50}, {100, 7}};
  FluxScheduler s = {.shift = 3.0,
      .base_shift = 0.5,
      .max_shift = 1.15,
      .base_image_seq_len = 256,
      .max_image_seq_len = 4096,
      .num_train_timesteps = 1000};

  for (int dynamic = 0; dynamic < 2; dynamic++)
    for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
      int tokens = cases[i][0], steps = cases[i][1];
      g_autofree char *stem = g_strdup_printf ("sched.%d.%d.%d", dynamic, tokens, steps);
      g_autofree char *a = g_strconcat (stem, ".sigmas", NULL);
      g_autofree char *b = g_strconcat (stem, ".timesteps", NULL);
      g_autofree float *want_sigmas = golden_floats (file, a, NULL);
      g_autofree float *want_timesteps = golden_floats (file, b, NULL);
      g_autofree float *sigmas = g_new (float, steps + 1);
      g_autofree float *timesteps = g_new (float, steps);

      s.use_dynamic_shifting = dynamic;
      flux_scheduler_sigmas (&s, steps, tokens, sigmas, timesteps);
      for (int j = 0; j < steps; j++) {
        g_assert_cmpfloat_with_epsilon (sigmas[j], want_sigmas[j], 1e-7);
        g_assert_cmpfloat_with_epsilon (timesteps[j], want_timesteps[j], 1e-4);
      }
      g_assert_cmpfloat (sigmas[steps], ==, 0.0f);
    }
}

static gboolean
read_scheduler (const char *json, FluxScheduler *s, GError **error)
{
  g_autofree char *dir = g_dir_make_tmp ("flux-scheduler-XXXXXX", NULL);
  g_autofree char *folder = g_build_filename (dir, "scheduler", NULL);
  g_autofree char *path = g_build_filename (folder, "scheduler_config.json", NULL);
  gboolean ok;

  g_mkdir (folder, 0700);
  if (json != NULL)
    g_assert_true (g_file_set_contents (path, json, -1, NULL));
  ok = flux_scheduler_read (dir, s, error);
  if (!ok && error != NULL)
    g_assert_nonnull (strstr ((*error)->message, path));
  g_unlink (path);
  g_rmdir (folder);
  g_rmdir (dir);
  return ok;
}

static void
test_config (void)
{
  static const struct {
    const char *json;
    int code; /* -1: fine */
  } cases[] = {{"{\"use_dynamic_shifting\": true, \"base_shift\": 0.25, "
                "\"max_image_seq_len\": 100, \"shift_terminal\": null}",
                   -1},
      {"{}", -1}, {NULL, FLUX_ERROR_NOT_FOUND}, {"[]", FLUX_ERROR_FORMAT},
      {"{\"shift\": \"3\"}", FLUX_ERROR_FORMAT}, {"{\"shift\": 0}", FLUX_ERROR_FORMAT},
      {"{\"base_image_seq_len\": 1.5}", FLUX_ERROR_FORMAT},
      {"{\"use_karras_sigmas\": true}", FLUX_ERROR_MISMATCH},
      {"{\"shift_terminal\": 0.02}", FLUX_ERROR_MISMATCH},
      {"{\"time_shift_type\": \"linear\"}", FLUX_ERROR_MISMATCH}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    FluxScheduler s;
    g_autoptr (GError) error = NULL;

    if (read_scheduler (cases[i].json, &s, &error)) {
      g_assert_cmpint (cases[i].code, ==, -1);
      if (i == 0) {
        g_assert_true (s.use_dynamic_shifting);
        g_assert_cmpfloat (s.base_shift, ==, 0.25);
        g_assert_cmpfloat (s.max_shift, ==, 1.15);
        g_assert_cmpint (s.max_image_seq_len, ==, 100);
      }
    } else {
      g_assert_error (error, FLUX_ERROR, cases[i].code);
    }
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/schedule/learning-rates-are-diffusers", test_learning_rates);
  g_test_add_func ("/schedule/polynomial-below-its-end", test_learning_rate_below_end);
  g_test_add_func ("/schedule/densities-are-diffusers", test_densities);
  g_test_add_func ("/schedule/weights-are-diffusers", test_weights);
  g_test_add_func ("/schedule/sigmas-are-diffusers", test_sigmas);
  g_test_add_func ("/schedule/config-errors-name-the-file", test_config);
  return g_test_run ();
}
