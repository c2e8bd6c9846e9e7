/* flux/files/embedding-table.c: content hash to text embeddings. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * What was added stays in memory in front of the file; saving writes the file's rows that
 * were not replaced, in their order, then the added ones in theirs. */
#include "flux/files/embedding-table.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/embedding-private.h"

FluxEmbeddingTable *
flux_embedding_table_open (
    const char *path, gboolean may_create, int joint_dim, int pooled_dim, GError **error)
{
  FluxEmbeddingTable *self = g_new0 (FluxEmbeddingTable, 1);
  gboolean ok;

  self->path = g_strdup (path);
  self->joint_dim = joint_dim;
  self->pooled_dim = pooled_dim;
  self->added = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, NULL);
  self->order = g_ptr_array_new_with_free_func (flux_embedding_row_free);
  if (!g_file_test (path, G_FILE_TEST_EXISTS)) {
    self->is_parquet = g_str_has_suffix (path, ".parquet");
    ok = may_create;
    if (!ok)
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
          "There is no embedding table '%s': compute it first, or let this line compute "
          "it by naming a text model.",
          path);
  } else {
    ok = flux_embedding_sniff (path, &self->is_parquet, error) &&
         (self->is_parquet ? flux_embedding_open_parquet (self, error)
                           : flux_embedding_open_safetensors (self, error));
  }
  if (!ok) {
    flux_embedding_table_free (self);
    return NULL;
  }
  return self;
}

gboolean
flux_embedding_sniff (const char *path, gboolean *is_parquet, GError **error)
{
  FILE *f = fopen (path, "rb");
  char magic[4] = {0};
  gboolean ok;

  if (f == NULL) {
    flux_error_from_errno (
        error, FLUX_ERROR_READ, errno, "Could not read the embedding table", path);
    return FALSE;
  }
  ok = fread (magic, 1, sizeof magic, f) == sizeof magic;
  if (!ok)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is no embedding table: it is neither parquet nor safetensors.", path);
  fclose (f);
  *is_parquet = memcmp (magic, "PAR1", sizeof magic) == 0;
  return ok;
}

void
flux_embedding_table_free (FluxEmbeddingTable *self)
{
  if (self == NULL)
    return;
  g_clear_pointer (&self->parquet, flux_parquet_free);
  g_clear_pointer (&self->file, flux_safetensors_unref);
  g_clear_pointer (&self->rows, g_hash_table_unref);
  g_clear_pointer (&self->added, g_hash_table_unref);
  g_clear_pointer (&self->order, g_ptr_array_unref);
  g_free (self->path);
  g_free (self);
}

void
flux_embedding_clear (FluxEmbedding *e)
{
  g_clear_pointer (&e->prompt_embeds, g_bytes_unref);
  g_clear_pointer (&e->pooled, g_bytes_unref);
  memset (e, 0, sizeof *e);
}

static void
copy_embedding (FluxEmbedding *to, const FluxEmbedding *from)
{
  *to = *from;
  to->prompt_embeds = g_bytes_ref (from->prompt_embeds);
  to->pooled = g_bytes_ref (from->pooled);
}

void
flux_embedding_row_free (gpointer data)
{
  FluxEmbeddingRow *row = data;

  flux_embedding_clear (&row->e);
  g_free (row->key);
  g_free (row);
}

/* Token ids, or embeddings that lost their scale: training would run on them. */
gboolean
flux_embedding_refuse_integers (
    FluxEmbeddingTable *self, const char *what, GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "\"%s\" of '%s' holds integers where an embedding table holds floating-point "
      "numbers: compute the embeddings again and write them as float32.",
      what, self->path);
  return FALSE;
}

/* Values that would surface as a NaN loss, far from their cause. */
gboolean
flux_embedding_check_finite (FluxEmbeddingTable *self, const char *key,
    const char *column, const float *x, gsize n, GError **error)
{
  for (gsize i = 0; i < n; i++)
    if (!isfinite (x[i])) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC,
          "Row '%s' of '%s' holds NaN or Inf in %s: compute it again.", key, self->path,
          column);
      return FALSE;
    }
  return TRUE;
}

gboolean
flux_embedding_table_lookup (
    FluxEmbeddingTable *self, const char *key, FluxEmbedding *e, GError **error)
{
  FluxEmbeddingRow *row = g_hash_table_lookup (self->added, key);

  memset (e, 0, sizeof *e);
  if (row != NULL) {
    copy_embedding (e, &row->e);
    return TRUE;
  }
  if (self->parquet != NULL)
    return flux_embedding_lookup_parquet (self, key, e, error);
  if (self->file != NULL)
    return flux_embedding_lookup_safetensors (self, key, e, error);
  return FALSE;
}

void
flux_embedding_table_add (
    FluxEmbeddingTable *self, const char *key, const FluxEmbedding *e)
{
  FluxEmbeddingRow *row = g_hash_table_lookup (self->added, key);

  if (row != NULL) {
    flux_embedding_clear (&row->e);
  } else {
    row = g_new0 (FluxEmbeddingRow, 1);
    row->key = g_strdup (key);
    g_ptr_array_add (self->order, row);
    g_hash_table_insert (self->added, row->key, row);
  }
  copy_embedding (&row->e, e);
  self->n_unsaved++;
}

guint
flux_embedding_table_n_added (FluxEmbeddingTable *self)
{
  return self->n_unsaved;
}

gboolean
flux_embedding_table_save (FluxEmbeddingTable *self, GError **error)
{
  gboolean ok = self->is_parquet ? flux_embedding_save_parquet (self, error)
                                 : flux_embedding_save_safetensors (self, error);

  if (ok)
    self->n_unsaved = 0;
  return ok;
}
