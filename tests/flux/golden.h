/* tests/flux/golden.h: comparing with a golden folder. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <math.h>

#include "flux/files/safetensors.h"
#include "tests/testdata.h"

/* golden/NAME, or NULL after g_test_skip(). */
static inline FluxSafetensors *
golden_open (const char *name)
{
  g_autofree char *shared = flux_test_shared ();
  g_autofree char *path =
      shared != NULL ? g_build_filename (shared, "golden", name, NULL) : NULL;
  g_autoptr (GError) error = NULL;
  FluxSafetensors *file;

  if (path == NULL || !g_file_test (path, G_FILE_TEST_EXISTS)) {
    g_autofree char *what = g_strdup_printf ("golden/%s is missing", name);
    g_test_skip (what);
    return NULL;
  }
  file = flux_safetensors_open (path, &error);
  g_assert_no_error (error);
  return file;
}

/* A tensor as floats; the number of them in *n. */
static inline float *
golden_floats (FluxSafetensors *file, const char *key, gsize *n)
{
  const FluxTensor *t = flux_safetensors_lookup (file, key);
  g_autoptr (GError) error = NULL;
  float *values;

  g_assert_nonnull (t);
  values = g_new (float, t->n_elements);
  g_assert_true (flux_tensor_to_f32 (t, values, &error));
  g_assert_no_error (error);
  if (n != NULL)
    *n = t->n_elements;
  return values;
}

/* Largest difference over the golden tensor's largest value. */
static inline double
golden_relative_error (
    FluxSafetensors *file, const char *key, const float *got, gsize n_got)
{
  gsize n;
  g_autofree float *want = golden_floats (file, key, &n);
  double error = 0.0, largest = 0.0;

  g_assert_cmpuint (n, ==, n_got);
  for (gsize i = 0; i < n; i++) {
    double d = fabs ((double)got[i] - (double)want[i]);
    error = isnan (d) ? INFINITY : fmax (error, d);
    largest = fmax (largest, fabs ((double)want[i]));
  }
  g_test_message ("%s: %.2e relative to %.4g", key, error / largest, largest);
  return error / largest;
}
