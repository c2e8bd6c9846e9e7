/* flux/data/table.c: pictures in parquet files. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/data/dataset-private.h"

#include <string.h>

#include "flux/error.h"

void
flux_dataset_table_clear (gpointer p)
{
  FluxDatasetTable *table = p;

  g_clear_pointer (&table->parquet, flux_parquet_free);
  g_free (table->path);
}

static gchar *
dup_column_names (FluxParquet *parquet)
{
  GString *names = g_string_new (NULL);
  guint n = flux_parquet_get_n_columns (parquet);

  for (guint i = 0; i < n && i < 20; i++)
    g_string_append_printf (
        names, "%s%s", i > 0 ? ", " : "", flux_parquet_get_column_name (parquet, i));
  return g_string_free (names, FALSE);
}

/* The column of this name, if it holds strings or bytes; -1 otherwise. */
static gint
find_bytes_column (FluxParquet *parquet, const gchar *name)
{
  FluxParquetKind kind;
  gint column = flux_parquet_find_column (parquet, name);

  if (column < 0 || !flux_parquet_get_kind (parquet, column, &kind, NULL) ||
      kind != FLUX_PARQUET_BYTES)
    return -1;
  return column;
}

/* The struct {bytes, path} of the Hub, of whatever name, or plain bytes. */
static void
find_picture_columns (FluxDatasetTable *table)
{
  guint n = flux_parquet_get_n_columns (table->parquet);

  table->bytes_column = find_bytes_column (table->parquet, "image.bytes");
  table->path_column = find_bytes_column (table->parquet, "image.path");
  if (table->bytes_column < 0)
    table->bytes_column = find_bytes_column (table->parquet, "image");
  for (guint i = 0; i < n && table->bytes_column < 0; i++) {
    const gchar *name = flux_parquet_get_column_name (table->parquet, i);

    if (g_str_has_suffix (name, ".bytes")) {
      gchar *path = g_strdup_printf ("%.*s.path", (int)(strlen (name) - 6), name);

      table->bytes_column = find_bytes_column (table->parquet, name);
      table->path_column = find_bytes_column (table->parquet, path);
      g_free (path);
    }
  }
}

static gboolean
check_columns (FluxDataset *self, FluxDatasetTable *table, GError **error)
{
  gchar *names = dup_column_names (table->parquet);

  find_picture_columns (table);
  table->caption_column = find_bytes_column (table->parquet, self->caption_column);
  if (table->bytes_column < 0)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' holds no pictures: it has no column image.bytes or image, only %s.",
        table->path, names);
  else if (table->caption_column < 0 && self->instance_prompt == NULL)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' has no text column \"%s\": set caption-column to one of %s, or set "
        "instance-prompt.",
        table->path, self->caption_column, names);
  g_free (names);
  return table->bytes_column >= 0 &&
         (table->caption_column >= 0 || self->instance_prompt != NULL);
}

gboolean
flux_dataset_add_table (FluxDataset *self, const gchar *path, GError **error)
{
  FluxDatasetTable table = {.path = g_strdup (path)};

  table.parquet = flux_parquet_open (path, error);
  if (table.parquet == NULL || !check_columns (self, &table, error)) {
    flux_dataset_table_clear (&table);
    return FALSE;
  }
  table.n_rows = flux_parquet_get_n_rows (table.parquet);
  if (self->tables->len > 0) {
    const FluxDatasetTable *last =
        &g_array_index (self->tables, FluxDatasetTable, self->tables->len - 1);

    table.first = last->first + last->n_rows;
  }
  if (table.n_rows > FLUX_DATASET_MAX_SAMPLES ||
      table.first > FLUX_DATASET_MAX_SAMPLES - table.n_rows) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' makes the data set larger than %d samples.", path,
        FLUX_DATASET_MAX_SAMPLES);
    flux_dataset_table_clear (&table);
    return FALSE;
  }
  g_array_append_val (self->tables, table);
  return TRUE;
}

