/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Linear layers against fp64, for every way a weight may be stored. */
#include <math.h>

#include "common.h"

typedef struct {
  fx_weight w;
  double *value; /* [n, k], what the weight means */
} weight;

static float
rounded (float v, fx_dtype dtype)
{
  if (dtype == FX_BF16)
    return fx_bf16_to_f32 (fx_f32_to_bf16 (v));
  if (dtype == FX_F16)
    return fx_f16_to_f32 (fx_f32_to_f16 (v));
  return v;
}

static void
set_value (weight *w, float v, int64_t i)
{
  w->value[i] = rounded (v, w->w.dtype);
}

static void
make_none (weight *w, const float *x, int64_t count)
{
  w->w.data = g_malloc ((size_t)count * fx_dtype_size (w->w.dtype));
  test_ok (fx_convert (w->w.data, w->w.dtype, x, FX_F32, (size_t)count));
  for (int64_t i = 0; i < count; i++)
    set_value (w, x[i], i);
}

static void
make_nf4 (weight *w, const float *x, int64_t count)
{
  int64_t blocks = count / FX_NF4_BLOCK;
  float *out = g_new (float, count), offset;

  w->w.data = g_malloc ((size_t)count / 2);
  w->w.absmax = g_new (float, blocks);
  fx_nf4_quantize (x, (size_t)count, w->w.data, w->w.absmax);
  if (w->w.qtype == FX_Q_NF4_DOUBLE) {
    int64_t blocks2 = (blocks + 255) / 256;
    w->w.absmax_q = g_new (uint8_t, blocks);
    w->w.absmax2 = g_new (float, blocks2);
    w->w.offset2 = g_new (float, blocks2);
    w->w.code8 = fx_dynamic_map (true);
    fx_absmax_quantize (
        w->w.absmax, (size_t)blocks, w->w.absmax_q, w->w.absmax2, &offset);
    for (int64_t i = 0; i < blocks2; i++)
      w->w.offset2[i] = offset;
    fx_absmax_dequantize (
        w->w.absmax_q, w->w.absmax2, w->w.offset2, (size_t)blocks, w->w.absmax);
  }
  fx_nf4_dequantize (w->w.data, w->w.absmax, (size_t)count, out);
  if (w->w.qtype == FX_Q_NF4_DOUBLE)
    g_clear_pointer (&w->w.absmax, g_free); /* must not be looked at */
  for (int64_t i = 0; i < count; i++)
    set_value (w, out[i], i);
  g_free (out);
}

static void
make_8bit (weight *w, const float *x, int64_t n, int64_t k)
{
  w->w.data = g_malloc ((size_t)(n * k));
  w->w.absmax = g_new (float, n);
  if (w->w.qtype == FX_Q_INT8) {
    fx_int8_quantize (x, (size_t)n, (size_t)k, w->w.data, w->w.absmax);
  } else {
    for (int64_t r = 0; r < n; r++) {
      w->w.absmax[r] = 0.01f * (float)(r + 1);
      for (int64_t i = 0; i < k; i++) {
        float v = x[r * k + i] / w->w.absmax[r];
        v = v > 448 ? 448 : v < -448 ? -448 : v;
        test_ok (fx_convert ((uint8_t *)w->w.data + r * k + i, FX_E4M3, &v, FX_F32, 1));
      }
    }
  }
  for (int64_t i = 0; i < n * k; i++) {
    float v;
    if (w->w.qtype == FX_Q_INT8)
      v = (float)((int8_t *)w->w.data)[i] * w->w.absmax[i / k] / 127.0f;
    else {
      test_ok (fx_convert (&v, FX_F32, (uint8_t *)w->w.data + i, FX_E4M3, 1));
      v *= w->w.absmax[i / k];
    }
    set_value (w, v, i);
  }
}

static void
weight_init (weight *w, int64_t n, int64_t k, fx_qtype q, fx_dtype dtype, bool bias,
    uint64_t *state)
{
  float *x = g_new (float, n *k), *b = g_new (float, n);

  *w = (weight){.w = {.n = n, .k = k, .qtype = q, .dtype = dtype}};
  w->value = g_new (double, n *k);
  for (int64_t i = 0; i < n * k; i++)
    x[i] = (float)test_random (state);
  for (int64_t i = 0; i < n; i++)
    b[i] = (float)test_random (state);
  if (q == FX_Q_NONE)
    make_none (w, x, n * k);
  else if (q == FX_Q_NF4 || q == FX_Q_NF4_DOUBLE)
    make_nf4 (w, x, n * k);
  else
    make_8bit (w, x, n, k);
  w->w.bias = bias ? b : NULL;
  if (!bias)
    g_free (b);
  g_free (x);
}

