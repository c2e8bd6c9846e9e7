/* flux/data/dataset-private.h: what the kinds of data set share. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "flux/data/dataset.h"
#include "flux/files/parquet.h"

G_BEGIN_DECLS

enum {
  FLUX_DATASET_MAX_SAMPLES = 1 << 28,
  FLUX_DATASET_MAX_CAPTION = 1 << 16, /* bytes; T5 reads 512 tokens */
  FLUX_DATASET_MAX_LINE = 1 << 20,
  FLUX_DATASET_MAX_PICTURE = 1 << 29,
};

/* One picture of a folder. */
typedef struct {
  gchar *path;
  gchar *caption;
} FluxDatasetRow;

/* One parquet file; its samples are [first, first + n_rows). */
typedef struct {
  FluxParquet *parquet;
  gchar *path;
  gint64 first, n_rows;
  gint bytes_column, path_column, caption_column; /* -1: none */
} FluxDatasetTable;

struct _FluxDataset {
  gchar *caption_column, *instance_prompt;
  GArray *rows;   /* FluxDatasetRow, of a folder; or empty and */
  GArray *tables; /* FluxDatasetTable */
  guint n_samples;
  guint n_other; /* pictures of other formats, */
  gchar *first_other;
  gchar *warning;
};

/* read-file.c */

/* A regular file of at most max_size bytes. */
GBytes *flux_dataset_read_file (const gchar *path, gsize max_size, GError **error);
/* Names sorted byte by byte, without hidden ones; NULL and an error when it is no
 * folder. */
GPtrArray *flux_dataset_list_folder (const gchar *path, GError **error);
/* By the end of the name: UNKNOWN when it is not a picture's. */
FluxImageFormat flux_dataset_format_of_name (const gchar *name);
/* Whether name, out of a file, stays inside the folder it is relative to. */
gboolean flux_dataset_is_inside (const gchar *name);
/* The caption to use: text (taken) unless it is NULL or blank, then a copy of the
 * instance prompt; NULL when there is none either. */
gchar *flux_dataset_take_caption (FluxDataset *self, gchar *text);

/* folder.c */

gboolean flux_dataset_add_metadata (
    FluxDataset *self, const gchar *folder, const gchar *path, GError **error);
gboolean flux_dataset_add_pictures (
    FluxDataset *self, const gchar *folder, GPtrArray *names, GError **error);
gboolean flux_dataset_read_row (
    FluxDataset *self, guint index, FluxDatasetSample *sample, GError **error);

/* table.c */

gboolean flux_dataset_add_table (FluxDataset *self, const gchar *path, GError **error);
void flux_dataset_table_clear (gpointer table);
gboolean flux_dataset_read_table (
    FluxDataset *self, guint index, FluxDatasetSample *sample, GError **error);

G_END_DECLS
