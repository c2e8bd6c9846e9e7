/* tests/kernels/test-conv2d.c: convolution against sums in double precision.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

typedef struct {
  int height, width, in, out;
  fx_conv c;
  fx_dtype dtype; /* of the weight */
  gboolean bias;
} Case;

static const Case cases[] = {
    /* the VAE's: 3 x 3 same, 1 x 1, strided with one-sided padding */
    {16, 16, 32, 64, {16, 16, 3, 1, 1, 1, 1, 1}, FX_F32, TRUE},
    {8, 8, 64, 32, {8, 8, 1, 1, 0, 0, 0, 0}, FX_F32, TRUE},
    {16, 12, 32, 32, {16, 12, 3, 2, 0, 0, 1, 1}, FX_F32, TRUE},
    /* few and odd channels, long rows, one pixel */
    {9, 300, 3, 5, {9, 300, 3, 1, 1, 1, 1, 1}, FX_F32, TRUE},
    {7, 5, 33, 3, {7, 5, 3, 1, 1, 1, 1, 1}, FX_F32, FALSE},
    {1, 1, 17, 50, {1, 1, 3, 1, 1, 1, 1, 1}, FX_F32, TRUE},
    {11, 13, 20, 49, {11, 13, 3, 2, 0, 0, 1, 1}, FX_BF16, TRUE},
    {6, 10, 300, 7, {6, 10, 5, 3, 2, 1, 0, 4}, FX_F16, TRUE},
    /* padding wider than the image: whole taps fall outside */
    {2, 2, 4, 4, {2, 2, 7, 1, 3, 3, 3, 3}, FX_F32, TRUE},
};

/* Values of the weight's own type, as fp32 too. */
static void
fill (GRand *rand, float *values, void *stored, fx_dtype dtype, gint64 n)
{
  for (gint64 i = 0; i < n; i++)
    values[i] = (float)g_rand_double_range (rand, -1.0, 1.0);
  if (stored == NULL)
    return;
  g_assert_cmpint (fx_convert (stored, dtype, values, FX_F32, (gsize)n), ==, FX_OK);
  g_assert_cmpint (fx_convert (values, FX_F32, stored, dtype, (gsize)n), ==, FX_OK);
}

static double
naive (const Case *t, const float *x, gint64 ld, const float *w, int oy, int ox, int n)
{
  const fx_conv *c = &t->c;
  double sum = 0.0;

  for (int ky = 0; ky < c->kernel; ky++)
    for (int kx = 0; kx < c->kernel; kx++) {
      int iy = oy * c->stride + ky - c->pad_top, ix = ox * c->stride + kx - c->pad_left;
      if (iy < 0 || iy >= t->height || ix < 0 || ix >= t->width)
        continue;
      for (int i = 0; i < t->in; i++)
        sum += (double)x[(iy * t->width + ix) * ld + i] *
               (double)w[((n * c->kernel + ky) * c->kernel + kx) * t->in + i];
    }
  return sum;
}

static void
run_case (fx_backend *b, const Case *t, GRand *rand)
{
  gint64 k = (gint64)t->c.kernel * t->c.kernel * t->in, pixels = t->height * t->width;
  int out_h =
      (t->height + t->c.pad_top + t->c.pad_bottom - t->c.kernel) / t->c.stride + 1;
  int out_w = (t->width + t->c.pad_left + t->c.pad_right - t->c.kernel) / t->c.stride + 1;
  gint64 x_ld = t->in + 3, y_ld = t->out + 2; /* rows with gaps */
  g_autofree float *x = g_new (float, pixels *x_ld), *w = g_new (float, t->out *k);
  g_autofree float *bias = g_new (float, t->out), *y = g_new (float, out_h *out_w *y_ld);
  g_autofree void *stored = g_malloc (t->out * k * 4);
  fx_weight weight = {.n = t->out,
      .k = k,
      .qtype = FX_Q_NONE,
      .dtype = t->dtype,
      .data = stored,
      .bias = t->bias ? bias : NULL};
  fx_mat xm = {x, pixels, t->in, x_ld, FX_F32};
  fx_mat ym = {y, (gint64)out_h * out_w, t->out, y_ld, FX_F32};
  double bound = 4e-6 * sqrt ((double)k);

  fill (rand, x, NULL, FX_F32, pixels * x_ld);
  fill (rand, w, stored, t->dtype, t->out * k);
  fill (rand, bias, NULL, FX_F32, t->out);
  for (gint64 i = 0; i < out_h * out_w * y_ld; i++)
    y[i] = NAN;
  g_assert_cmpint (fx_conv2d (b, ym, xm, &weight, &t->c), ==, FX_OK);
  for (int oy = 0; oy < out_h; oy++)
    for (int ox = 0; ox < out_w; ox++) {
      const float *row = y + (oy * out_w + ox) * y_ld;
      for (int n = 0; n < t->out; n++) {
        double want = naive (t, x, x_ld, w, oy, ox, n) + (t->bias ? bias[n] : 0.0);
        g_assert_cmpfloat (fabs (row[n] - want), <=, bound);
      }
      g_assert_true (isnan (row[t->out])); /* the gap is left alone */
    }
}

