/* flux/files/weights.c: tensors of a file to weights on a backend.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/files/weights.h"

#include "flux/error.h"
#include "flux/files/weights-cache-private.h"
#include "flux/files/weights-fill.h"

static void
rewind_arenas (FluxLoader *self)
{
  fx_arena_rewind (self->arena, 0);
  if (self->host_arena != NULL)
    fx_arena_rewind (self->host_arena, 0);
}

static gboolean
reserve_arenas (FluxLoader *self, GError **error)
{
  int status;

  rewind_arenas (self);
  status = fx_arena_reserve (self->arena, self->arena->high);
  if (status == FX_OK && self->host_arena != NULL)
    status = fx_arena_reserve (self->host_arena, self->host_arena->high);
  if (status != FX_OK)
    flux_error_from_fx (error, status, "Cannot reserve the memory of the weights");
  return status == FX_OK;
}

static gboolean
load_again (FluxLoader *self, FluxLoadFunc load, gpointer model, GError **error)
{
  rewind_arenas (self);
  self->bytes_done = 0;
  return load (self, model, error);
}

/* The pass that loads. What the cache has is as good as new, or is not taken. */
static gboolean
load_cached (FluxLoader *self, FluxLoadFunc load, gpointer model, GError **error)
{
  self->is_cached = flux_cache_entry_open (self->entry, self);
  if (self->is_cached) {
    if (!load_again (self, load, model, error))
      return FALSE;
    if (flux_cache_entry_check (self->entry, self))
      return TRUE;
    self->is_cached = FALSE;
  }
  if (!load_again (self, load, model, error))
    return FALSE;
  return flux_cache_entry_write (self->entry, self, error);
}

static gboolean
run (FluxLoader *self, FluxLoadFunc load, gpointer model, GError **error)
{
  if (!load (self, model, error) || !reserve_arenas (self, error))
    return FALSE;
  if (self->entry != NULL && self->bytes_quantised > 0 &&
      self->bytes_total >= self->cache->min_bytes)
    return load_cached (self, load, model, error);
  g_clear_pointer (&self->entry, flux_cache_entry_free);
  return load_again (self, load, model, error);
}

gboolean
flux_loader_run (FluxLoader *self, FluxLoadFunc load, gpointer model, GError **error)
{
  gboolean ok;

  self->bytes_done = self->bytes_total = self->bytes_quantised = 0;
  self->is_cached = FALSE;
  if (self->cache != NULL && self->file != NULL)
    self->entry = flux_cache_entry_new ();
  ok = run (self, load, model, error);
  g_clear_pointer (&self->entry, flux_cache_entry_free);
  if (!ok) {
    fx_arena_clear (self->arena);
    if (self->host_arena != NULL)
      fx_arena_clear (self->host_arena);
  }
  return ok;
}

static gboolean
is_measuring (const FluxLoader *self)
{
  return self->arena->base == NULL;
}

static gint
percent (const FluxLoader *self)
{
  if (self->bytes_total == 0)
    return 100;
  return (gint)MIN (100.0, 100.0 * (double)self->bytes_done / (double)self->bytes_total);
}

gboolean
flux_loader_report (FluxLoader *self, const char *what, gint percent, GError **error)
{
  if (self->progress == NULL || self->progress (what, percent, self->progress_data))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED, "Loading was cancelled.");
  return FALSE;
}

/* Counts a tensor in: measured, it adds to the total; loaded, to what is done. */
static gboolean
count_bytes (FluxLoader *self, gsize bytes, GError **error)
{
  gint before = self->bytes_done == 0 ? -1 : percent (self);

  if (is_measuring (self)) {
    self->bytes_total += bytes;
    return TRUE;
  }
  self->bytes_done += bytes;
  return percent (self) == before ||
         flux_loader_report (
             self, self->what != NULL ? self->what : "weights", percent (self), error);
}

/* Have the data of what was taken still to be made? */
static gboolean
is_filling (const FluxLoader *self)
{
  return !is_measuring (self) && self->file != NULL && !self->is_planned &&
         !self->is_cached;
}

/* NULL is a failure. */
static gpointer
take_from (FluxLoader *self, fx_arena *arena, gsize bytes, GError **error)
{
  void *p = NULL;
  int status = fx_arena_take (arena, bytes, &p);

  if (status != FX_OK) {
    flux_error_from_fx (error, status, "No room for weights");
    return NULL;
  }
  if (self->entry == NULL)
    return p;
  if (is_measuring (self))
    flux_cache_entry_add (self->entry, bytes);
  else if (!self->is_cached)
    flux_cache_entry_place (self->entry, arena->backend, p);
  else if (!flux_cache_entry_read (self->entry, arena->backend, p, bytes, error))
    return NULL;
  return p;
}

static gpointer
take (FluxLoader *self, gsize bytes, GError **error)
{
  return take_from (self, self->arena, bytes, error);
}

