/* flux/files/safetensors.c: the tensors of one file or of several joined by an index.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/files/safetensors.h"

#include <string.h>

#include "flux/error.h"
#include "flux/files/safetensors-private.h"

struct _FluxSafetensors {
  int ref_count; /* atomic */
  char *path;
  GPtrArray *files;   /* FluxSafetensorsFile, by name */
  GPtrArray *tensors; /* FluxTensor, borrowed from the files */
  GHashTable *names;  /* name -> FluxTensor */
};

static void
add_tensor (FluxSafetensors *self, FluxTensor *t)
{
  g_ptr_array_add (self->tensors, t);
  g_hash_table_insert (self->names, (gpointer)t->name, t);
}

static gboolean
open_single (FluxSafetensors *self, GError **error)
{
  FluxSafetensorsFile *file = flux_safetensors_file_open (self->path, error);

  if (file == NULL)
    return FALSE;
  g_ptr_array_add (self->files, file);
  for (guint i = 0; i < file->tensors->len; i++)
    add_tensor (self, &g_array_index (file->tensors, FluxTensor, i));
  return TRUE;
}

/* Opens one shard and takes those of its tensors that the map puts there. */
static gboolean
open_shard (
    FluxSafetensors *self, const char *shard, GHashTable *weight_map, GError **error)
{
  g_autofree char *folder = g_path_get_dirname (self->path);
  g_autofree char *path = g_build_filename (folder, shard, NULL);
  FluxSafetensorsFile *file = flux_safetensors_file_open (path, error);

  if (file == NULL)
    return FALSE;
  g_ptr_array_add (self->files, file);
  for (guint i = 0; i < file->tensors->len; i++) {
    FluxTensor *t = &g_array_index (file->tensors, FluxTensor, i);

    if (g_strcmp0 (g_hash_table_lookup (weight_map, t->name), shard) == 0)
      add_tensor (self, t);
  }
  return TRUE;
}

static int
compare_names (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *)a, *(const char *const *)b);
}

static gboolean
open_index (FluxSafetensors *self, GError **error)
{
  g_autoptr (GPtrArray) names = NULL;
  g_autoptr (GPtrArray) shards = NULL;
  g_autoptr (GPtrArray) order = g_ptr_array_new ();
  g_autoptr (GHashTable) weight_map = g_hash_table_new (g_str_hash, g_str_equal);
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);

  if (!flux_safetensors_read_index (self->path, &names, &shards, error))
    return FALSE;
  for (guint i = 0; i < names->len; i++) {
    g_hash_table_insert (weight_map, names->pdata[i], shards->pdata[i]);
    if (g_hash_table_add (seen, shards->pdata[i]))
      g_ptr_array_add (order, shards->pdata[i]);
  }
  g_ptr_array_sort (order, compare_names);
  for (guint i = 0; i < order->len; i++) {
    if (!open_shard (self, order->pdata[i], weight_map, error))
      return FALSE;
  }
  for (guint i = 0; i < names->len; i++) {
    if (!g_hash_table_contains (self->names, names->pdata[i])) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
          "'%s' says that tensor '%s' is in '%s', but it is not; fetch both again.",
          self->path, (char *)names->pdata[i], (char *)shards->pdata[i]);
      return FALSE;
    }
  }
  return TRUE;
}

FluxSafetensors *
flux_safetensors_open (const char *path, GError **error)
{
  g_autoptr (FluxSafetensors) self = g_new0 (FluxSafetensors, 1);
  gboolean ok;

  self->ref_count = 1;
  self->files =
      g_ptr_array_new_with_free_func ((GDestroyNotify)flux_safetensors_file_free);
  self->tensors = g_ptr_array_new ();
  self->names = g_hash_table_new (g_str_hash, g_str_equal);
  self->path = flux_safetensors_find (path, error);
  if (self->path == NULL)
    return NULL;
  ok = g_str_has_suffix (self->path, ".json") ? open_index (self, error)
                                              : open_single (self, error);
  return ok ? g_steal_pointer (&self) : NULL;
}

