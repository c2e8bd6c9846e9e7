/* flux/files/weights-cache.c: quantised weights on disk. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The checksum is not against people but against disks: sums of 64-bit words, and sums of
 * those sums, as SQLite's log has them, in four lanes, so that checking costs less than
 * copying. A cryptographic one would take longer than quantising again. */
#include "flux/files/weights-cache.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "flux/error.h"
#include "flux/files/safetensors-private.h"
#include "flux/files/weights-cache-private.h"

#define FORMAT "gst-flux weights 1" /* changes when the same input gives other bytes */
#define DATA "weights"
#define SUM "weights.sum" /* sorts behind DATA, and so is written after it */

/* Writing asks for progress after each PIECE, and is on disk after each STRIDE. */
enum { LANES = 4, PIECE = 4 << 20, STRIDE = 32 << 20, AUTO_BYTES = 256 << 20 };

typedef struct {
  guint64 a[LANES], b[LANES];
} Sum;

typedef struct {
  fx_backend *b;
  void *p;
  gsize bytes;
} Buffer;

struct _FluxCacheEntry {
  GChecksum *layout;
  GArray *buffers; /* Buffer */
  gsize bytes;     /* of all */
  char *path, *fingerprint, *stamp, *digest;
  FluxSafetensors *file;
  const guint8 *at, *end; /* in file */
  guint placed;
  Sum sum;
};

/* ---- the cache ---- */

FluxWeightsCache *
flux_weights_cache_new (const char *text)
{
  const gboolean is_auto = text == NULL || strcmp (text, "auto") == 0;
  FluxWeightsCache *self;

  if (!is_auto && (*text == '\0' || strcmp (text, "off") == 0))
    return NULL;
  self = g_new0 (FluxWeightsCache, 1);
  self->dir =
      is_auto ? g_build_filename (g_get_user_cache_dir (), "gst-flux", "weights", NULL)
              : g_strdup (text);
  self->min_bytes = is_auto ? AUTO_BYTES : 0;
  return self;
}

void
flux_weights_cache_free (FluxWeightsCache *self)
{
  if (self == NULL)
    return;
  g_clear_error (&self->warning);
  g_free (self->dir);
  g_free (self);
}

/* The first one stands; takes error. */
static void
warn (FluxWeightsCache *self, GError *error)
{
  if (self->warning == NULL)
    self->warning = error;
  else
    g_error_free (error);
}

/* ---- the checksum ---- */

static void
sum_words (Sum *s, const guint8 *data, gsize bytes)
{
  for (; bytes >= LANES * sizeof (guint64); bytes -= LANES * sizeof (guint64)) {
    guint64 words[LANES];

    memcpy (words, data, sizeof words);
    for (int i = 0; i < LANES; i++) {
      s->a[i] += words[i];
      s->b[i] += s->a[i];
    }
    data += sizeof words;
  }
  if (bytes > 0) {
    guint8 rest[LANES * sizeof (guint64)] = {0};

    memcpy (rest, data, bytes);
    sum_words (s, rest, sizeof rest);
  }
}

/* ---- the entry ---- */

FluxCacheEntry *
flux_cache_entry_new (void)
{
  FluxCacheEntry *self = g_new0 (FluxCacheEntry, 1);

  self->layout = g_checksum_new (G_CHECKSUM_SHA256);
  self->buffers = g_array_new (FALSE, TRUE, sizeof (Buffer));
  return self;
}

void
flux_cache_entry_free (FluxCacheEntry *self)
{
  if (self == NULL)
    return;
  g_checksum_free (self->layout);
  g_array_unref (self->buffers);
  g_clear_pointer (&self->file, flux_safetensors_unref);
  g_free (self->path);
  g_free (self->fingerprint);
  g_free (self->stamp);
  g_free (self->digest);
  g_free (self);
}

void
flux_cache_entry_note (
    FluxCacheEntry *self, const char *name, gint64 n, gint64 k, int qtype, int dtype)
{
  g_autofree char *text = g_strdup_printf (
      "%s %" G_GINT64_FORMAT " %" G_GINT64_FORMAT " %d %d\n", name, n, k, qtype, dtype);

  g_checksum_update (self->layout, (const guchar *)text, (gssize)strlen (text));
}

void
flux_cache_entry_add (FluxCacheEntry *self, gsize bytes)
{
  Buffer buffer = {.bytes = bytes};
  g_autofree char *text = g_strdup_printf ("%" G_GSIZE_FORMAT "\n", bytes);

  g_checksum_update (self->layout, (const guchar *)text, (gssize)strlen (text));
  g_array_append_val (self->buffers, buffer);
  self->bytes += bytes;
}

/* ---- reading ---- */

static gboolean
metadata_is (FluxSafetensors *file, const char *key, const char *value)
{
  return g_strcmp0 (flux_safetensors_get_metadata (file, key), value) == 0;
}