static void
weight_clear (weight *w)
{
  g_free (w->value);
  g_free (w->w.data);
  g_free (w->w.absmax);
  g_free (w->w.absmax_q);
  g_free (w->w.absmax2);
  g_free (w->w.offset2);
  g_free ((float *)w->w.bias);
}

/* y = x W^T + bias (+ y0), or dx = dy W (+ dx0). */
static double *
naive (fx_mat x, const weight *w, fx_mat start, bool backward)
{
  int64_t depth = backward ? w->w.n : w->w.k, cols = backward ? w->w.k : w->w.n;
  double *y = g_new (double, x.rows *cols);

  for (int64_t m = 0; m < x.rows; m++)
    for (int64_t c = 0; c < cols; c++) {
      double sum = start.p == NULL ? 0 : *test_at (start, m, c);
      if (!backward && w->w.bias != NULL)
        sum += w->w.bias[c];
      for (int64_t d = 0; d < depth; d++)
        sum += *test_at (x, m, d) *
               (backward ? w->value[d * w->w.k + c] : w->value[c * w->w.k + d]);
      y[m * cols + c] = sum;
    }
  return y;
}

static void
check_linear (fx_backend *b, int64_t m, const weight *w, bool beta, uint64_t *state)
{
  for (int backward = 0; backward < 2; backward++) {
    int64_t in = backward ? w->w.n : w->w.k, out = backward ? w->w.k : w->w.n;
    fx_mat x = test_random_mat (m, in, 3, state);
    fx_mat y = beta ? test_random_mat (m, out, 5, state) : test_mat (m, out, 5);
    fx_mat none = {NULL};
    double *ref = naive (x, w, beta ? y : none, backward);
    test_ok (
        backward ? fx_gemm_dgrad (b, y, x, &w->w, beta) : fx_gemm (b, y, x, &w->w, beta));
    test_check (backward ? "gemm_dgrad" : "gemm", y, ref, 2e-6);
    g_free (ref);
    test_mat_free (x);
    test_mat_free (y);
  }
}

static const struct {
  fx_qtype q;
  fx_dtype dtype;
} kinds[] = {
    {FX_Q_NONE, FX_F32},
    {FX_Q_NONE, FX_BF16},
    {FX_Q_NONE, FX_F16},
    {FX_Q_NF4, FX_F32},
    {FX_Q_NF4, FX_BF16},
    {FX_Q_NF4, FX_F16},
    {FX_Q_NF4_DOUBLE, FX_BF16},
    {FX_Q_INT8, FX_F32},
    {FX_Q_FP8, FX_F32},
};

static void
check_kinds (fx_backend *b)
{
  uint64_t state = 1;

  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++) {
    weight w;
    weight_init (&w, 77, 192, kinds[i].q, kinds[i].dtype, i % 2, &state);
    check_linear (b, 33, &w, i % 2, &state);
    check_linear (b, 2, &w, i % 2, &state);
    weight_clear (&w);
  }
}

/* v through e4m3 by the conversion that has a test of its own. */
static double
through_e4m3 (double v, float scale)
{
  float f = (float)v / scale;
  uint8_t q;

  test_ok (fx_convert (&q, FX_E4M3, &f, FX_F32, 1));
  test_ok (fx_convert (&f, FX_F32, &q, FX_E4M3, 1));
  return f * scale;
}

static double
through_int8 (double v, float largest)
{
  return largest > 0 ? rint (v * 127 / largest) * largest / 127 : 0;
}

/* Rows of x (times factor) as an 8-bit product sees them. */
static void
round_rows (fx_mat x, fx_qtype qtype, const float *factor)
{
  for (int64_t r = 0; r < x.rows; r++) {
    float largest = 0;

    for (int64_t i = 0; i < x.cols; i++)
      largest = fmaxf (
          largest, fabsf ((float)*test_at (x, r, i) * (factor != NULL ? factor[i] : 1)));
    for (int64_t i = 0; i < x.cols; i++) {
      float f = factor != NULL ? factor[i] : 1, v = (float)*test_at (x, r, i) * f;

      *test_at (x, r, i) =
          (float)((qtype == FX_Q_INT8 ? through_int8 (v, largest)
                                      : through_e4m3 (v, fx_fp8_scale (largest))) /
                  f);
    }
  }
}

