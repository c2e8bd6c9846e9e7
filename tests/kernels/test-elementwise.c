/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Activations, gates, loss, copies and sums against fp64. */
#include "common.h"

static double
activation (double x, fx_act kind)
{
  switch (kind) {
    case FX_ACT_GELU_TANH:
      return 0.5 * x * (1 + tanh (sqrt (2 / G_PI) * (x + 0.044715 * x * x * x)));
    case FX_ACT_GELU_ERF:
      return 0.5 * x * erfc (-x / sqrt (2));
    case FX_ACT_QUICK_GELU:
      return x / (1 + exp (-1.702 * x));
    case FX_ACT_SILU:
      return x / (1 + exp (-x));
    default:
      return x > 0 ? x : 0;
  }
}

static double
slope (double x, fx_act kind)
{
  double h = 1e-3;

  if (kind == FX_ACT_RELU) /* differences across its corner mean nothing */
    return x > 0;
  return (activation (x - 2 * h, kind) - 8 * activation (x - h, kind) +
             8 * activation (x + h, kind) - activation (x + 2 * h, kind)) /
         (12 * h);
}

static void
check_act (fx_backend *b)
{
  uint64_t state = 1;
  fx_mat x = test_random_mat (77, 130, 3, &state),
         mul = test_random_mat (77, 130, 1, &state), y = test_mat (77, 130, 5),
         none = {NULL};
  double *ref = g_new (double, 77 * 130), *ref_mul = g_new (double, 77 * 130),
         *ref_bwd = g_new (double, 77 * 130);

  for (int64_t r = 0; r < 77; r++)
    for (int64_t c = 0; c < 130; c++)
      *test_at (x, r, c) *= r % 3 == 0 ? 30 : 4;
  for (int kind = 0; kind <= FX_ACT_RELU; kind++) {
    for (int64_t i = 0; i < 77 * 130; i++) {
      double v = *test_at (x, i / 130, i % 130), m = *test_at (mul, i / 130, i % 130);
      ref[i] = activation (v, kind);
      ref_mul[i] = ref[i] * m;
      ref_bwd[i] = slope (v, kind) * m;
    }
    test_ok (fx_act_fwd (b, y, x, none, kind));
    test_check ("act", y, ref, 3e-7);
    for (int64_t i = 0; i < 77 * 130; i++) { /* every element on its own scale */
      double got = *test_at (y, i / 130, i % 130);
      g_assert_cmpfloat (fabs (got - ref[i]), <=, 3e-6 * fabs (ref[i]) + 2e-6);
    }
    test_ok (fx_act_fwd (b, y, x, mul, kind));
    test_check ("act with mul", y, ref_mul, 3e-7);
    test_ok (fx_act_bwd (b, y, mul, x, kind));
    test_check ("act_bwd", y, ref_bwd, 2e-6);
  }
  test_ok (fx_act_bwd (b, mul, mul, x, FX_ACT_RELU));
  test_check ("act_bwd in place", mul, ref_bwd, 2e-6);
  test_ok (fx_act_fwd (b, x, x, none, FX_ACT_RELU));
  test_check ("act in place", x, ref, 3e-7);
  test_mat_free (x);
  test_mat_free (y);
  test_mat_free (mul);
  g_free (ref);
  g_free (ref_mul);
  g_free (ref_bwd);
}

static void
test_act (void)
{
  test_each_isa (check_act);
}

/* Large, infinite and NaN inputs come out as their limits. */
static void
check_limits (fx_backend *b)
{
  float x[6] = {-INFINITY, -1e30f, -200, 200, 1e30f, NAN}, y[6];
  fx_mat mx = fx_mat_new (x, 1, 6, FX_F32), my = fx_mat_new (y, 1, 6, FX_F32), none = {0};

  test_ok (fx_act_fwd (b, my, mx, none, FX_ACT_SILU));
  g_assert_cmpfloat (y[1], ==, 0);
  g_assert_cmpfloat (y[2], ==, 0);
  g_assert_cmpfloat (y[3], ==, 200);
  g_assert_cmpfloat (y[4], ==, 1e30f);
  g_assert_true (isnan (y[5]));
}

static void
test_limits (void)
{
  test_each_isa (check_limits);
}

