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

int
fxc_gemm (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta)
{
  fx_cuda *c = fxc (b);
  fxc_shape s = {x.rows, w->n, w->k, x.ld, w->k, y.ld, x.dtype, true, beta,
      w->bias != NULL, FXC_SAME, NULL, NULL};
  const void *full, *bias = NULL;

  if (w->rounds_inputs)
    return fxc_rounding_gemm (c, y, x, w, beta);
  if (x.rows <= GEMV_ROWS && w->expanded == NULL)
    return fxc_gemv (b, y, x, w, beta);
  FX_TRY (expanded (c, w, x.dtype, &full));
  if (w->bias != NULL && x.dtype == FX_F32)
    bias = w->bias;
  else if (w->bias != NULL)
    FX_TRY (fxc_bias (c, w->bias, w->n, &bias));
  return fxc_matmul (c, &s, y.p, x.p, full, bias, 1);
}

int
fxc_gemm_dgrad (fx_backend *b, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta)
{
  fx_cuda *c = fxc (b);
  fxc_shape s = {dy.rows, w->k, w->n, dy.ld, w->k, dx.ld, dy.dtype, false, beta, false,
      FXC_SAME, NULL, NULL};
  const void *full;

  if (w->rounds_inputs)
    return fxc_rounding_dgrad (c, dx, dy, w, beta);
  FX_TRY (expanded (c, w, dy.dtype, &full));
  return fxc_matmul (c, &s, dx.p, dy.p, full, NULL, 1);
}
