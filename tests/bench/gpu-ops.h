/* tests/bench/gpu-ops.h: inputs on both backends and their comparison, for gpu-ops.c.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/fx.h"

typedef struct {
  fx_backend *b;
  fx_dtype type;
} side;

static uint32_t counter;
static int n_failed;

/* Values that every compute dtype holds exactly as bf16 holds them. */
static float *
draw (size_t n, float scale)
{
  float *v = malloc (n * sizeof *v);

  fx_philox_normal (1234, counter++, 0, 0, v, n);
  for (size_t i = 0; i < n; i++)
    v[i] = fx_f16_to_f32 (fx_f32_to_f16 (fx_bf16_to_f32 (fx_f32_to_bf16 (v[i] * scale))));
  return v;
}

static void *
put_bytes (side s, const void *host, size_t bytes)
{
  void *p = NULL;

  if (s.b->ops->alloc (s.b, bytes, &p) != FX_OK ||
      fx_upload (s.b, p, host, bytes) != FX_OK) {
    fprintf (stderr, "%s\n", fx_error_message ());
    exit (2);
  }
  return p;
}

/* host: dense [rows, cols]; on the backend rows are `pad` elements longer. */
static fx_mat
put (side s, const float *host, int64_t rows, int64_t cols, int64_t pad)
{
  int64_t ld = cols + pad;
  float *wide = calloc ((size_t)(rows * ld), sizeof *wide);
  void *bytes = malloc ((size_t)(rows * ld) * 4);
  fx_mat m;

  for (int64_t r = 0; r < rows; r++)
    memcpy (wide + r * ld, host + r * cols, (size_t)cols * sizeof *wide);
  fx_convert (bytes, s.type, wide, FX_F32, (size_t)(rows * ld));
  m = fx_mat_new (put_bytes (s, bytes, (size_t)(rows * ld) * fx_dtype_size (s.type)),
      rows, cols, s.type);
  m.ld = ld;
  free (wide);
  free (bytes);
  return m;
}

static fx_mat
poisoned (side s, int64_t rows, int64_t cols, int64_t pad)
{
  float *nan_ = malloc ((size_t)(rows * cols) * sizeof *nan_);
  fx_mat m;

  for (int64_t i = 0; i < rows * cols; i++)
    nan_[i] = NAN;
  m = put (s, nan_, rows, cols, pad);
  free (nan_);
  return m;
}

static float *
get (side s, fx_mat m)
{
  size_t n = (size_t)(m.rows * m.ld);
  void *bytes = malloc (n * 4);
  float *wide = malloc (n * sizeof *wide), *out = malloc ((size_t)(m.rows * m.cols) * 4);

  if (fx_download (s.b, bytes, m.p, n * fx_dtype_size (m.dtype)) != FX_OK)
    fprintf (stderr, "%s\n", fx_error_message ());
  fx_convert (wide, FX_F32, bytes, m.dtype, n);
  for (int64_t r = 0; r < m.rows; r++)
    memcpy (out + r * m.cols, wide + r * m.ld, (size_t)m.cols * sizeof *out);
  free (bytes);
  free (wide);
  return out;
}

static void
compare (const char *name, const float *a, const float *b, size_t n, double bound)
{
  double num = 0, den = 0;

  for (size_t i = 0; i < n; i++) {
    num += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    den += (double)b[i] * b[i];
  }
  num = den > 0 ? num / den : num;
  if (!(num <= bound)) {
    n_failed++;
    printf ("FAIL %-34s NMSE %.3g  bound %.3g\n", name, num, bound);
  } else {
    printf ("ok   %-34s NMSE %.3g\n", name, num);
  }
}

/* Runs `body` (which sets result from side s) on both and compares. */
#define BOTH(label, rows, cols, bound, ...)                                              \
  do {                                                                                   \
    float *results_[2] = {NULL, NULL};                                                   \
    for (int i_ = 0; i_ < 2; i_++) {                                                     \
      side s = i_ ? cpu : gpu;                                                           \
      fx_mat result = {0};                                                               \
      int st_ = FX_OK;                                                                   \
      __VA_ARGS__;                                                                       \
      if (st_ != FX_OK || fx_sync (s.b) != FX_OK) {                                      \
        printf ("FAIL %s on %s: %s\n", label, s.b->name, fx_error_message ());           \
        n_failed++;                                                                      \
        break;                                                                           \
      }                                                                                  \
      results_[i_] = get (s, result);                                                    \
    }                                                                                    \
    if (results_[0] && results_[1])                                                      \
      compare (label, results_[0], results_[1], (size_t)((rows) * (cols)), bound);       \
    free (results_[0]);                                                                  \
    free (results_[1]);                                                                  \
  } while (0)
