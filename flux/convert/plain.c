/* flux/convert/plain.c: the tensors of a model's file one after the other.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/convert/plain.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "flux/error.h"
#include "flux/files/config-json.h"
#include "flux/files/stored.h"

enum { PIECE = 1 << 20 /* elements that are expanded at once */ };

typedef struct {
  const FluxTensor *tensor;
  gboolean expanded;
  FluxStored stored; /* when expanded */
} Entry;

struct _FluxPlain {
  FluxSafetensors *file;
  GPtrArray *infos;
  GArray *entries;
};

/* ---- what belongs to a quantised weight ---- */

static void
hide (FluxPlain *self, GHashTable *hidden, const char *prefix, const char *end)
{
  g_autofree char *name = g_strconcat (prefix, end, NULL);

  if (flux_safetensors_lookup (self->file, name) != NULL)
    g_hash_table_add (hidden, g_steal_pointer (&name));
}

static gboolean
find_shape (FluxPlain *self, const FluxTensor *state, gint64 shape[2], GError **error)
{
  g_autofree char *where = g_strdup_printf (
      "Tensor '%s' of '%s'", state->name, flux_safetensors_get_path (self->file));
  g_autoptr (FluxConfigJson) json =
      flux_config_json_parse (state->data, state->n_bytes, where, error);
  guint n = 2;

  shape[0] = shape[1] = 1;
  return json != NULL &&
         flux_config_json_ints (json, "shape", 1, G_MAXINT32, shape, &n, error);
}

/* A weight in 4 or 8 bits: *stored is set, *found TRUE, and its parts are hidden. */
static gboolean
find_stored (FluxPlain *self, const FluxTensor *t, GHashTable *hidden, FluxStored *stored,
    gboolean *found, GError **error)
{
  static const char *const nf4_parts[] = {".absmax", ".quant_map", ".nested_absmax",
      ".nested_quant_map", ".quant_state.bitsandbytes__nf4"};
  g_autofree char *prefix = NULL, *state = NULL;
  const FluxTensor *quant_state;
  gint64 shape[2] = {0, 0};

  *found = FALSE;
  if (!g_str_has_suffix (t->name, ".weight"))
    return TRUE;
  prefix = g_strndup (t->name, strlen (t->name) - strlen (".weight"));
  state = g_strconcat (t->name, ".quant_state.bitsandbytes__nf4", NULL);
  quant_state = flux_safetensors_lookup (self->file, state);
  if (quant_state != NULL) {
    if (!find_shape (self, quant_state, shape, error))
      return FALSE;
    for (guint i = 0; i < G_N_ELEMENTS (nf4_parts); i++)
      hide (self, hidden, t->name, nf4_parts[i]);
  } else if (t->dtype == FX_I8 && t->n_dims == 2) {
    shape[0] = t->dims[0];
    shape[1] = t->dims[1];
    hide (self, hidden, prefix, ".SCB");
    hide (self, hidden, prefix, ".weight_format");
  } else if (t->dtype == FX_E4M3 && t->n_dims == 2) {
    shape[0] = t->dims[0];
    shape[1] = t->dims[1];
  } else {
    return TRUE;
  }
  *found = TRUE;
  if (!flux_stored_find (self->file, prefix, shape[0], shape[1], stored, error))
    return FALSE;
  if (stored->kind == FLUX_STORED_INT8)
    stored->dtype = FX_BF16; /* the file does not say */
  return TRUE;
}

static gboolean
add (FluxPlain *self, const Entry *e, GError **error)
{
  const gint64 shape[2] = {e->stored.n, e->stored.k};
  FluxTensorInfo *info =
      e->expanded ? flux_tensor_info_new (e->tensor->name, e->stored.dtype, 2, shape)
                  : flux_tensor_info_new (e->tensor->name, e->tensor->dtype,
                        e->tensor->n_dims, e->tensor->dims);

  if (info == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "Tensor '%s' of '%s' has an impossible shape.", e->tensor->name,
        flux_safetensors_get_path (self->file));
    return FALSE;
  }
  g_ptr_array_add (self->infos, info);
  g_array_append_val (self->entries, *e);
  return TRUE;
}

