/* flux/files/parquet-write.c: the reference's embedding table. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * What pandas' DataFrame.to_parquet makes of a string column and columns of float lists:
 * optional columns, lists in three levels, snappy, data pages of version 1, a "pandas"
 * entry in the footer. Values are PLAIN: no two embeddings are alike, so a dictionary
 * would only be in the way. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <snappy-c.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/json-cursor.h"
#include "flux/files/parquet-private.h"
#include "flux/files/replace.h"
#include "flux/files/thrift.h"

enum {
  PAGE_BYTES = 1 << 20,   /* a page ends with the row that reaches this */
  GROUP_VALUES = 1 << 22, /* a row group ends with the row that reaches this (32 MiB) */
  LIST_MAX_DEF = 3,       /* list, entry, element are there */
};

typedef struct {
  float *values;
  gsize n;
} Cell;

struct _FluxParquetWriter {
  char *key_column;
  char **list_columns;
  guint n_lists;
  GPtrArray *keys;
  GArray *cells; /* Cell [rows, n_lists] */
};

FluxParquetWriter *
flux_parquet_writer_new (const char *key_column, const char *const *list_columns)
{
  FluxParquetWriter *self = g_new0 (FluxParquetWriter, 1);

  self->key_column = g_strdup (key_column);
  self->list_columns = g_strdupv ((char **)list_columns);
  self->n_lists = g_strv_length (self->list_columns);
  self->keys = g_ptr_array_new_with_free_func (g_free);
  self->cells = g_array_new (FALSE, FALSE, sizeof (Cell));
  return self;
}

void
flux_parquet_writer_add (FluxParquetWriter *self, const char *key,
    const float *const *values, const gsize *lengths)
{
  g_ptr_array_add (self->keys, g_strdup (key));
  for (guint i = 0; i < self->n_lists; i++) {
    Cell cell = {g_new (float, lengths[i]), lengths[i]};

    if (lengths[i] > 0)
      memcpy (cell.values, values[i], lengths[i] * sizeof (float));
    g_array_append_val (self->cells, cell);
  }
}

void
flux_parquet_writer_free (FluxParquetWriter *self)
{
  for (guint i = 0; i < self->cells->len; i++)
    g_free (g_array_index (self->cells, Cell, i).values);
  g_array_unref (self->cells);
  g_ptr_array_unref (self->keys);
  g_strfreev (self->list_columns);
  g_free (self->key_column);
  g_free (self);
}

/* ---- pages ---- */

typedef struct {
  gint64 offset, n_levels, uncompressed, compressed;
} Chunk;

typedef struct {
  FluxParquetWriter *table;
  FluxReplace *file;
  gint64 offset;  /* in the file */
  GArray *chunks; /* Chunk [groups, 1 + n_lists] */
  GArray *groups; /* guint: first row of each */
  GByteArray *rep, *def, *values;
  guint n_levels; /* of the page that is being filled */
  GError **error;
} Output;

static gboolean
emit (Output *o, gconstpointer bytes, gsize n)
{
  o->offset += (gint64)n;
  return flux_replace_write (o->file, bytes, n, o->error);
}

/* A run of n equal levels, which fit a byte. */
static void
put_run (GByteArray *out, gsize n, guint8 level)
{
  if (n == 0)
    return;
  flux_thrift_put_varint (out, (guint64)n << 1);
  g_byte_array_append (out, &level, 1);
}

static void
put_u32 (GByteArray *out, guint32 value)
{
  value = GUINT32_TO_LE (value);
  g_byte_array_append (out, (const guint8 *)&value, sizeof value);
}

static void
put_levels (GByteArray *page, const GByteArray *levels)
{
  put_u32 (page, levels->len);
  g_byte_array_append (page, levels->data, levels->len);
}

static void
put_page_header (GByteArray *out, guint n_levels, gsize uncompressed, gsize compressed)
{
  FluxThriftWriter w = {.out = out};

  flux_thrift_begin (&w);
  flux_thrift_put_i32 (&w, 1, PARQUET_DATA_PAGE);
  flux_thrift_put_i32 (&w, 2, (gint32)uncompressed);
  flux_thrift_put_i32 (&w, 3, (gint32)compressed);
  flux_thrift_begin_field (&w, 5);
  flux_thrift_put_i32 (&w, 1, (gint32)n_levels);
  flux_thrift_put_i32 (&w, 2, PARQUET_PLAIN);
  flux_thrift_put_i32 (&w, 3, PARQUET_RLE);
  flux_thrift_put_i32 (&w, 4, PARQUET_RLE);
  flux_thrift_end (&w);
  flux_thrift_end (&w);
}

