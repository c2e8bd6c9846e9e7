/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Checked front functions of products in 8 bits whose operand has been rounded before. */
#include "check.h"

#include <inttypes.h>

/* A result beside the rounded one. */
static int
check_beside (
    const fx_backend *b, const char *op, const char *name, fx_mat m, fx_rounded r)
{
  return m.p == NULL ? FX_OK : fx_check_act_dims (b, op, name, m, r.rows, r.cols);
}

static int
check_weight (const char *op, const fx_weight *w, fx_rounded r)
{
  FX_TRY (fx_check_weight (op, w));
  if (!w->rounds_inputs || fx_rounded_dtype (w) != r.dtype)
    return fx_error (FX_ERR_SHAPE, "%s: the weight does not go with rows of %s", op,
        fx_dtype_name (r.dtype));
  return FX_OK;
}

int
fx_round_rows (fx_backend *b, fx_rounded r, fx_mat x, const float *factor)
{
  FX_CHECK_OP (round_rows, b);
  FX_TRY (fx_check_act (b, "round_rows", "x", x));
  FX_TRY (fx_check_rounded ("round_rows", r, x.rows, x.cols));
  return b->ops->round_rows (b, r, x, factor);
}

int
fx_gemm_rounded (fx_backend *b, fx_mat y, fx_rounded x, const fx_weight *w, bool beta)
{
  FX_CHECK_OP (gemm_rounded, b);
  FX_TRY (check_weight ("gemm_rounded", w, x));
  FX_TRY (fx_check_rounded ("gemm_rounded", x, x.rows, w->k));
  FX_TRY (fx_check_act_dims (b, "gemm_rounded", "y", y, x.rows, w->n));
  return b->ops->gemm_rounded (b, y, x, w, beta);
}

int
fx_dgrad_rounded (fx_backend *b, fx_mat dx, fx_rounded dy, const fx_weight *w, bool beta)
{
  FX_CHECK_OP (dgrad_rounded, b);
  FX_TRY (check_weight ("dgrad_rounded", w, dy));
  FX_TRY (fx_check_rounded ("dgrad_rounded", dy, dy.rows, w->n));
  FX_TRY (fx_check_act_dims (b, "dgrad_rounded", "dx", dx, dy.rows, w->k));
  return b->ops->dgrad_rounded (b, dx, dy, w, beta);
}

int
fx_adaln_rounded (fx_backend *b, fx_mat y, fx_rounded r, float *stats, fx_mat x,
    const float *shift, const float *scale, float eps)
{
  FX_CHECK_OP (adaln_rounded, b);
  FX_TRY (fx_check_act (b, "adaln_rounded", "x", x));
  FX_TRY (fx_check_rounded ("adaln_rounded", r, x.rows, x.cols));
  FX_TRY (fx_check_act_dims (b, "adaln_rounded", "y", y, x.rows, x.cols));
  FX_TRY (fx_check_pointer ("adaln_rounded", "shift", shift));
  FX_TRY (fx_check_pointer ("adaln_rounded", "scale", scale));
  return b->ops->adaln_rounded (b, y, r, stats, x, shift, scale, eps);
}

int
fx_act_rounded (fx_backend *b, fx_mat y, fx_rounded r, fx_mat left, fx_mat x, fx_act kind)
{
  const int64_t before = left.p != NULL ? left.cols : 0;

  FX_CHECK_OP (act_rounded, b);
  FX_TRY (fx_check_act (b, "act_rounded", "x", x));
  if (left.p != NULL)
    FX_TRY (fx_check_act_dims (b, "act_rounded", "left", left, x.rows, before));
  FX_TRY (fx_check_rounded ("act_rounded", r, x.rows, before + x.cols));
  FX_TRY (check_beside (b, "act_rounded", "y", y, r));
  FX_TRY (fx_check_dtype ("act_rounded", "left", left, x.dtype));
  FX_TRY (fx_check_dtype ("act_rounded", "y", y, x.dtype));
  return b->ops->act_rounded (b, y, r, left, x, kind);
}

int
fx_act_bwd_rounded (fx_backend *b, fx_mat dx, fx_rounded r, const float *factor,
    fx_mat dy, fx_mat x, fx_act kind)
{
  FX_CHECK_OP (act_bwd_rounded, b);
  FX_TRY (fx_check_act (b, "act_bwd_rounded", "x", x));
  FX_TRY (fx_check_act_dims (b, "act_bwd_rounded", "dy", dy, x.rows, x.cols));
  FX_TRY (fx_check_rounded ("act_bwd_rounded", r, x.rows, x.cols));
  FX_TRY (check_beside (b, "act_bwd_rounded", "dx", dx, r));
  FX_TRY (fx_check_dtype ("act_bwd_rounded", "dy", dy, x.dtype));
  FX_TRY (fx_check_dtype ("act_bwd_rounded", "dx", dx, x.dtype));
  return b->ops->act_bwd_rounded (b, dx, r, factor, dy, x, kind);
}

int
fx_gate_bwd_rounded (fx_backend *b, fx_mat dy, fx_rounded r, const float *factor,
    fx_mat dout, const float *gate)
{
  FX_CHECK_OP (gate_bwd_rounded, b);
  FX_TRY (fx_check_act (b, "gate_bwd_rounded", "dout", dout));
  FX_TRY (fx_check_rounded ("gate_bwd_rounded", r, dout.rows, dout.cols));
  FX_TRY (check_beside (b, "gate_bwd_rounded", "dy", dy, r));
  return b->ops->gate_bwd_rounded (b, dy, r, factor, dout, gate);
}