static gboolean
list (FluxPlain *self, gboolean expand, GError **error)
{
  g_autoptr (GHashTable) hidden =
      g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  const guint n = flux_safetensors_get_n_tensors (self->file);
  g_autofree Entry *all = g_new0 (Entry, MAX (n, 1));

  for (guint i = 0; i < n; i++) {
    all[i].tensor = flux_safetensors_get_nth (self->file, i);
    if (expand && !find_stored (self, all[i].tensor, hidden, &all[i].stored,
                      &all[i].expanded, error))
      return FALSE;
  }
  for (guint i = 0; i < n; i++) {
    if (!g_hash_table_contains (hidden, all[i].tensor->name) &&
        !add (self, &all[i], error))
      return FALSE;
  }
  return TRUE;
}

FluxPlain *
flux_plain_new (FluxSafetensors *file, gboolean expand, GError **error)
{
  g_autoptr (FluxPlain) self = g_new0 (FluxPlain, 1);

  self->file = flux_safetensors_ref (file);
  self->infos = flux_tensor_infos_new ();
  self->entries = g_array_new (FALSE, FALSE, sizeof (Entry));
  return list (self, expand, error) ? g_steal_pointer (&self) : NULL;
}

void
flux_plain_free (FluxPlain *self)
{
  g_array_unref (self->entries);
  g_ptr_array_unref (self->infos);
  flux_safetensors_unref (self->file);
  g_free (self);
}

GPtrArray *
flux_plain_get_infos (FluxPlain *self)
{
  return self->infos;
}

/* ---- data ---- */

typedef struct {
  FluxSafetensors *file;
  gconstpointer data;
  gsize n_bytes;
} View;

/* Advice about the whole pages of a range. */
static void
advise (gconstpointer data, gsize n_bytes, int advice)
{
  const gsize page = (gsize)sysconf (_SC_PAGESIZE);
  const gsize first = ((gsize)data + page - 1) / page * page;
  const gsize end = ((gsize)data + n_bytes) / page * page;

  if (end > first)
    madvise ((void *)first, end - first, advice);
}

static void
view_free (gpointer data)
{
  View *view = data;

  advise (view->data, view->n_bytes, MADV_DONTNEED);
  flux_safetensors_unref (view->file);
  g_free (view);
}

static GBytes *
view_new (FluxPlain *self, const FluxTensor *t)
{
  View *view = g_new (View, 1);

  *view = (View){flux_safetensors_ref (self->file), t->data, t->n_bytes};
  return g_bytes_new_with_free_func (t->data, t->n_bytes, view_free, view);
}

static GBytes *
expand (const Entry *e, const FluxTensorInfo *info, GError **error)
{
  const FluxStored *stored = &e->stored;
  const gint64 elements = (gint64)info->n_elements;
  const gint64 piece = MIN (elements, MAX (1, PIECE / MAX (1, stored->k)) * stored->k);
  /* A multiple of 64 too: 4-bit rows are. */
  const gsize size = fx_dtype_size (info->dtype);
  g_autofree float *values = g_new (float, (gsize)piece);
  g_autofree char *out = g_try_malloc (info->n_bytes);

  if (out == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "There is no memory for the tensor '%s'.", info->name);
    return NULL;
  }
  for (gint64 i = 0; i < elements; i += piece) {
    const gint64 count = MIN (piece, elements - i);
    int status;

    flux_stored_read (stored, i, count, values);
    status =
        fx_convert (out + (gsize)i * size, info->dtype, values, FX_F32, (gsize)count);
    if (status != FX_OK) {
      flux_error_from_fx (error, status, info->name);
      return NULL;
    }
  }
  advise (stored->weight->data, stored->weight->n_bytes, MADV_DONTNEED);
  return g_bytes_new_take (g_steal_pointer (&out), info->n_bytes);
}

/* Reading of a tensor begins when the one before it is handed out. */
static void
prefetch (FluxPlain *self, guint i)
{
  if (i < self->entries->len) {
    const FluxTensor *t = g_array_index (self->entries, Entry, i).tensor;

    advise (t->data, t->n_bytes, MADV_WILLNEED);
  }
}

GBytes *
flux_plain_read (FluxPlain *self, guint i, GError **error)
{
  const Entry *e = &g_array_index (self->entries, Entry, i);

  if (i == 0)
    prefetch (self, 0);
  prefetch (self, i + 1);
  return e->expanded ? expand (e, self->infos->pdata[i], error)
                     : view_new (self, e->tensor);
}