/* Of where the model is, so that two copies of one do not replace each other's entry; the
 * Hub's folders link to a file that stays the same one. */
static char *
hash_place (FluxSafetensors *file)
{
  char *real = realpath (flux_safetensors_get_path (file), NULL);
  char *hash = g_compute_checksum_for_string (
      G_CHECKSUM_SHA256, real != NULL ? real : flux_safetensors_get_path (file), -1);

  free (real);
  hash[8] = '\0';
  return hash;
}

static gboolean
name_entry (FluxCacheEntry *self, FluxLoader *loader)
{
  g_autofree char *place = hash_place (loader->file);
  g_autofree char *compute = g_ascii_strdown (fx_dtype_name (loader->compute), -1);
  g_autofree char *name = NULL;

  self->fingerprint = flux_safetensors_fingerprint (loader->file);
  self->stamp = flux_safetensors_get_stamp (loader->file);
  self->digest = g_strdup (g_checksum_get_string (self->layout));
  name = g_strdup_printf ("%s-%s-%s-%s-%s.safetensors",
      loader->what != NULL ? loader->what : "weights", self->fingerprint, place,
      fx_qtype_name (loader->qtype), compute);
  self->path = g_build_filename (loader->cache->dir, name, NULL);
  return g_file_test (self->path, G_FILE_TEST_EXISTS);
}

/* Everything but the data themselves. */
static gboolean
is_entry (FluxCacheEntry *self, const FluxTensor **data)
{
  const FluxTensor *sum = flux_safetensors_lookup (self->file, SUM);

  *data = flux_safetensors_lookup (self->file, DATA);
  return *data != NULL && (*data)->dtype == FX_U8 && (*data)->n_bytes == self->bytes &&
         sum != NULL && sum->n_bytes == sizeof (Sum) &&
         metadata_is (self->file, "format", FORMAT) &&
         metadata_is (self->file, "model", self->fingerprint) &&
         metadata_is (self->file, "layout", self->digest);
}

/* What is of no use goes at once: the space is needed, and who may read it is decided
 * anew. */
static void
discard (FluxCacheEntry *self)
{
  g_clear_pointer (&self->file, flux_safetensors_unref);
  g_unlink (self->path);
}

gboolean
flux_cache_entry_open (FluxCacheEntry *self, FluxLoader *loader)
{
  g_autoptr (GError) error = NULL;
  const FluxTensor *data;

  flux_replace_sweep (loader->cache->dir);
  if (!name_entry (self, loader))
    return FALSE;
  self->file = flux_safetensors_open (self->path, &error);
  if (self->file != NULL && is_entry (self, &data)) {
    if (metadata_is (self->file, "files", self->stamp)) {
      self->at = data->data;
      self->end = self->at + data->n_bytes;
      return TRUE;
    }
    /* Else it is of a model that was here before: not damaged. */
  } else if (g_error_matches (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND)) {
    return FALSE; /* removed a moment ago */
  } else if (g_error_matches (error, FLUX_ERROR, FLUX_ERROR_READ)) {
    warn (loader->cache,
        g_error_new (FLUX_ERROR, FLUX_ERROR_READ,
            "The cached weights cannot be read, and the model is quantised again: %s",
            error->message));
    if (faccessat (AT_FDCWD, self->path, R_OK, AT_EACCESS) == 0 || errno != EACCES)
      return FALSE; /* they may be whole all the same */
  } else {
    warn (loader->cache,
        g_error_new (FLUX_ERROR, FLUX_ERROR_FORMAT,
            "The cached weights '%s' are damaged or of another version: the model is "
            "quantised again.",
            self->path));
  }
  discard (self);
  return FALSE;
}

gboolean
flux_cache_entry_read (
    FluxCacheEntry *self, fx_backend *b, void *dst, gsize bytes, GError **error)
{
  g_assert (bytes <= (gsize)(self->end - self->at)); /* the layout is the same */
  while (bytes > 0) {
    gsize n = MIN (bytes, PIECE);
    int status = fx_upload (b, dst, self->at, n);

    if (status != FX_OK) {
      flux_error_from_fx (error, status, self->path);
      return FALSE;
    }
    sum_words (&self->sum, self->at, n);
    dst = (guint8 *)dst + n;
    self->at += n;
    bytes -= n;
  }
  return TRUE;
}

gboolean
flux_cache_entry_check (FluxCacheEntry *self, FluxLoader *loader)
{
  const FluxTensor *sum = flux_safetensors_lookup (self->file, SUM);

  if (self->at == self->end && memcmp (sum->data, &self->sum, sizeof self->sum) == 0)
    return TRUE;
  warn (loader->cache,
      g_error_new (FLUX_ERROR, FLUX_ERROR_FORMAT,
          "The cached weights '%s' are damaged: the model is quantised again.",
          self->path));
  discard (self);
  return FALSE;
}

