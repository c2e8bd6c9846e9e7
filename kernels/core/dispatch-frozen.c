/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Checked front functions of the frozen models' ops, and of copies. */
#include "check.h"

#include <inttypes.h>

/* Output size along one axis, or 0 when the kernel does not fit. */
static int64_t
conv_out (int64_t in, int before, int after, int kernel, int stride)
{
  int64_t room = in + before + after - kernel;
  return room < 0 ? 0 : room / stride + 1;
}

int
fx_conv2d (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *c)
{
  int64_t out_h, out_w;

  FX_CHECK_OP (conv2d, b);
  FX_TRY (fx_check_pointer ("conv2d", "the description", c));
  FX_TRY (fx_check_weight ("conv2d", w));
  if (c->kernel < 1 || c->stride < 1 || c->height < 1 || c->width < 1 || c->pad_top < 0 ||
      c->pad_left < 0 || c->pad_bottom < 0 || c->pad_right < 0)
    return fx_error (FX_ERR_SHAPE,
        "conv2d: kernel %d, stride %d, image %d x %d, padding %d %d %d %d", c->kernel,
        c->stride, c->width, c->height, c->pad_top, c->pad_left, c->pad_bottom,
        c->pad_right);
  FX_TRY (fx_check_act_dims (b, "conv2d", "x", x, (int64_t)c->height * c->width, x.cols));
  if (w->k % ((int64_t)c->kernel * c->kernel) != 0 ||
      w->k / ((int64_t)c->kernel * c->kernel) != x.cols)
    return fx_error (FX_ERR_SHAPE,
        "conv2d: a weight of [%" PRId64 ", %" PRId64 "] for %" PRId64
        " channels and a kernel of %d",
        w->n, w->k, x.cols, c->kernel);
  out_h = conv_out (c->height, c->pad_top, c->pad_bottom, c->kernel, c->stride);
  out_w = conv_out (c->width, c->pad_left, c->pad_right, c->kernel, c->stride);
  FX_TRY (fx_check_act_dims (b, "conv2d", "y", y, out_h * out_w, w->n));
  return b->ops->conv2d (b, y, x, w, c);
}

int
fx_groupnorm (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu)
{
  FX_CHECK_OP (groupnorm, b);
  FX_TRY (fx_check_act (b, "groupnorm", "x", x));
  FX_TRY (fx_check_act_dims (b, "groupnorm", "y", y, x.rows, x.cols));
  FX_TRY (fx_check_pointer ("groupnorm", "weight", weight));
  FX_TRY (fx_check_pointer ("groupnorm", "bias", bias));
  if (groups < 1 || x.cols % groups != 0)
    return fx_error (
        FX_ERR_SHAPE, "groupnorm: %" PRId64 " channels in %d groups", x.cols, groups);
  return b->ops->groupnorm (b, y, x, groups, weight, bias, eps, silu);
}

int
fx_layernorm (
    fx_backend *b, fx_mat y, fx_mat x, const float *weight, const float *bias, float eps)
{
  FX_CHECK_OP (layernorm, b);
  FX_TRY (fx_check_act (b, "layernorm", "x", x));
  FX_TRY (fx_check_act_dims (b, "layernorm", "y", y, x.rows, x.cols));
  FX_TRY (fx_check_pointer ("layernorm", "weight", weight));
  FX_TRY (fx_check_pointer ("layernorm", "bias", bias));
  return b->ops->layernorm (b, y, x, weight, bias, eps);
}

int
fx_rmsnorm (fx_backend *b, fx_mat y, fx_mat x, const float *weight, float eps)
{
  FX_CHECK_OP (rmsnorm, b);
  FX_TRY (fx_check_act (b, "rmsnorm", "x", x));
  FX_TRY (fx_check_act_dims (b, "rmsnorm", "y", y, x.rows, x.cols));
  FX_TRY (fx_check_pointer ("rmsnorm", "weight", weight));
  return b->ops->rmsnorm (b, y, x, weight, eps);
}

int
fx_upsample2 (fx_backend *b, fx_mat y, fx_mat x, int height, int width)
{
  FX_CHECK_OP (upsample2, b);
  if (height < 1 || width < 1)
    return fx_error (FX_ERR_SHAPE, "upsample2: an image of %d x %d", width, height);
  FX_TRY (fx_check_act_dims (b, "upsample2", "x", x, (int64_t)height * width, x.cols));
  FX_TRY (fx_check_act_dims (b, "upsample2", "y", y, 4 * x.rows, x.cols));
  return b->ops->upsample2 (b, y, x, height, width);
}

int
fx_gather (fx_backend *b, fx_mat y, fx_mat table, const int32_t *ids)
{
  FX_CHECK_OP (gather, b);
  FX_TRY (fx_check_float ("gather", "table", table));
  FX_TRY (fx_check_act_dims (b, "gather", "y", y, y.rows, table.cols));
  FX_TRY (fx_check_pointer ("gather", "ids", ids));
  for (int64_t i = 0; i < y.rows; i++)
    if (ids[i] < 0 || ids[i] >= table.rows)
      return fx_error (FX_ERR_SHAPE, "gather: id %d of a table of %" PRId64 " rows",
          (int)ids[i], table.rows);
  return b->ops->gather (b, y, table, ids);
}

int
fx_copy (fx_backend *b, fx_mat y, fx_mat x)
{
  FX_CHECK_OP (copy, b);
  FX_TRY (fx_check_float ("copy", "x", x));
  FX_TRY (fx_check_float ("copy", "y", y));
  if (y.rows != x.rows || y.cols != x.cols)
    return fx_error (FX_ERR_SHAPE,
        "copy: y is [%" PRId64 ", %" PRId64 "], x is [%" PRId64 ", %" PRId64 "]", y.rows,
        y.cols, x.rows, x.cols);
  return b->ops->copy (b, y, x);
}
