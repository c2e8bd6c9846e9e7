/* tests/bench/gpu-rounded.h: products in 8 bits and their operands, for gpu-ops.c.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "gpu-ops.h"

/* The tensor cores' sums of e4m3 products keep some 14 bits, whatever the result is. */
#define FP8_BOUND 1e-6

static fx_weight
rounding_weight (side s, fx_qtype qtype, int64_t n, int64_t k, const void *q,
    const float *scales, const float *bias)
{
  fx_weight w = {.n = n,
      .k = k,
      .qtype = qtype,
      .dtype = FX_BF16,
      .data = put_bytes (s, q, (size_t)(n * k)),
      .absmax = put_bytes (s, scales, (size_t)n * 4),
      .bias = bias != NULL ? put_bytes (s, bias, (size_t)n * 4) : NULL,
      .rounds_inputs = true};

  return w;
}

/* The same roundings on both sides; what is left is how sums are made. */
static void
rounding_ops (side gpu, side cpu, fx_qtype qtype, double bound, int64_t n, int64_t k)
{
  const int64_t m = 77;
  const char *type = qtype == FX_Q_FP8 ? "fp8" : "int8";
  float *x = draw (m * k, 1), *w = draw (n * k, .05f), *bias = draw (n, 1),
        *dy = draw (m * n, 1), *y0 = draw (m * n, 1);
  void *q = malloc ((size_t)(n * k));
  float *scales = malloc ((size_t)n * 4);
  char name[64];

  for (int64_t r = 0; r < n; r++) /* rows of unlike size */
    for (int64_t i = 0; i < k; i++)
      w[r * k + i] *= (float)(1 + r % 7);
  if (qtype == FX_Q_FP8)
    fx_fp8_quantize (w, (size_t)n, (size_t)k, q, scales);
  else
    fx_int8_quantize (w, (size_t)n, (size_t)k, q, scales);
  for (int rows = 5; rows <= m; rows += m - 5) {
    snprintf (name, sizeof name, "gemm %s, %d: %dx%d", type, rows, (int)n, (int)k);
    BOTH (name, rows, n, bound, {
      fx_weight v = rounding_weight (s, qtype, n, k, q, scales, bias);
      result = poisoned (s, rows, n, 64);
      st_ = fx_gemm (s.b, result, put (s, x, rows, k, 16), &v, false);
    });
    snprintf (
        name, sizeof name, "gemm %s accumulating, %d: %dx%d", type, rows, (int)n, (int)k);
    BOTH (name, rows, n, bound, {
      fx_weight v = rounding_weight (s, qtype, n, k, q, scales, NULL);
      result = put (s, y0, rows, n, 0);
      st_ = fx_gemm (s.b, result, put (s, x, rows, k, 3), &v, true);
    });
    snprintf (name, sizeof name, "gemm_dgrad %s, %d: %dx%d", type, rows, (int)n, (int)k);
    BOTH (name, rows, k, bound, {
      fx_weight v = rounding_weight (s, qtype, n, k, q, scales, NULL);
      result = poisoned (s, rows, k, 0);
      st_ = fx_gemm_dgrad (s.b, result, put (s, dy, rows, n, 64), &v, false);
    });
  }
  free (x);
  free (w);
  free (bias);
  free (dy);
  free (y0);
  free (q);
  free (scales);
}

/* A rounded matrix: bytes, then scales. */
static fx_rounded
rounded_room (side s, int64_t rows, int64_t cols, fx_dtype dtype)
{
  const size_t bytes = (size_t)(rows * (cols + 4));
  char *nothing = calloc (1, bytes), *p = put_bytes (s, nothing, bytes);
  fx_rounded r = {p, (float *)(p + rows * cols), rows, cols, dtype};

  free (nothing);
  return r;
}