/* ---- writing ---- */

void
flux_cache_entry_place (FluxCacheEntry *self, fx_backend *b, void *p)
{
  Buffer *buffer = &g_array_index (self->buffers, Buffer, self->placed++);

  buffer->b = b;
  buffer->p = p;
}

static gboolean
make_room (FluxCacheEntry *self, const char *dir, GError **error)
{
  struct statvfs fs;
  guint64 free_bytes;

  if (g_mkdir_with_parents (dir, 0700) != 0) {
    flux_error_from_errno (error, FLUX_ERROR_WRITE, errno, "Could not create", dir);
    return FALSE;
  }
  if (g_file_test (self->path, G_FILE_TEST_IS_DIR)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS, "'%s' is a folder.", self->path);
    return FALSE;
  }
  if (statvfs (dir, &fs) != 0)
    return TRUE;
  free_bytes = (guint64)fs.f_bavail * fs.f_frsize;
  if (free_bytes > self->bytes)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
      "'%s' has %" G_GUINT64_FORMAT " MiB free, and %" G_GSIZE_FORMAT " are needed.", dir,
      free_bytes >> 20, (self->bytes >> 20) + 1);
  return FALSE;
}

/* For who waits, and may not want to. */
static gboolean
report (FluxLoader *loader, gsize done, gsize total, GError **error)
{
  g_autofree char *what = g_strconcat (
      loader->what != NULL ? loader->what : "weights", ", kept for the next start", NULL);

  return flux_loader_report (
      loader, what, (gint)(100.0 * (double)done / (double)total), error);
}

static gboolean
write_buffers (
    FluxCacheEntry *self, FluxLoader *loader, FluxReplace *file, GError **error)
{
  g_autofree guint8 *piece = g_malloc (PIECE);
  Sum sum = {{0}, {0}};
  gsize done = 0;

  for (guint i = 0; i < self->buffers->len; i++) {
    const Buffer *buffer = &g_array_index (self->buffers, Buffer, i);

    for (gsize at = 0; at < buffer->bytes; at += PIECE) {
      gsize n = MIN (buffer->bytes - at, PIECE);
      int status;

      if (!report (loader, done, self->bytes, error))
        return FALSE;
      status = fx_download (buffer->b, piece, (guint8 *)buffer->p + at, n);
      if (status != FX_OK) {
        flux_error_from_fx (error, status, "Could not read the weights back");
        return FALSE;
      }
      sum_words (&sum, piece, n);
      if (!flux_replace_write (file, piece, n, error))
        return FALSE;
      done += n;
      if (done / STRIDE > (done - n) / STRIDE && !flux_replace_sync (file, error))
        return FALSE;
    }
  }
  return flux_replace_write (file, &sum, sizeof sum, error);
}

static gboolean
write_entry (FluxCacheEntry *self, FluxLoader *loader, GError **error)
{
  const char *metadata[] = {"format", FORMAT, "model", self->fingerprint, "files",
      self->stamp, "layout", self->digest, NULL};
  const FluxTensorSource tensors[] = {
      {.name = DATA, .dtype = FX_U8, .n_dims = 1, .dims = {(gint64)self->bytes}},
      {.name = SUM, .dtype = FX_U8, .n_dims = 1, .dims = {sizeof (Sum)}}};
  gsize offsets[G_N_ELEMENTS (tensors)];
  g_autoptr (GString) header = NULL;
  g_autoptr (FluxReplace) file = NULL;

  if (!make_room (self, loader->cache->dir, error))
    return FALSE;
  header = flux_safetensors_layout (
      self->path, tensors, G_N_ELEMENTS (tensors), metadata, offsets, error);
  if (header == NULL || (file = flux_replace_begin (self->path, error)) == NULL)
    return FALSE;
  return flux_replace_write (file, header->str, header->len, error) &&
         write_buffers (self, loader, file, error) &&
         flux_replace_commit (g_steal_pointer (&file), error);
}

/* What to do about a failure. */
static const char *
advice (const GError *failure)
{
  if (g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_NO_SPACE))
    return "Free some space, or set";
  if (g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_SETTINGS))
    return "Remove it, or set";
  return "Set";
}

gboolean
flux_cache_entry_write (FluxCacheEntry *self, FluxLoader *loader, GError **error)
{
  g_autoptr (GError) failure = NULL;

  g_assert (self->placed == self->buffers->len);
  if (write_entry (self, loader, &failure))
    return report (loader, 1, 1, error);
  if (g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_CANCELLED)) {
    g_propagate_error (error, g_steal_pointer (&failure));
    return FALSE;
  }
  warn (loader->cache,
      g_error_new (FLUX_ERROR, failure->code,
          "The quantised weights are not kept for the next start: %s %s weights-cache to "
          "another folder, or to off.",
          failure->message, advice (failure)));
  return TRUE;
}
