/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Checked front functions of the linear layers and their LoRA modules. */
#include "check.h"

#include <inttypes.h>

int
fx_expand (fx_backend *b, fx_mat dst, const fx_weight *w)
{
  FX_CHECK_OP (expand, b);
  FX_TRY (fx_check_weight ("expand", w));
  FX_TRY (fx_check_pointer ("expand", "data of the weight", w->data));
  if (w->rounds_inputs && dst.dtype == fx_rounded_dtype (w)) {
    if (dst.rows != w->k || dst.cols != w->n || dst.ld != w->n)
      return fx_error (
          FX_ERR_SHAPE, "expand: W^T is [%" PRId64 ", %" PRId64 "]", w->k, w->n);
    return b->ops->expand (b, dst, w);
  }
  FX_TRY (fx_check_float ("expand", "dst", dst));
  if (dst.rows != w->n || dst.cols != w->k)
    return fx_error (FX_ERR_SHAPE,
        "expand: dst is [%" PRId64 ", %" PRId64 "], the weight [%" PRId64 ", %" PRId64
        "]",
        dst.rows, dst.cols, w->n, w->k);
  return b->ops->expand (b, dst, w);
}

static int
check_gemm (const fx_backend *b, const char *op, fx_mat y, fx_mat x, const fx_weight *w)
{
  FX_TRY (fx_check_weight (op, w));
  FX_TRY (fx_check_act_dims (b, op, "x", x, x.rows, w->k));
  FX_TRY (fx_check_act_dims (b, op, "y", y, x.rows, w->n));
  return fx_check_dtype (op, "y", y, x.dtype);
}

int
fx_gemm (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta)
{
  FX_CHECK_OP (gemm, b);
  FX_TRY (check_gemm (b, "gemm", y, x, w));
  return b->ops->gemm (b, y, x, w, beta);
}

int
fx_gemm_gelu (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w)
{
  const fx_mat none = {.dtype = y.dtype};
  int status = FX_ERR_UNSUPPORTED;

  FX_CHECK_OP (gemm, b);
  FX_TRY (check_gemm (b, "gemm_gelu", y, x, w));
  if (b->ops->gemm_gelu != NULL)
    status = b->ops->gemm_gelu (b, y, x, w);
  if (status != FX_ERR_UNSUPPORTED)
    return status;
  FX_TRY (b->ops->gemm (b, y, x, w, false));
  return fx_act_fwd (b, y, y, none, FX_ACT_GELU_TANH);
}

int
fx_gemm_dgrad (fx_backend *b, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta)
{
  FX_CHECK_OP (gemm_dgrad, b);
  FX_TRY (fx_check_weight ("gemm_dgrad", w));
  FX_TRY (fx_check_act_dims (b, "gemm_dgrad", "dy", dy, dy.rows, w->n));
  FX_TRY (fx_check_act_dims (b, "gemm_dgrad", "dx", dx, dy.rows, w->k));
  FX_TRY (fx_check_dtype ("gemm_dgrad", "dx", dx, dy.dtype));
  return b->ops->gemm_dgrad (b, dx, dy, w, beta);
}

/* n modules that can be one group on the columns of out (y or dy). */
static int
check_lora (const char *op, const fx_lora *l, int n, const char *name, fx_mat out)
{
  FX_TRY (fx_check_pointer (op, "the LoRA module", l));
  if (n < 1)
    return fx_error (FX_ERR_SHAPE, "%s: a group of %d LoRA modules", op, n);
  if (out.cols % n != 0)
    return fx_error (FX_ERR_SHAPE,
        "%s: the %" PRId64 " columns of %s are not %d equal parts", op, out.cols, name,
        n);
  for (int i = 0; i < n; i++) {
    FX_TRY (fx_check_pointer (op, "A of the LoRA module", l[i].a));
    FX_TRY (fx_check_pointer (op, "B of the LoRA module", l[i].b));
    if (l[i].rank < 1)
      return fx_error (FX_ERR_SHAPE, "%s: a LoRA module of rank %d", op, l[i].rank);
    if (l[i].rank != l[0].rank)
      return fx_error (FX_ERR_SHAPE, "%s: LoRA modules of ranks %d and %d in one group",
          op, l[0].rank, l[i].rank);
    if ((l[i].da == NULL) != (l[0].da == NULL) || (l[i].db == NULL) != (l[0].db == NULL))
      return fx_error (
          FX_ERR_SHAPE, "%s: trained and frozen LoRA modules in one group", op);
  }
  return FX_OK;
}

int
fx_lora_fwd (fx_backend *b, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l, int n)
{
  FX_CHECK_OP (lora, b);
  FX_TRY (check_lora ("lora", l, n, "y", y));
  FX_TRY (fx_check_act (b, "lora", "x", x));
  FX_TRY (fx_check_act_dims (b, "lora", "y", y, x.rows, y.cols));
  FX_TRY (fx_check_act_dims (b, "lora", "h", h, x.rows, n * (int64_t)l->rank));
  FX_TRY (fx_check_dtype ("lora", "y", y, x.dtype));
  FX_TRY (fx_check_dtype ("lora", "h", h, x.dtype));
  return b->ops->lora (b, y, h, x, l, n);
}

int
fx_lora_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n)
{
  FX_CHECK_OP (lora_bwd, b);
  FX_TRY (check_lora ("lora_bwd", l, n, "dy", dy));
  FX_TRY (fx_check_act (b, "lora_bwd", "x", x));
  FX_TRY (fx_check_act_dims (b, "lora_bwd", "dy", dy, x.rows, dy.cols));
  if (dx.p != NULL)
    FX_TRY (fx_check_act_dims (b, "lora_bwd", "dx", dx, x.rows, x.cols));
  if (h.p != NULL)
    FX_TRY (fx_check_act_dims (b, "lora_bwd", "h", h, x.rows, n * (int64_t)l->rank));
  FX_TRY (fx_check_dtype ("lora_bwd", "dy", dy, x.dtype));
  FX_TRY (fx_check_dtype ("lora_bwd", "dx", dx, x.dtype));
  FX_TRY (fx_check_dtype ("lora_bwd", "h", h, x.dtype));
  return b->ops->lora_bwd (b, dx, dy, x, h, l, n);
}
