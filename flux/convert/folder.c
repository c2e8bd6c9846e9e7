/* flux/convert/folder.c: writing a model folder as its tensors come.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/convert/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "flux/convert/folder-private.h"
#include "flux/error.h"
#include "flux/files/json-cursor.h"
#include "flux/files/safetensors-private.h"

#define STEM "diffusion_pytorch_model"

enum {
  MAX_SHARDS = 512,
  FLUSH = 64 << 20 /* bytes, after which writing to disk begins */
};

typedef struct {
  char *name;       /* of the file */
  guint first, end; /* tensors */
  int fd;
  guint n_missing;
  gsize unflushed;
} Shard;

typedef struct {
  guint shard;
  gsize offset;
  gboolean written;
} Place;

struct _FluxFolder {
  char *location, *temporary; /* the folder, under its two names */
  char *folder;               /* of the transformer within the temporary one */
  char *source;
  FluxParts parts;
  GPtrArray *infos;
  GHashTable *index; /* name -> number + 1 */
  Place *places;
  GArray *shards;
};

static gboolean
fail (GError **error, int saved_errno, const char *path)
{
  flux_error_from_errno (error, FLUX_ERROR_WRITE, saved_errno, "Could not write", path);
  return FALSE;
}

/* ---- plan ---- */

static void
shard_clear (gpointer data)
{
  Shard *s = data;

  if (s->fd >= 0)
    close (s->fd);
  g_free (s->name);
}

static gboolean
plan (FluxFolder *self, guint64 max, GError **error)
{
  Shard shard = {.fd = -1};
  guint64 bytes = 0;

  for (guint i = 0; i < self->infos->len; i++) {
    const FluxTensorInfo *info = self->infos->pdata[i];

    if (i > shard.first && bytes + info->n_bytes > max) {
      shard.end = i;
      g_array_append_val (self->shards, shard);
      shard.first = i;
      bytes = 0;
    }
    bytes += info->n_bytes;
    self->places[i].shard = self->shards->len;
    if (g_hash_table_contains (self->index, info->name)) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT, "There are two tensors '%s'.",
          info->name);
      return FALSE;
    }
    g_hash_table_insert (self->index, info->name, GUINT_TO_POINTER (i + 1));
  }
  shard.end = self->infos->len;
  g_array_append_val (self->shards, shard);
  if (self->shards->len <= MAX_SHARDS)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "Shards of %" G_GUINT64_FORMAT " bytes would be %u files; %d are the most: set a "
      "larger max-shard-size.",
      max, self->shards->len, MAX_SHARDS);
  return FALSE;
}

static char *
shard_name (guint i, guint n)
{
  return n == 1 ? g_strdup (STEM ".safetensors")
                : g_strdup_printf (STEM "-%05u-of-%05u.safetensors", i + 1, n);
}

static gboolean
write_at (int fd, const char *path, gconstpointer data, gsize length, gsize offset,
    GError **error)
{
  const char *p = data;

  while (length > 0) {
    const gssize n = pwrite (fd, p, MIN (length, (gsize)1 << 30), (off_t)offset);

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return fail (error, n < 0 ? errno : EIO, path);
    p += n;
    offset += (gsize)n;
    length -= (gsize)n;
  }
  return TRUE;
}

