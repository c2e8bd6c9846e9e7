/* SPDX-License-Identifier: LGPL-2.1-or-later
 * What callers see before any arithmetic: errors that name op and shapes, arenas, the
 * plan backend, and backends that are not there. */
#include "common.h"

static void
expect (int status, int want, const char *part)
{
  g_assert_cmpint (status, ==, want);
  if (strstr (fx_error_message (), part) == NULL)
    g_error ("'%s' does not say '%s'", fx_error_message (), part);
}

static void
test_shapes (void)
{
  fx_backend *b = fx_cpu_new (1), *plan = fx_plan_new (FX_F32);
  float f[4096] = {0};
  int32_t ids[2] = {0, 16};
  double d = 0;
  fx_mat x = fx_mat_new (f, 16, 64, FX_F32), y = fx_mat_new (f, 16, 32, FX_F32),
         none = {0}, bad = x, half = x;
  fx_weight w = {.n = 32, .k = 64, .qtype = FX_Q_NONE, .dtype = FX_F32, .data = f};
  fx_attn a = {4, 16, 1.0f};
  fx_rope rope = {f, f, 16};
  fx_adamw o = {.step = 0};
  fx_lora l = {f, f, NULL, NULL, 0, 1.0f};
  fx_conv c = {4, 4, 3, 1, 1, 1, 1, 1};

  bad.ld = 63;
  half.dtype = FX_F16;
  test_ok (fx_gemm (b, y, x, &w, false));
  expect (fx_gemm (b, x, x, &w, false), FX_ERR_SHAPE,
      "gemm: y is [16, 64], must be [16, 32]");
  expect (fx_gemm (b, y, y, &w, false), FX_ERR_SHAPE,
      "gemm: x is [16, 32], must be [16, 64]");
  expect (fx_gemm (b, y, bad, &w, false), FX_ERR_SHAPE, "row stride of 63");
  expect (fx_gemm (b, y, half, &w, false), FX_ERR_SHAPE, "x is F16");
  expect (fx_gemm (b, y, none, &w, false), FX_ERR_SHAPE, "gemm: x");
  expect (fx_gemm (b, y, x, NULL, false), FX_ERR_SHAPE, "gemm: no weight");
  expect (fx_gemm (NULL, y, x, &w, false), FX_ERR_SHAPE, "no backend");
  test_ok (fx_gemm_gelu (b, y, x, &w));
  expect (fx_gemm_gelu (NULL, y, x, &w), FX_ERR_SHAPE, "no backend");
  expect (fx_gemm_gelu (b, y, y, &w), FX_ERR_SHAPE, "x is [16, 32], must be [16, 64]");
  w.home = FX_HOME_HOST;
  expect (fx_gemm (b, y, x, &w, false), FX_ERR_SHAPE, "is not on the device");
  w.home = FX_HOME_DEVICE;
  w.qtype = FX_Q_NF4;
  expect (fx_gemm (b, y, x, &w, false), FX_ERR_SHAPE, "absmax of the NF4 weight is NULL");
  w.k = 32;
  expect (fx_expand (b, x, &w), FX_ERR_SHAPE, "whole blocks of 64");
  expect (fx_gemm_dgrad (b, x, x, &w, false), FX_ERR_SHAPE, "gemm_dgrad:");
  expect (fx_lora_fwd (b, y, y, x, &l, 1), FX_ERR_SHAPE, "rank 0");
  l.rank = 2;
  expect (
      fx_lora_fwd (b, y, y, x, &l, 1), FX_ERR_SHAPE, "h is [16, 32], must be [16, 2]");
  expect (fx_adaln (b, y, NULL, x, f, f, 0), FX_ERR_SHAPE, "adaln: y is [16, 32]");
  expect (fx_adaln (b, x, NULL, x, NULL, f, 0), FX_ERR_SHAPE, "adaln: shift is NULL");
  expect (fx_qknorm_rope (b, x, NULL, x, f, f, &rope, 0, 16, 0), FX_ERR_SHAPE,
      "qkv [16, 64] is not three times whole heads of 16");
  expect (fx_qknorm_rope (
              b, fx_cols (x, 0, 32), NULL, fx_cols (x, 0, 48), f, f, &rope, 1, 16, 0),
      FX_ERR_SHAPE, "16 rows from row 1 of a rope table of 16");
  expect (fx_attention (b, y, NULL, y, y, y, &a), FX_ERR_SHAPE, "is not 4 heads of 16");
  expect (fx_attention (b, x, NULL, x, x, y, &a), FX_ERR_SHAPE, "attention: v is");
  a.causal = true;
  expect (fx_attention (b, fx_rows (x, 0, 8), NULL, fx_rows (x, 0, 8), x, x, &a),
      FX_ERR_SHAPE, "causal with 8 queries and 16 keys");
  expect (
      fx_attention_bwd (b, x, x, x, x, x, f, x, x, x, &a), FX_ERR_UNSUPPORTED, "mask");
  expect (fx_act_fwd (b, x, x, y, FX_ACT_SILU), FX_ERR_SHAPE, "act: mul is");
  expect (fx_act_fwd (b, x, x, none, 99), FX_ERR_SHAPE, "activation function 99");
  expect (fx_gate_residual (b, x, x, y, NULL), FX_ERR_SHAPE, "gate_residual: y is");
  expect (fx_mse (b, &d, none, x, y, 1, 1), FX_ERR_SHAPE, "mse: target is");
  expect (fx_adamw_step (b, f, f, f, f, 16, &o), FX_ERR_SHAPE, "step 0");
  expect (fx_gather (b, fx_rows (x, 0, 2), x, ids), FX_ERR_SHAPE,
      "id 16 of a table of 16 rows");
  expect (fx_copy (b, y, x), FX_ERR_SHAPE, "copy:");
  w = (fx_weight){.n = 32, .k = 9 * 64, .dtype = FX_F32, .data = f};
  expect (fx_conv2d (plan, x, x, &w, &c), FX_ERR_SHAPE, "conv2d: y is [16, 64]");
  c.kernel = 2;
  expect (fx_conv2d (plan, y, x, &w, &c), FX_ERR_SHAPE, "a kernel of 2");
  expect (fx_groupnorm (plan, x, x, 5, f, f, 0, false), FX_ERR_SHAPE,
      "64 channels in 5 groups");
  expect (fx_upsample2 (plan, x, x, 4, 4), FX_ERR_SHAPE, "upsample2: y is");
  fx_backend_free (b);
  fx_backend_free (plan);
}

