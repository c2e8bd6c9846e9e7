/* flux/transformer/linear.c: a linear layer and the adapters on it.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/transformer/transformer-private.h"

gboolean
flux_is_trained (FluxRun *r, guint slot)
{
  for (guint i = 0; i < r->n_loras; i++) {
    const fx_lora *m = flux_lora_module (r->loras[i], slot);

    if (m != NULL && m->da != NULL)
      return TRUE;
  }
  return FALSE;
}

static int
adapters (FluxRun *r, fx_mat y, fx_mat x, guint slot)
{
  for (guint i = 0; i < r->n_loras; i++) {
    const fx_lora *m = flux_lora_module (r->loras[i], slot);

    if (m != NULL)
      FX_TRY (
          fx_lora_fwd (r->b, y, fx_cols (fx_rows (r->h, 0, x.rows), 0, m->rank), x, m));
  }
  return FX_OK;
}

static int
adapters_bwd (FluxRun *r, fx_mat dx, fx_mat dy, fx_mat x, guint slot)
{
  for (guint i = 0; i < r->n_loras; i++) {
    const fx_lora *m = flux_lora_module (r->loras[i], slot);

    if (m != NULL && (m->da != NULL || dx.p != NULL))
      FX_TRY (fx_lora_bwd (r->b, dx, dy, x, flux_none (), m));
  }
  return FX_OK;
}

int
flux_linear (FluxRun *r, fx_mat y, fx_mat x, const fx_weight *w, guint slot)
{
  FX_TRY (fx_gemm (r->b, y, x, w, false));
  return adapters (r, y, x, slot);
}

int
flux_linear_qkv (FluxRun *r, fx_mat qkv, fx_mat x, const fx_weight *w, guint slot)
{
  gint64 dim = qkv.cols / 3;

  FX_TRY (fx_gemm (r->b, qkv, x, w, false));
  for (guint i = 0; i < 3; i++)
    FX_TRY (adapters (r, fx_cols (qkv, i * dim, dim), x, slot + i));
  return FX_OK;
}

int
flux_linear_bwd (FluxRun *r, fx_mat dx, fx_mat dy, fx_mat x, const fx_weight *w,
    guint slot, gboolean beta)
{
  if (dx.p != NULL)
    FX_TRY (fx_gemm_dgrad (r->b, dx, dy, w, beta));
  return adapters_bwd (r, dx, dy, x, slot);
}

int
flux_linear_qkv_bwd (
    FluxRun *r, fx_mat dx, fx_mat dqkv, fx_mat x, const fx_weight *w, guint slot)
{
  gint64 dim = dqkv.cols / 3;

  if (dx.p != NULL)
    FX_TRY (fx_gemm_dgrad (r->b, dx, dqkv, w, false));
  for (guint i = 0; i < 3; i++)
    FX_TRY (adapters_bwd (r, dx, fx_cols (dqkv, i * dim, dim), x, slot + i));
  return FX_OK;
}