/* The file with its header and its full size. */
static gboolean
open_shard (FluxFolder *self, Shard *s, GError **error)
{
  static const char *const metadata[] = {"format", "pt", NULL};
  const guint n = s->end - s->first;
  g_autofree FluxTensorSource *sources = g_new0 (FluxTensorSource, MAX (n, 1));
  g_autofree gsize *offsets = g_new0 (gsize, MAX (n, 1));
  g_autofree char *path = g_build_filename (self->folder, s->name, NULL);
  g_autofree char *final = g_build_filename (self->location, s->name, NULL);
  g_autoptr (GString) header = NULL;
  gsize end;

  for (guint i = 0; i < n; i++) {
    const FluxTensorInfo *info = self->infos->pdata[s->first + i];

    sources[i] = (FluxTensorSource){
        .name = info->name, .dtype = info->dtype, .n_dims = info->n_dims};
    memcpy (sources[i].dims, info->dims, sizeof sources[i].dims);
  }
  header = flux_safetensors_layout (final, sources, n, metadata, offsets, error);
  if (header == NULL)
    return FALSE;
  end = header->len;
  for (guint i = 0; i < n; i++) {
    const FluxTensorInfo *info = self->infos->pdata[s->first + i];

    self->places[s->first + i].offset = offsets[i];
    end = MAX (end, offsets[i] + info->n_bytes);
  }
  s->n_missing = n;
  s->fd = g_open (path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (s->fd < 0)
    return fail (error, errno, final);
  /* File systems that cannot promise the space say so when it is used up. */
  if (fallocate (s->fd, 0, 0, (off_t)end) != 0 && errno != EOPNOTSUPP &&
      errno != ENOSYS && errno != EINTR)
    return fail (error, errno, final);
  return write_at (s->fd, final, header->str, header->len, 0, error);
}

/* ---- the folder ---- */

gboolean
flux_folder_check (const char *location, GError **error)
{
  g_autofree char *trimmed = flux_folder_trim (location);
  g_autofree char *probe = g_strconcat (trimmed, ".probe", NULL);

  if (!flux_folder_is_free (trimmed, error))
    return FALSE;
  /* The temporary folder will be beside it. */
  return flux_file_check_writable (probe, "The model", error);
}

static gboolean
make_folder (FluxFolder *self, GError **error)
{
  g_autofree char *parent = g_path_get_dirname (self->location);

  if (g_mkdir_with_parents (parent, 0777) != 0)
    return fail (error, errno, self->location);
  self->temporary = g_strconcat (self->location, ".flux-XXXXXX", NULL);
  if (g_mkdtemp_full (self->temporary, 0777) == NULL) {
    g_clear_pointer (&self->temporary, g_free);
    return fail (error, errno, self->location);
  }
  self->folder = self->parts == FLUX_PARTS_NONE
                     ? g_strdup (self->temporary)
                     : g_build_filename (self->temporary, "transformer", NULL);
  if (self->parts != FLUX_PARTS_NONE && g_mkdir (self->folder, 0777) != 0)
    return fail (error, errno, self->location);
  return self->parts == FLUX_PARTS_NONE ||
         flux_folder_add_parts (
             self->source, self->temporary, self->parts == FLUX_PARTS_LINK, error);
}

FluxFolder *
flux_folder_new (const FluxFolderOptions *options, GPtrArray *infos, GError **error)
{
  FluxFolder *self = g_new0 (FluxFolder, 1);
  gboolean ok;

  self->location = flux_folder_trim (options->location);
  self->source = g_strdup (options->source);
  self->parts = options->parts;
  self->infos = g_ptr_array_ref (infos);
  self->index = g_hash_table_new (g_str_hash, g_str_equal);
  self->places = g_new0 (Place, MAX (infos->len, 1));
  self->shards = g_array_new (FALSE, FALSE, sizeof (Shard));
  g_array_set_clear_func (self->shards, shard_clear);
  ok = plan (self, options->max_shard_size, error) &&
       flux_folder_is_free (self->location, error) && make_folder (self, error);
  for (guint i = 0; ok && i < self->shards->len; i++) {
    Shard *s = &g_array_index (self->shards, Shard, i);

    s->name = shard_name (i, self->shards->len);
    ok = open_shard (self, s, error);
  }
  if (!ok)
    g_clear_pointer (&self, flux_folder_abort);
  return self;
}

static gboolean
close_shard (FluxFolder *self, Shard *s, GError **error)
{
  const int fd = s->fd;

  if (fsync (fd) != 0)
    return fail (error, errno, self->location);
  s->fd = -1;
  return close (fd) == 0 || fail (error, errno, self->location);
}

gboolean
flux_folder_put (
    FluxFolder *self, const char *name, gconstpointer data, gsize n_bytes, GError **error)
{
  const guint i = GPOINTER_TO_UINT (g_hash_table_lookup (self->index, name));
  Place *place = i > 0 ? &self->places[i - 1] : NULL;
  const FluxTensorInfo *info = i > 0 ? self->infos->pdata[i - 1] : NULL;
  Shard *s;

  if (place == NULL || place->written || info->n_bytes != n_bytes) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT, "The tensor '%s' %s.", name,
        place == NULL    ? "was not announced"
        : place->written ? "came twice"
                         : "does not have the size that was announced");
    return FALSE;
  }
  s = &g_array_index (self->shards, Shard, place->shard);
  if (!write_at (s->fd, self->location, data, n_bytes, place->offset, error))
    return FALSE;
  place->written = TRUE;
  s->unflushed += n_bytes;
  if (s->unflushed >= FLUSH) {
    /* So that little is left to wait for in the end. Only a hint. */
    sync_file_range (s->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    s->unflushed = 0;
  }
  return --s->n_missing > 0 || close_shard (self, s, error);
}

