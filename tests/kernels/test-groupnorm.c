/* tests/kernels/test-groupnorm.c: group norm and enlargement against plain definitions.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib.h>
#include <math.h>

#include "kernels/cpu/cpu.h"

static void
check_groupnorm (fx_backend *b, int rows, int channels, int groups, float offset,
    gboolean silu, gboolean in_place)
{
  gint64 ld = channels + 1;
  int wide = channels / groups;
  g_autoptr (GRand) rand = g_rand_new_with_seed (3);
  g_autofree float *x = g_new (float, rows *ld), *y = g_new0 (float, rows *ld);
  g_autofree float *out = g_new (float, rows *ld);
  g_autofree float *w = g_new (float, channels), *bias = g_new (float, channels);
  fx_mat xm = {x, rows, channels, ld, FX_F32}, ym = {y, rows, channels, ld, FX_F32};

  for (gint64 i = 0; i < rows * ld; i++)
    x[i] = offset + (float)g_rand_double_range (rand, -2.0, 2.0);
  for (int c = 0; c < channels; c++) {
    w[c] = (float)g_rand_double_range (rand, 0.5, 1.5);
    bias[c] = (float)g_rand_double_range (rand, -1.0, 1.0);
  }
  for (int g = 0; g < groups; g++) {
    double sum = 0.0, square = 0.0, mean, rstd;
    for (int r = 0; r < rows; r++)
      for (int c = g * wide; c < (g + 1) * wide; c++)
        sum += x[r * ld + c];
    mean = sum / ((double)rows * wide);
    for (int r = 0; r < rows; r++)
      for (int c = g * wide; c < (g + 1) * wide; c++)
        square += (x[r * ld + c] - mean) * (x[r * ld + c] - mean);
    rstd = 1.0 / sqrt (square / ((double)rows * wide) + 1e-6);
    for (int r = 0; r < rows; r++)
      for (int c = g * wide; c < (g + 1) * wide; c++) {
        double v = (x[r * ld + c] - mean) * rstd * w[c] + bias[c];
        out[r * ld + c] = (float)(silu ? v / (1.0 + exp (-v)) : v);
      }
  }
  g_assert_cmpint (
      fx_groupnorm (b, in_place ? xm : ym, xm, groups, w, bias, 1e-6f, silu), ==, FX_OK);
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < channels; c++)
      g_assert_cmpfloat (fabs ((in_place ? x : y)[r * ld + c] - out[r * ld + c]), <=,
          3e-6 * (1.0 + fabs ((double)offset)));
}

static void
test_groupnorm (gconstpointer isa)
{
  fx_backend *b = fx_cpu_new_isa (2, isa);

  if (b == NULL) {
    g_test_skip (fx_error_message ());
    return;
  }
  check_groupnorm (b, 256, 32, 16, 0.0f, FALSE, FALSE);
  check_groupnorm (b, 1000, 96, 16, 0.0f, TRUE, TRUE);
  check_groupnorm (b, 1, 6, 2, 0.0f, TRUE, FALSE);
  check_groupnorm (b, 77, 35, 7, 100.0f, FALSE, FALSE); /* a mean far from 0 */
  fx_backend_free (b);
}

static void
test_constant_input_gives_the_bias (void)
{
  fx_backend *b = fx_cpu_new (1);
  float x[32], y[32], w[4] = {1.f, 2.f, 3.f, 4.f}, bias[4] = {.5f, -1.f, 0.f, 7.f};

  for (int i = 0; i < 32; i++)
    x[i] = 3.25f;
  g_assert_cmpint (fx_groupnorm (b, fx_mat_new (y, 8, 4, FX_F32),
                       fx_mat_new (x, 8, 4, FX_F32), 2, w, bias, 1e-6f, false),
      ==, FX_OK);
  for (int i = 0; i < 32; i++)
    g_assert_cmpfloat (fabsf (y[i] - bias[i % 4]), <=, 1e-6f);
  g_assert_cmpint (fx_groupnorm (b, fx_mat_new (y, 8, 4, FX_F32),
                       fx_mat_new (x, 8, 4, FX_F32), 3, w, bias, 1e-6f, false),
      ==, FX_ERR_SHAPE);
  fx_backend_free (b);
}

static void
test_upsample (void)
{
  enum { H = 3, W = 5, C = 7 };
  fx_backend *b = fx_cpu_new (2);
  float x[H * W * C], y[4 * H * W * (C + 1)];
  fx_mat ym = {y, 4 * H * W, C, C + 1, FX_F32};

  for (int i = 0; i < H * W * C; i++)
    x[i] = (float)i;
  for (gsize i = 0; i < G_N_ELEMENTS (y); i++)
    y[i] = NAN;
  g_assert_cmpint (
      fx_upsample2 (b, ym, fx_mat_new (x, H * W, C, FX_F32), H, W), ==, FX_OK);
  for (int r = 0; r < 2 * H; r++)
    for (int c = 0; c < 2 * W; c++) {
      const float *at = y + (r * 2 * W + c) * (C + 1);
      for (int i = 0; i < C; i++)
        g_assert_cmpfloat (at[i], ==, x[((r / 2) * W + c / 2) * C + i]);
      g_assert_true (isnan (at[C]));
    }
  g_assert_cmpint (
      fx_upsample2 (b, ym, fx_mat_new (x, H * W, C, FX_F32), H, W + 1), ==, FX_ERR_SHAPE);
  fx_backend_free (b);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/groupnorm/equals-definition/base", "base", test_groupnorm);
  g_test_add_data_func ("/groupnorm/equals-definition/avx2", "avx2", test_groupnorm);
  g_test_add_data_func ("/groupnorm/equals-definition/avx512", "avx512", test_groupnorm);
  g_test_add_func (
      "/groupnorm/constant-input-gives-the-bias", test_constant_input_gives_the_bias);
  g_test_add_func ("/upsample2/repeats-pixels", test_upsample);
  return g_test_run ();
}