/* For what a block's linear layers multiply with. */
static gpointer
take_data (FluxLoader *self, gsize bytes, GError **error)
{
  return take_from (self, self->to_host ? self->host_arena : self->arena, bytes, error);
}

/* What is taken next depends on this. */
static void
note (FluxLoader *self, const char *name, gint64 n, gint64 k, fx_qtype qtype,
    fx_dtype dtype)
{
  if (self->entry != NULL && is_measuring (self))
    flux_cache_entry_note (self->entry, name, n, k, (int)qtype, (int)dtype);
}

/* n * k floats in bytes fit a size, with room to spare? */
static gboolean
check_size (const char *name, gint64 n, gint64 k, GError **error)
{
  if (n > 0 && k > 0 && n <= G_MAXINT64 / 64 / k)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "The configuration gives '%s' the impossible shape %" G_GINT64_FORMAT
      " x %" G_GINT64_FORMAT ".",
      name, n, k);
  return FALSE;
}

/* The float tensor `name` with these dims (1, 2 or 4 of them); *out is NULL without a
 * file. */
static gboolean
find_floats (FluxLoader *self, const char *name, const gint64 *dims, guint n_dims,
    const FluxTensor **out, GError **error)
{
  const FluxTensor *t;

  *out = NULL;
  if (self->file == NULL)
    return TRUE;
  if (n_dims == 1)
    t = flux_safetensors_require (self->file, name, error, 1, dims[0]);
  else if (n_dims == 2)
    t = flux_safetensors_require (self->file, name, error, 2, dims[0], dims[1]);
  else
    t = flux_safetensors_require (
        self->file, name, error, 4, dims[0], dims[1], dims[2], dims[3]);
  if (t == NULL)
    return FALSE;
  if (!flux_tensor_is_float (t)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "Tensor '%s' of '%s' has type %s; F32, BF16 or F16 is needed.", name,
        flux_safetensors_get_path (self->file), fx_dtype_name (t->dtype));
    return FALSE;
  }
  *out = t;
  return TRUE;
}

/* ---- linear layers ---- */

