/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Checked front functions of the transformer's ops. */
#include "check.h"

#include <inttypes.h>
#include <string.h>

int
fx_adaln (fx_backend *b, fx_mat y, float *stats, fx_mat x, const float *shift,
    const float *scale, float eps)
{
  FX_CHECK_OP (adaln, b);
  FX_TRY (fx_check_act (b, "adaln", "x", x));
  FX_TRY (fx_check_act_dims (b, "adaln", "y", y, x.rows, x.cols));
  FX_TRY (fx_check_pointer ("adaln", "shift", shift));
  FX_TRY (fx_check_pointer ("adaln", "scale", scale));
  return b->ops->adaln (b, y, stats, x, shift, scale, eps);
}

int
fx_adaln_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, const float *stats, const float *scale)
{
  FX_CHECK_OP (adaln_bwd, b);
  FX_TRY (fx_check_act (b, "adaln_bwd", "x", x));
  FX_TRY (fx_check_act_dims (b, "adaln_bwd", "dy", dy, x.rows, x.cols));
  FX_TRY (fx_check_act_dims (b, "adaln_bwd", "dx", dx, x.rows, x.cols));
  FX_TRY (fx_check_dtype ("adaln_bwd", "dx", dx, x.dtype));
  FX_TRY (fx_check_pointer ("adaln_bwd", "stats", stats));
  FX_TRY (fx_check_pointer ("adaln_bwd", "scale", scale));
  return b->ops->adaln_bwd (b, dx, dy, x, stats, scale);
}

static int
check_qknorm (const fx_backend *b, const char *op, fx_mat qk, fx_mat qkv, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim)
{
  FX_TRY (fx_check_act (b, op, "qkv", qkv));
  if (head_dim < 2 || head_dim % 2 != 0 || qkv.cols % 3 != 0 ||
      qkv.cols / 3 % head_dim != 0)
    return fx_error (FX_ERR_SHAPE,
        "%s: qkv [%" PRId64 ", %" PRId64 "] is not three times whole heads of %d", op,
        qkv.rows, qkv.cols, head_dim);
  FX_TRY (fx_check_act_dims (b, op, "qk", qk, qkv.rows, qkv.cols / 3 * 2));
  FX_TRY (fx_check_dtype (op, "qk", qk, qkv.dtype));
  FX_TRY (fx_check_pointer (op, "wq", wq));
  FX_TRY (fx_check_pointer (op, "wk", wk));
  FX_TRY (fx_check_pointer (op, "rope", rope));
  FX_TRY (fx_check_pointer (op, "cosines of rope", rope->cos));
  FX_TRY (fx_check_pointer (op, "sines of rope", rope->sin));
  if (rope_row < 0 || rope_row > rope->tokens || qkv.rows > rope->tokens - rope_row)
    return fx_error (FX_ERR_SHAPE,
        "%s: %" PRId64 " rows from row %" PRId64 " of a rope table of %" PRId64 " tokens",
        op, qkv.rows, rope_row, rope->tokens);
  return FX_OK;
}

int
fx_qknorm_rope (fx_backend *b, fx_mat qk, float *rstd, fx_mat qkv, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim, float eps)
{
  FX_CHECK_OP (qknorm_rope, b);
  FX_TRY (check_qknorm (b, "qknorm_rope", qk, qkv, wq, wk, rope, rope_row, head_dim));
  return b->ops->qknorm_rope (b, qk, rstd, qkv, wq, wk, rope, rope_row, head_dim, eps);
}

int
fx_qknorm_rope_bwd (fx_backend *b, fx_mat dqkv, fx_mat dqk, fx_mat qkv, const float *rstd,
    const float *wq, const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim)
{
  const char *op = "qknorm_rope_bwd";

  FX_CHECK_OP (qknorm_rope_bwd, b);
  FX_TRY (check_qknorm (b, op, dqk, qkv, wq, wk, rope, rope_row, head_dim));
  FX_TRY (fx_check_act_dims (b, op, "dqkv", dqkv, qkv.rows, qkv.cols));
  FX_TRY (fx_check_pointer (op, "rstd", rstd));
  return b->ops->qknorm_rope_bwd (
      b, dqkv, dqk, qkv, rstd, wq, wk, rope, rope_row, head_dim);
}

int
fx_qknorm_rope_bwd_rounded (fx_backend *b, fx_mat dqkv, fx_rounded r, const float *factor,
    fx_mat dqk, fx_mat qkv, const float *rstd, const float *wq, const float *wk,
    const fx_rope *rope, int64_t rope_row, int head_dim)
{
  const char *op = "qknorm_rope_bwd_rounded";

  FX_CHECK_OP (qknorm_rope_bwd_rounded, b);
  FX_TRY (check_qknorm (b, op, dqk, qkv, wq, wk, rope, rope_row, head_dim));
  FX_TRY (fx_check_act_dims (b, op, "dqkv", dqkv, qkv.rows, qkv.cols));
  FX_TRY (fx_check_rounded (op, r, qkv.rows, qkv.cols));
  FX_TRY (fx_check_pointer (op, "rstd", rstd));
  return b->ops->qknorm_rope_bwd_rounded (
      b, dqkv, r, factor, dqk, qkv, rstd, wq, wk, rope, rope_row, head_dim);
}

