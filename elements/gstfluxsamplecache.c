/* gstfluxsamplecache.c: samples on disk, for fluxcachesink and fluxcachesrc.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxsamplecache.h"

#include <stdio.h>

#include "elements/gstfluxsamplemeta.h"
#include "flux/error.h"
#include "flux/files/safetensors.h"

#define EMPTY_PROMPT_FILE "empty-prompt.safetensors"
#define GROUP "cache"
#define SUFFIX ".safetensors"
/* Of any dimension: as in the caps. */
#define MAX_DIM 65536
#define MAX_CHANNELS 1024

/* ---- index ---- */

void
gst_flux_cache_index_init (GstFluxCacheIndex *index)
{
  memset (index, 0, sizeof *index);
  index->names = g_ptr_array_new_with_free_func (g_free);
}

void
gst_flux_cache_index_clear (GstFluxCacheIndex *index)
{
  g_clear_pointer (&index->model, g_free);
  g_clear_pointer (&index->names, g_ptr_array_unref);
}

/* Names come from a file: they must not lead out of the folder. */
static gboolean
name_is_safe (const gchar *name)
{
  return g_str_has_suffix (name, SUFFIX) && strpbrk (name, "/\\") == NULL &&
         name[0] != '.';
}

gboolean
gst_flux_cache_index_read (GstFluxCacheIndex *index, const gchar *folder, GError **error)
{
  g_autofree gchar *path = g_build_filename (folder, GST_FLUX_CACHE_INDEX_FILE, NULL);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GError) failure = NULL;
  g_auto (GStrv) names = NULL;

  gst_flux_cache_index_init (index);
  if (!g_key_file_load_from_file (file, path, G_KEY_FILE_NONE, &failure)) {
    if (g_error_matches (failure, G_FILE_ERROR, G_FILE_ERROR_NOENT))
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
          "'%s' is no whole sample cache (it has no " GST_FLUX_CACHE_INDEX_FILE
          "): write it with "
          "fluxcachesink, and let that finish.",
          folder);
    else
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ, "'%s' cannot be read: %s.", path,
          failure->message);
    return FALSE;
  }
  names = g_key_file_get_string_list (file, GROUP, "samples", NULL, NULL);
  index->model = g_key_file_get_string (file, GROUP, "model", NULL);
  index->empty_prompt = g_key_file_get_boolean (file, GROUP, "empty-prompt", NULL);
  if (g_key_file_get_integer (file, GROUP, "version", NULL) != 1 || names == NULL ||
      names[0] == NULL || index->model == NULL)
    goto damaged;
  for (guint i = 0; names[i] != NULL; i++) {
    if (!name_is_safe (names[i]))
      goto damaged;
    g_ptr_array_add (index->names, g_strdup (names[i]));
  }
  return TRUE;

damaged:
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is damaged, or lists no sample: write the cache again.", path);
  return FALSE;
}

gboolean
gst_flux_cache_index_write (
    const GstFluxCacheIndex *index, const gchar *folder, GError **error)
{
  g_autofree gchar *path = g_build_filename (folder, GST_FLUX_CACHE_INDEX_FILE, NULL),
                   *text = NULL;
  g_autoptr (GKeyFile) file = g_key_file_new ();
  gsize length;

  g_key_file_set_integer (file, GROUP, "version", 1);
  g_key_file_set_string (file, GROUP, "model", index->model);
  g_key_file_set_boolean (file, GROUP, "empty-prompt", index->empty_prompt);
  g_key_file_set_string_list (file, GROUP, "samples",
      (const gchar *const *)index->names->pdata, index->names->len);
  text = g_key_file_to_data (file, &length, NULL);
  return flux_file_replace (path, text, length, error);
}

/* ---- writing ---- */

/* Strings that metadata takes: UTF-8. */
static void
add_text (GPtrArray *metadata, const gchar *key, const gchar *value)
{
  if (value == NULL)
    return;
  g_ptr_array_add (metadata, g_strdup (key));
  g_ptr_array_add (metadata, g_utf8_make_valid (value, -1));
}

