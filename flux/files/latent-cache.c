/* flux/files/latent-cache.c: posteriors on disk, by content. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Entries are replaced as a whole (flux_safetensors_write), so two processes that encode
 * the same picture leave one whole entry. The checksum in the metadata catches what the
 * header cannot: bits that rotted, or blocks of zeros after a power cut. */
#include "flux/files/latent-cache.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/safetensors.h"

/* Names the VAE of a folder; entries would be refused one by one without it, but then
 * nobody would learn why everything is encoded again. */
#define MARKER "flux-latent-cache.txt"
#define MARKER_HEAD "gst-flux latent cache 1\nvae "

/* 2 x 64 channels of 4096 x 4096 cells: beyond any picture, within any size type. */
enum { MAX_CHANNELS = 128, MAX_CELLS = 4096 };

typedef struct {
  GBytes *moments;
  int channels, h, w;
} Entry;

struct _FluxLatentCache {
  char *path; /* NULL: in memory */
  char *fingerprint;
  GMutex mutex;
  GHashTable *entries; /* name -> Entry, when in memory */
};

static void
entry_free (gpointer data)
{
  Entry *e = data;

  g_bytes_unref (e->moments);
  g_free (e);
}

/* Fields are framed by their lengths, so that no two different ids give one text. */
static char *
entry_name (FluxLatentCache *self, const FluxLatentId *id)
{
  const char *fields[] = {id->key, id->crop, self->fingerprint};
  GString *text = g_string_new (NULL);
  char *name;

  g_string_printf (text, "%d,%d", id->width, id->height);
  for (guint i = 0; i < G_N_ELEMENTS (fields); i++) {
    const char *f = fields[i] != NULL ? fields[i] : "";

    g_string_append_printf (text, ",%zu:%s", strlen (f), f);
  }
  name = g_compute_checksum_for_string (G_CHECKSUM_SHA256, text->str, (gssize)text->len);
  g_string_free (text, TRUE);
  return name;
}

/* TRUE when the folder is this VAE's, or nobody's yet. */
static gboolean
check_marker (FluxLatentCache *self, GError **error)
{
  g_autofree char *marker = g_build_filename (self->path, MARKER, NULL);
  g_autofree char *wanted = g_strconcat (MARKER_HEAD, self->fingerprint, "\n", NULL);
  g_autofree char *found = NULL;

  if (g_file_get_contents (marker, &found, NULL, NULL) &&
      g_str_has_prefix (found, MARKER_HEAD)) {
    g_strchomp (found);
    if (strcmp (found + strlen (MARKER_HEAD), self->fingerprint) == 0)
      return TRUE;
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "The latent cache '%s' was made with another VAE (%s, not %s): name another "
        "folder, or delete this one.",
        self->path, found + strlen (MARKER_HEAD), self->fingerprint);
    return FALSE;
  }
  return flux_file_replace (marker, wanted, strlen (wanted), error);
}

FluxLatentCache *
flux_latent_cache_open (const char *path, const char *fingerprint, GError **error)
{
  FluxLatentCache *self = g_new0 (FluxLatentCache, 1);

  g_mutex_init (&self->mutex);
  self->fingerprint = g_strdup (fingerprint);
  if (path == NULL) {
    self->entries = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, entry_free);
    return self;
  }
  self->path = g_strdup (path);
  if (g_mkdir_with_parents (path, 0777) != 0) {
    flux_error_from_errno (
        error, FLUX_ERROR_WRITE, errno, "Could not create the latent cache", path);
    flux_latent_cache_free (self);
    return NULL;
  }
  if (!check_marker (self, error)) {
    flux_latent_cache_free (self);
    return NULL;
  }
  return self;
}

void
flux_latent_cache_free (FluxLatentCache *self)
{
  if (self == NULL)
    return;
  g_clear_pointer (&self->entries, g_hash_table_unref);
  g_mutex_clear (&self->mutex);
  g_free (self->fingerprint);
  g_free (self->path);
  g_free (self);
}

static char *
entry_path (FluxLatentCache *self, const char *name)
{
  g_autofree char *file = g_strconcat (name, ".safetensors", NULL);

  return g_build_filename (self->path, file, NULL);
}

static gboolean
metadata_is (FluxSafetensors *file, const char *key, const char *value)
{
  return g_strcmp0 (
             flux_safetensors_get_metadata (file, key), value != NULL ? value : "") == 0;
}