static void
test_arena (void)
{
  fx_backend *b = fx_cpu_new (1);
  fx_arena a;
  fx_mat m, n;
  void *p;
  size_t mark;

  /* Measured first, then reserved to exactly that. */
  for (int pass = 0; pass < 2; pass++) {
    if (pass == 0)
      fx_arena_init (&a, b, "work");
    else
      test_ok (fx_arena_reserve (&a, a.high));
    test_ok (fx_arena_mat (&a, 3, 5, FX_F32, &m));
    mark = fx_arena_mark (&a);
    test_ok (fx_arena_take (&a, 1000, &p));
    fx_arena_rewind (&a, mark);
    test_ok (fx_arena_mat (&a, 7, 9, FX_BF16, &n));
    g_assert_true (n.p == p);
    g_assert_cmpuint ((guintptr)n.p % 256, ==, 0);
    g_assert_cmpuint (a.high, ==, 256 + 1024);
    g_assert_cmpint (m.ld, ==, 5);
  }
  memset (a.base, 1, a.size);
  expect (fx_arena_take (&a, 2000, &p), FX_ERR_MEMORY, "arena work is full: 2000 bytes");
  g_assert_null (p);
  expect (fx_arena_take (&a, SIZE_MAX - 10, &p), FX_ERR_MEMORY, "arena work");
  expect (fx_arena_mat (&a, INT64_MAX, 8, FX_F32, &m), FX_ERR_MEMORY, "a matrix of");
  expect (fx_arena_reserve (&a, 10), FX_ERR_SHAPE, "while in use");
  fx_arena_clear (&a);
  g_assert_null (a.base);
  fx_backend_free (b);
}

static void
test_plan (void)
{
  fx_backend *b = fx_plan_new (FX_BF16);
  fx_arena a;
  fx_mat x, y, f;
  fx_weight w = {.n = 3072, .k = 3072, .dtype = FX_BF16};
  double loss = 5;

  g_assert_cmpint (b->compute, ==, FX_BF16);
  fx_arena_init (&a, b, "state");
  test_ok (fx_arena_take (&a, (size_t)3072 * 3072 * 2, &w.data));
  test_ok (fx_arena_mat (&a, 1613, 3072, FX_BF16, &x));
  test_ok (fx_arena_mat (&a, 1613, 3072, FX_BF16, &y));
  test_ok (fx_arena_mat (&a, 1613, 3072, FX_F32, &f));
  test_ok (fx_gemm (b, y, x, &w, true));
  test_ok (fx_gate_residual (b, f, f, y, f.p));
  /* It computes nothing, but does not let through what a device would refuse. */
  expect (fx_gemm (b, y, fx_cols (x, 0, 100), &w, false), FX_ERR_SHAPE,
      "gemm: x is [1613, 100]");
  g_assert_cmpuint (a.high, ==, 18874368 + 2 * 9910272 + 19820544);
  test_ok (fx_download (b, &loss, f.p, sizeof loss));
  g_assert_cmpfloat (loss, ==, 0);
  fx_backend_free (b);
}

