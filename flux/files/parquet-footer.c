/* flux/files/parquet-footer.c: the schema, and where every column of every row group is.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "flux/error.h"
#include "flux/files/parquet-private.h"
#include "flux/files/thrift.h"

enum {
  MAX_FOOTER = 1 << 28, /* bytes */
  MAX_LEAVES = 1 << 16,
  MAX_NAME = 1024, /* bytes of a dotted name: they add up over the leaves */
  MAX_DEPTH = 32,
};

/* ConvertedType and LogicalType, as far as they change how values are read. */
enum {
  CONVERTED_LIST = 3,
  CONVERTED_DECIMAL = 5,
  CONVERTED_UINT_8 = 11,
  CONVERTED_UINT_64 = 14,
  LOGICAL_LIST = 3,
  LOGICAL_DECIMAL = 5,
  LOGICAL_INTEGER = 10,
  LOGICAL_FLOAT16 = 15,
};

typedef struct {
  const char *name; /* in the footer, not terminated */
  gsize name_length;
  gint type, repetition, n_children, converted, logical;
  gboolean is_unsigned;
} Element;

static void
read_integer_type (FluxThrift *t, FluxThriftType type, Element *e)
{
  gint id = 0;

  if (type != FLUX_THRIFT_STRUCT)
    t->bad = TRUE;
  while (flux_thrift_next (t, &id, &type)) {
    if (id == 2)
      e->is_unsigned = !flux_thrift_bool (t, type);
    else
      flux_thrift_skip (t, type);
  }
}

static void
read_logical_type (FluxThrift *t, FluxThriftType type, Element *e)
{
  gint id = 0;

  if (type != FLUX_THRIFT_STRUCT)
    t->bad = TRUE;
  while (flux_thrift_next (t, &id, &type)) {
    e->logical = id;
    if (id == LOGICAL_INTEGER)
      read_integer_type (t, type, e);
    else
      flux_thrift_skip (t, type);
  }
}

static void
read_element (FluxThrift *t, Element *e)
{
  gint id = 0;
  FluxThriftType type;

  *e = (Element){.name = "", .type = -1, .converted = -1, .logical = -1};
  while (flux_thrift_next (t, &id, &type)) {
    switch (id) {
      case 1:
        e->type = (gint)flux_thrift_int (t, type);
        break;
      case 3:
        e->repetition = (gint)flux_thrift_int (t, type);
        break;
      case 4:
        e->name = flux_thrift_binary (t, type, &e->name_length);
        break;
      case 5:
        e->n_children = (gint)flux_thrift_int (t, type);
        break;
      case 6:
        e->converted = (gint)flux_thrift_int (t, type);
        break;
      case 10:
        read_logical_type (t, type, e);
        break;
      default:
        flux_thrift_skip (t, type);
    }
  }
}

/* ---- from the flat list of elements, depth first, to leaves ---- */

typedef struct {
  FluxParquet *file;
  const Element *elements;
  guint n, at;
  GString *name;
  GError **error;
} Walk;

/* What a node inherits. */
typedef struct {
  guint depth, max_def, max_rep, list_def;
  gboolean of_list; /* the parent is annotated as a list: this is its repeated node */
  gboolean hidden;  /* the only child of such a node: it goes by the list's name */
} Above;

static const char *
classify (FluxParquetLeaf *leaf, const Element *e)
{
  switch (leaf->type) {
    case PARQUET_BYTE_ARRAY:
      leaf->kind = FLUX_PARQUET_BYTES;
      if (leaf->max_rep > 0)
        return "it holds lists of strings";
      break;
    case PARQUET_BOOLEAN:
    case PARQUET_INT32:
    case PARQUET_INT64:
    case PARQUET_FLOAT:
    case PARQUET_DOUBLE:
      leaf->kind = leaf->max_rep > 0 ? FLUX_PARQUET_NUMBER_LIST : FLUX_PARQUET_NUMBER;
      break;
    case PARQUET_INT96:
      return "it holds 96-bit integers";
    default:
      if (e->logical == LOGICAL_FLOAT16)
        return "it holds 16-bit floats; write 32-bit or 64-bit ones (astype of numpy)";
      return "it holds values of fixed length";
  }
  if (leaf->max_rep > 1)
    return "it holds lists of lists";
  if (e->converted == CONVERTED_DECIMAL || e->logical == LOGICAL_DECIMAL)
    return "it holds decimals";
  return NULL;
}