/* Bytes and scales (and what stands beside them) are those of the op, then round_rows. */
static void
compare_rounded (
    side s, const char *name, fx_rounded a, fx_rounded b, fx_mat ya, fx_mat yb)
{
  const size_t bytes = (size_t)(a.rows * (a.cols + 4));
  char *one = malloc (bytes), *two = malloc (bytes);
  float *fa = get (s, ya), *fb = get (s, yb);
  bool same = fx_download (s.b, one, a.q, bytes) == FX_OK &&
              fx_download (s.b, two, b.q, bytes) == FX_OK &&
              memcmp (one, two, bytes) == 0 &&
              memcmp (fa, fb, (size_t)(ya.rows * ya.cols) * sizeof *fa) == 0;
  size_t zeros = 0;

  for (size_t i = 0; i < (size_t)(a.rows * a.cols); i++)
    zeros += one[i] == 0;
  same = same && zeros < (size_t)(a.rows * a.cols) / 2;
  printf ("%s %-34s %s of %s, %dx%d\n", same ? "ok  " : "FAIL", name,
      same ? "the bits" : "NOT THE BITS", fx_dtype_name (a.dtype), (int)a.rows,
      (int)a.cols);
  n_failed += !same;
  free (one);
  free (two);
  free (fa);
  free (fb);
}

/* Rounding where a matrix is made against rounding it afterwards. */
static void
rounded_ops (side s, fx_dtype dtype, int64_t m, int64_t d)
{
  float *hx = draw ((size_t)(m * 4 * d), 2), *hy = draw ((size_t)(m * 4 * d), 1),
        *hs = draw ((size_t)(4 * d), .3f), *ht = draw ((size_t)(4 * d), .3f);
  fx_mat x = put (s, hx, m, 4 * d, 8), dy = put (s, hy, m, 4 * d, 0), none = {0};
  fx_mat left = put (s, hy, m, d, 8), narrow = put (s, hx, m, d, 0);
  float *scale = put_bytes (s, hs, (size_t)(4 * d) * 4),
        *shift = put_bytes (s, ht, (size_t)(4 * d) * 4),
        *stats = put_bytes (s, hx, (size_t)m * 8);
  fx_mat cat[2] = {poisoned (s, m, 5 * d, 0), poisoned (s, m, 5 * d, 0)},
         wide[2] = {poisoned (s, m, 4 * d, 0), poisoned (s, m, 4 * d, 0)},
         thin[2] = {poisoned (s, m, d, 0), poisoned (s, m, d, 0)};
  fx_rounded r[4][2];
  int status = FX_OK;

  none.dtype = s.type;
  for (int i = 0; i < 2; i++) {
    r[0][i] = rounded_room (s, m, 5 * d, dtype);
    r[1][i] = rounded_room (s, m, 4 * d, dtype);
    r[2][i] = rounded_room (s, m, d, dtype);
    r[3][i] = rounded_room (s, m, d, dtype);
  }
#define DO(call) status = status == FX_OK ? (call) : status
  DO (fx_act_rounded (s.b, cat[0], r[0][0], left, x, FX_ACT_GELU_TANH));
  DO (fx_copy (s.b, fx_cols (cat[1], 0, d), left));
  DO (fx_act_fwd (s.b, fx_cols (cat[1], d, 4 * d), x, none, FX_ACT_GELU_TANH));
  DO (fx_round_rows (s.b, r[0][1], cat[1], NULL));
  DO (fx_act_bwd_rounded (s.b, wide[0], r[1][0], scale, dy, x, FX_ACT_GELU_TANH));
  DO (fx_act_bwd (s.b, wide[1], dy, x, FX_ACT_GELU_TANH));
  DO (fx_round_rows (s.b, r[1][1], wide[1], scale));
  if (status == FX_OK) {
    compare_rounded (s, "act_rounded", r[0][0], r[0][1], cat[0], cat[1]);
    compare_rounded (s, "act_bwd_rounded", r[1][0], r[1][1], wide[0], wide[1]);
  }
  DO (fx_act_rounded (s.b, none, r[1][0], none, x, FX_ACT_GELU_TANH));
  DO (fx_act_fwd (s.b, wide[1], x, none, FX_ACT_GELU_TANH));
  DO (fx_round_rows (s.b, r[1][1], wide[1], NULL));
  DO (fx_gate_bwd_rounded (s.b, thin[0], r[2][0], shift, narrow, scale));
  DO (fx_gate_bwd (s.b, thin[1], narrow, scale));
  DO (fx_round_rows (s.b, r[2][1], thin[1], shift));
  if (status == FX_OK) {
    compare_rounded (s, "act_rounded alone", r[1][0], r[1][1], wide[1], wide[1]);
    compare_rounded (s, "gate_bwd_rounded", r[2][0], r[2][1], thin[0], thin[1]);
  }
  DO (fx_adaln_rounded (s.b, thin[0], r[3][0], stats, narrow, shift, scale, 1e-6f));
  DO (fx_adaln (s.b, thin[1], stats, narrow, shift, scale, 1e-6f));
  DO (fx_round_rows (s.b, r[3][1], thin[1], NULL));
  if (status == FX_OK)
    compare_rounded (s, "adaln_rounded", r[3][0], r[3][1], thin[0], thin[1]);
  if (status != FX_OK) {
    printf ("FAIL rounded ops: %s\n", fx_error_message ());
    n_failed++;
  }
#undef DO
  free (hx);
  free (hy);
  free (hs);
  free (ht);
}