/* Writes what has gathered as a page, and counts it in the chunk. */
static gboolean
flush_page (Output *o, Chunk *chunk, gboolean list)
{
  g_autoptr (GByteArray) page = g_byte_array_new ();
  g_autoptr (GByteArray) header = g_byte_array_new ();
  g_autofree char *packed = NULL;
  gsize n;
  gboolean ok;

  if (o->n_levels == 0)
    return TRUE;
  if (list)
    put_levels (page, o->rep);
  put_levels (page, o->def);
  g_byte_array_append (page, o->values->data, o->values->len);
  n = snappy_max_compressed_length (page->len);
  packed = g_malloc (n);
  if (snappy_compress ((const char *)page->data, page->len, packed, &n) != SNAPPY_OK) {
    g_set_error (
        o->error, FLUX_ERROR, FLUX_ERROR_WRITE, "A page could not be compressed.");
    return FALSE;
  }
  put_page_header (header, o->n_levels, page->len, n);
  chunk->n_levels += o->n_levels;
  chunk->uncompressed += header->len + page->len;
  chunk->compressed += (gint64)(header->len + n);
  ok = emit (o, header->data, header->len) && emit (o, packed, n);
  g_byte_array_set_size (o->rep, 0);
  g_byte_array_set_size (o->def, 0);
  g_byte_array_set_size (o->values, 0);
  o->n_levels = 0;
  return ok;
}

static gboolean
write_keys (Output *o, guint first, guint end)
{
  Chunk chunk = {.offset = o->offset};

  for (guint row = first; row < end; row++) {
    const char *key = o->table->keys->pdata[row];

    put_run (o->def, 1, 1);
    put_u32 (o->values, (guint32)strlen (key));
    g_byte_array_append (o->values, (const guint8 *)key, (guint)strlen (key));
    o->n_levels++;
    if (o->values->len >= PAGE_BYTES && !flush_page (o, &chunk, FALSE))
      return FALSE;
  }
  if (!flush_page (o, &chunk, FALSE))
    return FALSE;
  g_array_append_val (o->chunks, chunk);
  return TRUE;
}

static void
put_cell (Output *o, const Cell *cell)
{
  guint start = o->values->len;

  put_run (o->rep, 1, 0);
  if (cell->n == 0) {
    put_run (o->def, 1, LIST_MAX_DEF - 2); /* the list is there and has no entry */
    o->n_levels++;
    return;
  }
  put_run (o->rep, cell->n - 1, 1);
  put_run (o->def, cell->n, LIST_MAX_DEF);
  o->n_levels += (guint)cell->n;
  g_byte_array_set_size (o->values, start + (guint)cell->n * 8);
  for (gsize i = 0; i < cell->n; i++) {
    double value = cell->values[i];
    guint64 bits;

    memcpy (&bits, &value, sizeof bits);
    bits = GUINT64_TO_LE (bits);
    memcpy (o->values->data + start + i * 8, &bits, sizeof bits);
  }
}

static gboolean
write_lists (Output *o, guint column, guint first, guint end)
{
  Chunk chunk = {.offset = o->offset};

  for (guint row = first; row < end; row++) {
    put_cell (
        o, &g_array_index (o->table->cells, Cell, row * o->table->n_lists + column));
    if (o->values->len >= PAGE_BYTES && !flush_page (o, &chunk, TRUE))
      return FALSE;
  }
  if (!flush_page (o, &chunk, TRUE))
    return FALSE;
  g_array_append_val (o->chunks, chunk);
  return TRUE;
}

/* The first row after the group that starts with `first`. */
static guint
group_end (const FluxParquetWriter *t, guint first)
{
  guint row = first;
  gsize n = 0;

  while (row < t->keys->len && n < GROUP_VALUES) {
    for (guint i = 0; i < t->n_lists; i++)
      n += g_array_index (t->cells, Cell, row * t->n_lists + i).n;
    row++;
  }
  return row;
}

static gboolean
write_groups (Output *o)
{
  guint first = 0, end;

  for (; first < o->table->keys->len; first = end) {
    end = group_end (o->table, first);
    g_array_append_val (o->groups, first);
    if (!write_keys (o, first, end))
      return FALSE;
    for (guint i = 0; i < o->table->n_lists; i++) {
      if (!write_lists (o, i, first, end))
        return FALSE;
    }
  }
  return TRUE;
}

/* ---- footer ---- */

