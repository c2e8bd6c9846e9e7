/* flux/transformer/expand.c: one block's weights in the compute dtype.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A block that is used by several samples, and again by its backward, is expanded once.
 */
#include "flux/transformer/transformer-private.h"

static gsize
padded (const FluxTransformer *t, const fx_weight *w)
{
  gsize bytes = (gsize)(w->n * w->k) * fx_dtype_size (t->backend->compute);

  return (bytes + 255) / 256 * 256;
}

gsize
flux_expanded_bytes (FluxTransformer *t)
{
  gsize most = 0, sum = 0;

  if (t->config.num_layers > 0) {
    const FluxDouble *d = &t->doubles[0];

    for (int s = 0; s < FLUX_N_STREAMS; s++)
      sum += padded (t, &d->qkv[s]) + padded (t, &d->out[s]) + padded (t, &d->fc1[s]) +
             padded (t, &d->fc2[s]);
    most = sum;
  }
  if (t->config.num_single_layers > 0) {
    const FluxSingle *s = &t->singles[0];

    most = MAX (most, padded (t, &s->qkv) + padded (t, &s->mlp) + padded (t, &s->out));
  }
  return most;
}

/* Floats that gemm reads as they lie need no copy. */
static int
expand_at (FluxRun *r, fx_weight *w, gsize *at)
{
  if (w->qtype == FX_Q_NONE && w->dtype == r->b->compute)
    return FX_OK;
  FX_TRY (fx_expand (r->b, fx_mat_new (r->expanded + *at, w->n, w->k, r->b->compute), w));
  w->expanded = r->expanded + *at;
  *at += padded (r->t, w);
  return FX_OK;
}

int
flux_expand_double (FluxRun *r, int block, FluxDouble *copy)
{
  gsize at = 0;

  *copy = r->t->doubles[block];
  if (!r->keep_expanded)
    return FX_OK;
  for (int s = 0; s < FLUX_N_STREAMS; s++) {
    FX_TRY (expand_at (r, &copy->qkv[s], &at));
    FX_TRY (expand_at (r, &copy->out[s], &at));
    FX_TRY (expand_at (r, &copy->fc1[s], &at));
    FX_TRY (expand_at (r, &copy->fc2[s], &at));
  }
  return FX_OK;
}

int
flux_expand_single (FluxRun *r, int block, FluxSingle *copy)
{
  gsize at = 0;

  *copy = r->t->singles[block];
  if (!r->keep_expanded)
    return FX_OK;
  FX_TRY (expand_at (r, &copy->qkv, &at));
  FX_TRY (expand_at (r, &copy->mlp, &at));
  return expand_at (r, &copy->out, &at);
}