/* ---- the end ---- */

static gboolean
write_index (FluxFolder *self, GError **error)
{
  g_autofree char *path =
      g_build_filename (self->folder, STEM ".safetensors.index.json", NULL);
  g_autoptr (GString) json = g_string_new (NULL);
  guint64 total = 0;

  for (guint i = 0; i < self->infos->len; i++)
    total += ((const FluxTensorInfo *)self->infos->pdata[i])->n_bytes;
  g_string_append_printf (json,
      "{\n  \"metadata\": {\n    \"total_size\": %" G_GUINT64_FORMAT
      "\n  },\n  \"weight_map\": {",
      total);
  for (guint i = 0; i < self->infos->len; i++) {
    const Shard *s = &g_array_index (self->shards, Shard, self->places[i].shard);

    g_string_append (json, i > 0 ? ",\n    " : "\n    ");
    flux_json_append_string (json, ((const FluxTensorInfo *)self->infos->pdata[i])->name);
    g_string_append (json, ": ");
    flux_json_append_string (json, s->name);
  }
  g_string_append (json, "\n  }\n}\n");
  return flux_file_replace (path, json->str, json->len, error);
}

static gboolean
check_all_written (FluxFolder *self, GError **error)
{
  guint missing = 0;
  const char *first = NULL;

  for (guint i = 0; i < self->infos->len; i++) {
    if (self->places[i].written)
      continue;
    if (missing++ == 0)
      first = ((const FluxTensorInfo *)self->infos->pdata[i])->name;
  }
  if (missing == 0)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_WRITE,
      "The stream ended %u tensors too early ('%s' is the first that is missing): '%s' "
      "was not written.",
      missing, first, self->location);
  return FALSE;
}

static gboolean
finish (FluxFolder *self, const char *config, GError **error)
{
  g_autofree char *path = g_build_filename (self->folder, "config.json", NULL);

  if (!check_all_written (self, error) ||
      (self->shards->len > 1 && !write_index (self, error)) ||
      !flux_file_replace (path, config, strlen (config), error) ||
      !flux_folder_is_free (self->location, error))
    return FALSE;
  if (g_rename (self->temporary, self->location) != 0)
    return fail (error, errno, self->location);
  g_clear_pointer (&self->temporary, g_free);
  flux_folder_sync_parent (self->location);
  return TRUE;
}

gboolean
flux_folder_commit (FluxFolder *self, const char *config, GError **error)
{
  const gboolean ok = finish (self, config, error);

  flux_folder_abort (self); /* removes what is left, which is nothing after success */
  return ok;
}

void
flux_folder_abort (FluxFolder *self)
{
  if (self->temporary != NULL)
    flux_folder_remove (self->temporary);
  g_array_unref (self->shards);
  g_hash_table_unref (self->index);
  g_ptr_array_unref (self->infos);
  g_free (self->places);
  g_free (self->folder);
  g_free (self->temporary);
  g_free (self->location);
  g_free (self->source);
  g_free (self);
}