/* LogicalType {kind: {}} */
static void
put_logical (FluxThriftWriter *w, gint kind)
{
  flux_thrift_begin_field (w, 10);
  flux_thrift_begin_field (w, kind);
  flux_thrift_end (w);
  flux_thrift_end (w);
}

static void
put_schema (FluxThriftWriter *w, const FluxParquetWriter *t)
{
  flux_thrift_put_list (w, 2, FLUX_THRIFT_STRUCT, 2 + 3 * t->n_lists);
  flux_thrift_begin (w);
  flux_thrift_put_string (w, 4, "schema");
  flux_thrift_put_i32 (w, 5, (gint32)(1 + t->n_lists));
  flux_thrift_end (w);

  flux_thrift_begin (w);
  flux_thrift_put_i32 (w, 1, PARQUET_BYTE_ARRAY);
  flux_thrift_put_i32 (w, 3, PARQUET_OPTIONAL);
  flux_thrift_put_string (w, 4, t->key_column);
  flux_thrift_put_i32 (w, 6, 0); /* UTF8 */
  put_logical (w, 1);            /* STRING */
  flux_thrift_end (w);
  for (guint i = 0; i < t->n_lists; i++) {
    flux_thrift_begin (w);
    flux_thrift_put_i32 (w, 3, PARQUET_OPTIONAL);
    flux_thrift_put_string (w, 4, t->list_columns[i]);
    flux_thrift_put_i32 (w, 5, 1);
    flux_thrift_put_i32 (w, 6, 3); /* LIST */
    put_logical (w, 3);            /* LIST */
    flux_thrift_end (w);
    flux_thrift_begin (w);
    flux_thrift_put_i32 (w, 3, PARQUET_REPEATED);
    flux_thrift_put_string (w, 4, "list");
    flux_thrift_put_i32 (w, 5, 1);
    flux_thrift_end (w);
    flux_thrift_begin (w);
    flux_thrift_put_i32 (w, 1, PARQUET_DOUBLE);
    flux_thrift_put_i32 (w, 3, PARQUET_OPTIONAL);
    flux_thrift_put_string (w, 4, "element");
    flux_thrift_end (w);
  }
}

static void
put_chunk (FluxThriftWriter *w, const FluxParquetWriter *t, guint column, const Chunk *c)
{
  flux_thrift_begin (w);
  flux_thrift_put_i64 (w, 2, 0);
  flux_thrift_begin_field (w, 3);
  flux_thrift_put_i32 (w, 1, column == 0 ? PARQUET_BYTE_ARRAY : PARQUET_DOUBLE);
  flux_thrift_put_list (w, 2, FLUX_THRIFT_I32, 2);
  flux_thrift_put_element_int (w, PARQUET_PLAIN);
  flux_thrift_put_element_int (w, PARQUET_RLE);
  flux_thrift_put_list (w, 3, FLUX_THRIFT_BINARY, column == 0 ? 1 : 3);
  flux_thrift_put_element_string (
      w, column == 0 ? t->key_column : t->list_columns[column - 1]);
  if (column > 0) {
    flux_thrift_put_element_string (w, "list");
    flux_thrift_put_element_string (w, "element");
  }
  flux_thrift_put_i32 (w, 4, PARQUET_SNAPPY);
  flux_thrift_put_i64 (w, 5, c->n_levels);
  flux_thrift_put_i64 (w, 6, c->uncompressed);
  flux_thrift_put_i64 (w, 7, c->compressed);
  flux_thrift_put_i64 (w, 9, c->offset);
  flux_thrift_end (w);
  flux_thrift_end (w);
}

static void
put_groups (FluxThriftWriter *w, const Output *o)
{
  guint n_columns = 1 + o->table->n_lists;

  flux_thrift_put_list (w, 4, FLUX_THRIFT_STRUCT, o->groups->len);
  for (guint g = 0; g < o->groups->len; g++) {
    guint first = g_array_index (o->groups, guint, g);
    guint end = g + 1 < o->groups->len ? g_array_index (o->groups, guint, g + 1)
                                       : o->table->keys->len;
    gint64 bytes = 0;

    flux_thrift_begin (w);
    flux_thrift_put_list (w, 1, FLUX_THRIFT_STRUCT, n_columns);
    for (guint i = 0; i < n_columns; i++) {
      const Chunk *c = &g_array_index (o->chunks, Chunk, g * n_columns + i);

      bytes += c->uncompressed;
      put_chunk (w, o->table, i, c);
    }
    flux_thrift_put_i64 (w, 2, bytes);
    flux_thrift_put_i64 (w, 3, end - first);
    flux_thrift_end (w);
  }
}

