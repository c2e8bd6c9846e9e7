/* flux/transformer/attend.c: joint attention of a block, forward and backward.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/transformer/attend.h"

#include <math.h>

static fx_attn
settings (const FluxRun *r)
{
  const FluxConfig *c = &r->t->config;
  fx_attn a = {.heads = c->num_attention_heads,
      .head_dim = c->attention_head_dim,
      .scale = (float)(1 / sqrt (c->attention_head_dim))};

  return a;
}

int
flux_norm_rope (FluxRun *r, FluxLane *lane, fx_mat qk, fx_mat qkv, int row,
    const float *wq, const float *wk)
{
  const FluxConfig *c = &r->t->config;

  return fx_qknorm_rope (r->b, fx_rows (qk, row, qkv.rows),
      r->rstd + (gsize)row * 2 * c->num_attention_heads, qkv, wq, wk, &lane->rope, row,
      c->attention_head_dim, FLUX_NORM_EPS);
}

int
flux_norm_rope_bwd (FluxRun *r, FluxLane *lane, fx_mat dqkv, fx_rounded dqkv8, fx_mat dqk,
    fx_mat qkv, int row, const float *wq, const float *wk, const fx_weight *w)
{
  const FluxConfig *c = &r->t->config;

  const float *rstd = r->rstd + (gsize)row * 2 * c->num_attention_heads;

  dqk = fx_rows (dqk, row, qkv.rows);
  if (dqkv8.q != NULL)
    return fx_qknorm_rope_bwd_rounded (r->b, dqkv, dqkv8, w->absmax, dqk, qkv, rstd, wq,
        wk, &lane->rope, row, c->attention_head_dim);
  return fx_qknorm_rope_bwd (
      r->b, dqkv, dqk, qkv, rstd, wq, wk, &lane->rope, row, c->attention_head_dim);
}

int
flux_attend (FluxRun *r, fx_mat o, float *lse, fx_mat qk, fx_mat qkv)
{
  gint64 dim = qkv.cols / 3;
  fx_attn a = settings (r);

  return fx_attention (r->b, o, lse, fx_cols (qk, 0, dim), fx_cols (qk, dim, dim),
      fx_cols (qkv, 2 * dim, dim), &a);
}

int
flux_attend_bwd (FluxRun *r, fx_mat dqk, fx_mat dqkv, fx_mat d_o, fx_mat o,
    const float *lse, fx_mat qk, fx_mat qkv)
{
  gint64 dim = qkv.cols / 3;
  fx_attn a = settings (r);

  return fx_attention_bwd (r->b, fx_cols (dqk, 0, dim), fx_cols (dqk, dim, dim),
      fx_cols (dqkv, 2 * dim, dim), d_o, o, lse, fx_cols (qk, 0, dim),
      fx_cols (qk, dim, dim), fx_cols (qkv, 2 * dim, dim), &a);
}
