/* flux/data/dataset.c: finds out what a location is. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/data/dataset-private.h"

#include <string.h>

#include "flux/error.h"

static void
row_clear (gpointer p)
{
  FluxDatasetRow *row = p;

  g_free (row->path);
  g_free (row->caption);
}

/* Adds folder/name... of names that end in .parquet: those that start with "train" if
 * there are such. */
static gboolean
add_tables (FluxDataset *self, const gchar *folder, GPtrArray *names, GError **error)
{
  gboolean train = FALSE, ok = TRUE;

  for (guint i = 0; i < names->len; i++)
    train |= g_str_has_suffix (names->pdata[i], ".parquet") &&
             g_str_has_prefix (names->pdata[i], "train");
  for (guint i = 0; i < names->len && ok; i++) {
    gchar *path;

    if (!g_str_has_suffix (names->pdata[i], ".parquet") ||
        (train && !g_str_has_prefix (names->pdata[i], "train")))
      continue;
    path = g_build_filename (folder, names->pdata[i], NULL);
    ok = flux_dataset_add_table (self, path, error);
    g_free (path);
  }
  return ok;
}

static gboolean
add_folder (FluxDataset *self, const gchar *folder, gboolean is_train, GError **error);

static gboolean
add_inner_folder (
    FluxDataset *self, const gchar *folder, const gchar *name, GError **error)
{
  gchar *path = g_build_filename (folder, name, NULL);
  gboolean ok = TRUE;

  if (g_file_test (path, G_FILE_TEST_IS_DIR)) {
    if (strcmp (name, "train") == 0) {
      ok = add_folder (self, path, TRUE, error);
    } else {
      GPtrArray *names = flux_dataset_list_folder (path, error);

      ok = names != NULL && add_tables (self, path, names, error);
      if (names != NULL)
        g_ptr_array_unref (names);
    }
  }
  g_free (path);
  return ok;
}

static gboolean
is_empty (FluxDataset *self)
{
  return self->rows->len == 0 && self->tables->len == 0;
}

/* is_train: it is the folder train/ of another one, and is not searched for a third. */
static gboolean
add_folder (FluxDataset *self, const gchar *folder, gboolean is_train, GError **error)
{
  gchar *metadata = g_build_filename (folder, "metadata.jsonl", NULL);
  GPtrArray *names;
  gboolean ok;

  if (g_file_test (metadata, G_FILE_TEST_EXISTS)) {
    ok = flux_dataset_add_metadata (self, folder, metadata, error);
    g_free (metadata);
    return ok;
  }
  g_free (metadata);
  names = flux_dataset_list_folder (folder, error);
  ok = names != NULL && flux_dataset_add_pictures (self, folder, names, error);
  if (ok && is_empty (self))
    ok = add_tables (self, folder, names, error);
  if (names != NULL)
    g_ptr_array_unref (names);
  if (ok && is_empty (self))
    ok = add_inner_folder (self, folder, "data", error);
  if (ok && is_empty (self) && !is_train)
    ok = add_inner_folder (self, folder, "train", error);
  return ok;
}

static gboolean
add_location (FluxDataset *self, const gchar *location, GError **error)
{
  gchar *folder, *scheme = g_uri_parse_scheme (location);
  gboolean ok;

  if (scheme != NULL && strstr (location, "://") != NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "'%s' is no folder: download the data set and set location to its folder, or "
        "name one of the Hub as hf://datasets/user/name.",
        location);
    g_free (scheme);
    return FALSE;
  }
  g_free (scheme);
  if (g_file_test (location, G_FILE_TEST_IS_DIR))
    return add_folder (self, location, FALSE, error);
  if (!g_file_test (location, G_FILE_TEST_EXISTS)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "There is no data set at '%s': set location to a folder or a parquet file.",
        location);
    return FALSE;
  }
  if (g_str_has_suffix (location, ".parquet"))
    return flux_dataset_add_table (self, location, error);
  if (!g_str_has_suffix (location, ".jsonl")) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is no data set: set location to a folder, a .jsonl or a .parquet file.",
        location);
    return FALSE;
  }
  folder = g_path_get_dirname (location);
  ok = flux_dataset_add_metadata (self, folder, location, error);
  g_free (folder);
  return ok;
}

static gboolean
count (FluxDataset *self, const gchar *location, GError **error)
{
  guint64 n = self->rows->len;

  for (guint i = 0; i < self->tables->len; i++)
    n += g_array_index (self->tables, FluxDatasetTable, i).n_rows;
  if (n == 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "The data set '%s' is empty: it needs PNG, JPEG or WebP pictures, or parquet "
        "files that hold them.",
        location);
    return FALSE;
  }
  if (n > FLUX_DATASET_MAX_SAMPLES) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The data set '%s' has %" G_GUINT64_FORMAT " samples; the limit is %d.", location,
        n, FLUX_DATASET_MAX_SAMPLES);
    return FALSE;
  }
  self->n_samples = n;
  if (self->n_other != 0)
    self->warning = g_strdup_printf (
        "%u picture%s of '%s' %s left out, the first is '%s': convert them to PNG, JPEG "
        "or WebP.",
        self->n_other, self->n_other == 1 ? "" : "s", location,
        self->n_other == 1 ? "is" : "are", self->first_other);
  return TRUE;
}

FluxDataset *
flux_dataset_open (const FluxDatasetOptions *options, GError **error)
{
  FluxDataset *self;

  if (options->location == NULL || options->location[0] == '\0') {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "No data set is given: set location to a folder or a parquet file.");
    return NULL;
  }
  self = g_new0 (FluxDataset, 1);
  self->caption_column =
      g_strdup (options->caption_column != NULL ? options->caption_column : "text");
  self->instance_prompt = g_strdup (options->instance_prompt);
  self->rows = g_array_new (FALSE, FALSE, sizeof (FluxDatasetRow));
  g_array_set_clear_func (self->rows, row_clear);
  self->tables = g_array_new (FALSE, TRUE, sizeof (FluxDatasetTable));
  g_array_set_clear_func (self->tables, flux_dataset_table_clear);
  if (!add_location (self, options->location, error) ||
      !count (self, options->location, error)) {
    flux_dataset_free (self);
    return NULL;
  }
  return self;
}

void
flux_dataset_free (FluxDataset *self)
{
  if (self == NULL)
    return;
  g_array_unref (self->rows);
  g_array_unref (self->tables);
  g_free (self->caption_column);
  g_free (self->instance_prompt);
  g_free (self->first_other);
  g_free (self->warning);
  g_free (self);
}

guint
flux_dataset_get_n_samples (FluxDataset *self)
{
  return self->n_samples;
}

const gchar *
flux_dataset_get_warning (FluxDataset *self)
{
  return self->warning;
}

gboolean
flux_dataset_read (
    FluxDataset *self, guint index, FluxDatasetSample *sample, GError **error)
{
  gboolean ok;

  memset (sample, 0, sizeof *sample);
  if (index >= self->n_samples) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "Sample %u is beyond the %u of the data set.", index, self->n_samples);
    return FALSE;
  }
  if (index < self->rows->len)
    ok = flux_dataset_read_row (self, index, sample, error);
  else
    ok = flux_dataset_read_table (self, index, sample, error);
  if (!ok)
    flux_dataset_sample_clear (sample);
  return ok;
}

void
flux_dataset_sample_clear (FluxDatasetSample *sample)
{
  g_clear_pointer (&sample->bytes, g_bytes_unref);
  g_clear_pointer (&sample->name, g_free);
  g_clear_pointer (&sample->caption, g_free);
}