/* What follows sees what was fetched. */
static void
test_fetch (void)
{
  fx_backend *b = fx_cpu_new (1), *host = fx_host_new (b);
  float values[64], out[64] = {0};
  fx_arena far_away, near;
  void *src, *dst;

  for (int i = 0; i < 64; i++)
    values[i] = (float)i;
  fx_arena_init (&far_away, host, "far away");
  fx_arena_init (&near, b, "near");
  test_ok (fx_arena_reserve (&far_away, sizeof values));
  test_ok (fx_arena_reserve (&near, sizeof values));
  test_ok (fx_arena_take (&far_away, sizeof values, &src));
  test_ok (fx_arena_take (&near, sizeof values, &dst));
  test_ok (fx_upload (host, src, values, sizeof values));
  test_ok (fx_fetch (b, FX_FETCHES - 1, dst, src, sizeof values));
  test_ok (fx_fetched (b, FX_FETCHES - 1));
  test_ok (fx_download (b, out, dst, sizeof out));
  g_assert_cmpmem (out, sizeof out, values, sizeof values);
  expect (fx_fetch (b, FX_FETCHES, dst, src, 4), FX_ERR_SHAPE, "fetch: number 4 of 4");
  expect (fx_fetched (b, -1), FX_ERR_SHAPE, "fetched: number -1");
  expect (fx_fetch (b, 0, dst, NULL, 4), FX_ERR_SHAPE, "fetch: src is NULL");
  fx_arena_clear (&far_away);
  fx_arena_clear (&near);
  fx_backend_free (host);
  fx_backend_free (b);
}

static void
test_absent (void)
{
  g_assert_null (fx_cpu_new_isa (1, "vax"));
  g_assert_nonnull (strstr (fx_error_message (), "vax"));
}

static gpointer
fail_elsewhere (gpointer data)
{
  fx_error (FX_ERR_DEVICE, "of another thread");
  return NULL;
}

static void
test_threads (void)
{
  fx_error (FX_ERR_SHAPE, "of this thread");
  g_thread_join (g_thread_new ("other", fail_elsewhere, NULL));
  g_assert_cmpstr (fx_error_message (), ==, "of this thread");
  g_assert_cmpint (fx_error_status (), ==, FX_ERR_SHAPE);
}

/* Beside fp16 a residual stream may be fp32; what one kernel reads and writes may not
 * differ. */
static void
test_types (void)
{
  fx_backend *b = fx_plan_new (FX_F16);
  float f[1024] = {0};
  fx_mat half = fx_mat_new (f, 8, 64, FX_F16), wide = fx_mat_new (f, 8, 64, FX_F32);
  fx_mat brain = fx_mat_new (f, 8, 64, FX_BF16), none = {0};
  fx_weight w = {.n = 64, .k = 64, .qtype = FX_Q_NONE, .dtype = FX_F16, .data = f};
  fx_attn a = {4, 16, 1.0f};
  fx_lora l = {f, f, NULL, NULL, 64, 1.0f};

  test_ok (fx_gemm (b, half, half, &w, false));
  test_ok (fx_gemm (b, wide, wide, &w, false));
  test_ok (fx_adaln (b, half, NULL, wide, f, f, 0));
  test_ok (fx_gate_residual (b, wide, wide, half, f));
  test_ok (fx_act_fwd (b, wide, half, half, FX_ACT_SILU));
  expect (fx_gemm (b, brain, half, &w, false), FX_ERR_SHAPE, "y is BF16");
  expect (fx_gemm (b, wide, half, &w, false), FX_ERR_SHAPE,
      "gemm: y is F32 where the others are F16");
  expect (fx_gemm_dgrad (b, wide, half, &w, false), FX_ERR_SHAPE, "dx is F32");
  expect (fx_lora_fwd (b, wide, half, half, &l, 1), FX_ERR_SHAPE, "lora: y is F32");
  expect (fx_attention (b, half, NULL, half, wide, half, &a), FX_ERR_SHAPE, "k is F32");
  expect (fx_adaln_bwd (b, half, half, wide, f, f), FX_ERR_SHAPE, "dx is F16");
  expect (fx_gate_residual (b, half, wide, half, f), FX_ERR_SHAPE, "out is F16");
  expect (fx_act_fwd (b, half, half, wide, FX_ACT_SILU), FX_ERR_SHAPE, "mul is F32");
  expect (fx_act_bwd (b, half, wide, half, FX_ACT_SILU), FX_ERR_SHAPE, "dy is F32");
  expect (fx_mse (b, NULL, none, half, half, 1, 1), FX_ERR_SHAPE, "loss is NULL");
  fx_backend_free (b);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/dispatch/errors-name-op-and-shapes", test_shapes);
  g_test_add_func ("/dispatch/types-that-do-not-go-together", test_types);
  g_test_add_func ("/dispatch/arena", test_arena);
  g_test_add_func ("/dispatch/plan", test_plan);
  g_test_add_func ("/dispatch/fetch", test_fetch);
  g_test_add_func ("/dispatch/absent-backends", test_absent);
  g_test_add_func ("/dispatch/errors-are-a-thread's-own", test_threads);
  return g_test_run ();
}
