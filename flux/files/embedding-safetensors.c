/* flux/files/embedding-safetensors.c: KEY.prompt_embeds [t, d] and KEY.pooled [p].
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "flux/error.h"
#include "flux/files/embedding-private.h"

gboolean
flux_embedding_open_safetensors (FluxEmbeddingTable *self, GError **error)
{
  self->file = flux_safetensors_open (self->path, error);
  return self->file != NULL;
}

static gboolean
is_integer (fx_dtype dtype)
{
  switch (dtype) {
    case FX_U8:
    case FX_I8:
    case FX_I16:
    case FX_U16:
    case FX_I32:
    case FX_I64:
    case FX_BOOL:
      return TRUE;
    default:
      return FALSE;
  }
}

/* As fp32 in memory of its own. */
static GBytes *
read_floats (FluxEmbeddingTable *self, const char *key, const char *column,
    const FluxTensor *t, GError **error)
{
  float *x;

  if (is_integer (t->dtype)) {
    flux_embedding_refuse_integers (self, t->name, error);
    return NULL;
  }
  x = g_try_new (float, MAX (t->n_elements, 1));
  if (x == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "No memory for row '%s' of '%s' (%zu values).", key, self->path, t->n_elements);
    return NULL;
  }
  if (!flux_tensor_to_f32 (t, x, error) ||
      !flux_embedding_check_finite (self, key, column, x, t->n_elements, error)) {
    g_free (x);
    return NULL;
  }
  return g_bytes_new_take (x, t->n_elements * sizeof (float));
}

gboolean
flux_embedding_lookup_safetensors (
    FluxEmbeddingTable *self, const char *key, FluxEmbedding *e, GError **error)
{
  g_autofree char *embeds_name = g_strconcat (key, ".prompt_embeds", NULL);
  g_autofree char *pooled_name = g_strconcat (key, ".pooled", NULL);
  const FluxTensor *embeds, *pooled;
  gint64 joint = self->joint_dim > 0 ? self->joint_dim : -1;
  gint64 width = self->pooled_dim > 0 ? self->pooled_dim : -1;

  if (flux_safetensors_lookup (self->file, embeds_name) == NULL)
    return FALSE;
  embeds =
      flux_safetensors_require (self->file, embeds_name, error, 2, (gint64)-1, joint);
  if (embeds == NULL)
    return FALSE;
  pooled = flux_safetensors_require (self->file, pooled_name, error, 1, width);
  if (pooled == NULL)
    return FALSE;
  if (embeds->n_elements == 0 || pooled->n_elements == 0 ||
      embeds->dims[0] > G_MAXINT / 4 || embeds->dims[1] > G_MAXINT / 4 ||
      pooled->dims[0] > G_MAXINT / 4) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "Row '%s' of '%s' is empty or too large.", key, self->path);
    return FALSE;
  }
  e->prompt_embeds = read_floats (self, key, "prompt_embeds", embeds, error);
  if (e->prompt_embeds != NULL)
    e->pooled = read_floats (self, key, "pooled", pooled, error);
  if (e->pooled == NULL) {
    flux_embedding_clear (e);
    return FALSE;
  }
  e->text_tokens = (int)embeds->dims[0];
  e->joint_dim = (int)embeds->dims[1];
  e->pooled_dim = (int)pooled->dims[0];
  return TRUE;
}

/* TRUE when a tensor of the file belongs to a row that has been added since. */
static gboolean
is_replaced (FluxEmbeddingTable *self, const char *name)
{
  static const char *const suffixes[] = {".prompt_embeds", ".pooled"};

  for (guint i = 0; i < G_N_ELEMENTS (suffixes); i++)
    if (g_str_has_suffix (name, suffixes[i])) {
      g_autofree char *key = g_strndup (name, strlen (name) - strlen (suffixes[i]));

      return g_hash_table_contains (self->added, key);
    }
  return FALSE;
}

static void
add_source (GArray *sources, GPtrArray *names, const char *key, const char *suffix,
    GBytes *bytes, gint64 rows, gint64 cols)
{
  FluxTensorSource t = {.dtype = FX_F32, .n_dims = rows > 0 ? 2 : 1};

  g_ptr_array_add (names, g_strconcat (key, suffix, NULL));
  t.name = g_ptr_array_index (names, names->len - 1);
  t.dims[0] = rows > 0 ? rows : cols;
  t.dims[1] = rows > 0 ? cols : 0;
  t.data = g_bytes_get_data (bytes, NULL);
  g_array_append_val (sources, t);
}

gboolean
flux_embedding_save_safetensors (FluxEmbeddingTable *self, GError **error)
{
  g_autoptr (GArray) sources = g_array_new (FALSE, TRUE, sizeof (FluxTensorSource));
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  static const char *const metadata[] = {"format", "flux-embeddings", NULL};

  for (guint i = 0; self->file && i < flux_safetensors_get_n_tensors (self->file); i++) {
    const FluxTensor *old = flux_safetensors_get_nth (self->file, i);
    FluxTensorSource t = {.name = old->name, .dtype = old->dtype, .n_dims = old->n_dims};

    if (is_replaced (self, old->name))
      continue;
    memcpy (t.dims, old->dims, sizeof t.dims);
    t.data = old->data;
    g_array_append_val (sources, t);
  }
  for (guint i = 0; i < self->order->len; i++) {
    const FluxEmbeddingRow *row = g_ptr_array_index (self->order, i);

    add_source (sources, names, row->key, ".prompt_embeds", row->e.prompt_embeds,
        row->e.text_tokens, row->e.joint_dim);
    add_source (sources, names, row->key, ".pooled", row->e.pooled, 0, row->e.pooled_dim);
  }
  return flux_safetensors_write (
      self->path, (const FluxTensorSource *)sources->data, sources->len, metadata, error);
}