/* The tensor when the file is exactly the entry asked for, else NULL. */
static const FluxTensor *
check_entry (FluxLatentCache *self, FluxSafetensors *file, const FluxLatentId *id)
{
  const FluxTensor *t = flux_safetensors_lookup (file, "moments");
  g_autofree char *size = g_strdup_printf ("%dx%d", id->width, id->height);
  g_autofree char *sum = NULL;

  if (t == NULL || t->dtype != FX_F32 || t->n_dims != 3 || t->dims[0] < 2 ||
      t->dims[0] > 2 * MAX_CHANNELS || t->dims[0] % 2 != 0 || t->dims[1] < 1 ||
      t->dims[1] > MAX_CELLS || t->dims[2] < 1 || t->dims[2] > MAX_CELLS)
    return NULL;
  if (!metadata_is (file, "key", id->key) || !metadata_is (file, "size", size) ||
      !metadata_is (file, "crop", id->crop) ||
      !metadata_is (file, "vae", self->fingerprint))
    return NULL;
  sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, t->data, t->n_bytes);
  return metadata_is (file, "sha256", sum) ? t : NULL;
}

GBytes *
flux_latent_cache_lookup (FluxLatentCache *self, const FluxLatentId *id, int *channels,
    int *h, int *w, GError **error)
{
  g_autofree char *name = entry_name (self, id);
  g_autofree char *path = NULL;
  g_autoptr (FluxSafetensors) file = NULL;
  const FluxTensor *t;
  GBytes *moments = NULL;

  if (g_strcmp0 (id->fingerprint, self->fingerprint) != 0)
    return NULL;
  if (self->path == NULL) {
    Entry *e;

    g_mutex_lock (&self->mutex);
    e = g_hash_table_lookup (self->entries, name);
    if (e != NULL) {
      moments = g_bytes_ref (e->moments);
      *channels = e->channels;
      *h = e->h;
      *w = e->w;
    }
    g_mutex_unlock (&self->mutex);
    return moments;
  }
  path = entry_path (self, name);
  if (!g_file_test (path, G_FILE_TEST_IS_REGULAR))
    return NULL;
  file = flux_safetensors_open (path, NULL);
  t = file != NULL ? check_entry (self, file, id) : NULL;
  if (t == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The cached latent '%s' is damaged: it is encoded again and replaced.", path);
    return NULL;
  }
  *channels = (int)(t->dims[0] / 2);
  *h = (int)t->dims[1];
  *w = (int)t->dims[2];
  return g_bytes_new (t->data, t->n_bytes);
}

static gboolean
store_on_disk (FluxLatentCache *self, const FluxLatentId *id, const char *name,
    GBytes *moments, int channels, int h, int w, GError **error)
{
  g_autofree char *path = entry_path (self, name);
  g_autofree char *size = g_strdup_printf ("%dx%d", id->width, id->height);
  g_autofree char *sum = g_compute_checksum_for_bytes (G_CHECKSUM_SHA256, moments);
  const char *metadata[] = {"key", id->key != NULL ? id->key : "", "size", size, "crop",
      id->crop != NULL ? id->crop : "", "vae", self->fingerprint, "sha256", sum, NULL};
  FluxTensorSource t = {.name = "moments", .dtype = FX_F32, .n_dims = 3};

  t.dims[0] = 2 * channels;
  t.dims[1] = h;
  t.dims[2] = w;
  t.data = g_bytes_get_data (moments, NULL);
  return flux_safetensors_write (path, &t, 1, metadata, error);
}

gboolean
flux_latent_cache_store (FluxLatentCache *self, const FluxLatentId *id, GBytes *moments,
    int channels, int h, int w, GError **error)
{
  g_autofree char *name = entry_name (self, id);
  Entry *e;

  if (g_strcmp0 (id->fingerprint, self->fingerprint) != 0 || channels < 1 ||
      channels > MAX_CHANNELS || h < 1 || h > MAX_CELLS || w < 1 || w > MAX_CELLS ||
      g_bytes_get_size (moments) != sizeof (float) * 2 * (gsize)channels * h * w) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "A posterior of %d channels and %dx%d cells (%zu bytes) of VAE %s cannot go into "
        "the latent cache of VAE %s.",
        channels, w, h, g_bytes_get_size (moments),
        id->fingerprint != NULL ? id->fingerprint : "(none)", self->fingerprint);
    return FALSE;
  }
  if (self->path != NULL)
    return store_on_disk (self, id, name, moments, channels, h, w, error);
  e = g_new0 (Entry, 1);
  e->moments = g_bytes_ref (moments);
  e->channels = channels;
  e->h = h;
  e->w = w;
  g_mutex_lock (&self->mutex);
  g_hash_table_replace (self->entries, g_steal_pointer (&name), e);
  g_mutex_unlock (&self->mutex);
  return TRUE;
}
