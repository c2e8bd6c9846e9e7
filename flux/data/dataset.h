/* flux/data/dataset.h: captioned pictures from a folder or from parquet files.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A location is, the first of these that fits:
 *
 *   a file NAME.jsonl           a folder's description (below), by itself
 *   a file NAME.parquet         columns image {bytes, path} (as the Hub serves data sets)
 *                               or image (the bytes), and the caption column
 *   a folder with metadata.jsonl   one JSON object a line: file_name (relative to the
 *                               folder), and the caption column: the `imagefolder` of the
 *                               datasets library. Only the pictures it names are read
 *   a folder with pictures      each with its caption in NAME.txt or NAME.caption beside
 *                               it: white space around it is cut, line breaks become
 *                               blanks
 *   a folder with .parquet files, or whose folder data/ has them; only those that
 *                               start with "train" when there are such; in the order of
 *                               their names
 *   a folder with train/        which is then one of the folders above
 *
 * Folders are not searched deeper; names are sorted byte by byte. The instance prompt is
 * the caption of pictures that have none: a column that is absent, null or blank, no file
 * or a blank one. A picture without a caption is otherwise an error. Pictures of other
 * formats (GIF, TIFF, ...) are left out, with a warning. */
#pragma once

#include <glib.h>

#include "flux/image/image.h"

G_BEGIN_DECLS

typedef struct {
  const gchar *location;
  const gchar *caption_column;  /* NULL: "text" */
  const gchar *instance_prompt; /* NULL: none */
} FluxDatasetOptions;

typedef struct {
  GBytes *bytes;
  FluxImageFormat format; /* by the first bytes, else by the name's end, else PNG: then
                           * the decoder is the one to say that the picture is damaged.
                           * OTHER: to be left out, see name */
  gchar *name;            /* for messages, UTF-8: the path, or "file.parquet row 3" */
  gchar *caption;         /* UTF-8 */
} FluxDatasetSample;

typedef struct _FluxDataset FluxDataset;

/* Reads the description and the captions of folders, and checks that the pictures exist;
 * the pictures themselves are read by flux_dataset_read(). Errors, each a sentence with
 * file and line: nothing there, not UTF-8, malformed JSON, a picture that is missing or
 * outside the folder, no caption; hf:// and other URIs are refused. */
FluxDataset *flux_dataset_open (const FluxDatasetOptions *options, GError **error);
void flux_dataset_free (FluxDataset *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxDataset, flux_dataset_free)

/* At least 1. */
guint flux_dataset_get_n_samples (FluxDataset *self);
/* What was left out, a sentence; NULL when nothing was. */
const gchar *flux_dataset_get_warning (FluxDataset *self);

gboolean flux_dataset_read (
    FluxDataset *self, guint index, FluxDatasetSample *sample, GError **error);
void flux_dataset_sample_clear (FluxDatasetSample *sample);

G_END_DECLS