static void
rounded_rope (side s, fx_dtype dtype, int64_t m, int heads, int hd)
{
  const int64_t d = heads * (int64_t)hd, pairs = hd / 2;
  float *h = draw ((size_t)(m * 3 * d), 1), *angles = draw ((size_t)(m * pairs), 1);
  fx_mat qkv = put (s, h, m, 3 * d, 0), dqk = put (s, h + 7, m, 2 * d, 0);
  fx_mat dqkv[2] = {put (s, h, m, 3 * d, 0), put (s, h, m, 3 * d, 0)};
  fx_mat qk = poisoned (s, m, 2 * d, 0);
  float *table = put_bytes (s, angles, (size_t)(m * pairs) * 4),
        *w = put_bytes (s, h, (size_t)(3 * d) * 4),
        *rstd = put_bytes (s, h, (size_t)(m * 2 * heads) * 4);
  fx_rope rope = {table, table, m};
  fx_rounded r[2] = {
      rounded_room (s, m, 3 * d, dtype), rounded_room (s, m, 3 * d, dtype)};

  if (fx_qknorm_rope (s.b, qk, rstd, qkv, w, w, &rope, 0, hd, 1e-6f) != FX_OK ||
      fx_qknorm_rope_bwd_rounded (
          s.b, dqkv[0], r[0], w, dqk, qkv, rstd, w, w, &rope, 0, hd) != FX_OK ||
      fx_qknorm_rope_bwd (s.b, dqkv[1], dqk, qkv, rstd, w, w, &rope, 0, hd) != FX_OK ||
      fx_round_rows (s.b, r[1], dqkv[1], w) != FX_OK) {
    printf ("FAIL qknorm_rope_bwd_rounded: %s\n", fx_error_message ());
    n_failed++;
  } else {
    compare_rounded (s, "qknorm_rope_bwd_rounded", r[0], r[1], dqkv[0], dqkv[1]);
  }
  free (h);
  free (angles);
}

/* Products in 8 bits. */
static void
eight_bit_ops (side gpu, side cpu, double bound)
{
  if (gpu.b->has_fp8) {
    rounding_ops (gpu, cpu, FX_Q_FP8, fmax (bound, FP8_BOUND), 208, 336);
    rounding_ops (gpu, cpu, FX_Q_FP8, fmax (bound, FP8_BOUND), 128, 1024);
  }
  rounding_ops (gpu, cpu, FX_Q_INT8, bound, 208, 336);
  for (int i = 0; i < 2; i++) {
    const fx_dtype dtype = i ? FX_I8 : FX_E4M3;

    if (dtype == FX_E4M3 && !gpu.b->has_fp8)
      continue;
    rounded_ops (gpu, dtype, 77, 128);
    rounded_ops (gpu, dtype, 33, 3072);
    rounded_ops (gpu, dtype, 9, 4608);
    rounded_rope (gpu, dtype, 77, 3, 64);
    rounded_rope (gpu, dtype, 33, 24, 128);
    rounded_rope (gpu, dtype, 9, 2, 48);
  }
}