static GPtrArray *
make_metadata (const GstFluxSample *sample, const gchar *model)
{
  GPtrArray *metadata = g_ptr_array_new_with_free_func (g_free);
  gchar *text;

  add_text (metadata, "model", model);
  add_text (metadata, "key", sample->key);
  add_text (metadata, "caption", sample->caption);
  add_text (metadata, "filename", sample->filename);
  text = g_strdup_printf ("%" G_GUINT64_FORMAT " %d %d %d %d %d %d %d %d %d %u %u %d %u",
      sample->index, sample->source_width, sample->source_height, sample->scaled_width,
      sample->scaled_height, sample->crop_x, sample->crop_y, sample->crop_width,
      sample->crop_height, sample->flip, sample->variant, sample->n_variants,
      sample->has_background, sample->background);
  add_text (metadata, "place", text);
  g_free (text);
  g_ptr_array_add (metadata, NULL);
  return metadata;
}

static gchar *
make_name (const GstFluxSample *sample)
{
  g_autofree gchar *view = gst_flux_sample_dup_view (sample), *hex = NULL;
  g_autofree gchar *text =
      g_strdup_printf ("%s\n%s\n%s", sample->key != NULL ? sample->key : "", view,
          sample->caption != NULL ? sample->caption : "");

  hex = g_compute_checksum_for_string (G_CHECKSUM_SHA256, text, -1);
  return g_strconcat (hex, SUFFIX, NULL);
}

gboolean
gst_flux_cache_write_sample (const gchar *folder, GstBuffer *buffer,
    const GstFluxTensorInfo *info, gchar **name, GError **error)
{
  FluxTensorSource tensors[3] = {
      {"moments", FX_F32, 3, {2 * info->channels, info->height, info->width}, NULL},
      {"prompt_embeds", FX_F32, 2, {info->text_length, info->text_dim}, NULL},
      {"pooled", FX_F32, 1, {info->pooled_dim}, NULL},
  };
  GBytes *bytes[3] = {NULL, NULL, NULL};
  GPtrArray *metadata;
  GstFluxSample sample;
  gchar *path;
  gboolean ok = TRUE;

  gst_flux_sample_meta_get (buffer, &sample);
  *name = make_name (&sample);
  metadata = make_metadata (&sample, info->model);
  path = g_build_filename (folder, *name, NULL);
  for (guint i = 0; ok && i < 3; i++) {
    bytes[i] = gst_flux_buffer_get_bytes (buffer, i, info, error);
    ok = bytes[i] != NULL;
    if (ok)
      tensors[i].data = g_bytes_get_data (bytes[i], NULL);
  }
  ok = ok && flux_safetensors_write (
                 path, tensors, 3, (const char *const *)metadata->pdata, error);
  for (guint i = 0; i < 3; i++)
    g_clear_pointer (&bytes[i], g_bytes_unref);
  g_free (path);
  g_ptr_array_unref (metadata);
  if (!ok)
    g_clear_pointer (name, g_free);
  return ok;
}

/* ---- reading ---- */

/* A sample without or with nonsense in "place" is still a sample. */
static void
parse_metadata (FluxSafetensors *file, GstFluxSample *s)
{
  const gchar *place = flux_safetensors_get_metadata (file, "place");
  gint flip = 0, has_background = 0;
  guint background = 0;

  *s = (GstFluxSample)GST_FLUX_SAMPLE_INIT;
  if (place == NULL ||
      sscanf (place, "%" G_GUINT64_FORMAT " %d %d %d %d %d %d %d %d %d %u %u %d %u",
          &s->index, &s->source_width, &s->source_height, &s->scaled_width,
          &s->scaled_height, &s->crop_x, &s->crop_y, &s->crop_width, &s->crop_height,
          &flip, &s->variant, &s->n_variants, &has_background, &background) != 14)
    *s = (GstFluxSample)GST_FLUX_SAMPLE_INIT;
  s->flip = flip != 0;
  s->has_background = has_background != 0;
  s->background = background;
  s->key = flux_safetensors_get_metadata (file, "key");
  s->caption = flux_safetensors_get_metadata (file, "caption");
  s->filename = flux_safetensors_get_metadata (file, "filename");
}

