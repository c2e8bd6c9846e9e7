/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The plan backend: every op succeeds and does nothing, so that a model built on it
 * leaves the arenas' high-water marks behind: the memory budget before any is spent. */
#include "kernels/fx.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  fx_backend base;
  uintptr_t next;
} plan;

static int
plan_alloc (fx_backend *b, size_t bytes, void **p)
{
  plan *self = (plan *)b;

  if (bytes > UINTPTR_MAX / 2 || self->next > UINTPTR_MAX / 2)
    return fx_error (FX_ERR_MEMORY, "plan: %zu bytes asked for", bytes);
  *p = (void *)self->next;
  self->next += (bytes / 256 + 1) * 256;
  return FX_OK;
}

static void
plan_free (fx_backend *b, void *p, size_t bytes)
{
}

static int
plan_upload (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  return FX_OK;
}

static int
plan_download (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  memset (dst, 0, bytes);
  return FX_OK;
}

static int
plan_zero (fx_backend *b, void *dst, size_t bytes)
{
  return FX_OK;
}

static int
plan_sync (fx_backend *b)
{
  return FX_OK;
}

static void
plan_destroy (fx_backend *b)
{
  free (b);
}

#define NOTHING(name, ...)                                                               \
  static int plan_##name (fx_backend *b, __VA_ARGS__)                                    \
  {                                                                                      \
    return FX_OK;                                                                        \
  }

/* clang-format off */
NOTHING (fetch, int number, void *dst, const void *src, size_t bytes)
NOTHING (fetched, int number)
NOTHING (expand, fx_mat dst, const fx_weight *w)
NOTHING (gemm, fx_mat y, fx_mat x, const fx_weight *w, bool beta)
NOTHING (lora, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l, int n)
NOTHING (lora_bwd, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n)
NOTHING (adaln, fx_mat y, float *stats, fx_mat x, const float *shift, const float *scale,
    float eps)
NOTHING (adaln_bwd, fx_mat dx, fx_mat dy, fx_mat x, const float *stats,
    const float *scale)
NOTHING (qknorm_rope, fx_mat qk, float *rstd, fx_mat qkv, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim, float eps)
NOTHING (qknorm_rope_bwd, fx_mat dqkv, fx_mat dqk, fx_mat qkv, const float *rstd,
    const float *wq, const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim)
NOTHING (attention, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
NOTHING (attention_bwd, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o, fx_mat o,
    const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
NOTHING (act, fx_mat y, fx_mat x, fx_mat mul, fx_act kind)
NOTHING (act_bwd, fx_mat dx, fx_mat dy, fx_mat x, fx_act kind)
NOTHING (gate_residual, fx_mat out, fx_mat x, fx_mat y, const float *gate)
NOTHING (gate_bwd, fx_mat dy, fx_mat dout, const float *gate)
NOTHING (mse, double *loss, fx_mat dpred, fx_mat pred, fx_mat target, float weight,
    float grad_scale)
NOTHING (round_rows, fx_rounded r, fx_mat x, const float *factor)
NOTHING (gemm_rounded, fx_mat y, fx_rounded x, const fx_weight *w, bool beta)
NOTHING (adaln_rounded, fx_mat y, fx_rounded r, float *stats, fx_mat x,
    const float *shift, const float *scale, float eps)
NOTHING (act_rounded, fx_mat y, fx_rounded r, fx_mat left, fx_mat x, fx_act kind)
NOTHING (act_bwd_rounded, fx_mat dx, fx_rounded r, const float *factor, fx_mat dy,
    fx_mat x, fx_act kind)
NOTHING (gate_bwd_rounded, fx_mat dy, fx_rounded r, const float *factor, fx_mat dout,
    const float *gate)
NOTHING (qknorm_rope_bwd_rounded, fx_mat dqkv, fx_rounded r, const float *factor,
    fx_mat dqk, fx_mat qkv, const float *rstd, const float *wq, const float *wk,
    const fx_rope *rope, int64_t rope_row, int head_dim)
NOTHING (sum_squares, double *sum, const float *x, int64_t n)
NOTHING (adamw, float *p, const float *g, float *m, float *v, int64_t n,
    const fx_adamw *o)
NOTHING (adamw8, float *p, const float *g, const fx_adam8_state *s, int64_t n,
    const fx_adamw *o)
NOTHING (conv2d, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *c)
NOTHING (groupnorm, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu)
NOTHING (layernorm, fx_mat y, fx_mat x, const float *weight, const float *bias, float eps)
NOTHING (rmsnorm, fx_mat y, fx_mat x, const float *weight, float eps)
NOTHING (upsample2, fx_mat y, fx_mat x, int height, int width)
NOTHING (gather, fx_mat y, fx_mat table, const int32_t *ids)
NOTHING (copy, fx_mat y, fx_mat x)
/* clang-format on */

static const fx_ops plan_ops = {
    .alloc = plan_alloc,
    .free = plan_free,
    .upload = plan_upload,
    .download = plan_download,
    .zero = plan_zero,
    .sync = plan_sync,
    .alloc_host = plan_alloc,
    .free_host = plan_free,
    .fetch = plan_fetch,
    .fetched = plan_fetched,
    .destroy = plan_destroy,
    .expand = plan_expand,
    .gemm = plan_gemm,
    .gemm_dgrad = plan_gemm,
    .lora = plan_lora,
    .lora_bwd = plan_lora_bwd,
    .adaln = plan_adaln,
    .adaln_bwd = plan_adaln_bwd,
    .qknorm_rope = plan_qknorm_rope,
    .qknorm_rope_bwd = plan_qknorm_rope_bwd,
    .attention = plan_attention,
    .attention_bwd = plan_attention_bwd,
    .act = plan_act,
    .act_bwd = plan_act_bwd,
    .gate_residual = plan_gate_residual,
    .gate_bwd = plan_gate_bwd,
    .mse = plan_mse,
    .round_rows = plan_round_rows,
    .gemm_rounded = plan_gemm_rounded,
    .dgrad_rounded = plan_gemm_rounded,
    .adaln_rounded = plan_adaln_rounded,
    .act_rounded = plan_act_rounded,
    .act_bwd_rounded = plan_act_bwd_rounded,
    .gate_bwd_rounded = plan_gate_bwd_rounded,
    .qknorm_rope_bwd_rounded = plan_qknorm_rope_bwd_rounded,
    .sum_squares = plan_sum_squares,
    .adamw = plan_adamw,
    .adamw8 = plan_adamw8,
    .conv2d = plan_conv2d,
    .groupnorm = plan_groupnorm,
    .layernorm = plan_layernorm,
    .rmsnorm = plan_rmsnorm,
    .upsample2 = plan_upsample2,
    .gather = plan_gather,
    .copy = plan_copy,
};

fx_backend *
fx_plan_new (fx_dtype compute)
{
  plan *self = calloc (1, sizeof *self);

  if (self == NULL) {
    fx_error (FX_ERR_MEMORY, "plan: out of memory");
    return NULL;
  }
  self->base.ops = &plan_ops;
  self->base.name = "plan";
  self->base.compute = compute;
  self->base.has_fp8 = true;
  self->next = 1 << 20;
  return &self->base;
}
