/* flux/files/embedding-parquet.c: the table of the reference's compute_embeddings.py.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Columns image_hash (string) and prompt_embeds, pooled_prompt_embeds, text_ids (flat
 * list<double>): facts.md section 1. The shape of prompt_embeds is not in the file: its
 * row length over text_ids' length / 3, or over the model's joint_dim. */
#include <string.h>

#include "flux/error.h"
#include "flux/files/embedding-private.h"

/* 4096 tokens of 16384 features. */
#define MAX_VALUES (1u << 26)

static gboolean
find_column (FluxEmbeddingTable *self, const char *name, FluxParquetKind wanted,
    gint *column, GError **error)
{
  static const char *const kinds[] = {"bytes", "a number", "a list of numbers"};
  FluxParquetKind kind;

  *column = flux_parquet_find_column (self->parquet, name);
  if (*column < 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is no embedding table: it has no column \"%s\".", self->path, name);
    return FALSE;
  }
  if (!flux_parquet_get_kind (self->parquet, (guint)*column, &kind, error))
    return FALSE;
  if (kind == wanted)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "Column \"%s\" of '%s' holds %s in a row where an embedding table holds %s.", name,
      self->path, kinds[kind], kinds[wanted]);
  return FALSE;
}

static gboolean
find_embeddings (FluxEmbeddingTable *self, const char *name, gint *column, GError **error)
{
  return find_column (self, name, FLUX_PARQUET_NUMBER_LIST, column, error) &&
         (flux_parquet_holds_floats (self->parquet, (guint)*column) ||
             flux_embedding_refuse_integers (self, name, error));
}

static gboolean
read_keys (FluxEmbeddingTable *self, GError **error)
{
  gint64 n = flux_parquet_get_n_rows (self->parquet);

  for (gint64 row = 0; row < n; row++) {
    GError *fault = NULL;
    GBytes *bytes =
        flux_parquet_read_bytes (self->parquet, (guint)self->hash_column, row, &fault);
    gsize length = 0;
    const char *p;

    if (fault != NULL) {
      g_propagate_error (error, fault);
      return FALSE;
    }
    if (bytes == NULL) /* a null hash can never be asked for */
      continue;
    p = g_bytes_get_data (bytes, &length);
    if (length == 0 || memchr (p, 0, length) == NULL) {
      gint64 *index = g_new (gint64, 1);

      *index = row;
      g_hash_table_replace (self->rows, g_strndup (length ? p : "", length), index);
    }
    g_bytes_unref (bytes);
  }
  return TRUE;
}

gboolean
flux_embedding_open_parquet (FluxEmbeddingTable *self, GError **error)
{
  self->rows = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  self->parquet = flux_parquet_open (self->path, error);
  if (self->parquet == NULL)
    return FALSE;
  self->ids_column = flux_parquet_find_column (self->parquet, "text_ids");
  return find_column (
             self, "image_hash", FLUX_PARQUET_BYTES, &self->hash_column, error) &&
         find_embeddings (self, "prompt_embeds", &self->embeds_column, error) &&
         find_embeddings (self, "pooled_prompt_embeds", &self->pooled_column, error) &&
         (self->ids_column < 0 || find_column (self, "text_ids", FLUX_PARQUET_NUMBER_LIST,
                                      &self->ids_column, error)) &&
         read_keys (self, error);
}

/* A list as fp32, which is what the doubles were made of. */
static GBytes *
read_floats (FluxEmbeddingTable *self, gint column, gint64 row, const char *key,
    const char *name, GError **error)
{
  GError *fault = NULL;
  GArray *list = flux_parquet_read_list (self->parquet, (guint)column, row, &fault);
  float *x;
  guint n;

  if (list == NULL) {
    if (fault != NULL)
      g_propagate_error (error, fault);
    else
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT, "Row '%s' of '%s' has no %s.",
          key, self->path, name);
    return NULL;
  }
  n = list->len;
  if (n == 0 || n > MAX_VALUES) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "Row '%s' of '%s' holds %u values in %s.", key, self->path, n, name);
    g_array_unref (list);
    return NULL;
  }
  x = g_new (float, n);
  for (guint i = 0; i < n; i++)
    x[i] = (float)g_array_index (list, double, i);
  g_array_unref (list);
  if (!flux_embedding_check_finite (self, key, name, x, n, error)) {
    g_free (x);
    return NULL;
  }
  return g_bytes_new_take (x, n * sizeof (float));
}

static gboolean
mismatch (FluxEmbeddingTable *self, const char *key, const char *name, gsize have,
    gsize want, GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "Row '%s' of '%s' has %zu values in %s where the model needs %s%zu: it was made "
      "for another text model.",
      key, self->path, have, name, g_str_equal (name, "prompt_embeds") ? "rows of " : "",
      want);
  return FALSE;
}

