/* flux/transformer/double-block.c: the block with two streams.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers transformer_flux.py:443-497. Each stream s has its own weights:
 *   x1 = x + gate_msa * out (attention (qkv (adaLN (x))))
 *   x' = x1 + gate_mlp * fc2 (gelu (fc1 (adaLN (x1))))
 * and attention sees both. */
#include "flux/transformer/attend.h"

enum { SHIFT_MSA, SCALE_MSA, GATE_MSA, SHIFT_MLP, SCALE_MLP, GATE_MLP };

static const float *
mods (FluxRun *r, FluxLane *lane, int index, int stream, int which)
{
  const FluxConfig *c = &r->t->config;

  return (const float *)lane->mods.p + flux_mods_double (c, index, stream) +
         (gsize)which * flux_config_dim (c);
}

/* The slot of a layer in a stream: [image, text]. */
static guint
slot_of (int index, int stream, int image, int text)
{
  return flux_slot_double (index, stream == FLUX_IMAGE ? image : text);
}

/* n, stats; qk, rstd when the projections stand. */
static int
normed_input (FluxRun *r, FluxLane *lane, int index, int s, fx_mat x, fx_rounded n8)
{
  return flux_norm (r, flux_stream (lane, r->n, s), n8,
      r->stats + 2 * flux_stream_row (lane, s), flux_stream (lane, x, s),
      mods (r, lane, index, s, SHIFT_MSA), mods (r, lane, index, s, SCALE_MSA));
}

static int
normed_middle (FluxRun *r, FluxLane *lane, int index, int s, fx_mat x1, fx_rounded n8)
{
  return flux_norm (r, flux_stream (lane, r->n2, s), n8,
      r->stats2 + 2 * flux_stream_row (lane, s), flux_stream (lane, x1, s),
      mods (r, lane, index, s, SHIFT_MLP), mods (r, lane, index, s, SCALE_MLP));
}

int
flux_double_forward (FluxRun *r, FluxLane *lane, const FluxDouble *d, int index,
    FluxActs *a, fx_mat x, fx_mat x_out, FluxPass pass)
{
  const gint64 dim = x.cols;
  fx_mat qkv = fx_rows (a->qkv, 0, lane->tokens), qk = fx_rows (r->qk, 0, lane->tokens);
  fx_mat o = fx_rows (a->o, 0, lane->tokens), u = fx_rows (a->u, 0, lane->tokens);
  fx_mat x1 = pass == FLUX_PASS_PLAIN ? x_out : fx_rows (a->x1, 0, lane->tokens);
  fx_mat g = fx_cols (fx_rows (r->cat, 0, lane->tokens), dim, 4 * dim);

  for (int s = 0; s < FLUX_N_STREAMS; s++) {
    fx_mat part = flux_stream (lane, qkv, s);
    fx_rounded n8 = flux_rounded (r, lane, (FluxRows)s, r->narrow8, dim, &d->qkv[s]);

    FX_TRY (flux_stream_begin (r, lane, s));
    FX_TRY (normed_input (r, lane, index, s, x, n8));
    FX_TRY (flux_linear_qkv (r, part, flux_stream (lane, r->n, s), n8, &d->qkv[s],
        slot_of (index, s, FLUX_D_Q, FLUX_D_ADD_Q)));
    FX_TRY (flux_norm_rope (
        r, lane, qk, part, flux_stream_row (lane, s), d->norm_q[s], d->norm_k[s]));
  }
  FX_TRY (flux_streams_end (r));
  FX_TRY (flux_attend (r, o, a->lse, qk, qkv));
  for (int s = 0; s < FLUX_N_STREAMS; s++) {
    fx_mat y = flux_stream (lane, r->y, s), us = flux_stream (lane, u, s);
    fx_mat gs = flux_stream (lane, g, s);
    const guint fc1 = slot_of (index, s, FLUX_D_FC1, FLUX_D_FC1_CONTEXT),
                fc2 = slot_of (index, s, FLUX_D_FC2, FLUX_D_FC2_CONTEXT);
    fx_rounded n8 = flux_rounded (r, lane, (FluxRows)s, r->narrow8, dim, &d->fc1[s]);
    fx_rounded g8 = flux_rounded (r, lane, (FluxRows)s,
        pass == FLUX_PASS_REDO ? NULL : r->wide8, 4 * dim, &d->fc2[s]);

    FX_TRY (flux_stream_begin (r, lane, s));
    FX_TRY (flux_linear (r, y, flux_stream (lane, o, s), flux_unrounded (), &d->out[s],
        slot_of (index, s, FLUX_D_OUT, FLUX_D_ADD_OUT)));
    FX_TRY (fx_gate_residual (r->b, flux_stream (lane, x1, s), flux_stream (lane, x, s),
        y, mods (r, lane, index, s, GATE_MSA)));
    FX_TRY (normed_middle (r, lane, index, s, x1, n8));
    FX_TRY (flux_linear_before_gelu (
        r, us, flux_stream (lane, r->n2, s), n8, &d->fc1[s], fc1));
    if (pass == FLUX_PASS_REDO && !flux_is_trained (r, fc2))
      continue;
    if (!flux_gelu_is_fused (r, &d->fc1[s], fc1))
      FX_TRY (flux_gelu (r, gs, g8, flux_none_of (gs), us, fc2));
    if (pass == FLUX_PASS_REDO)
      continue;
    FX_TRY (flux_linear (r, y, gs, g8, &d->fc2[s], fc2));
    FX_TRY (fx_gate_residual (r->b, flux_stream (lane, x_out, s),
        flux_stream (lane, x1, s), y, mods (r, lane, index, s, GATE_MLP)));
  }
  return flux_streams_end (r);
}

