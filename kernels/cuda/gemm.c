/* kernels/cuda/gemm.c: linear layers on cuBLASLt. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "kernels/cuda/rounded.h"

/* Rows up to which reading the quantised weight once, without expanding it, wins. */
#define GEMV_ROWS 8

/* W in the type of the product, the compute dtype or fp32: where it stands expanded, or
 * as the file has it, or in scratch.
 */
static int
expanded (fx_cuda *c, const fx_weight *w, fx_dtype type, const void **p)
{
  void *scratch;

  if (w->expanded != NULL && type == c->base.compute) {
    *p = w->expanded;
    return FX_OK;
  }
  if (w->qtype == FX_Q_NONE && w->dtype == type) {
    *p = w->data;
    return FX_OK;
  }
  FX_TRY (fxc_scratch (
      c, FXC_SCRATCH_WEIGHT, (size_t)(w->n * w->k) * fx_dtype_size (type), &scratch));
  *p = scratch;
  return fxc_expand (&c->base, fx_mat_new (scratch, w->n, w->k, type), w);
}

/* A product with W expanded. */
static int
product (fx_cuda *c, fx_mat y, fx_mat x, const fx_weight *w, bool beta, bool gelu)
{
  const fxc_shape s = {.m = x.rows,
      .n = w->n,
      .k = w->k,
      .ldx = x.ld,
      .ldw = w->k,
      .ldy = y.ld,
      .dtype = x.dtype,
      .w_transposed = true,
      .beta = beta,
      .bias = w->bias != NULL,
      .gelu = gelu};
  const void *full, *bias = NULL;

  FX_TRY (expanded (c, w, x.dtype, &full));
  if (w->bias != NULL && x.dtype == FX_F32)
    bias = w->bias;
  else if (w->bias != NULL)
    FX_TRY (fxc_bias (c, w->bias, w->n, &bias));
  return fxc_matmul (c, &s, y.p, x.p, full, bias, 1);
}

int
fxc_gemm (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta)
{
  if (w->rounds_inputs)
    return fxc_rounding_gemm (fxc (b), y, x, w, beta);
  if (x.rows <= GEMV_ROWS && w->expanded == NULL)
    return fxc_gemv (b, y, x, w, beta);
  return product (fxc (b), y, x, w, beta, false);
}

/* cuBLASLt's GELU is no more exact than 16 bits need. */
int
fxc_gemm_gelu (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w)
{
  fx_cuda *c = fxc (b);
  int status;

  if (w->rounds_inputs || x.rows <= GEMV_ROWS || x.dtype == FX_F32 || c->no_gelu)
    return FX_ERR_UNSUPPORTED;
  status = product (c, y, x, w, false, true);
  c->no_gelu = status == FX_ERR_UNSUPPORTED;
  return status;
}

int
fxc_gemm_dgrad (fx_backend *b, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta)
{
  fx_cuda *c = fxc (b);
  const fxc_shape s = {.m = dy.rows,
      .n = w->k,
      .k = w->n,
      .ldx = dy.ld,
      .ldw = w->k,
      .ldy = dx.ld,
      .dtype = dy.dtype,
      .beta = beta};
  const void *full;

  if (w->rounds_inputs)
    return fxc_rounding_dgrad (c, dx, dy, w, beta);
  FX_TRY (expanded (c, w, dy.dtype, &full));
  return fxc_matmul (c, &s, dx.p, dy.p, full, NULL, 1);
}