/* Tensor name, of n_dims dimensions, none beyond the caps' range, as fp32. */
static GBytes *
read_tensor (
    FluxSafetensors *file, const gchar *name, guint n_dims, gint *dims, GError **error)
{
  const FluxTensor *t = flux_safetensors_lookup (file, name);
  gboolean ok = t != NULL && t->n_dims == n_dims;
  float *data;

  for (guint i = 0; ok && i < n_dims; i++) {
    ok = t->dims[i] >= 1 && t->dims[i] <= MAX_DIM;
    dims[i] = ok ? (gint)t->dims[i] : 0;
  }
  if (!ok) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is no cached sample: its tensor '%s' is missing or has a wrong shape; "
        "write the cache again.",
        flux_safetensors_get_path (file), name);
    return NULL;
  }
  data = g_new (float, t->n_elements);
  if (!flux_tensor_to_f32 (t, data, error)) {
    g_free (data);
    return NULL;
  }
  return g_bytes_new_take (data, t->n_elements * sizeof (float));
}

static gboolean
read_tensors (
    FluxSafetensors *file, GstFluxTensorInfo *info, GBytes **bytes, GError **error)
{
  const gchar *model = flux_safetensors_get_metadata (file, "model");
  gint dims[3];

  memset (info, 0, sizeof *info);
  if (model != NULL)
    g_strlcpy (info->model, model, sizeof info->model);
  if ((bytes[0] = read_tensor (file, "moments", 3, dims, error)) == NULL)
    return FALSE;
  info->channels = dims[0] / 2;
  info->height = dims[1];
  info->width = dims[2];
  if (dims[0] % 2 != 0 || dims[0] > 2 * MAX_CHANNELS) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is no cached sample: moments with %d planes; write the cache again.",
        flux_safetensors_get_path (file), dims[0]);
    return FALSE;
  }
  if ((bytes[1] = read_tensor (file, "prompt_embeds", 2, dims, error)) == NULL)
    return FALSE;
  info->text_length = dims[0];
  info->text_dim = dims[1];
  if ((bytes[2] = read_tensor (file, "pooled", 1, dims, error)) == NULL)
    return FALSE;
  info->pooled_dim = dims[0];
  return TRUE;
}

GstBuffer *
gst_flux_cache_read_sample (
    const gchar *folder, const gchar *name, GstFluxTensorInfo *info, GError **error)
{
  g_autofree gchar *path = g_build_filename (folder, name, NULL);
  g_autoptr (FluxSafetensors) file = flux_safetensors_open (path, error);
  GBytes *bytes[3] = {NULL, NULL, NULL};
  GstBuffer *buffer = NULL;
  GstFluxSample sample;

  if (file == NULL)
    return NULL;
  if (read_tensors (file, info, bytes, error)) {
    buffer = gst_buffer_new ();
    for (guint i = 0; i < 3; i++)
      gst_buffer_append_memory (buffer, gst_flux_memory_new (bytes[i]));
    parse_metadata (file, &sample);
    gst_flux_sample_meta_set (buffer, &sample);
  }
  for (guint i = 0; i < 3; i++)
    g_clear_pointer (&bytes[i], g_bytes_unref);
  return buffer;
}

/* ---- the empty prompt ---- */

gboolean
gst_flux_cache_write_empty_prompt (
    const gchar *folder, const FluxEmbedding *e, GError **error)
{
  g_autofree gchar *path = g_build_filename (folder, EMPTY_PROMPT_FILE, NULL);
  g_autoptr (FluxEmbeddingTable) table =
      flux_embedding_table_open (path, TRUE, e->joint_dim, e->pooled_dim, error);

  if (table == NULL)
    return FALSE;
  flux_embedding_table_add (table, "", e);
  return flux_embedding_table_save (table, error);
}

gboolean
gst_flux_cache_read_empty_prompt (const gchar *folder, FluxEmbedding *e, GError **error)
{
  g_autofree gchar *path = g_build_filename (folder, EMPTY_PROMPT_FILE, NULL);
  g_autoptr (FluxEmbeddingTable) table =
      flux_embedding_table_open (path, FALSE, 0, 0, error);
  GError *failure = NULL;

  if (table == NULL)
    return FALSE;
  if (flux_embedding_table_lookup (table, "", e, &failure))
    return TRUE;
  if (failure != NULL)
    g_propagate_error (error, failure);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' does not hold the empty prompt: write the cache again.", path);
  return FALSE;
}