/* The cheap part of what the forward left in shared buffers, again from what was kept. */
static int
restore (
    FluxRun *r, FluxLane *lane, const FluxDouble *d, int index, FluxActs *a, fx_mat x)
{
  fx_mat qk = fx_rows (r->qk, 0, lane->tokens);

  for (int s = 0; s < FLUX_N_STREAMS; s++) {
    fx_mat g = fx_cols (flux_stream (lane, r->cat, s), x.cols, 4 * x.cols);
    guint fc2 = slot_of (index, s, FLUX_D_FC2, FLUX_D_FC2_CONTEXT);

    FX_TRY (flux_stream_begin (r, lane, s));
    FX_TRY (normed_input (r, lane, index, s, x, flux_unrounded ()));
    FX_TRY (normed_middle (
        r, lane, index, s, fx_rows (a->x1, 0, lane->tokens), flux_unrounded ()));
    FX_TRY (flux_norm_rope (r, lane, qk, flux_stream (lane, a->qkv, s),
        flux_stream_row (lane, s), d->norm_q[s], d->norm_k[s]));
    if (flux_is_trained (r, fc2))
      FX_TRY (flux_gelu (
          r, g, flux_unrounded (), flux_none_of (g), flux_stream (lane, a->u, s), fc2));
  }
  return flux_streams_end (r);
}

/* Through the MLP: lane->dx becomes the gradient of x1; r->dy that of attention's output.
 */
