/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Checks of arguments, done once in front of every backend. */
#include "check.h"

#include <inttypes.h>

int
fx_check_pointer (const char *op, const char *name, const void *p)
{
  if (p == NULL)
    return fx_error (FX_ERR_SHAPE, "%s: %s is NULL", op, name);
  return FX_OK;
}

int
fx_check_mat (const char *op, const char *name, fx_mat m)
{
  if (m.p == NULL)
    return fx_error (FX_ERR_SHAPE, "%s: %s [%" PRId64 ", %" PRId64 "] has no buffer", op,
        name, m.rows, m.cols);
  if (m.rows < 1 || m.cols < 1 || m.ld < m.cols)
    return fx_error (FX_ERR_SHAPE,
        "%s: %s is [%" PRId64 ", %" PRId64 "] with a row stride of %" PRId64, op, name,
        m.rows, m.cols, m.ld);
  return FX_OK;
}

int
fx_check_float (const char *op, const char *name, fx_mat m)
{
  FX_TRY (fx_check_mat (op, name, m));
  if (m.dtype != FX_F32 && m.dtype != FX_BF16 && m.dtype != FX_F16)
    return fx_error (FX_ERR_SHAPE, "%s: %s is %s, must be F32, BF16 or F16", op, name,
        fx_dtype_name (m.dtype));
  return FX_OK;
}

int
fx_check_act (const fx_backend *b, const char *op, const char *name, fx_mat m)
{
  FX_TRY (fx_check_mat (op, name, m));
  if (m.dtype != b->compute && m.dtype != FX_F32)
    return fx_error (FX_ERR_SHAPE, "%s: %s is %s, the %s backend computes in %s", op,
        name, fx_dtype_name (m.dtype), b->name, fx_dtype_name (b->compute));
  return FX_OK;
}

int
fx_check_act_dims (const fx_backend *b, const char *op, const char *name, fx_mat m,
    int64_t rows, int64_t cols)
{
  FX_TRY (fx_check_act (b, op, name, m));
  if (m.rows != rows || m.cols != cols)
    return fx_error (FX_ERR_SHAPE,
        "%s: %s is [%" PRId64 ", %" PRId64 "], must be [%" PRId64 ", %" PRId64 "]", op,
        name, m.rows, m.cols, rows, cols);
  return FX_OK;
}

int
fx_check_dtype (const char *op, const char *name, fx_mat m, fx_dtype dtype)
{
  if (m.p != NULL && m.dtype != dtype)
    return fx_error (FX_ERR_SHAPE, "%s: %s is %s where the others are %s", op, name,
        fx_dtype_name (m.dtype), fx_dtype_name (dtype));
  return FX_OK;
}

static int
check_dtype (const char *op, const fx_weight *w)
{
  if (w->dtype != FX_F32 && w->dtype != FX_BF16 && w->dtype != FX_F16)
    return fx_error (FX_ERR_SHAPE, "%s: the weight [%" PRId64 ", %" PRId64 "] is %s", op,
        w->n, w->k, fx_dtype_name (w->dtype));
  return FX_OK;
}

static int
check_nf4 (const char *op, const fx_weight *w)
{
  if (w->k % FX_NF4_BLOCK != 0)
    return fx_error (FX_ERR_SHAPE,
        "%s: an NF4 weight of [%" PRId64 ", %" PRId64 "]: rows must be of whole blocks "
        "of %d",
        op, w->n, w->k, FX_NF4_BLOCK);
  if (w->qtype == FX_Q_NF4)
    return fx_check_pointer (op, "absmax of the NF4 weight", w->absmax);
  FX_TRY (fx_check_pointer (op, "absmax_q of the NF4 weight", w->absmax_q));
  FX_TRY (fx_check_pointer (op, "absmax2 of the NF4 weight", w->absmax2));
  FX_TRY (fx_check_pointer (op, "offset2 of the NF4 weight", w->offset2));
  return fx_check_pointer (op, "code8 of the NF4 weight", w->code8);
}

int
fx_check_weight (const char *op, const fx_weight *w)
{
  if (w == NULL)
    return fx_error (FX_ERR_SHAPE, "%s: no weight", op);
  if (w->n < 1 || w->k < 1)
    return fx_error (
        FX_ERR_SHAPE, "%s: a weight of [%" PRId64 ", %" PRId64 "]", op, w->n, w->k);
  if (w->data == NULL && w->expanded == NULL)
    return fx_error (FX_ERR_SHAPE,
        "%s: the weight [%" PRId64 ", %" PRId64 "] has no data", op, w->n, w->k);
  if (w->data == NULL)
    return FX_OK;
  if (w->home != FX_HOME_DEVICE)
    return fx_error (FX_ERR_SHAPE,
        "%s: the weight [%" PRId64 ", %" PRId64 "] is not on the device", op, w->n, w->k);
  FX_TRY (check_dtype (op, w));
  switch (w->qtype) {
    case FX_Q_NONE:
      return FX_OK;
    case FX_Q_NF4:
    case FX_Q_NF4_DOUBLE:
      return check_nf4 (op, w);
    case FX_Q_FP8:
    case FX_Q_INT8:
      if (w->rounds_inputs && (w->n % 16 != 0 || w->k % 16 != 0))
        return fx_error (FX_ERR_SHAPE,
            "%s: products in 8 bits need multiples of 16, not [%" PRId64 ", %" PRId64 "]",
            op, w->n, w->k);
      return fx_check_pointer (op, "absmax of the 8-bit weight", w->absmax);
  }
  return fx_error (FX_ERR_SHAPE, "%s: unknown quantisation %d", op, (int)w->qtype);
}

int
fx_check_rounded (const char *op, fx_rounded r, int64_t rows, int64_t cols)
{
  FX_TRY (fx_check_pointer (op, "the rounded matrix", r.q));
  FX_TRY (fx_check_pointer (op, "scales of the rounded matrix", r.scales));
  if (r.rows != rows || r.cols != cols || cols % 16 != 0)
    return fx_error (FX_ERR_SHAPE,
        "%s: the rounded matrix is [%" PRId64 ", %" PRId64 "], must be [%" PRId64
        ", %" PRId64 "] and of whole 16 columns",
        op, r.rows, r.cols, rows, cols);
  if (r.dtype != FX_E4M3 && r.dtype != FX_I8)
    return fx_error (FX_ERR_SHAPE, "%s: the rounded matrix is %s, must be F8_E4M3 or I8",
        op, fx_dtype_name (r.dtype));
  return FX_OK;
}