static void
test_equals_naive (gconstpointer isa)
{
  fx_backend *b = fx_cpu_new_isa (2, isa);
  g_autoptr (GRand) rand = g_rand_new_with_seed (7);

  if (b == NULL) {
    g_test_skip (fx_error_message ());
    return;
  }
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    run_case (b, &cases[i], rand);
  fx_backend_free (b);
}

static void
test_threads_do_not_matter (void)
{
  enum { H = 20, W = 150, IN = 24, OUT = 100 };
  fx_backend *one = fx_cpu_new (1), *three = fx_cpu_new (3);
  g_autoptr (GRand) rand = g_rand_new_with_seed (8);
  g_autofree float *x = g_new (float, H *W *IN), *w = g_new (float, OUT * 9 * IN);
  g_autofree float *y1 = g_new (float, H *W *OUT), *y3 = g_new (float, H *W *OUT);
  fx_weight weight = {.n = OUT, .k = 9 * IN, .dtype = FX_F32, .data = w};
  fx_conv c = {H, W, 3, 1, 1, 1, 1, 1};

  fill (rand, x, NULL, FX_F32, H * W * IN);
  fill (rand, w, NULL, FX_F32, OUT * 9 * IN);
  g_assert_cmpint (fx_conv2d (one, fx_mat_new (y1, H * W, OUT, FX_F32),
                       fx_mat_new (x, H * W, IN, FX_F32), &weight, &c),
      ==, FX_OK);
  g_assert_cmpint (fx_conv2d (three, fx_mat_new (y3, H * W, OUT, FX_F32),
                       fx_mat_new (x, H * W, IN, FX_F32), &weight, &c),
      ==, FX_OK);
  g_assert_cmpmem (y1, H * W * OUT * 4, y3, H * W * OUT * 4);
  fx_backend_free (one);
  fx_backend_free (three);
}

static void
test_wrong_shapes_are_refused (void)
{
  fx_backend *b = fx_cpu_new (1);
  float x[16] = {0}, w[36] = {0}, y[16];
  fx_weight weight = {.n = 1, .k = 9, .dtype = FX_F32, .data = w};
  fx_conv c = {4, 4, 3, 1, 1, 1, 1, 1};

  g_assert_cmpint (fx_conv2d (b, fx_mat_new (y, 16, 1, FX_F32),
                       fx_mat_new (x, 16, 1, FX_F32), &weight, &c),
      ==, FX_OK);
  g_assert_cmpint (fx_conv2d (b, fx_mat_new (y, 15, 1, FX_F32),
                       fx_mat_new (x, 16, 1, FX_F32), &weight, &c),
      ==, FX_ERR_SHAPE);
  weight.k = 10;
  g_assert_cmpint (fx_conv2d (b, fx_mat_new (y, 16, 1, FX_F32),
                       fx_mat_new (x, 16, 1, FX_F32), &weight, &c),
      ==, FX_ERR_SHAPE);
  fx_backend_free (b);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/conv2d/equals-naive/base", "base", test_equals_naive);
  g_test_add_data_func ("/conv2d/equals-naive/avx2", "avx2", test_equals_naive);
  g_test_add_data_func ("/conv2d/equals-naive/avx512", "avx512", test_equals_naive);
  g_test_add_func ("/conv2d/threads-do-not-matter", test_threads_do_not_matter);
  g_test_add_func ("/conv2d/wrong-shapes-are-refused", test_wrong_shapes_are_refused);
  return g_test_run ();
}
