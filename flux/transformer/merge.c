/* flux/transformer/merge.c: adapters added into the weights themselves.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/transformer/merge.h"

#include "flux/error.h"
#include "flux/transformer/transformer-private.h"

enum { ROWS = 256 /* of a weight, that are on the host at once */ };

int
flux_merge_rows (fx_backend *cpu, fx_mat w, gint64 first, const fx_lora *modules, int n)
{
  int status = FX_OK;

  for (int i = 0; i < n && status == FX_OK; i++) {
    const fx_lora *m = &modules[i];
    const gsize size = (gsize)w.rows * (gsize)m->rank;
    const fx_weight a = {.n = m->rank, .k = w.cols, .dtype = FX_F32, .data = m->a};
    g_autofree float *b = g_new (float, size);

    for (gsize j = 0; j < size; j++)
      b[j] = m->scale * m->b[(gsize)first * (gsize)m->rank + j];
    status = fx_gemm_dgrad (cpu, w, fx_mat_new (b, w.rows, m->rank, FX_F32), &a, TRUE);
  }
  return status;
}

static const fx_weight *
weight_in_double (const FluxDouble *d, int kind, gint64 *row)
{
  const gint64 dim = d->out[FLUX_IMAGE].n;

  switch ((FluxDoubleSlot)kind) {
    case FLUX_D_MOD:
      return &d->mod[FLUX_IMAGE];
    case FLUX_D_MOD_CONTEXT:
      return &d->mod[FLUX_TEXT];
    case FLUX_D_Q:
    case FLUX_D_K:
    case FLUX_D_V:
      *row = (kind - FLUX_D_Q) * dim;
      return &d->qkv[FLUX_IMAGE];
    case FLUX_D_ADD_Q:
    case FLUX_D_ADD_K:
    case FLUX_D_ADD_V:
      *row = (kind - FLUX_D_ADD_Q) * dim;
      return &d->qkv[FLUX_TEXT];
    case FLUX_D_OUT:
      return &d->out[FLUX_IMAGE];
    case FLUX_D_ADD_OUT:
      return &d->out[FLUX_TEXT];
    case FLUX_D_FC1:
      return &d->fc1[FLUX_IMAGE];
    case FLUX_D_FC1_CONTEXT:
      return &d->fc1[FLUX_TEXT];
    case FLUX_D_FC2:
      return &d->fc2[FLUX_IMAGE];
    case FLUX_D_FC2_CONTEXT:
    default:
      return &d->fc2[FLUX_TEXT];
  }
}

static const fx_weight *
weight_in_single (const FluxSingle *s, int kind, gint64 *row)
{
  switch ((FluxSingleSlot)kind) {
    case FLUX_S_MOD:
      return &s->mod;
    case FLUX_S_MLP:
      return &s->mlp;
    case FLUX_S_OUT:
      return &s->out;
    case FLUX_S_Q:
    case FLUX_S_K:
    case FLUX_S_V:
    default:
      *row = (kind - FLUX_S_Q) * s->out.n;
      return &s->qkv;
  }
}

static const fx_weight *
weight_at_end (const FluxTransformer *t, int kind)
{
  const fx_weight *const ends[FLUX_END_SLOTS] = {[FLUX_E_IMAGE] = &t->x_embedder,
      [FLUX_E_TEXT] = &t->context_embedder,
      [FLUX_E_TIME_1] = &t->time.first,
      [FLUX_E_TIME_2] = &t->time.second,
      [FLUX_E_POOLED_1] = &t->text.first,
      [FLUX_E_POOLED_2] = &t->text.second,
      [FLUX_E_NORM] = &t->norm_out,
      [FLUX_E_OUT] = &t->proj_out,
      [FLUX_E_GUIDANCE_1] = &t->guidance.first,
      [FLUX_E_GUIDANCE_2] = &t->guidance.second};

  return ends[kind];
}

/* The weight that a slot is in, from *row on. */
static const fx_weight *
weight_of (const FluxTransformer *t, guint slot, gint64 *row)
{
  const guint singles = flux_slot_single (&t->config, 0, 0);
  const guint ends = flux_slot_end (&t->config, 0);

  *row = 0;
  if (slot >= ends)
    return weight_at_end (t, (int)(slot - ends));
  if (slot >= singles)
    return weight_in_single (&t->singles[(slot - singles) / FLUX_SINGLE_SLOTS],
        (int)((slot - singles) % FLUX_SINGLE_SLOTS), row);
  return weight_in_double (
      &t->doubles[slot / FLUX_DOUBLE_SLOTS], (int)(slot % FLUX_DOUBLE_SLOTS), row);
}

