/* flux/transformer/ends.c: tokens in, velocity and loss out.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/transformer/transformer-private.h"

/* dst dense rows of src.. [rows, cols] fp32 from the host, in dst's dtype. */
int
flux_upload_f32 (FluxRun *r, fx_mat dst, const float *src)
{
  gsize n = (gsize)(dst.rows * dst.cols), bytes = n * fx_dtype_size (dst.dtype);

  if (dst.ld != dst.cols)
    return fx_error (FX_ERR_SHAPE, "upload: rows are not dense");
  if (dst.dtype == FX_F32)
    return fx_upload (r->b, dst.p, src, bytes);
  if (bytes > r->staging_bytes) {
    r->staging = g_realloc (r->staging, bytes);
    r->staging_bytes = bytes;
  }
  FX_TRY (fx_convert (r->staging, dst.dtype, src, FX_F32, n));
  return fx_upload (r->b, dst.p, r->staging, bytes);
}

/* The tokens of one stream into the residual stream, which may be wider than what a
 * product gives. */
static int
embed (
    FluxRun *r, FluxLane *lane, int stream, fx_mat tokens, const fx_weight *w, guint slot)
{
  fx_mat x = flux_stream (lane, lane->x[0], stream), y = flux_stream (lane, r->y, stream);

  if (x.dtype == tokens.dtype)
    return flux_linear (r, x, tokens, flux_unrounded (), w, slot);
  FX_TRY (flux_linear (r, y, tokens, flux_unrounded (), w, slot));
  return fx_copy (r->b, x, y);
}

int
flux_embed_tokens (FluxRun *r, FluxLane *lane, const FluxInput *in)
{
  const FluxConfig *c = &r->t->config;
  fx_mat text = fx_mat_new (
      r->tokens_in.p, lane->text_tokens, c->joint_attention_dim, r->tokens_in.dtype);
  fx_mat image =
      fx_mat_new (r->tokens_in.p, lane->image_tokens, c->in_channels, r->tokens_in.dtype);

  FX_TRY (flux_upload_f32 (r, text, in->prompt_embeds));
  FX_TRY (embed (
      r, lane, FLUX_TEXT, text, &r->t->context_embedder, flux_slot_end (c, FLUX_E_TEXT)));
  FX_TRY (flux_upload_f32 (r, image, in->latents));
  return embed (
      r, lane, FLUX_IMAGE, image, &r->t->x_embedder, flux_slot_end (c, FLUX_E_IMAGE));
}

/* AdaLayerNormContinuous: scale first, then shift. */
static const float *
final_mods (FluxRun *r, FluxLane *lane, int which)
{
  const FluxConfig *c = &r->t->config;

  return (const float *)lane->mods.p + flux_mods_final (c) +
         (gsize)which * flux_config_dim (c);
}

int
flux_final_forward (FluxRun *r, FluxLane *lane)
{
  fx_mat n = flux_stream (lane, r->y, FLUX_IMAGE);

  FX_TRY (fx_adaln (r->b, n, r->final_stats,
      flux_stream (lane, lane->x[r->n_blocks], FLUX_IMAGE), final_mods (r, lane, 1),
      final_mods (r, lane, 0), FLUX_NORM_EPS));
  return flux_linear (r, fx_rows (lane->pred, 0, lane->image_tokens), n,
      flux_unrounded (), &r->t->proj_out, flux_slot_end (&r->t->config, FLUX_E_OUT));
}

int
flux_final_backward (FluxRun *r, FluxLane *lane, guint index, const float *target,
    float weight, float grad_scale)
{
  fx_mat pred = fx_rows (lane->pred, 0, lane->image_tokens);
  fx_mat dpred = fx_rows (r->dpred, 0, lane->image_tokens);
  fx_mat want = fx_rows (r->target, 0, lane->image_tokens);
  fx_mat dn = flux_stream (lane, r->dn, FLUX_IMAGE);

  FX_TRY (flux_upload_f32 (r, want, target));
  FX_TRY (fx_mse (r->b, r->losses + index, dpred, pred, want, weight, grad_scale));
  FX_TRY (flux_linear_bwd (r, dn, dpred, flux_unrounded (),
      flux_stream (lane, r->y, FLUX_IMAGE), &r->t->proj_out,
      flux_slot_end (&r->t->config, FLUX_E_OUT), FALSE));
  FX_TRY (fx_zero (r->b, lane->dx.p,
      (gsize)(lane->dx.rows * lane->dx.ld) * fx_dtype_size (lane->dx.dtype)));
  return fx_adaln_bwd (r->b, flux_stream (lane, lane->dx, FLUX_IMAGE), dn,
      flux_stream (lane, lane->x[r->n_blocks], FLUX_IMAGE), r->final_stats,
      final_mods (r, lane, 0));
}
