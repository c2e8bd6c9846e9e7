/* flux/transformer/condition.c: timestep, guidance and pooled text to modulation vectors.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers embeddings.py:27-78, 1604-1625 and normalization.py. All samples of a step go
 * through each modulation layer together, so that its weight is read once. */
#include "flux/transformer/transformer-private.h"

#include <math.h>
#include <string.h>

/* Cosines, then sines, of 1000 value * 10000^(-i / 128), in fp32 as the reference has it.
 */
static void
sinusoid (float value, float *out)
{
  const int half = FLUX_TIME_FEATURES / 2;
  const float scaled = value * 1000.0f;

  for (int i = 0; i < half; i++) {
    float exponent = (float)-log (10000.0) * (float)i / (float)half;
    float angle = scaled * expf (exponent);

    out[i] = cosf (angle);
    out[half + i] = sinf (angle);
  }
}

/* temb (+)= second (silu (first (x))); adapters may sit on the slots `end` and the one
 * after it. */
static int
embed (FluxRun *r, const FluxMlp *m, FluxEndSlot end, fx_mat x, guint n, gboolean beta)
{
  const guint slot = flux_slot_end (&r->t->config, end);
  fx_mat hidden = fx_rows (r->hidden, 0, n), temb = fx_rows (r->temb, 0, n);

  FX_TRY (flux_linear (r, hidden, x, flux_unrounded (), &m->first, slot));
  FX_TRY (fx_act_fwd (r->b, hidden, hidden, flux_none (), FX_ACT_SILU));
  FX_TRY (fx_gemm (r->b, temb, hidden, &m->second, beta));
  return flux_adapters (r, temb, hidden, slot + 1, 1);
}

static int
embed_inputs (FluxRun *r, const FluxInput *const *inputs, guint n)
{
  const int p = r->t->config.pooled_projection_dim;
  g_autofree float *host = g_new (float, (gsize)n *MAX (FLUX_TIME_FEATURES, p));
  fx_mat features = fx_rows (r->features, 0, n), pooled = fx_rows (r->pooled, 0, n);

  for (guint i = 0; i < n; i++)
    sinusoid (inputs[i]->timestep, host + i * FLUX_TIME_FEATURES);
  FX_TRY (flux_upload_f32 (r, features, host));
  FX_TRY (embed (r, &r->t->time, FLUX_E_TIME_1, features, n, FALSE));
  if (r->t->config.guidance_embeds) {
    for (guint i = 0; i < n; i++)
      sinusoid (inputs[i]->guidance, host + i * FLUX_TIME_FEATURES);
    FX_TRY (flux_upload_f32 (r, features, host));
    FX_TRY (embed (r, &r->t->guidance, FLUX_E_GUIDANCE_1, features, n, TRUE));
  }
  for (guint i = 0; i < n; i++)
    memcpy (host + (gsize)i * p, inputs[i]->pooled, p * sizeof (float));
  FX_TRY (flux_upload_f32 (r, pooled, host));
  return embed (r, &r->t->text, FLUX_E_POOLED_1, pooled, n, TRUE);
}

/* Columns [at, at + w->n) of mods. */
static int
modulate (FluxRun *r, guint n, const fx_weight *w, gint64 at, guint slot)
{
  fx_mat out = fx_cols (fx_rows (r->mod, 0, n), 0, w->n), temb = fx_rows (r->temb, 0, n);

  FX_TRY (flux_linear (r, out, temb, flux_unrounded (), w, slot));
  return fx_copy (r->b, fx_cols (fx_rows (r->mods, 0, n), at, w->n), out);
}

int
flux_condition_double (FluxRun *r, int block, const FluxDouble *d)
{
  const FluxConfig *c = &r->t->config;

  FX_TRY (modulate (r, r->n_inputs, &d->mod[FLUX_IMAGE],
      flux_mods_double (c, block, FLUX_IMAGE), flux_slot_double (block, FLUX_D_MOD)));
  return modulate (r, r->n_inputs, &d->mod[FLUX_TEXT],
      flux_mods_double (c, block, FLUX_TEXT),
      flux_slot_double (block, FLUX_D_MOD_CONTEXT));
}

int
flux_condition_single (FluxRun *r, int block, const FluxSingle *s)
{
  const FluxConfig *c = &r->t->config;

  return modulate (r, r->n_inputs, &s->mod, flux_mods_single (c, block),
      flux_slot_single (c, block, FLUX_S_MOD));
}

int
flux_condition (FluxRun *r, const FluxInput *const *inputs, guint n)
{
  FluxTransformer *t = r->t;
  const FluxConfig *c = &t->config;
  fx_mat temb = fx_rows (r->temb, 0, n);

  FX_TRY (flux_streams_end (r)); /* which a failure may have left open */
  FX_TRY (embed_inputs (r, inputs, n));
  /* Every modulation layer begins with the same SiLU. */
  FX_TRY (fx_act_fwd (r->b, temb, temb, flux_none (), FX_ACT_SILU));
  r->n_inputs = n;
  r->n_modulated = 0;
  for (int i = 0; r->slot_bytes == 0 && i < c->num_layers; i++)
    FX_TRY (flux_condition_double (r, i, &t->doubles[i]));
  for (int i = 0; r->slot_bytes == 0 && i < c->num_single_layers; i++)
    FX_TRY (flux_condition_single (r, i, &t->singles[i]));
  return modulate (
      r, n, &t->norm_out, flux_mods_final (c), flux_slot_end (c, FLUX_E_NORM));
}
