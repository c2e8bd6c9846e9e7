/* flux/files/safetensors-write.c: writing a file as the reference does.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Tensors by dtype, largest alignment first, then by name; header padded with spaces to 8
 * bytes; compact JSON (huggingface/safetensors, safetensors/src/tensor.rs, prepare()). */
#include <string.h>

#include "flux/error.h"
#include "flux/files/json-cursor.h"
#include "flux/files/safetensors-private.h"

typedef struct {
  const FluxTensorSource *source;
  guint rank; /* of the dtype in the file's order */
  gsize n_bytes;
} Entry;

static int
compare_entries (gconstpointer a, gconstpointer b)
{
  const Entry *x = a, *y = b;

  if (x->rank != y->rank)
    return x->rank < y->rank ? -1 : 1;
  return strcmp (x->source->name, y->source->name);
}

static gboolean
refuse (GError **error, const char *path, const char *name, const char *what)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "Could not write '%s': tensor '%s' %s.", path, name, what);
  return FALSE;
}

static gboolean
fill_entry (Entry *e, const FluxTensorSource *t, const char *path, GError **error)
{
  gsize bytes;

  e->source = t;
  while (e->rank < FX_N_DTYPES && flux_safetensors_dtypes[e->rank] != t->dtype)
    e->rank++;
  if (e->rank == FX_N_DTYPES)
    return refuse (error, path, t->name, "has an unknown type");
  if (t->n_dims > FLUX_TENSOR_MAX_DIMS)
    return refuse (error, path, t->name, "has too many dimensions");
  if (!g_utf8_validate (t->name, -1, NULL) || strcmp (t->name, "__metadata__") == 0)
    return refuse (error, path, t->name, "has a name that the format does not allow");
  bytes = fx_dtype_size (t->dtype);
  for (guint i = 0; i < t->n_dims; i++) {
    if (t->dims[i] < 0 || !g_size_checked_mul (&bytes, bytes, (gsize)t->dims[i]))
      return refuse (error, path, t->name, "has an impossible shape");
  }
  e->n_bytes = bytes;
  return TRUE;
}

static gboolean
append_metadata (
    GString *json, const char *const *metadata, const char *path, GError **error)
{
  g_string_append (json, "\"__metadata__\":{");
  for (guint i = 0; metadata[i] != NULL; i += 2) {
    if (metadata[i + 1] == NULL || !g_utf8_validate (metadata[i], -1, NULL) ||
        !g_utf8_validate (metadata[i + 1], -1, NULL)) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "Could not write '%s': metadata '%s' has no value in UTF-8.", path,
          metadata[i]);
      return FALSE;
    }
    if (i > 0)
      g_string_append_c (json, ',');
    flux_json_append_string (json, metadata[i]);
    g_string_append_c (json, ':');
    flux_json_append_string (json, metadata[i + 1]);
  }
  g_string_append_c (json, '}');
  return TRUE;
}

static void
append_entry (GString *json, const Entry *e, gsize offset)
{
  const FluxTensorSource *t = e->source;

  flux_json_append_string (json, t->name);
  g_string_append_printf (
      json, ":{\"dtype\":\"%s\",\"shape\":[", fx_dtype_name (t->dtype));
  for (guint i = 0; i < t->n_dims; i++)
    g_string_append_printf (json, "%s%" G_GINT64_FORMAT, i > 0 ? "," : "", t->dims[i]);
  g_string_append_printf (json,
      "],\"data_offsets\":[%" G_GSIZE_FORMAT ",%" G_GSIZE_FORMAT "]}", offset,
      offset + e->n_bytes);
}

/* The length and the JSON, padded; NULL on error. */
static GString *
make_header (
    GArray *entries, const char *const *metadata, const char *path, GError **error)
{
  g_autoptr (GString) json = g_string_new (NULL);
  gsize offset = 0;
  guint64 length;

  g_string_append_len (json, "\0\0\0\0\0\0\0\0{", 9);
  if (metadata != NULL && !append_metadata (json, metadata, path, error))
    return NULL;
  for (guint i = 0; i < entries->len; i++) {
    Entry *e = &g_array_index (entries, Entry, i);

    if (i > 0 || metadata != NULL)
      g_string_append_c (json, ',');
    append_entry (json, e, offset);
    if (!g_size_checked_add (&offset, offset, e->n_bytes)) {
      refuse (error, path, e->source->name, "makes the file too large");
      return NULL;
    }
  }
  g_string_append_c (json, '}');
  while (json->len % 8 != 0)
    g_string_append_c (json, ' ');
  length = json->len - sizeof length;
  if (length > FLUX_SAFETENSORS_MAX_HEADER) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "Could not write '%s': its header would be longer than 100 MB.", path);
    return NULL;
  }
  length = GUINT64_TO_LE (length);
  memcpy (json->str, &length, sizeof length);
  return g_steal_pointer (&json);
}

static gboolean
check_names (const FluxTensorSource *tensors, guint n, const char *path, GError **error)
{
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);

  for (guint i = 0; i < n; i++) {
    if (!g_hash_table_add (seen, (gpointer)tensors[i].name))
      return refuse (error, path, tensors[i].name, "is there twice");
  }
  return TRUE;
}

/* The tensors in the order of the file; NULL on error. */
static GArray *
sort_entries (const char *path, const FluxTensorSource *tensors, guint n, GError **error)
{
  g_autoptr (GArray) entries = g_array_sized_new (FALSE, TRUE, sizeof (Entry), n);

  if (!check_names (tensors, n, path, error))
    return NULL;
  g_array_set_size (entries, n);
  for (guint i = 0; i < n; i++) {
    if (!fill_entry (&g_array_index (entries, Entry, i), &tensors[i], path, error))
      return NULL;
  }
  g_array_sort (entries, compare_entries);
  return g_steal_pointer (&entries);
}

GString *
flux_safetensors_layout (const char *path, const FluxTensorSource *tensors, guint n,
    const char *const *metadata, gsize *offsets, GError **error)
{
  g_autoptr (GArray) entries = sort_entries (path, tensors, n, error);
  GString *header = entries != NULL ? make_header (entries, metadata, path, error) : NULL;
  gsize offset = header != NULL ? header->len : 0;

  for (guint i = 0; header != NULL && i < n; i++) {
    const Entry *e = &g_array_index (entries, Entry, i);

    offsets[e->source - tensors] = offset;
    offset += e->n_bytes;
  }
  return header;
}

gboolean
flux_safetensors_write (const char *path, const FluxTensorSource *tensors, guint n,
    const char *const *metadata, GError **error)
{
  g_autoptr (GArray) entries = sort_entries (path, tensors, n, error);
  g_autoptr (GString) header = NULL;
  g_autoptr (FluxReplace) file = NULL;

  if (entries == NULL)
    return FALSE;
  header = make_header (entries, metadata, path, error);
  if (header == NULL)
    return FALSE;
  file = flux_replace_begin (path, error);
  if (file == NULL || !flux_replace_write (file, header->str, header->len, error))
    return FALSE;
  for (guint i = 0; i < n; i++) {
    const Entry *e = &g_array_index (entries, Entry, i);

    if (!flux_replace_write (file, e->source->data, e->n_bytes, error))
      return FALSE;
  }
  return flux_replace_commit (g_steal_pointer (&file), error);
}