static gboolean
find_parts (FluxLoader *self, const char *const *prefixes, const gint64 *rows, guint n,
    gint64 k, FluxStored *parts, gint64 *total, GError **error)
{
  *total = 0;
  for (guint i = 0; i < n; i++) {
    if (!check_size (prefixes[i], rows[i], k, error) ||
        !check_size (prefixes[i], *total + rows[i], k, error))
      return FALSE;
    *total += rows[i];
    if (self->file == NULL)
      parts[i] =
          (FluxStored){.kind = FLUX_STORED_FLOAT, .n = rows[i], .k = k, .dtype = FX_BF16};
    else if (!flux_stored_find (self->file, prefixes[i], rows[i], k, &parts[i], error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
take_weight (FluxLoader *self, fx_weight *w, gboolean bias, GError **error)
{
  gsize elements = (gsize)(w->n * w->k), blocks = elements / FX_NF4_BLOCK;
  gsize nested = (blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK;
  gboolean ok;

  switch (w->qtype) {
    case FX_Q_NF4:
      ok = (w->data = take_data (self, elements / 2, error)) != NULL &&
           (w->absmax = take_data (self, blocks * sizeof (float), error)) != NULL;
      break;
    case FX_Q_NF4_DOUBLE:
      ok = (w->data = take_data (self, elements / 2, error)) != NULL &&
           (w->absmax_q = take_data (self, blocks, error)) != NULL &&
           (w->absmax2 = take_data (self, nested * sizeof (float), error)) != NULL &&
           (w->offset2 = take_data (self, nested * sizeof (float), error)) != NULL &&
           (w->code8 = take_data (self, 256 * sizeof (float), error)) != NULL;
      break;
    case FX_Q_INT8:
    case FX_Q_FP8:
      ok = (w->data = take_data (self, elements, error)) != NULL &&
           (w->absmax = take_data (self, (gsize)w->n * sizeof (float), error)) != NULL;
      break;
    default:
      ok = (w->data = take_data (self, elements * fx_dtype_size (w->dtype), error)) !=
           NULL;
  }
  return ok &&
         (!bias || (w->bias = take (self, (gsize)w->n * sizeof (float), error)) != NULL);
}

/* PREFIX.bias of every part into w->bias. */
static gboolean
load_bias (FluxLoader *self, const char *const *prefixes, const gint64 *rows, guint n,
    const fx_weight *w, GError **error)
{
  g_autofree float *values = is_filling (self) ? g_new (float, (gsize)w->n) : NULL;
  gint64 row = 0;
  int status;

  for (guint i = 0; i < n; i++) {
    g_autofree char *name = g_strconcat (prefixes[i], ".bias", NULL);
    const FluxTensor *t;
    if (!find_floats (self, name, &rows[i], 1, &t, error) ||
        !count_bytes (self, t != NULL ? t->n_bytes : 0, error))
      return FALSE;
    if (t != NULL && values != NULL)
      flux_tensor_read (t, 0, rows[i], values + row);
    row += rows[i];
  }
  if (values == NULL)
    return TRUE;
  status =
      fx_upload (self->backend, (void *)w->bias, values, (gsize)w->n * sizeof (float));
  if (status != FX_OK)
    flux_error_from_fx (error, status, prefixes[0]);
  return status == FX_OK;
}

gboolean
flux_load_linear_rows (FluxLoader *self, const char *const *prefixes, const gint64 *rows,
    guint n_prefixes, gint64 k, gboolean bias, fx_weight *w, GError **error)
{
  g_autofree FluxStored *parts = g_new0 (FluxStored, n_prefixes);
  gint64 n, row = 0;

  if (!find_parts (self, prefixes, rows, n_prefixes, k, parts, &n, error))
    return FALSE;
  *w = (fx_weight){.n = n, .k = k, .home = self->to_host ? FX_HOME_HOST : FX_HOME_DEVICE};
  if (!flux_weight_choose (self, parts, n_prefixes, w, error))
    return FALSE;
  note (self, prefixes[0], n, k, w->qtype, w->dtype);
  if (!take_weight (self, w, bias, error))
    return FALSE;
  for (guint i = 0; i < n_prefixes; i++) {
    gsize bytes = parts[i].weight != NULL ? parts[i].weight->n_bytes : 0;
    if (is_filling (self) && !flux_weight_fill (self, w, row, &parts[i], error))
      return FALSE;
    if (is_measuring (self) && w->qtype != FX_Q_NONE &&
        parts[i].kind == FLUX_STORED_FLOAT)
      self->bytes_quantised += bytes;
    if (!count_bytes (self, bytes, error))
      return FALSE;
    row += rows[i];
  }
  return !bias || load_bias (self, prefixes, rows, n_prefixes, w, error);
}

gboolean
flux_load_linear (FluxLoader *self, const char *prefix, gint64 n, gint64 k, gboolean bias,
    fx_weight *w, GError **error)
{
  return flux_load_linear_rows (self, &prefix, &n, 1, k, bias, w, error);
}

/* ---- plain tensors ---- */

gboolean
flux_load_vector (
    FluxLoader *self, const char *name, gint64 n, const float **v, GError **error)
{
  const FluxTensor *t;
  float *p;

  if (!check_size (name, n, 1, error) || !find_floats (self, name, &n, 1, &t, error))
    return FALSE;
  note (self, name, n, 1, FX_Q_NONE, FX_F32);
  if ((p = take (self, (gsize)n * sizeof (float), error)) == NULL)
    return FALSE;
  *v = p;
  if (t == NULL)
    return TRUE;
  return (!is_filling (self) || flux_upload_floats (self, p, FX_F32, t, error)) &&
         count_bytes (self, t->n_bytes, error);
}

gboolean
flux_load_table (FluxLoader *self, const char *name, gint64 rows, gint64 cols, fx_mat *m,
    GError **error)
{
  gint64 dims[2] = {rows, cols};
  fx_dtype dtype = self->compute;
  const FluxTensor *t;
  void *p;

  if (!check_size (name, rows, cols, error) ||
      !find_floats (self, name, dims, 2, &t, error))
    return FALSE;
  if (self->keep_dtype)
    dtype = t != NULL ? t->dtype : FX_BF16;
  note (self, name, rows, cols, FX_Q_NONE, dtype);
  p = take (self, (gsize)(rows * cols) * fx_dtype_size (dtype), error);
  if (p == NULL)
    return FALSE;
  *m = fx_mat_new (p, rows, cols, dtype);
  if (t == NULL)
    return TRUE;
  return (!is_filling (self) || flux_upload_floats (self, p, dtype, t, error)) &&
         count_bytes (self, t->n_bytes, error);
}

gboolean
flux_load_conv (FluxLoader *self, const char *prefix, gint64 out, gint64 in,
    gint64 kernel, fx_weight *w, GError **error)
{
  g_autofree char *name = g_strconcat (prefix, ".weight", NULL);
  gint64 dims[4] = {out, in, kernel, kernel};
  const FluxTensor *t;

  if (kernel < 1 || kernel > 64 || !check_size (name, in, kernel * kernel, error) ||
      !check_size (name, out, in * kernel * kernel, error) ||
      !find_floats (self, name, dims, 4, &t, error))
    return FALSE;
  *w = (fx_weight){.n = out,
      .k = in * kernel * kernel,
      .qtype = FX_Q_NONE,
      .dtype = self->compute,
      .home = FX_HOME_DEVICE};
  note (self, prefix, out, w->k, FX_Q_NONE, w->dtype);
  if (!take_weight (self, w, TRUE, error))
    return FALSE;
  if (is_filling (self) && !flux_upload_conv (self, w, t, in, kernel * kernel, error))
    return FALSE;
  return count_bytes (self, t != NULL ? t->n_bytes : 0, error) &&
         load_bias (self, &prefix, &out, 1, w, error);
}