static gboolean
add_leaf (Walk *w, const Element *e, const Above *node)
{
  FluxParquetLeaf leaf = {.type = e->type,
      .max_def = node->max_def,
      .max_rep = node->max_rep,
      .list_def = node->list_def};

  if (e->type < PARQUET_BOOLEAN || e->type > PARQUET_FIXED_LEN_BYTE_ARRAY)
    return flux_parquet_bad (w->file, w->error, "column '%s' has no type", w->name->str);
  if (w->file->leaves->len == MAX_LEAVES)
    return flux_parquet_bad (
        w->file, w->error, "it has more than %d columns", MAX_LEAVES);
  leaf.is_unsigned = e->is_unsigned || (e->converted >= CONVERTED_UINT_8 &&
                                           e->converted <= CONVERTED_UINT_64);
  leaf.refused = classify (&leaf, e);
  leaf.name = g_strdup (w->name->str);
  g_array_append_val (w->file->leaves, leaf);
  return TRUE;
}

static gboolean
append_name (Walk *w, const Element *e)
{
  if (!g_utf8_validate_len (e->name, e->name_length, NULL))
    return flux_parquet_bad (w->file, w->error, "a column's name is not UTF-8");
  if (w->name->len + e->name_length >= MAX_NAME)
    return flux_parquet_bad (
        w->file, w->error, "a column's name is longer than %d bytes", MAX_NAME);
  if (w->name->len > 0)
    g_string_append_c (w->name, '.');
  g_string_append_len (w->name, e->name, e->name_length);
  return TRUE;
}

/* The element at w->at and all below it. Recursion ends at MAX_DEPTH. */
static gboolean
walk (Walk *w, const Above *above)
{
  Above node = *above;
  gsize length = w->name->len;
  gboolean ok = TRUE, repeated;
  const Element *e;

  if (w->at == w->n || node.depth++ == MAX_DEPTH)
    return flux_parquet_bad (w->file, w->error, "its schema is malformed");
  e = &w->elements[w->at++];
  repeated = e->repetition == PARQUET_REPEATED;
  if (e->repetition != PARQUET_REQUIRED)
    node.max_def++;
  if (repeated) {
    node.max_rep++;
    node.list_def = node.max_def;
  }
  /* X.list.element and X.array are told as X. */
  if (!node.hidden && !(node.of_list && repeated))
    ok = append_name (w, e);
  node.hidden = node.of_list && repeated && e->n_children == 1;
  node.of_list = e->converted == CONVERTED_LIST || e->logical == LOGICAL_LIST;
  if (ok && e->n_children == 0)
    ok = add_leaf (w, e, &node);
  for (gint i = 0; ok && i < e->n_children; i++)
    ok = walk (w, &node);
  g_string_truncate (w->name, length);
  return ok;
}

static gboolean
read_schema (FluxParquet *self, FluxThrift t, FluxThriftType type, GError **error)
{
  FluxThriftType element;
  gsize n = flux_thrift_list (&t, type, &element);
  g_autofree Element *elements = NULL;
  Walk w = {.file = self, .error = error};
  const Above top = {0};
  gboolean ok = TRUE;

  if (n == 0 || element != FLUX_THRIFT_STRUCT)
    return flux_parquet_bad (self, error, "it has no schema");
  if (n > 4 * MAX_LEAVES)
    return flux_parquet_bad (self, error, "it has more than %d columns", MAX_LEAVES);
  elements = g_new (Element, n);
  for (gsize i = 0; i < n; i++)
    read_element (&t, &elements[i]);
  if (t.bad)
    return flux_parquet_bad (self, error, "its schema is malformed");
  w.elements = elements;
  w.n = (guint)n;
  w.at = 1; /* the first is the root, whose name and repetition say nothing */
  w.name = g_string_new (NULL);
  for (gint i = 0; ok && i < elements[0].n_children; i++)
    ok = walk (&w, &top);
  g_string_free (w.name, TRUE);
  if (ok && w.at != n)
    ok = flux_parquet_bad (self, error, "its schema is malformed");
  return ok;
}

