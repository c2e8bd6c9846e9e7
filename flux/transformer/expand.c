/* flux/transformer/expand.c: one block's weights in the compute dtype.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A block that is used by several samples, and again by its backward, is expanded once.
 */
#include "flux/error.h"
#include "flux/transformer/transformer-private.h"

/* 8-bit products take W as it lies, and in a backward the other way round. */
static gsize
padded (const FluxTransformer *t, const fx_weight *w)
{
  gsize size = w->rounds_inputs ? 1 : fx_dtype_size (t->backend->compute);
  gsize bytes = (gsize)(w->n * w->k) * size;

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

static gsize
single_bytes (FluxTransformer *t)
{
  const FluxSingle *s = &t->singles[0];

  return padded (t, &s->qkv) + padded (t, &s->mlp) + padded (t, &s->out);
}

gsize
flux_run_expanded_bytes (FluxRun *self)
{
  const FluxTransformer *t = self->t;

  if (!self->keep_expanded || t->config.num_single_layers == 0 ||
      (t->singles[0].out.qtype == FX_Q_NONE &&
          t->singles[0].out.dtype == self->b->compute))
    return 0;
  return single_bytes (self->t);
}

gboolean
flux_run_keep_expanded (FluxRun *self, guint n, GError **error)
{
  gsize bytes = flux_run_expanded_bytes (self);
  int status;

  n = MIN (n, (guint)self->t->config.num_single_layers);
  if (n == 0 || bytes == 0)
    return TRUE;
  status = fx_arena_reserve (&self->resident, n * bytes);
  if (status != FX_OK) {
    flux_error_from_fx (error, status, "Cannot keep expanded weights");
    return FALSE;
  }
  self->n_resident = (int)n;
  self->filled = g_new0 (gboolean, n);
  return TRUE;
}

/* w in the compute dtype at `at` of base, where it stands already unless fill. Floats
 * that gemm reads as they lie need no copy. */
static int
expand_at (FluxRun *r, fx_weight *w, char *base, gsize *at, gboolean fill)
{
  fx_mat to = fx_mat_new (base + *at, w->n, w->k, r->b->compute);

  if (w->rounds_inputs)
    to = fx_mat_new (base + *at, w->k, w->n, fx_rounded_dtype (w));
  if (w->qtype == FX_Q_NONE && w->dtype == r->b->compute)
    return FX_OK;
  if (fill)
    FX_TRY (fx_expand (r->b, to, w));
  w->expanded = base + *at;
  *at += padded (r->t, w);
  return FX_OK;
}

int
flux_expand_double (FluxRun *r, int block, gboolean backward, FluxDouble *copy)
{
  gsize at = 0;

  flux_stream_double (r, block, copy);
  if (!r->keep_expanded || (copy->out[0].rounds_inputs && !backward))
    return FX_OK;
  for (int s = 0; s < FLUX_N_STREAMS; s++) {
    FX_TRY (expand_at (r, &copy->qkv[s], r->expanded, &at, TRUE));
    FX_TRY (expand_at (r, &copy->out[s], r->expanded, &at, TRUE));
    FX_TRY (expand_at (r, &copy->fc1[s], r->expanded, &at, TRUE));
    FX_TRY (expand_at (r, &copy->fc2[s], r->expanded, &at, TRUE));
  }
  return FX_OK;
}

int
flux_expand_single (FluxRun *r, int block, gboolean backward, FluxSingle *copy)
{
  const int place = block - (r->t->config.num_single_layers - r->n_resident);
  char *base = r->expanded;
  gboolean fill = TRUE;
  gsize at = 0;

  flux_stream_single (r, block, copy);
  if (!r->keep_expanded || (copy->out.rounds_inputs && !backward))
    return FX_OK;
  if (place >= 0) {
    base = r->resident.base + (gsize)place * single_bytes (r->t);
    fill = !r->filled[place];
  }
  FX_TRY (expand_at (r, &copy->qkv, base, &at, fill));
  FX_TRY (expand_at (r, &copy->mlp, base, &at, fill));
  FX_TRY (expand_at (r, &copy->out, base, &at, fill));
  if (place >= 0)
    r->filled[place] = TRUE;
  return FX_OK;
}