static int
mlp_backward (
    FluxRun *r, FluxLane *lane, const FluxDouble *d, int index, FluxActs *a, int s)
{
  const gint64 dim = lane->dx.cols;
  fx_mat dx = flux_stream (lane, lane->dx, s), dy = flux_stream (lane, r->dy, s);
  fx_mat du = fx_cols (flux_stream (lane, r->dcat, s), dim, 4 * dim);
  fx_mat g = fx_cols (flux_stream (lane, r->cat, s), dim, 4 * dim);
  fx_mat dn = flux_stream (lane, r->dn, s);
  const guint fc1 = slot_of (index, s, FLUX_D_FC1, FLUX_D_FC1_CONTEXT),
              fc2 = slot_of (index, s, FLUX_D_FC2, FLUX_D_FC2_CONTEXT),
              out = slot_of (index, s, FLUX_D_OUT, FLUX_D_ADD_OUT);
  fx_rounded dy8 = flux_rounded (r, lane, (FluxRows)s, r->narrow8, dim, &d->fc2[s]);
  fx_rounded du8 = flux_rounded (r, lane, (FluxRows)s, r->wide8, 4 * dim, &d->fc1[s]);
  fx_rounded do8 = flux_rounded (r, lane, (FluxRows)s, r->narrow8, dim, &d->out[s]);

  FX_TRY (flux_gate_bwd (
      r, dy, dy8, dx, mods (r, lane, index, s, GATE_MLP), &d->fc2[s], fc2));
  FX_TRY (flux_linear_bwd (r, du, dy, dy8, g, &d->fc2[s], fc2, FALSE));
  FX_TRY (flux_gelu_bwd (r, du, du8, flux_stream (lane, a->u, s), &d->fc1[s], fc1));
  FX_TRY (flux_linear_bwd (
      r, dn, du, du8, flux_stream (lane, r->n2, s), &d->fc1[s], fc1, FALSE));
  FX_TRY (fx_adaln_bwd (r->b, dx, dn, flux_stream (lane, a->x1, s),
      r->stats2 + 2 * flux_stream_row (lane, s), mods (r, lane, index, s, SCALE_MLP)));
  FX_TRY (flux_gate_bwd (
      r, dy, do8, dx, mods (r, lane, index, s, GATE_MSA), &d->out[s], out));
  /* dn is free again: gradient of attention's output. */
  return flux_linear_bwd (
      r, dn, dy, do8, flux_stream (lane, a->o, s), &d->out[s], out, FALSE);
}

int
flux_double_backward (FluxRun *r, FluxLane *lane, const FluxDouble *d, int index,
    FluxActs *a, fx_mat x, gboolean fresh, gboolean want_dx)
{
  fx_mat qk = fx_rows (r->qk, 0, lane->tokens);
  /* The MLP before GELU has done its part by then. */
  fx_mat dqk = fx_cols (fx_rows (a->u, 0, lane->tokens), 0, 2 * x.cols);
  fx_mat dqkv = fx_rows (r->dqkv, 0, lane->tokens);

  if (!fresh)
    FX_TRY (restore (r, lane, d, index, a, x));
  for (int s = 0; s < FLUX_N_STREAMS; s++) {
    FX_TRY (flux_stream_begin (r, lane, s));
    FX_TRY (mlp_backward (r, lane, d, index, a, s));
  }
  FX_TRY (flux_streams_end (r));
  FX_TRY (flux_attend_bwd (r, dqk, dqkv, fx_rows (r->dn, 0, lane->tokens),
      fx_rows (a->o, 0, lane->tokens), a->lse, qk, fx_rows (a->qkv, 0, lane->tokens)));
  for (int s = 0; s < FLUX_N_STREAMS; s++) {
    fx_mat part = flux_stream (lane, dqkv, s);
    fx_mat dn = want_dx ? flux_stream (lane, r->dn, s) : flux_none ();
    fx_rounded part8 = flux_rounded (
        r, lane, (FluxRows)s, want_dx ? r->wide8 : NULL, 3 * x.cols, &d->qkv[s]);

    FX_TRY (flux_stream_begin (r, lane, s));
    FX_TRY (flux_norm_rope_bwd (r, lane, part, part8, dqk, flux_stream (lane, a->qkv, s),
        flux_stream_row (lane, s), d->norm_q[s], d->norm_k[s], &d->qkv[s]));
    FX_TRY (flux_linear_qkv_bwd (r, dn, part, part8, flux_stream (lane, r->n, s),
        &d->qkv[s], slot_of (index, s, FLUX_D_Q, FLUX_D_ADD_Q), FALSE));
    if (want_dx)
      FX_TRY (fx_adaln_bwd (r->b, flux_stream (lane, lane->dx, s), dn,
          flux_stream (lane, x, s), r->stats + 2 * flux_stream_row (lane, s),
          mods (r, lane, index, s, SCALE_MSA)));
  }
  return flux_streams_end (r);
}