static void
check_rounded_inputs_to (fx_backend *b, fx_qtype qtype)
{
  uint64_t state = 7;

  for (int64_t m = 1; m < 80; m += 38) {
    for (int backward = 0; backward < 2; backward++) {
      weight w;
      fx_mat x, y, copy, none = {NULL};
      double *ref;

      weight_init (&w, 80, 208, qtype, FX_F32, !backward, &state);
      w.w.rounds_inputs = true;
      x = test_random_mat (m, backward ? 80 : 208, 3, &state);
      copy = test_mat (m, x.cols, 0);
      for (int64_t i = 0; i < m * x.cols; i++)
        *test_at (copy, i / x.cols, i % x.cols) = *test_at (x, i / x.cols, i % x.cols);
      y = test_mat (m, backward ? 208 : 80, 5);
      test_ok (backward ? fx_gemm_dgrad (b, y, x, &w.w, false)
                        : fx_gemm (b, y, x, &w.w, false));
      round_rows (copy, qtype, backward ? w.w.absmax : NULL);
      ref = naive (copy, &w, none, backward);
      test_check (backward ? "gemm_dgrad in 8 bits" : "gemm in 8 bits", y, ref, 2e-6);
      g_free (ref);
      test_mat_free (x);
      test_mat_free (y);
      test_mat_free (copy);
      weight_clear (&w);
    }
  }
}

static void
check_rounded_inputs (fx_backend *b)
{
  check_rounded_inputs_to (b, FX_Q_FP8);
  check_rounded_inputs_to (b, FX_Q_INT8);
}

/* A row with a number that int8 has not: no finite result; the others as ever. */
static void
test_int8_keeps_what_is_not_finite (void)
{
  fx_backend *b = fx_cpu_new (1);
  uint64_t state = 5;
  weight w;
  fx_mat x, y;

  weight_init (&w, 16, 64, FX_Q_INT8, FX_F32, false, &state);
  w.w.rounds_inputs = true;
  x = test_random_mat (3, 64, 0, &state);
  y = test_mat (3, 16, 0);
  *test_at (x, 0, 5) = NAN;
  *test_at (x, 1, 7) = INFINITY;
  test_ok (fx_gemm (b, y, x, &w.w, false));
  for (int i = 0; i < 16; i++) {
    g_assert_false (isfinite (*test_at (y, 0, i)));
    g_assert_false (isfinite (*test_at (y, 1, i)));
    g_assert_true (isfinite (*test_at (y, 2, i)));
  }
  test_mat_free (x);
  test_mat_free (y);
  weight_clear (&w);
  fx_backend_free (b);
}

static void
test_rounded_inputs (void)
{
  test_each_isa (check_rounded_inputs);
}

static void
test_rounded_inputs_need_16 (void)
{
  fx_backend *b = fx_cpu_new (1);
  uint64_t state = 3;
  weight w;
  fx_mat x, y;

  weight_init (&w, 24, 64, FX_Q_FP8, FX_F32, false, &state);
  x = test_random_mat (2, 64, 0, &state);
  y = test_mat (2, 24, 0);
  test_ok (fx_gemm (b, y, x, &w.w, false));
  w.w.rounds_inputs = true;
  g_assert_cmpint (fx_gemm (b, y, x, &w.w, false), ==, FX_ERR_SHAPE);
  test_mat_free (x);
  test_mat_free (y);
  weight_clear (&w);
  fx_backend_free (b);
}

/* The scale is a power of two, the smallest that fits. */
static void
test_fp8_scale (void)
{
  const float x[2][4] = {{0, 448, -3, 0.001f}, {0, -449, 1, 2}};
  uint8_t q[8];
  float scales[2], back;

  fx_fp8_quantize (x[0], 2, 4, q, scales);
  g_assert_cmpfloat (scales[0], ==, 1);
  g_assert_cmpfloat (scales[1], ==, 2);
  test_ok (fx_convert (&back, FX_F32, q + 1, FX_E4M3, 1));
  g_assert_cmpfloat (back, ==, 448);
  test_ok (fx_convert (&back, FX_F32, q + 5, FX_E4M3, 1));
  g_assert_cmpfloat (back * scales[1], ==, -448);
  g_assert_cmpfloat (fx_fp8_scale (0), ==, 1);
  g_assert_cmpfloat (fx_fp8_scale (1e-44f), ==, 0x1p-126f);
  g_assert_true (isinf (fx_fp8_scale (INFINITY)));
}

static void
test_kinds (void)
{
  test_each_isa (check_kinds);
}

static void
check_shapes (fx_backend *b)
{
  static const int64_t shapes[][3] = {{1, 1, 1}, {1, 130, 77}, {6, 33, 256}, {7, 130, 77},
      {77, 96, 130}, {96, 64, 1}, {97, 1, 96}, {130, 130, 300}, {400, 40, 65},
      {20, 600, 64}, {3, 17, 2100}, {30, 300, 2100}};
  uint64_t state = 2;

  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++) {
    weight w;
    weight_init (&w, shapes[i][1], shapes[i][2], FX_Q_NONE, i % 3 == 1 ? FX_BF16 : FX_F32,
        i % 2, &state);
    check_linear (b, shapes[i][0], &w, false, &state);
    check_linear (b, shapes[i][0], &w, true, &state);
    weight_clear (&w);
  }
}