static void
check_gate (fx_backend *b)
{
  uint64_t state = 2;
  fx_mat x = test_random_mat (96, 77, 3, &state), y = test_random_mat (96, 77, 0, &state),
         out = test_mat (96, 77, 1), gate = test_random_mat (1, 77, 0, &state);
  double *sum = g_new (double, 96 * 77), *gated = g_new (double, 96 * 77),
         *product = g_new (double, 96 * 77);

  for (int64_t i = 0; i < 96 * 77; i++) {
    double a = *test_at (x, i / 77, i % 77), v = *test_at (y, i / 77, i % 77);
    sum[i] = a + v;
    product[i] = *test_at (gate, 0, i % 77) * v;
    gated[i] = a + product[i];
  }
  test_ok (fx_gate_residual (b, out, x, y, gate.p));
  test_check ("gate_residual", out, gated, 1e-7);
  test_ok (fx_gate_residual (b, out, x, y, NULL));
  test_check ("gate_residual without a gate", out, sum, 1e-7);
  test_ok (fx_gate_bwd (b, out, y, gate.p));
  test_check ("gate_bwd", out, product, 1e-7);
  test_ok (fx_gate_residual (b, x, x, y, gate.p));
  test_check ("gate_residual in place", x, gated, 1e-7);
  test_mat_free (x);
  test_mat_free (y);
  test_mat_free (out);
  test_mat_free (gate);
  g_free (sum);
  g_free (gated);
  g_free (product);
}

static void
test_gate (void)
{
  test_each_isa (check_gate);
}

static void
check_mse (fx_backend *b)
{
  uint64_t state = 3;
  fx_mat pred = test_random_mat (64, 65, 3, &state),
         target = test_random_mat (64, 65, 0, &state), d = test_mat (64, 65, 2),
         none = {NULL};
  double want = 0, loss = 7, *ref = g_new (double, 64 * 65);

  for (int64_t i = 0; i < 64 * 65; i++) {
    double e =
        (double)*test_at (pred, i / 65, i % 65) - *test_at (target, i / 65, i % 65);
    want += 0.75 * e * e / (64 * 65);
    ref[i] = 2 * 0.75 * e / (64 * 65) * 8;
  }
  test_ok (fx_mse (b, &loss, d, pred, target, 0.75f, 8));
  g_assert_cmpfloat_with_epsilon (loss, want, 1e-12);
  test_check ("mse", d, ref, 3e-7);
  loss = 7;
  test_ok (fx_mse (b, &loss, none, pred, target, 0.75f, 8));
  g_assert_cmpfloat_with_epsilon (loss, want, 1e-12);
  test_mat_free (pred);
  test_mat_free (target);
  test_mat_free (d);
  g_free (ref);
}

static void
test_mse (void)
{
  test_each_isa (check_mse);
}

static void
check_sum (fx_backend *b)
{
  static const int64_t sizes[] = {1, 77, 16384, 50001};
  uint64_t state = 4;

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    fx_mat x = test_random_mat (1, sizes[i], 0, &state);
    double want = 5, sum = 5;
    for (int64_t j = 0; j < sizes[i]; j++)
      want += (double)*test_at (x, 0, j) * *test_at (x, 0, j);
    test_ok (fx_sum_squares (b, &sum, x.p, sizes[i]));
    g_assert_cmpfloat (fabs (sum - want), <=, 1e-13 * want);
    test_mat_free (x);
  }
}

static void
test_sum (void)
{
  test_each_isa (check_sum);
}

static void
check_copy (fx_backend *b)
{
  uint64_t state = 5;
  fx_mat x = test_random_mat (33, 77, 3, &state), y = test_mat (4, 77, 1),
         half = fx_mat_new (g_new (uint16_t, 33 * 80), 33, 77, FX_BF16);
  const int32_t ids[4] = {32, 0, 0, 7};

  half.ld = 80;
  test_ok (fx_copy (b, half, x));
  test_ok (fx_gather (b, y, half, ids));
  for (int64_t r = 0; r < 4; r++)
    for (int64_t c = 0; c < 77; c++)
      g_assert_cmpfloat (*test_at (y, r, c), ==,
          fx_bf16_to_f32 (fx_f32_to_bf16 (*test_at (x, ids[r], c))));
  test_check_guards (y);
  test_ok (fx_copy (b, y, fx_rows (x, 3, 4)));
  g_assert_true (test_same_bits (y, fx_rows (x, 3, 4)));
  test_mat_free (x);
  test_mat_free (y);
  g_free (half.p);
}

static void
test_copy (void)
{
  test_each_isa (check_copy);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/elementwise/act", test_act);
  g_test_add_func ("/elementwise/act-limits", test_limits);
  g_test_add_func ("/elementwise/gate", test_gate);
  g_test_add_func ("/elementwise/mse", test_mse);
  g_test_add_func ("/elementwise/sum-squares", test_sum);
  g_test_add_func ("/elementwise/copy-gather", test_copy);
  return g_test_run ();
}
