/* flux/files/parquet.c: the public face of the parquet reader. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/files/parquet.h"

#include <string.h>

#include "flux/error.h"
#include "flux/files/map-file.h"
#include "flux/files/parquet-private.h"

gboolean
flux_parquet_bad (const FluxParquet *self, GError **error, const char *format, ...)
{
  g_autofree char *what = NULL;
  va_list args;

  va_start (args, format);
  what = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is not a valid parquet file: %s.", self->path, what);
  return FALSE;
}

static void
clear_leaf (gpointer leaf)
{
  g_free (((FluxParquetLeaf *)leaf)->name);
}

FluxParquet *
flux_parquet_open (const char *path, GError **error)
{
  g_autoptr (FluxParquet) self = g_new0 (FluxParquet, 1);

  self->path = g_strdup (path);
  self->leaves = g_array_new (FALSE, FALSE, sizeof (FluxParquetLeaf));
  g_array_set_clear_func (self->leaves, clear_leaf);
  self->groups = g_array_new (FALSE, FALSE, sizeof (FluxParquetGroup));
  self->chunks = g_array_new (FALSE, FALSE, sizeof (FluxParquetChunk));
  self->mapping = flux_map_file (path, error);
  if (self->mapping == NULL)
    return NULL;
  self->bytes = (const guint8 *)g_mapped_file_get_contents (self->mapping);
  self->length = g_mapped_file_get_length (self->mapping);
  if (self->bytes == NULL) /* an empty file */
    self->bytes = (const guint8 *)"";
  if (flux_is_lfs_pointer ((const char *)self->bytes, self->length)) {
    flux_parquet_bad (self, error,
        "it is a Git LFS pointer; run 'git lfs pull' to get the file itself");
    return NULL;
  }
  if (!flux_parquet_read_footer (self, error))
    return NULL;
  self->cursors = g_new0 (FluxParquetCursor *, self->leaves->len);
  return g_steal_pointer (&self);
}

void
flux_parquet_free (FluxParquet *self)
{
  if (self == NULL)
    return;
  for (guint i = 0; self->cursors != NULL && i < self->leaves->len; i++)
    g_clear_pointer (&self->cursors[i], flux_parquet_cursor_free);
  g_free (self->cursors);
  g_array_unref (self->leaves);
  g_array_unref (self->groups);
  g_array_unref (self->chunks);
  g_clear_pointer (&self->mapping, g_mapped_file_unref);
  g_free (self->path);
  g_free (self);
}

gint64
flux_parquet_get_n_rows (FluxParquet *self)
{
  return self->n_rows;
}

guint
flux_parquet_get_n_columns (FluxParquet *self)
{
  return self->leaves->len;
}

const char *
flux_parquet_get_column_name (FluxParquet *self, guint column)
{
  g_return_val_if_fail (column < self->leaves->len, NULL);
  return g_array_index (self->leaves, FluxParquetLeaf, column).name;
}

gint
flux_parquet_find_column (FluxParquet *self, const char *name)
{
  for (guint i = 0; i < self->leaves->len; i++) {
    if (strcmp (g_array_index (self->leaves, FluxParquetLeaf, i).name, name) == 0)
      return (gint)i;
  }
  return -1;
}

gboolean
flux_parquet_get_kind (
    FluxParquet *self, guint column, FluxParquetKind *kind, GError **error)
{
  const FluxParquetLeaf *leaf;

  g_return_val_if_fail (column < self->leaves->len, FALSE);
  leaf = &g_array_index (self->leaves, FluxParquetLeaf, column);
  if (leaf->refused != NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "Column '%s' of '%s' cannot be read: %s.", leaf->name, self->path, leaf->refused);
    return FALSE;
  }
  *kind = leaf->kind;
  return TRUE;
}

gboolean
flux_parquet_holds_floats (FluxParquet *self, guint column)
{
  const FluxParquetLeaf *leaf;

  g_return_val_if_fail (column < self->leaves->len, FALSE);
  leaf = &g_array_index (self->leaves, FluxParquetLeaf, column);
  return leaf->type == PARQUET_FLOAT || leaf->type == PARQUET_DOUBLE;
}

/* Goes to a row of a column that must be of this kind; NULL on error. */
static FluxParquetPage *
seek (FluxParquet *self, guint column, gint64 row, FluxParquetKind wanted, GError **error)
{
  static const char *const kinds[] = {"strings", "numbers", "lists of numbers"};
  FluxParquetPage *page;
  FluxParquetKind kind;

  if (!flux_parquet_get_kind (self, column, &kind, error))
    return NULL;
  if (kind != wanted) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "Column '%s' of '%s' holds %s where %s are expected.",
        flux_parquet_get_column_name (self, column), self->path, kinds[kind],
        kinds[wanted]);
    return NULL;
  }
  if (self->cursors[column] == NULL)
    self->cursors[column] = flux_parquet_cursor_new (self, column);
  if (!flux_parquet_cursor_seek (self->cursors[column], row, &page, error))
    return NULL;
  return page;
}

static gboolean
is_null (FluxParquet *self, guint column, const FluxParquetPage *page)
{
  const FluxParquetLeaf *leaf = &g_array_index (self->leaves, FluxParquetLeaf, column);

  return page->def_levels[page->pos] != leaf->max_def;
}

GBytes *
flux_parquet_read_bytes (FluxParquet *self, guint column, gint64 row, GError **error)
{
  FluxParquetPage *page = seek (self, column, row, FLUX_PARQUET_BYTES, error);
  const FluxParquetSlice *slice;

  if (page == NULL || is_null (self, column, page))
    return NULL;
  slice = &page->slices[page->value_pos];
  return g_bytes_new (slice->p, slice->n);
}

gboolean
flux_parquet_read_number (
    FluxParquet *self, guint column, gint64 row, double *value, GError **error)
{
  FluxParquetPage *page = seek (self, column, row, FLUX_PARQUET_NUMBER, error);

  if (page == NULL || is_null (self, column, page))
    return FALSE;
  *value = page->numbers[page->value_pos];
  return TRUE;
}

GArray *
flux_parquet_read_list (FluxParquet *self, guint column, gint64 row, GError **error)
{
  if (seek (self, column, row, FLUX_PARQUET_NUMBER_LIST, error) == NULL)
    return NULL;
  return flux_parquet_cursor_list (self->cursors[column], error);
}