static void
test_shapes (void)
{
  test_each_isa (check_shapes);
}

static void
check_expand (fx_backend *b)
{
  uint64_t state = 3;

  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++) {
    weight w;
    fx_mat dst = test_mat (37, 128, 7);
    uint16_t *half = g_new (uint16_t, 37 * 128);
    weight_init (&w, 37, 128, kinds[i].q, kinds[i].dtype, false, &state);
    test_ok (fx_expand (b, dst, &w.w));
    test_check ("expand", dst, w.value, kinds[i].q == FX_Q_INT8 ? 1e-7 : 0);
    test_ok (fx_expand (b, fx_mat_new (half, 37, 128, FX_BF16), &w.w));
    for (int64_t r = 0; r < 37; r++)
      for (int64_t c = 0; c < 128; c++)
        g_assert_cmpuint (half[r * 128 + c], ==, fx_f32_to_bf16 (*test_at (dst, r, c)));
    /* gemm takes the expanded values when there are some. */
    if (kinds[i].q == FX_Q_NF4) {
      fx_mat packed = test_mat (37, 128, 0);
      test_ok (fx_expand (b, packed, &w.w));
      *test_at (packed, 5, 9) = 100;
      w.w.expanded = packed.p;
      w.value[5 * 128 + 9] = 100;
      check_linear (b, 9, &w, false, &state);
      check_linear (b, 1, &w, false, &state);
      test_mat_free (packed);
    }
    weight_clear (&w);
    g_free (half);
    test_mat_free (dst);
  }
}

static void
test_expand (void)
{
  test_each_isa (check_expand);
}

/* The same bits for one, two and three threads. */
static void
test_threads (void)
{
  fx_backend *backends[3];
  uint64_t state = 4;
  static const int64_t shapes[][3] = {
      {1, 300, 256}, {32, 256, 64}, {96, 320, 256}, {130, 77, 2112}, {500, 70, 128}};

  for (int t = 0; t < 3; t++)
    backends[t] = fx_cpu_new (t + 1);
  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++) {
    int64_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
    weight w;
    fx_mat x = test_random_mat (m, k, 0, &state), dy = test_random_mat (m, n, 0, &state);
    fx_mat y[3], dx[3];
    weight_init (&w, n, k, FX_Q_NF4, FX_BF16, true, &state);
    for (int t = 0; t < 3; t++) {
      y[t] = test_mat (m, n, 0);
      dx[t] = test_mat (m, k, 0);
      test_ok (fx_gemm (backends[t], y[t], x, &w.w, false));
      test_ok (fx_gemm_dgrad (backends[t], dx[t], dy, &w.w, false));
      g_assert_true (test_same_bits (y[0], y[t]));
      g_assert_true (test_same_bits (dx[0], dx[t]));
    }
    for (int t = 0; t < 3; t++) {
      test_mat_free (y[t]);
      test_mat_free (dx[t]);
    }
    test_mat_free (x);
    test_mat_free (dy);
    weight_clear (&w);
  }
  for (int t = 0; t < 3; t++)
    fx_backend_free (backends[t]);
}

static void
check_gelu (fx_backend *b)
{
  uint64_t state = 5;
  weight w;
  fx_mat x = test_random_mat (33, 128, 3, &state), y = test_mat (33, 96, 5),
         none = {NULL};
  double *ref;

  weight_init (&w, 96, 128, FX_Q_NF4, FX_BF16, true, &state);
  ref = naive (x, &w, none, false);
  for (int64_t i = 0; i < y.rows * y.cols; i++)
    ref[i] *= 0.5 * (1 + tanh (sqrt (2 / G_PI) * (ref[i] + 0.044715 * pow (ref[i], 3))));
  test_ok (fx_gemm_gelu (b, y, x, &w.w));
  test_check ("gemm_gelu", y, ref, 2e-6);
  g_free (ref);
  weight_clear (&w);
  test_mat_free (x);
  test_mat_free (y);
}

static void
test_gelu (void)
{
  test_each_isa (check_gelu);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/linear/every-storage", test_kinds);
  g_test_add_func ("/linear/odd-shapes", test_shapes);
  g_test_add_func ("/linear/expand", test_expand);
  g_test_add_func ("/linear/gelu-of-it", test_gelu);
  g_test_add_func ("/linear/inputs-rounded-to-e4m3", test_rounded_inputs);
  g_test_add_func (
      "/linear/int8-keeps-what-is-not-finite", test_int8_keeps_what_is_not_finite);
  g_test_add_func (
      "/linear/inputs-rounded-need-multiples-of-16", test_rounded_inputs_need_16);
  g_test_add_func ("/linear/fp8-scale", test_fp8_scale);
  g_test_add_func ("/linear/same-bits-on-any-threads", test_threads);
  return g_test_run ();
}
