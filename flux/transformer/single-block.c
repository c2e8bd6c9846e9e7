/* flux/transformer/single-block.c: the block with one stream.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers transformer_flux.py:383-412:
 *   n = adaLN (x);  x' = x + gate * out ([attention (qkv (n)) | gelu (mlp (n))])
 * Attention and GELU write straight into the two parts of out's input. */
#include "flux/transformer/attend.h"

enum { SHIFT, SCALE, GATE };

static const float *
mods (FluxRun *r, FluxLane *lane, int index, int which)
{
  const FluxConfig *c = &r->t->config;

  return (const float *)lane->mods.p + flux_mods_single (c, index) +
         (gsize)which * flux_config_dim (c);
}

static int
normed_input (FluxRun *r, FluxLane *lane, int index, fx_mat x, fx_rounded n8)
{
  return flux_norm (r, fx_rows (r->n, 0, lane->tokens), n8, r->stats, x,
      mods (r, lane, index, SHIFT), mods (r, lane, index, SCALE));
}

int
flux_single_forward (FluxRun *r, FluxLane *lane, const FluxSingle *b, int index,
    FluxActs *a, fx_mat x, fx_mat x_out, FluxPass pass)
{
  const FluxConfig *c = &r->t->config;
  const gint64 dim = x.cols;
  fx_mat n = fx_rows (r->n, 0, lane->tokens), qk = fx_rows (r->qk, 0, lane->tokens);
  fx_mat qkv = fx_rows (a->qkv, 0, lane->tokens), u = fx_rows (a->u, 0, lane->tokens);
  fx_mat cat = fx_rows (r->cat, 0, lane->tokens), y = fx_rows (r->y, 0, lane->tokens);
  fx_mat o =
      pass == FLUX_PASS_PLAIN ? fx_cols (cat, 0, dim) : fx_rows (a->o, 0, lane->tokens);
  /* One rounding for both layers that read n. */
  fx_rounded n8 = flux_rounded (r, lane, FLUX_ROWS_ALL, r->narrow8, dim, &b->qkv);
  fx_rounded cat8 = flux_rounded (r, lane, FLUX_ROWS_ALL, r->wide8, 5 * dim, &b->out);
  const guint out = flux_slot_single (c, index, FLUX_S_OUT),
              mlp = flux_slot_single (c, index, FLUX_S_MLP);

  FX_TRY (normed_input (r, lane, index, x, n8));
  FX_TRY (
      flux_linear_qkv (r, qkv, n, n8, &b->qkv, flux_slot_single (c, index, FLUX_S_Q)));
  FX_TRY (flux_norm_rope (r, lane, qk, qkv, 0, b->norm_q, b->norm_k));
  FX_TRY (flux_attend (r, o, a->lse, qk, qkv));
  FX_TRY (flux_linear_before_gelu (r, u, n, n8, &b->mlp, mlp));
  if (pass == FLUX_PASS_REDO && !flux_is_trained (r, out))
    return FX_OK;
  if (pass == FLUX_PASS_REDO)
    return flux_gelu (r, cat, flux_unrounded (), o, u, out);
  if (!flux_gelu_is_fused (r, &b->mlp, mlp))
    FX_TRY (flux_gelu (r, cat, cat8, o, u, out));
  FX_TRY (flux_linear (r, y, cat, cat8, &b->out, out));
  return fx_gate_residual (r->b, x_out, x, y, mods (r, lane, index, GATE));
}

/* What the forward left in shared buffers, again from what was kept. */
static int
restore (
    FluxRun *r, FluxLane *lane, const FluxSingle *b, int index, FluxActs *a, fx_mat x)
{
  const guint out = flux_slot_single (&r->t->config, index, FLUX_S_OUT);
  fx_mat cat = fx_rows (r->cat, 0, lane->tokens);

  FX_TRY (normed_input (r, lane, index, x, flux_unrounded ()));
  FX_TRY (flux_norm_rope (r, lane, fx_rows (r->qk, 0, lane->tokens),
      fx_rows (a->qkv, 0, lane->tokens), 0, b->norm_q, b->norm_k));
  if (!flux_is_trained (r, out))
    return FX_OK;
  return flux_gelu (r, cat, flux_unrounded (), fx_rows (a->o, 0, lane->tokens),
      fx_rows (a->u, 0, lane->tokens), out);
}

int
flux_single_backward (FluxRun *r, FluxLane *lane, const FluxSingle *b, int index,
    FluxActs *a, fx_mat x, gboolean fresh, gboolean want_dx)
{
  const FluxConfig *c = &r->t->config;
  const gint64 dim = x.cols;
  fx_mat n = fx_rows (r->n, 0, lane->tokens), dy = fx_rows (r->dy, 0, lane->tokens);
  fx_mat dcat = fx_rows (r->dcat, 0, lane->tokens), du = fx_cols (dcat, dim, 4 * dim);
  fx_mat u = fx_rows (a->u, 0, lane->tokens), dqkv = fx_rows (r->dqkv, 0, lane->tokens);
  fx_mat qkv = fx_rows (a->qkv, 0, lane->tokens);
  /* The MLP before GELU has done its part by then. */
  fx_mat dqk = fx_cols (u, 0, 2 * dim);
  fx_mat dn = want_dx ? fx_rows (r->dn, 0, lane->tokens) : flux_none ();
  const guint out = flux_slot_single (c, index, FLUX_S_OUT),
              mlp = flux_slot_single (c, index, FLUX_S_MLP);
  fx_rounded dy8 = flux_rounded (r, lane, FLUX_ROWS_ALL, r->narrow8, dim, &b->out);
  fx_rounded du8 =
      flux_rounded (r, lane, FLUX_ROWS_ALL, want_dx ? r->wide8 : NULL, 4 * dim, &b->mlp);
  fx_rounded dqkv8 = flux_rounded (/* du8 has been used up by then */
      r, lane, FLUX_ROWS_ALL, want_dx ? r->wide8 : NULL, 3 * dim, &b->qkv);

  if (!fresh)
    FX_TRY (restore (r, lane, b, index, a, x));
  FX_TRY (
      flux_gate_bwd (r, dy, dy8, lane->dx, mods (r, lane, index, GATE), &b->out, out));
  FX_TRY (flux_linear_bwd (
      r, dcat, dy, dy8, fx_rows (r->cat, 0, lane->tokens), &b->out, out, FALSE));
  FX_TRY (flux_gelu_bwd (r, du, du8, u, &b->mlp, mlp));
  FX_TRY (flux_linear_bwd (r, dn, du, du8, n, &b->mlp, mlp, FALSE));
  FX_TRY (flux_attend_bwd (r, dqk, dqkv, fx_cols (dcat, 0, dim),
      fx_rows (a->o, 0, lane->tokens), a->lse, fx_rows (r->qk, 0, lane->tokens), qkv));
  FX_TRY (flux_norm_rope_bwd (
      r, lane, dqkv, dqkv8, dqk, qkv, 0, b->norm_q, b->norm_k, &b->qkv));
  FX_TRY (flux_linear_qkv_bwd (
      r, dn, dqkv, dqkv8, n, &b->qkv, flux_slot_single (c, index, FLUX_S_Q), TRUE));
  if (!want_dx)
    return FX_OK;
  return fx_adaln_bwd (r->b, lane->dx, dn, x, r->stats, mods (r, lane, index, SCALE));
}
