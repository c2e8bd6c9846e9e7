/* kernels/cuda/gemm-fp8.c: linear layers in 8 bits. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The tensor cores take 8-bit operands whose depth is contiguous, so that a gradient
 * needs W the other way round: it is turned for each block and pass, which costs 2 bytes
 * of traffic a weight (8 ms of FLUX.1-dev's on an H100) and saves a second copy of 8 GB;
 * what a budget leaves keeps some of the copies. On sm_90 cuBLASLt applies a scale a row
 * of each operand itself; elsewhere a pass over the result does. Scales are powers of
 * two: both give the same bits before the bias. */
#include "kernels/cuda/fp8.h"

typedef struct {
  uint8_t *q;
  float *scales;
} rounded;

static int
round_rows (fx_cuda *c, fx_mat x, const float *factor, rounded *r)
{
  size_t bytes = ((size_t)(x.rows * x.cols) + 255) / 256 * 256;
  void *p;

  FX_TRY (
      fxc_scratch (c, FXC_SCRATCH_MATRIX, bytes + (size_t)x.rows * sizeof (float), &p));
  r->q = p;
  r->scales = (float *)((char *)p + bytes);
  return fxc_fp8_quantize (c, r->q, r->scales, x, factor);
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
    FX_TRY (fxc_fp8_ones (c, q->ones, n));
    q->n_ones = n;
  }
  *p = q->ones;
  return FX_OK;
}

/* y (+)= (x's scales) x (w's scales) w^T + bias; w lies as [y.cols, k], scales NULL:
 * ones. */
static int
product (fx_cuda *c, fx_mat y, const rounded *x, const uint8_t *w, int64_t k,
    const float *scales, const float *bias, bool beta)
{
  fxc_shape s = {.m = y.rows,
      .n = y.cols,
      .k = k,
      .ldx = k,
      .ldw = k,
      .ldy = y.ld,
      .dtype = y.dtype,
      .w_transposed = true};
  void *bare;

  if (c->has_row_scales && y.dtype != FX_F32) {
    const void *converted = NULL;
    int status;

    s.operands = FXC_E4M3_ROWS;
    s.beta = beta;
    s.bias = bias != NULL;
    s.x_scales = x->scales;
    s.w_scales = scales;
    if (scales == NULL)
      FX_TRY (ones (c, s.n, &s.w_scales));
    if (bias != NULL)
      FX_TRY (fxc_bias (c, bias, s.n, &converted));
    status = fxc_matmul (c, &s, y.p, x->q, w, converted, 1);
    if (status != FX_ERR_UNSUPPORTED)
      return status;
    c->has_row_scales = false; /* a cuBLASLt that knows them not */
  }
  s.operands = FXC_E4M3;
  s.ldy = s.n;
  s.beta = s.bias = false;
  FX_TRY (fxc_scratch (
      c, FXC_SCRATCH_PARTIAL, (size_t)(s.m * s.n) * fx_dtype_size (y.dtype), &bare));
  FX_TRY (fxc_matmul (c, &s, bare, x->q, w, NULL, 1));
  return fxc_fp8_apply (c, y, bare, x->scales, scales, bias, beta);
}

int
fxc_fp8_gemm (fx_cuda *c, fx_mat y, fx_mat x, const fx_weight *w, bool beta)
{
  rounded r;

  FX_TRY (round_rows (c, x, NULL, &r));
  return product (c, y, &r, w->data, w->k, w->absmax, w->bias, beta);
}

/* dx = (dy s) q for W = s q, s one a row of W: a scale along the depth goes into dy. */
int
fxc_fp8_dgrad (fx_cuda *c, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta)
{
  rounded r;
  void *turned = w->expanded;

  FX_TRY (round_rows (c, dy, w->absmax, &r));
  if (turned == NULL) {
    FX_TRY (fxc_scratch (c, FXC_SCRATCH_WEIGHT, (size_t)(w->n * w->k), &turned));
    FX_TRY (fxc_fp8_transpose (c, turned, w->data, w->n, w->k));
  }
  return product (c, dx, &r, turned, w->n, NULL, NULL, beta);
}