/* text_tokens from text_ids, joint_dim from that or from the model. */
static gboolean
find_shape (FluxEmbeddingTable *self, const char *key, gint64 row, FluxEmbedding *e,
    GError **error)
{
  gsize n = g_bytes_get_size (e->prompt_embeds) / sizeof (float);
  gsize pooled = g_bytes_get_size (e->pooled) / sizeof (float);
  GError *fault = NULL;
  GArray *ids = NULL;
  gsize tokens = 0;

  if (self->pooled_dim > 0 && pooled != (gsize)self->pooled_dim)
    return mismatch (
        self, key, "pooled_prompt_embeds", pooled, (gsize)self->pooled_dim, error);
  if (self->ids_column >= 0) {
    ids = flux_parquet_read_list (self->parquet, (guint)self->ids_column, row, &fault);
    if (fault != NULL) {
      g_propagate_error (error, fault);
      return FALSE;
    }
    tokens = ids != NULL ? ids->len / 3 : 0;
    g_clear_pointer (&ids, g_array_unref);
  }
  if (tokens == 0 && self->joint_dim > 0)
    tokens = n / (gsize)self->joint_dim;
  if (tokens == 0 || n % tokens != 0 ||
      (self->joint_dim > 0 && n != tokens * (gsize)self->joint_dim))
    return mismatch (self, key, "prompt_embeds", n,
        self->joint_dim > 0 ? (gsize)self->joint_dim : MAX (tokens, 1), error);
  e->text_tokens = (int)tokens;
  e->joint_dim = (int)(n / tokens);
  e->pooled_dim = (int)pooled;
  return TRUE;
}

static gboolean
read_row (FluxEmbeddingTable *self, const char *key, gint64 row, FluxEmbedding *e,
    GError **error)
{
  memset (e, 0, sizeof *e);
  e->prompt_embeds =
      read_floats (self, self->embeds_column, row, key, "prompt_embeds", error);
  if (e->prompt_embeds != NULL)
    e->pooled =
        read_floats (self, self->pooled_column, row, key, "pooled_prompt_embeds", error);
  if (e->pooled != NULL && find_shape (self, key, row, e, error))
    return TRUE;
  flux_embedding_clear (e);
  return FALSE;
}

gboolean
flux_embedding_lookup_parquet (
    FluxEmbeddingTable *self, const char *key, FluxEmbedding *e, GError **error)
{
  gint64 *row = g_hash_table_lookup (self->rows, key);

  return row != NULL && read_row (self, key, *row, e, error);
}

/* Rewriting would drop columns that are not ours. */
static gboolean
check_columns (FluxEmbeddingTable *self, GError **error)
{
  static const char *const ours[] = {
      "image_hash", "prompt_embeds", "pooled_prompt_embeds", "text_ids", NULL};
  guint n = flux_parquet_get_n_columns (self->parquet);

  for (guint i = 0; i < n; i++) {
    const char *path = flux_parquet_get_column_name (self->parquet, i);
    g_autofree char *name = g_strndup (path, strcspn (path, "."));

    if (g_strv_contains (ours, name) || g_str_has_prefix (name, "__index_level_"))
      continue;
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "'%s' has a column \"%s\" that would be lost by adding rows: name another file "
        "for the new embeddings.",
        self->path, name);
    return FALSE;
  }
  return TRUE;
}

static void
write_row (FluxParquetWriter *writer, const char *key, const FluxEmbedding *e)
{
  gsize n_ids = 3 * (gsize)e->text_tokens;
  g_autofree float *ids = g_new0 (float, n_ids);
  gsize n_embeds, n_pooled;
  const float *values[3];
  gsize lengths[3];

  values[0] = g_bytes_get_data (e->prompt_embeds, &n_embeds);
  values[1] = g_bytes_get_data (e->pooled, &n_pooled);
  values[2] = ids; /* FLUX's text tokens all have position 0 */
  lengths[0] = n_embeds / sizeof (float);
  lengths[1] = n_pooled / sizeof (float);
  lengths[2] = n_ids;
  flux_parquet_writer_add (writer, key, values, lengths);
}

static gint
compare_rows (gconstpointer a, gconstpointer b)
{
  gint64 x = *(const gint64 *)a, y = *(const gint64 *)b;

  return x < y ? -1 : x > y;
}

/* The file's rows that have not been replaced, in their order. */
static gboolean
copy_rows (FluxEmbeddingTable *self, FluxParquetWriter *writer, GError **error)
{
  g_autoptr (GArray) rows = g_array_new (FALSE, FALSE, sizeof (gint64));
  g_autoptr (GHashTable) keys =
      g_hash_table_new (g_int64_hash, g_int64_equal); /* row -> key */
  GHashTableIter iter;
  gpointer key, value;

  g_hash_table_iter_init (&iter, self->rows);
  while (g_hash_table_iter_next (&iter, &key, &value)) {
    if (g_hash_table_contains (self->added, key))
      continue;
    g_array_append_vals (rows, value, 1);
    g_hash_table_insert (keys, value, key);
  }
  g_array_sort (rows, compare_rows);
  for (guint i = 0; i < rows->len; i++) {
    gint64 *row = &g_array_index (rows, gint64, i);
    const char *name = g_hash_table_lookup (keys, row);
    FluxEmbedding e;

    if (!read_row (self, name, *row, &e, error))
      return FALSE;
    write_row (writer, name, &e);
    flux_embedding_clear (&e);
  }
  return TRUE;
}

gboolean
flux_embedding_save_parquet (FluxEmbeddingTable *self, GError **error)
{
  static const char *const columns[] = {
      "prompt_embeds", "pooled_prompt_embeds", "text_ids", NULL};
  g_autoptr (FluxParquetWriter) writer = NULL;

  if (self->parquet != NULL && !check_columns (self, error))
    return FALSE;
  writer = flux_parquet_writer_new ("image_hash", columns);
  if (self->parquet != NULL && !copy_rows (self, writer, error))
    return FALSE;
  for (guint i = 0; i < self->order->len; i++) {
    const FluxEmbeddingRow *row = g_ptr_array_index (self->order, i);

    write_row (writer, row->key, &row->e);
  }
  return flux_parquet_writer_finish (writer, self->path, error);
}