/* ---- row groups ---- */

typedef struct {
  gint64 type, codec, n_levels, size, data, dictionary;
} ChunkMeta;

static gboolean
read_chunk_meta (FluxThrift *t, FluxThriftType type, ChunkMeta *m)
{
  gint id = 0;
  guint seen = 0;

  if (type != FLUX_THRIFT_STRUCT)
    t->bad = TRUE;
  while (flux_thrift_next (t, &id, &type)) {
    gint64 *to = id == 1    ? &m->type
                 : id == 4  ? &m->codec
                 : id == 5  ? &m->n_levels
                 : id == 7  ? &m->size
                 : id == 9  ? &m->data
                 : id == 11 ? &m->dictionary
                            : NULL;

    if (to == NULL) {
      flux_thrift_skip (t, type);
      continue;
    }
    *to = flux_thrift_int (t, type);
    seen |= 1u << id;
  }
  return !t->bad && (seen & 0x2b2) == 0x2b2; /* all but the dictionary */
}

static gboolean
read_chunk (
    FluxParquet *self, FluxThrift *t, guint column, gsize data_end, GError **error)
{
  FluxParquetLeaf *leaf = &g_array_index (self->leaves, FluxParquetLeaf, column);
  FluxParquetChunk chunk = {0};
  ChunkMeta m = {0};
  gboolean found = FALSE;
  FluxThriftType type;
  gint64 start;
  gint id = 0;

  while (flux_thrift_next (t, &id, &type)) {
    if (id == 1)
      return flux_parquet_bad (
          self, error, "column '%s' is kept in another file", leaf->name);
    if (id == 3)
      found = read_chunk_meta (t, type, &m);
    else
      flux_thrift_skip (t, type);
  }
  if (t->bad || !found)
    return flux_parquet_bad (
        self, error, "where column '%s' is cannot be read", leaf->name);
  if (m.type != leaf->type)
    return flux_parquet_bad (self, error, "column '%s' has two types", leaf->name);
  if (m.n_levels == 0) /* pyarrow gives no place for nothing */
    m = (ChunkMeta){.type = m.type, .codec = m.codec, .data = 4};
  start = m.dictionary > 0 && m.dictionary < m.data ? m.dictionary : m.data;
  if (start < 4 || m.size < 0 || m.n_levels < 0 || start > (gint64)data_end ||
      m.size > (gint64)data_end - start)
    return flux_parquet_bad (
        self, error, "column '%s' would lie outside the file", leaf->name);
  chunk.start = (gsize)start;
  chunk.end = (gsize)(start + m.size);
  chunk.n_levels = m.n_levels;
  chunk.codec = m.codec >= 0 && m.codec < 100 ? (gint)m.codec : 100;
  g_array_append_val (self->chunks, chunk);
  return TRUE;
}