static void
put_pandas_column (GString *json, const char *name, const char *type)
{
  g_string_append (json, "{\"name\": ");
  flux_json_append_string (json, name);
  g_string_append (json, ", \"field_name\": ");
  flux_json_append_string (json, name);
  g_string_append_printf (json,
      ", \"pandas_type\": \"%s\", \"numpy_type\": \"object\", \"metadata\": null}", type);
}

/* Tells pandas that the index is 0, 1, 2, ... and what its columns were. */
static char *
pandas_metadata (const FluxParquetWriter *t)
{
  GString *json = g_string_new (NULL);

  g_string_append_printf (json,
      "{\"index_columns\": [{\"kind\": \"range\", \"name\": null, \"start\": 0, "
      "\"stop\": %u, \"step\": 1}], \"column_indexes\": [{\"name\": null, "
      "\"field_name\": null, \"pandas_type\": \"unicode\", \"numpy_type\": \"object\", "
      "\"metadata\": {\"encoding\": \"UTF-8\"}}], \"columns\": [",
      t->keys->len);
  put_pandas_column (json, t->key_column, "unicode");
  for (guint i = 0; i < t->n_lists; i++) {
    g_string_append (json, ", ");
    put_pandas_column (json, t->list_columns[i], "list[float64]");
  }
  g_string_append (json, "], \"attributes\": {}, \"creator\": {\"library\": \"" PACKAGE
                         "\", \"version\": \"" VERSION "\"}, "
                         "\"pandas_version\": \"2.2.0\"}");
  return g_string_free (json, FALSE);
}

static gboolean
write_footer (Output *o)
{
  g_autoptr (GByteArray) footer = g_byte_array_new ();
  g_autofree char *pandas = pandas_metadata (o->table);
  FluxThriftWriter w = {.out = footer};

  flux_thrift_begin (&w);
  flux_thrift_put_i32 (&w, 1, 2);
  put_schema (&w, o->table);
  flux_thrift_put_i64 (&w, 3, o->table->keys->len);
  put_groups (&w, o);
  flux_thrift_put_list (&w, 5, FLUX_THRIFT_STRUCT, 1);
  flux_thrift_begin (&w);
  flux_thrift_put_string (&w, 1, "pandas");
  flux_thrift_put_string (&w, 2, pandas);
  flux_thrift_end (&w);
  flux_thrift_put_string (&w, 6, PACKAGE " version " VERSION);
  flux_thrift_end (&w);
  put_u32 (footer, footer->len);
  g_byte_array_append (footer, (const guint8 *)"PAR1", 4);
  return emit (o, footer->data, footer->len);
}

static gboolean
check (const FluxParquetWriter *t, const char *path, GError **error)
{
  for (guint i = 0; i < t->keys->len; i++) {
    const char *key = t->keys->pdata[i];

    if (!g_utf8_validate (key, -1, NULL) || strlen (key) > PAGE_BYTES) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "Could not write '%s': the key of row %u is not UTF-8 or too long.", path, i);
      return FALSE;
    }
  }
  for (guint i = 0; i < t->cells->len; i++) {
    if (g_array_index (t->cells, Cell, i).n > FLUX_PARQUET_MAX_LIST) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "Could not write '%s': a list of row %u has more than %u elements.", path,
          i / t->n_lists, FLUX_PARQUET_MAX_LIST);
      return FALSE;
    }
  }
  return TRUE;
}

gboolean
flux_parquet_writer_finish (FluxParquetWriter *self, const char *path, GError **error)
{
  Output o = {.table = self, .error = error};
  gboolean ok;

  if (!check (self, path, error))
    return FALSE;
  o.file = flux_replace_begin (path, error);
  if (o.file == NULL)
    return FALSE;
  o.chunks = g_array_new (FALSE, FALSE, sizeof (Chunk));
  o.groups = g_array_new (FALSE, FALSE, sizeof (guint));
  o.rep = g_byte_array_new ();
  o.def = g_byte_array_new ();
  o.values = g_byte_array_new ();
  ok = emit (&o, "PAR1", 4) && write_groups (&o) && write_footer (&o);
  g_array_unref (o.chunks);
  g_array_unref (o.groups);
  g_byte_array_unref (o.rep);
  g_byte_array_unref (o.def);
  g_byte_array_unref (o.values);
  if (ok)
    return flux_replace_commit (o.file, error);
  flux_replace_abort (o.file);
  return FALSE;
}
