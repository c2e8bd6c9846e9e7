/* flux/transformer/linear.c: a linear layer and the adapters on it.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/transformer/transformer-private.h"

enum { MAX_PARTS = 3 }; /* q, k and v */

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

gboolean
flux_has_module (FluxRun *r, guint slot)
{
  for (guint i = 0; i < r->n_loras; i++) {
    if (flux_lora_module (r->loras[i], slot) != NULL)
      return TRUE;
  }
  return FALSE;
}

/* An adapter's modules on the n slots from `slot` on as one group of the kernels, which
 * reads x once for all of them; FALSE when one is missing or they do not match. */
static gboolean
is_group (FluxLora *lora, guint slot, guint n, fx_lora *group)
{
  for (guint i = 0; i < n; i++) {
    const fx_lora *m = flux_lora_module (lora, slot + i);

    if (m == NULL)
      return FALSE;
    group[i] = *m;
    if (m->rank != group[0].rank || (m->da == NULL) != (group[0].da == NULL) ||
        (m->db == NULL) != (group[0].db == NULL))
      return FALSE;
  }
  return TRUE;
}

static int
run_group (FluxRun *r, fx_mat y, fx_mat x, const fx_lora *group, guint n)
{
  fx_mat h = fx_cols (fx_rows (r->h, r->h_row, x.rows), 0, n * (gint64)group->rank);

  return fx_lora_fwd (r->b, y, h, x, group, (int)n);
}

static int
run_group_bwd (FluxRun *r, fx_mat dx, fx_mat dy, fx_mat x, const fx_lora *group, guint n)
{
  if (group->da == NULL && dx.p == NULL)
    return FX_OK;
  return fx_lora_bwd (r->b, dx, dy, x, flux_none (), group, (int)n);
}

int
flux_adapters (FluxRun *r, fx_mat y, fx_mat x, guint slot, guint n)
{
  const gint64 part = y.cols / n;

  for (guint i = 0; i < r->n_loras; i++) {
    fx_lora group[MAX_PARTS];

    if (is_group (r->loras[i], slot, n, group)) {
      FX_TRY (run_group (r, y, x, group, n));
      continue;
    }
    for (guint j = 0; j < n; j++) {
      const fx_lora *m = flux_lora_module (r->loras[i], slot + j);

      if (m != NULL)
        FX_TRY (run_group (r, fx_cols (y, j * part, part), x, m, 1));
    }
  }
  return FX_OK;
}

static int
adapters_bwd (FluxRun *r, fx_mat dx, fx_mat dy, fx_mat x, guint slot, guint n)
{
  const gint64 part = dy.cols / n;

  for (guint i = 0; i < r->n_loras; i++) {
    fx_lora group[MAX_PARTS];

    if (is_group (r->loras[i], slot, n, group)) {
      FX_TRY (run_group_bwd (r, dx, dy, x, group, n));
      continue;
    }
    for (guint j = 0; j < n; j++) {
      const fx_lora *m = flux_lora_module (r->loras[i], slot + j);

      if (m != NULL)
        FX_TRY (run_group_bwd (r, dx, fx_cols (dy, j * part, part), x, m, 1));
    }
  }
  return FX_OK;
}

static int
gemm (FluxRun *r, fx_mat y, fx_mat x, fx_rounded x8, const fx_weight *w)
{
  return x8.q != NULL ? fx_gemm_rounded (r->b, y, x8, w, false)
                      : fx_gemm (r->b, y, x, w, false);
}

int
flux_linear (
    FluxRun *r, fx_mat y, fx_mat x, fx_rounded x8, const fx_weight *w, guint slot)
{
  FX_TRY (gemm (r, y, x, x8, w));
  return flux_adapters (r, y, x, slot, 1);
}

gboolean
flux_gelu_is_fused (FluxRun *r, const fx_weight *w, guint slot)
{
  return r->mode == FLUX_RUN_FORWARD && !w->rounds_inputs && !flux_has_module (r, slot);
}

int
flux_linear_before_gelu (
    FluxRun *r, fx_mat y, fx_mat x, fx_rounded x8, const fx_weight *w, guint slot)
{
  return flux_gelu_is_fused (r, w, slot) ? fx_gemm_gelu (r->b, y, x, w)
                                         : flux_linear (r, y, x, x8, w, slot);
}

int
flux_linear_qkv (
    FluxRun *r, fx_mat qkv, fx_mat x, fx_rounded x8, const fx_weight *w, guint slot)
{
  FX_TRY (gemm (r, qkv, x, x8, w));
  return flux_adapters (r, qkv, x, slot, 3);
}

static int
dgrad (
    FluxRun *r, fx_mat dx, fx_mat dy, fx_rounded dy8, const fx_weight *w, gboolean beta)
{
  if (dx.p == NULL)
    return FX_OK;
  return dy8.q != NULL ? fx_dgrad_rounded (r->b, dx, dy8, w, beta)
                       : fx_gemm_dgrad (r->b, dx, dy, w, beta);
}

int
flux_linear_bwd (FluxRun *r, fx_mat dx, fx_mat dy, fx_rounded dy8, fx_mat x,
    const fx_weight *w, guint slot, gboolean beta)
{
  FX_TRY (dgrad (r, dx, dy, dy8, w, beta));
  return adapters_bwd (r, dx, dy, x, slot, 1);
}

int
flux_linear_qkv_bwd (FluxRun *r, fx_mat dx, fx_mat dqkv, fx_rounded dqkv8, fx_mat x,
    const fx_weight *w, guint slot, gboolean beta)
{
  FX_TRY (dgrad (r, dx, dqkv, dqkv8, w, beta));
  return adapters_bwd (r, dx, dqkv, x, slot, 3);
}