/* A module on the host, with halves of its own. */
static int
fetch (fx_backend *b, const fx_lora *m, gint64 n, gint64 k, fx_lora *out)
{
  const gsize a_bytes = sizeof (float) * (gsize)m->rank * (gsize)k;
  const gsize b_bytes = sizeof (float) * (gsize)m->rank * (gsize)n;

  *out = (fx_lora){.rank = m->rank, .scale = m->scale};
  out->a = g_malloc (a_bytes);
  out->b = g_malloc (b_bytes);
  FX_TRY (fx_download (b, out->a, m->a, a_bytes));
  return fx_download (b, out->b, m->b, b_bytes);
}

/* n rows of w from `row` on, the sum of all modules added. */
static int
merge_rows (fx_backend *b, fx_backend *cpu, const fx_weight *w, gint64 row, gint64 n,
    const fx_lora *modules, guint n_modules)
{
  const gint64 k = w->k, most = MIN (n, ROWS);
  const gsize size = fx_dtype_size (w->dtype);
  g_autofree float *values = g_new (float, (gsize)(most * k));
  g_autofree char *stored = g_malloc ((gsize)(most * k) * size);

  for (gint64 first = 0; first < n; first += ROWS) {
    const gint64 count = MIN (ROWS, n - first);
    const gsize elements = (gsize)(count * k);
    char *at = (char *)w->data + (gsize)((row + first) * k) * size;

    FX_TRY (fx_download (b, stored, at, elements * size));
    FX_TRY (fx_convert (values, FX_F32, stored, w->dtype, elements));
    FX_TRY (flux_merge_rows (
        cpu, fx_mat_new (values, count, k, FX_F32), first, modules, (int)n_modules));
    FX_TRY (fx_convert (stored, w->dtype, values, FX_F32, elements));
    FX_TRY (fx_upload (b, at, stored, elements * size));
  }
  return FX_OK;
}

static int
merge_slot (FluxTransformer *t, fx_backend *cpu, FluxLora *const *loras, guint n_loras,
    guint slot)
{
  g_autofree fx_lora *modules = g_new0 (fx_lora, n_loras);
  const FluxLoraSlot *s = flux_lora_get_slot (loras[0], slot);
  int status = FX_OK;
  guint n = 0;
  gint64 row;
  const fx_weight *w = weight_of (t, slot, &row);

  for (guint i = 0; i < n_loras && status == FX_OK; i++) {
    const fx_lora *m = flux_lora_module (loras[i], slot);

    if (m != NULL)
      status = fetch (t->backend, m, s->n, s->k, &modules[n++]);
  }
  if (status == FX_OK && n > 0)
    status = merge_rows (t->backend, cpu, w, row, s->n, modules, n);
  for (guint i = 0; i < n; i++) {
    g_free (modules[i].a);
    g_free (modules[i].b);
  }
  return status;
}

static gboolean
check_floats (FluxTransformer *t, FluxLora *const *loras, guint n, GError **error)
{
  for (guint slot = 0; slot < flux_slot_count (&t->config); slot++) {
    gint64 row;
    const fx_weight *w = weight_of (t, slot, &row);

    for (guint i = 0; i < n; i++) {
      if (w->qtype == FX_Q_NONE || flux_lora_module (loras[i], slot) == NULL)
        continue;
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "Adapters cannot be merged into quantised weights ('%s'): use a model in "
          "floating point with quantization=none, or do not merge.",
          flux_lora_get_slot (loras[i], slot)->name);
      return FALSE;
    }
  }
  return TRUE;
}

gboolean
flux_transformer_merge (
    FluxTransformer *self, FluxLora *const *loras, guint n_loras, GError **error)
{
  fx_backend *cpu;
  int status;

  if (n_loras == 0)
    return TRUE;
  if (self->block_at != NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "Adapters cannot be merged into weights that are streamed from the host.");
    return FALSE;
  }
  if (!check_floats (self, loras, n_loras, error))
    return FALSE;
  cpu = fx_cpu_new (0);
  status = cpu != NULL ? FX_OK : FX_ERR_MEMORY;
  for (guint s = 0; status == FX_OK && s < flux_slot_count (&self->config); s++)
    status = merge_slot (self, cpu, loras, n_loras, s);
  if (cpu != NULL)
    fx_backend_free (cpu);
  if (status != FX_OK)
    flux_error_from_fx (error, status, "Cannot merge the adapters");
  return status == FX_OK;
}