FluxSafetensors *
flux_safetensors_ref (FluxSafetensors *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

void
flux_safetensors_unref (FluxSafetensors *self)
{
  if (!g_atomic_int_dec_and_test (&self->ref_count))
    return;
  g_clear_pointer (&self->names, g_hash_table_unref);
  g_clear_pointer (&self->tensors, g_ptr_array_unref);
  g_clear_pointer (&self->files, g_ptr_array_unref);
  g_free (self->path);
  g_free (self);
}

const char *
flux_safetensors_get_path (FluxSafetensors *self)
{
  return self->path;
}

guint
flux_safetensors_get_n_tensors (FluxSafetensors *self)
{
  return self->tensors->len;
}

const FluxTensor *
flux_safetensors_get_nth (FluxSafetensors *self, guint i)
{
  g_return_val_if_fail (i < self->tensors->len, NULL);
  return self->tensors->pdata[i];
}

const FluxTensor *
flux_safetensors_lookup (FluxSafetensors *self, const char *name)
{
  return g_hash_table_lookup (self->names, name);
}

const char *
flux_safetensors_get_metadata (FluxSafetensors *self, const char *key)
{
  for (guint i = 0; i < self->files->len; i++) {
    FluxSafetensorsFile *file = self->files->pdata[i];
    const char *value = g_hash_table_lookup (file->metadata, key);

    if (value != NULL)
      return value;
  }
  return NULL;
}

char *
flux_safetensors_get_stamp (FluxSafetensors *self)
{
  GString *out = g_string_new (NULL);

  for (guint i = 0; i < self->files->len; i++) {
    const FluxSafetensorsFile *file = self->files->pdata[i];

    g_string_append_printf (out, "%s%" G_GOFFSET_FORMAT "@%" G_GINT64_FORMAT,
        i > 0 ? " " : "", file->size, file->mtime);
  }
  return g_string_free (out, FALSE);
}

/* "[4, 256]", with "any" for -1. */
static char *
format_dims (guint n, const gint64 *dims)
{
  GString *out = g_string_new ("[");

  for (guint i = 0; i < n; i++) {
    if (i > 0)
      g_string_append (out, ", ");
    if (dims[i] < 0)
      g_string_append (out, "any");
    else
      g_string_append_printf (out, "%" G_GINT64_FORMAT, dims[i]);
  }
  g_string_append_c (out, ']');
  return g_string_free (out, FALSE);
}

const FluxTensor *
flux_safetensors_require (
    FluxSafetensors *self, const char *name, GError **error, guint n_dims, ...)
{
  const FluxTensor *t = flux_safetensors_lookup (self, name);
  gint64 dims[FLUX_TENSOR_MAX_DIMS];
  gboolean same;
  va_list args;

  g_return_val_if_fail (n_dims <= FLUX_TENSOR_MAX_DIMS, NULL);
  if (t == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "'%s' has no tensor '%s': it is incomplete or of another architecture.",
        self->path, name);
    return NULL;
  }
  same = t->n_dims == n_dims;
  va_start (args, n_dims);
  for (guint i = 0; i < n_dims; i++) {
    dims[i] = va_arg (args, gint64);
    same = same && (dims[i] < 0 || dims[i] == t->dims[i]);
  }
  va_end (args);
  if (!same) {
    g_autofree char *is = format_dims (t->n_dims, t->dims);
    g_autofree char *wanted = format_dims (n_dims, dims);

    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "Tensor '%s' of '%s' is %s where %s is expected: it is of another architecture "
        "or rank.",
        name, self->path, is, wanted);
    return NULL;
  }
  return t;
}

/* fx_convert() wants aligned elements; files by old writers have them anywhere. */
static int
convert_unaligned (const FluxTensor *t, float *out, gsize size)
{
  guint64 block[512];
  const gsize per_block = sizeof block / size;
  const char *from = t->data;

  for (gsize i = 0; i < t->n_elements; i += per_block) {
    gsize n = MIN (per_block, t->n_elements - i);

    memcpy (block, from + i * size, n * size);
    FX_TRY (fx_convert (out + i, FX_F32, block, t->dtype, n));
  }
  return FX_OK;
}

gboolean
flux_tensor_to_f32 (const FluxTensor *t, float *out, GError **error)
{
  gsize size = fx_dtype_size (t->dtype);
  int status;

  switch (t->dtype) {
    case FX_F32:
    case FX_BF16:
    case FX_F16:
    case FX_F64:
    case FX_E4M3:
    case FX_E5M2:
      break;
    default:
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
          "Tensor '%s' is %s where floating-point numbers are expected.", t->name,
          fx_dtype_name (t->dtype));
      return FALSE;
  }
  if (t->n_elements == 0)
    return TRUE;
  status = (gsize)t->data % size == 0
               ? fx_convert (out, FX_F32, t->data, t->dtype, t->n_elements)
               : convert_unaligned (t, out, size);
  if (status != FX_OK)
    flux_error_from_fx (error, status, t->name);
  return status == FX_OK;
}
