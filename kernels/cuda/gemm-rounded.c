/* kernels/cuda/gemm-rounded.c: linear layers in 8 bits. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The tensor cores take 8-bit operands whose depth is contiguous, so that a gradient
 * needs W the other way round: it is turned for each block and pass, which costs 2 bytes
 * of traffic a weight (8 ms of FLUX.1-dev's on an H100) and saves a second copy of 8 GB;
 * what a budget leaves keeps some of the copies.
 *
 * On sm_90 cuBLASLt applies a scale a row of each e4m3 operand itself, in one kernel that
 * is a fifth slower than those without scales; a pass over the result applies them where
 * that pass is the smaller part (deep products), where cuBLASLt cannot, and in int8. */
#include "kernels/cuda/rounded.h"

#define DEEP 2 /* times as deep as wide: scales by a pass of its own */
#define MOST_SUMS ((size_t)32 << 20) /* bytes of int32 at once */

/* Scratch for x [rows, cols] in 8 bits. */
static int
rounded_scratch (fx_cuda *c, fx_mat x, fx_dtype dtype, fx_rounded *r)
{
  size_t bytes = ((size_t)(x.rows * x.cols) + 255) / 256 * 256;
  void *p;

  FX_TRY (
      fxc_scratch (c, FXC_SCRATCH_MATRIX, bytes + (size_t)x.rows * sizeof (float), &p));
  *r = (fx_rounded){p, (float *)((char *)p + bytes), x.rows, x.cols, dtype};
  return FX_OK;
}

static int
ones (fx_cuda *c, int64_t n, const float **p)
{
  fxc_queue *q = &c->queue;

  if (q->n_ones < n) {
    FXC_TRY (c, cudaStreamSynchronize (q->stream));
    FXC_TRY (c, cudaFree (q->ones));
    q->ones = NULL;
    q->n_ones = 0;
    FXC_TRY (c, cudaMalloc ((void **)&q->ones, (size_t)n * sizeof (float)));
    FX_TRY (fxc_ones (c, q->ones, n));
    q->n_ones = n;
  }
  *p = q->ones;
  return FX_OK;
}

/* What a product is made of: w lies as [y.cols, depth], scales NULL: ones. */
typedef struct {
  const uint8_t *w;
  const float *scales, *bias;
  bool beta;
} terms;

/* FX_ERR_UNSUPPORTED by a cuBLASLt that knows no scales of rows. */
static int
scaled_product (fx_cuda *c, fx_mat y, fx_rounded x, const terms *t)
{
  fxc_shape s = {.m = y.rows,
      .n = y.cols,
      .k = x.cols,
      .ldx = x.cols,
      .ldw = x.cols,
      .ldy = y.ld,
      .dtype = y.dtype,
      .w_transposed = true,
      .beta = t->beta,
      .bias = t->bias != NULL,
      .operands = FXC_E4M3_ROWS,
      .x_scales = x.scales,
      .w_scales = t->scales};
  const void *bias = NULL;

  if (t->scales == NULL)
    FX_TRY (ones (c, s.n, &s.w_scales));
  if (t->bias != NULL)
    FX_TRY (fxc_bias (c, t->bias, s.n, &bias));
  return fxc_matmul (c, &s, y.p, x.q, t->w, bias, 1);
}

/* The bare product in scratch, then scales, bias and sum. */
static int
bare_product (fx_cuda *c, fx_mat y, fx_rounded x, const terms *t)
{
  const bool is_int8 = x.dtype == FX_I8;
  fx_mat p = fx_mat_new (NULL, y.rows, y.cols, is_int8 ? FX_I32 : y.dtype);
  fxc_shape s = {.m = y.rows,
      .n = y.cols,
      .k = x.cols,
      .ldx = x.cols,
      .ldw = x.cols,
      .ldy = y.cols,
      .dtype = p.dtype,
      .w_transposed = true,
      .operands = is_int8 ? FXC_INT8 : FXC_E4M3};

  FX_TRY (fxc_scratch (
      c, FXC_SCRATCH_PARTIAL, (size_t)(s.m * s.n) * fx_dtype_size (p.dtype), &p.p));
  FX_TRY (fxc_matmul (c, &s, p.p, x.q, t->w, NULL, 1));
  return fxc_apply_scales (c, y, p, x.scales, t->scales, t->bias, t->beta);
}

/* y (+)= (x's scales) x (w's scales) w^T + bias. */
static int
product (fx_cuda *c, fx_mat y, fx_rounded x, const terms *t)
{
  int64_t most = (int64_t)(MOST_SUMS / sizeof (int32_t)) / y.cols;

  if (x.dtype == FX_E4M3 && c->has_row_scales && y.dtype != FX_F32 &&
      x.cols < DEEP * y.cols) {
    int status = scaled_product (c, y, x, t);

    if (status != FX_ERR_UNSUPPORTED)
      return status;
    c->has_row_scales = false;
  }
  if (x.dtype == FX_E4M3)
    return bare_product (c, y, x, t);
  most = most < 16 ? 16 : most;
  for (int64_t row = 0; row < y.rows; row += most) {
    fx_rounded part = x;

    part.rows = x.rows - row < most ? x.rows - row : most;
    part.q = (char *)x.q + row * x.cols;
    part.scales = x.scales + row;
    FX_TRY (bare_product (c, fx_rows (y, row, part.rows), part, t));
  }
  return FX_OK;
}

int
fxc_gemm_rounded (fx_backend *b, fx_mat y, fx_rounded x, const fx_weight *w, bool beta)
{
  const terms t = {w->data, w->absmax, w->bias, beta};

  return product (fxc (b), y, x, &t);
}

/* dx = (dy s) q for W = s q, s one a row of W: a scale along the depth is in dy. */
int
fxc_dgrad_rounded (fx_backend *b, fx_mat dx, fx_rounded dy, const fx_weight *w, bool beta)
{
  fx_cuda *c = fxc (b);
  void *turned = w->expanded;
  terms t = {.beta = beta};

  if (turned == NULL) {
    FX_TRY (fxc_scratch (c, FXC_SCRATCH_WEIGHT, (size_t)(w->n * w->k), &turned));
    FX_TRY (fxc_transpose_bytes (c, turned, w->data, w->n, w->k));
  }
  t.w = turned;
  return product (c, dx, dy, &t);
}

int
fxc_rounding_gemm (fx_cuda *c, fx_mat y, fx_mat x, const fx_weight *w, bool beta)
{
  fx_rounded r;

  FX_TRY (rounded_scratch (c, x, fx_rounded_dtype (w), &r));
  FX_TRY (fxc_round_rows (&c->base, r, x, NULL));
  return fxc_gemm_rounded (&c->base, y, r, w, beta);
}

int
fxc_rounding_dgrad (fx_cuda *c, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta)
{
  fx_rounded r;

  FX_TRY (rounded_scratch (c, dy, fx_rounded_dtype (w), &r));
  FX_TRY (fxc_round_rows (&c->base, r, dy, w->absmax));
  return fxc_dgrad_rounded (&c->base, dx, r, w, beta);
}
