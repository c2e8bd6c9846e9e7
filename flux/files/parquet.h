/* flux/files/parquet.h: the parquet that pandas and the Hub write.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reads: flat columns, structs of them ("image.bytes") and lists of numbers; plain and
 * dictionary encodings (PLAIN, RLE, PLAIN_DICTIONARY, RLE_DICTIONARY, DELTA_* are refused
 * by name), data pages v1 and v2, codecs none, snappy, gzip, zstd; nulls. Writes: one
 * string column and list<double> columns as pandas' DataFrame.to_parquet does (pandas
 * metadata included). Format: https://github.com/apache/parquet-format, Thrift compact
 * protocol. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef enum {
  FLUX_PARQUET_BYTES,      /* BYTE_ARRAY: strings and blobs */
  FLUX_PARQUET_NUMBER,     /* INT32, INT64, FLOAT, DOUBLE, BOOLEAN: read as double */
  FLUX_PARQUET_NUMBER_LIST /* list of the same, one level */
} FluxParquetKind;

typedef struct _FluxParquet FluxParquet;

FluxParquet *flux_parquet_open (const char *path, GError **error);
void flux_parquet_free (FluxParquet *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxParquet, flux_parquet_free)

gint64 flux_parquet_get_n_rows (FluxParquet *self);
guint flux_parquet_get_n_columns (FluxParquet *self);
const char *
flux_parquet_get_column_name (FluxParquet *self, guint column); /* dotted path */
/* Index of the column with this dotted path, or -1; list columns go by their outer name.
 */
gint flux_parquet_find_column (FluxParquet *self, const char *name);
gboolean flux_parquet_get_kind (
    FluxParquet *self, guint column, FluxParquetKind *kind, GError **error);
/* TRUE for FLOAT and DOUBLE, and lists of them: not for integers and booleans. */
gboolean flux_parquet_holds_floats (FluxParquet *self, guint column);

/* One value; row groups and pages are decoded as needed and the latest kept, so reading
 * in row order is cheap. NULL (FALSE for a number) with *error unset for a null value. */
GBytes *
flux_parquet_read_bytes (FluxParquet *self, guint column, gint64 row, GError **error);
gboolean flux_parquet_read_number (
    FluxParquet *self, guint column, gint64 row, double *value, GError **error);
/* A GArray of double, owned by the caller; null elements are NaN. */
GArray *
flux_parquet_read_list (FluxParquet *self, guint column, gint64 row, GError **error);

/* Writing the reference's embedding table: columns image_hash (string) and list<double>
 * columns, rows appended one at a time, then written atomically. */
typedef struct _FluxParquetWriter FluxParquetWriter;
FluxParquetWriter *flux_parquet_writer_new (
    const char *key_column, const char *const *list_columns /* NULL-terminated */);
/* values[i], lengths[i]: the list of column i. Data is copied. */
void flux_parquet_writer_add (FluxParquetWriter *self, const char *key,
    const float *const *values, const gsize *lengths);
gboolean
flux_parquet_writer_finish (FluxParquetWriter *self, const char *path, GError **error);
void flux_parquet_writer_free (FluxParquetWriter *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxParquetWriter, flux_parquet_writer_free)

G_END_DECLS