/* A string of the column, NULL without an error when it is null or there is no column. */
static gboolean
read_string (const FluxDatasetTable *table, gint column, gint64 row, gsize max,
    gchar **text, GError **error)
{
  GError *local = NULL;
  GBytes *bytes = NULL;
  const gchar *data;
  gsize size;

  *text = NULL;
  if (column >= 0)
    bytes = flux_parquet_read_bytes (table->parquet, column, row, &local);
  if (local != NULL) {
    g_propagate_error (error, local);
    return FALSE;
  }
  if (bytes == NULL)
    return TRUE;
  data = g_bytes_get_data (bytes, &size);
  if (size > max || (size > 0 && !g_utf8_validate_len (data, size, NULL))) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s', row %" G_GINT64_FORMAT ": \"%s\" is %s.", table->path, row,
        flux_parquet_get_column_name (table->parquet, column),
        size > max ? "too long" : "not UTF-8: write the file again with UTF-8 text");
    g_bytes_unref (bytes);
    return FALSE;
  }
  *text = g_strndup (data, size);
  g_bytes_unref (bytes);
  return TRUE;
}

/* Rows of data sets that were pushed without their files hold only the path. */
static GBytes *
read_beside (const FluxDatasetTable *table, gint64 row, const gchar *name, GError **error)
{
  gchar *folder, *path;
  GBytes *bytes = NULL;

  if (name == NULL || !flux_dataset_is_inside (name)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s', row %" G_GINT64_FORMAT ": there is no picture%s%s.", table->path, row,
        name != NULL ? ", only the path of one elsewhere: " : "",
        name != NULL ? name : "");
    return NULL;
  }
  folder = g_path_get_dirname (table->path);
  path = g_build_filename (folder, name, NULL);
  bytes = flux_dataset_read_file (path, FLUX_DATASET_MAX_PICTURE, error);
  g_free (path);
  g_free (folder);
  return bytes;
}

static const FluxDatasetTable *
find_table (FluxDataset *self, guint index)
{
  guint low = 0, high = self->tables->len;

  while (high - low > 1) {
    guint middle = (low + high) / 2;

    if (g_array_index (self->tables, FluxDatasetTable, middle).first <= index)
      low = middle;
    else
      high = middle;
  }
  return &g_array_index (self->tables, FluxDatasetTable, low);
}

gboolean
flux_dataset_read_table (
    FluxDataset *self, guint index, FluxDatasetSample *sample, GError **error)
{
  const FluxDatasetTable *table = find_table (self, index);
  gint64 row = index - table->first;
  GError *local = NULL;
  gchar *caption, *path = NULL, *shown;
  const guint8 *data;
  gsize size;

  if (!read_string (
          table, table->caption_column, row, FLUX_DATASET_MAX_CAPTION, &caption, error))
    return FALSE;
  sample->caption = flux_dataset_take_caption (self, caption);
  shown = g_filename_display_name (table->path);
  sample->name = g_strdup_printf ("%s row %" G_GINT64_FORMAT, shown, row);
  g_free (shown);
  if (sample->caption == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' has no caption in \"%s\": set instance-prompt or remove the row.",
        sample->name, self->caption_column);
    return FALSE;
  }
  sample->bytes =
      flux_parquet_read_bytes (table->parquet, table->bytes_column, row, &local);
  if (local == NULL && !read_string (table, table->path_column, row, 4096, &path, &local))
    path = NULL;
  if (local == NULL && sample->bytes == NULL)
    sample->bytes = read_beside (table, row, path, &local);
  if (local != NULL) {
    g_free (path);
    g_propagate_error (error, local);
    return FALSE;
  }
  data = g_bytes_get_data (sample->bytes, &size);
  sample->format = flux_image_sniff (data, size);
  if (sample->format == FLUX_IMAGE_FORMAT_UNKNOWN && path != NULL)
    sample->format = flux_dataset_format_of_name (path);
  if (sample->format == FLUX_IMAGE_FORMAT_UNKNOWN)
    sample->format = FLUX_IMAGE_FORMAT_PNG;
  g_free (path);
  return TRUE;
}