static int
check_attention (const fx_backend *b, const char *op, fx_mat o, fx_mat q, fx_mat k,
    fx_mat v, const fx_attn *a)
{
  FX_TRY (fx_check_pointer (op, "the description", a));
  FX_TRY (fx_check_act (b, op, "q", q));
  if (a->heads < 1 || a->head_dim < 1 || q.cols / a->heads != a->head_dim ||
      q.cols % a->heads != 0)
    return fx_error (FX_ERR_SHAPE,
        "%s: q [%" PRId64 ", %" PRId64 "] is not %d heads of %d", op, q.rows, q.cols,
        a->heads, a->head_dim);
  FX_TRY (fx_check_act_dims (b, op, "o", o, q.rows, q.cols));
  FX_TRY (fx_check_act_dims (b, op, "k", k, k.rows, q.cols));
  FX_TRY (fx_check_act_dims (b, op, "v", v, k.rows, q.cols));
  FX_TRY (fx_check_dtype (op, "o", o, q.dtype));
  FX_TRY (fx_check_dtype (op, "k", k, q.dtype));
  FX_TRY (fx_check_dtype (op, "v", v, q.dtype));
  if (a->causal && q.rows != k.rows)
    return fx_error (FX_ERR_SHAPE,
        "%s: causal with %" PRId64 " queries and %" PRId64 " keys", op, q.rows, k.rows);
  return FX_OK;
}

int
fx_attention (
    fx_backend *b, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  FX_CHECK_OP (attention, b);
  FX_TRY (check_attention (b, "attention", o, q, k, v, a));
  return b->ops->attention (b, o, lse, q, k, v, a);
}

int
fx_attention_bwd (fx_backend *b, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o, fx_mat o,
    const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  const char *op = "attention_bwd";

  FX_CHECK_OP (attention_bwd, b);
  FX_TRY (check_attention (b, op, o, q, k, v, a));
  if (a->causal || a->bias != NULL)
    return fx_error (FX_ERR_UNSUPPORTED, "%s: with a mask or a bias", op);
  FX_TRY (fx_check_act_dims (b, op, "d_o", d_o, q.rows, q.cols));
  FX_TRY (fx_check_act_dims (b, op, "dq", dq, q.rows, q.cols));
  FX_TRY (fx_check_act_dims (b, op, "dk", dk, k.rows, k.cols));
  FX_TRY (fx_check_act_dims (b, op, "dv", dv, k.rows, k.cols));
  FX_TRY (fx_check_pointer (op, "lse", lse));
  return b->ops->attention_bwd (b, dq, dk, dv, d_o, o, lse, q, k, v, a);
}

static int
check_kind (const char *op, fx_act kind)
{
  if ((unsigned)kind > FX_ACT_RELU)
    return fx_error (FX_ERR_SHAPE, "%s: unknown activation function %d", op, (int)kind);
  return FX_OK;
}

int
fx_act_fwd (fx_backend *b, fx_mat y, fx_mat x, fx_mat mul, fx_act kind)
{
  FX_CHECK_OP (act, b);
  FX_TRY (check_kind ("act", kind));
  FX_TRY (fx_check_act (b, "act", "x", x));
  FX_TRY (fx_check_act_dims (b, "act", "y", y, x.rows, x.cols));
  if (mul.p != NULL)
    FX_TRY (fx_check_act_dims (b, "act", "mul", mul, x.rows, x.cols));
  FX_TRY (fx_check_dtype ("act", "mul", mul, x.dtype));
  return b->ops->act (b, y, x, mul, kind);
}

int
fx_act_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_act kind)
{
  FX_CHECK_OP (act_bwd, b);
  FX_TRY (check_kind ("act_bwd", kind));
  FX_TRY (fx_check_act (b, "act_bwd", "x", x));
  FX_TRY (fx_check_act_dims (b, "act_bwd", "dy", dy, x.rows, x.cols));
  FX_TRY (fx_check_act_dims (b, "act_bwd", "dx", dx, x.rows, x.cols));
  FX_TRY (fx_check_dtype ("act_bwd", "dy", dy, x.dtype));
  FX_TRY (fx_check_dtype ("act_bwd", "dx", dx, x.dtype));
  return b->ops->act_bwd (b, dx, dy, x, kind);
}

int
fx_gate_residual (fx_backend *b, fx_mat out, fx_mat x, fx_mat y, const float *gate)
{
  FX_CHECK_OP (gate_residual, b);
  FX_TRY (fx_check_act (b, "gate_residual", "x", x));
  FX_TRY (fx_check_act_dims (b, "gate_residual", "y", y, x.rows, x.cols));
  FX_TRY (fx_check_act_dims (b, "gate_residual", "out", out, x.rows, x.cols));
  FX_TRY (fx_check_dtype ("gate_residual", "out", out, x.dtype));
  return b->ops->gate_residual (b, out, x, y, gate);
}

int
fx_gate_bwd (fx_backend *b, fx_mat dy, fx_mat dout, const float *gate)
{
  FX_CHECK_OP (gate_bwd, b);
  FX_TRY (fx_check_act (b, "gate_bwd", "dout", dout));
  FX_TRY (fx_check_act_dims (b, "gate_bwd", "dy", dy, dout.rows, dout.cols));
  return b->ops->gate_bwd (b, dy, dout, gate);
}

int
fx_mse (fx_backend *b, double *loss, fx_mat dpred, fx_mat pred, fx_mat target,
    float weight, float grad_scale)
{
  FX_CHECK_OP (mse, b);
  FX_TRY (fx_check_pointer ("mse", "loss", loss));
  FX_TRY (fx_check_act (b, "mse", "pred", pred));
  FX_TRY (fx_check_act_dims (b, "mse", "target", target, pred.rows, pred.cols));
  if (target.dtype != FX_F32)
    return fx_error (
        FX_ERR_SHAPE, "mse: target is %s, must be F32", fx_dtype_name (target.dtype));
  if (dpred.p != NULL)
    FX_TRY (fx_check_act_dims (b, "mse", "dpred", dpred, pred.rows, pred.cols));
  FX_TRY (fx_check_dtype ("mse", "dpred", dpred, pred.dtype));
  return b->ops->mse (b, loss, dpred, pred, target, weight, grad_scale);
}
