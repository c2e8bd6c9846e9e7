/* flux/transformer/rounded.c: operands of products in 8 bits, by the ops that make them.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/transformer/transformer-private.h"

enum { SCALES_APART = 64 /* rows from which a stream's scales begin */ };

static gsize
scales_of (gint64 rows)
{
  return (gsize)(rows / SCALES_APART + 2) * SCALES_APART * sizeof (float);
}

gsize
flux_rounded_bytes (gint64 rows, gint64 cols)
{
  return scales_of (rows) + (gsize)(rows * cols);
}

fx_rounded
flux_rounded (const FluxRun *r, const FluxLane *lane, FluxRows which, gpointer buffer,
    gint64 cols, const fx_weight *w)
{
  const gint64 text = which == FLUX_ROWS_IMAGE ? lane->text_tokens : 0;
  const gint64 apart = (text + SCALES_APART - 1) / SCALES_APART * SCALES_APART;
  fx_rounded m = {NULL, NULL, lane->tokens, cols, fx_rounded_dtype (w)};

  if (!w->rounds_inputs || buffer == NULL)
    return m;
  if (which != FLUX_ROWS_ALL)
    m.rows = which == FLUX_ROWS_IMAGE ? lane->image_tokens : lane->text_tokens;
  m.scales = (float *)buffer + apart;
  m.q = (char *)buffer + scales_of (r->max_text + r->max_image) + text * cols;
  return m;
}

int
flux_norm (FluxRun *r, fx_mat n, fx_rounded n8, float *stats, fx_mat x,
    const float *shift, const float *scale)
{
  if (n8.q != NULL)
    return fx_adaln_rounded (r->b, n, n8, stats, x, shift, scale, FLUX_NORM_EPS);
  return fx_adaln (r->b, n, stats, x, shift, scale, FLUX_NORM_EPS);
}

int
flux_gelu (FluxRun *r, fx_mat y, fx_rounded y8, fx_mat left, fx_mat u, guint slot)
{
  const gint64 before = left.p != NULL ? left.cols : 0;

  if (y8.q != NULL)
    return fx_act_rounded (r->b, flux_has_module (r, slot) ? y : flux_none_of (y), y8,
        left, u, FX_ACT_GELU_TANH);
  if (before > 0 && left.p != y.p)
    FX_TRY (fx_copy (r->b, fx_cols (y, 0, before), left));
  return fx_act_fwd (
      r->b, fx_cols (y, before, u.cols), u, flux_none (), FX_ACT_GELU_TANH);
}

int
flux_gelu_bwd (
    FluxRun *r, fx_mat du, fx_rounded du8, fx_mat u, const fx_weight *w, guint slot)
{
  if (du8.q != NULL)
    return fx_act_bwd_rounded (r->b, flux_has_module (r, slot) ? du : flux_none_of (du),
        du8, w->absmax, du, u, FX_ACT_GELU_TANH);
  return fx_act_bwd (r->b, du, du, u, FX_ACT_GELU_TANH);
}

int
flux_gate_bwd (FluxRun *r, fx_mat dy, fx_rounded dy8, fx_mat dx, const float *gate,
    const fx_weight *w, guint slot)
{
  if (dy8.q != NULL)
    return fx_gate_bwd_rounded (r->b, flux_has_module (r, slot) ? dy : flux_none_of (dy),
        dy8, w->absmax, dx, gate);
  return fx_gate_bwd (r->b, dy, dx, gate);
}