static gboolean
read_chunks (
    FluxParquet *self, FluxThrift *t, FluxThriftType type, gsize data_end, GError **error)
{
  FluxThriftType element;
  gsize n = flux_thrift_list (t, type, &element);

  if (n != self->leaves->len || (n > 0 && element != FLUX_THRIFT_STRUCT))
    return flux_parquet_bad (
        self, error, "a row group has other columns than the schema");
  for (gsize i = 0; i < n; i++) {
    if (!read_chunk (self, t, (guint)i, data_end, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
read_group (FluxParquet *self, FluxThrift *t, gsize data_end, GError **error)
{
  FluxParquetGroup group = {.n_rows = -1};
  gboolean found = FALSE;
  FluxThriftType type;
  gint id = 0;

  while (flux_thrift_next (t, &id, &type)) {
    if (id == 1 && !found) {
      if (!read_chunks (self, t, type, data_end, error))
        return FALSE;
      found = TRUE;
    } else if (id == 3) {
      group.n_rows = flux_thrift_int (t, type);
    } else {
      flux_thrift_skip (t, type);
    }
  }
  if (t->bad || !found || group.n_rows < 0)
    return flux_parquet_bad (self, error, "a row group is malformed");
  if (self->groups->len > 0) {
    const FluxParquetGroup *last =
        &g_array_index (self->groups, FluxParquetGroup, self->groups->len - 1);

    group.first_row = last->first_row + last->n_rows;
  }
  if (group.n_rows > self->n_rows - group.first_row)
    return flux_parquet_bad (self, error, "its row groups have more rows than it has");
  g_array_append_val (self->groups, group);
  return TRUE;
}

static gboolean
read_groups (
    FluxParquet *self, FluxThrift t, FluxThriftType type, gsize data_end, GError **error)
{
  FluxThriftType element;
  gsize n = flux_thrift_list (&t, type, &element);
  gint64 rows = 0;

  if (t.bad || (n > 0 && element != FLUX_THRIFT_STRUCT))
    return flux_parquet_bad (self, error, "its row groups are malformed");
  for (gsize i = 0; i < n; i++) {
    if (!read_group (self, &t, data_end, error))
      return FALSE;
    rows += g_array_index (self->groups, FluxParquetGroup, i).n_rows;
  }
  if (rows != self->n_rows)
    return flux_parquet_bad (self, error, "its row groups have fewer rows than it has");
  return TRUE;
}

static gboolean
read_metadata (FluxParquet *self, gsize start, gsize length, GError **error)
{
  FluxThrift t = {self->bytes + start, self->bytes + start + length, FALSE};
  FluxThrift schema = {NULL}, groups = {NULL};
  FluxThriftType type, schema_type = 0, groups_type = 0;
  gint id = 0;

  self->n_rows = -1;
  while (flux_thrift_next (&t, &id, &type)) {
    if (id == 2) {
      schema = t;
      schema_type = type;
    } else if (id == 4) {
      groups = t;
      groups_type = type;
    } else if (id == 3) {
      self->n_rows = flux_thrift_int (&t, type);
      continue;
    }
    flux_thrift_skip (&t, type);
  }
  if (t.bad || schema.p == NULL || groups.p == NULL || self->n_rows < 0)
    return flux_parquet_bad (self, error, "its footer is malformed");
  return read_schema (self, schema, schema_type, error) &&
         read_groups (self, groups, groups_type, start, error);
}

gboolean
flux_parquet_read_footer (FluxParquet *self, GError **error)
{
  static const char magic[] = "PAR1", encrypted[] = "PARE";
  const guint8 *end = self->bytes + self->length;
  guint32 length;

  if (self->length < 4 || memcmp (self->bytes, magic, 4) != 0) {
    if (self->length >= 4 && memcmp (self->bytes, encrypted, 4) == 0)
      return flux_parquet_bad (self, error, "it is encrypted");
    return flux_parquet_bad (self, error,
        "it does not start with PAR1, as one does; write it with pandas' to_parquet, or "
        "name "
        "what it is by its suffix (.jsonl, .safetensors)");
  }
  if (self->length < 12 || memcmp (end - 4, magic, 4) != 0)
    return flux_parquet_bad (
        self, error, "it is cut short (no PAR1 at its end); fetch or write it again");
  memcpy (&length, end - 8, sizeof length);
  length = GUINT32_FROM_LE (length);
  if (length > MAX_FOOTER || length > self->length - 12)
    return flux_parquet_bad (self, error, "its footer would be longer than it is");
  return read_metadata (self, self->length - 8 - length, length, error);
}
