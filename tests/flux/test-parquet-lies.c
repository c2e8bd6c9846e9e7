/* tests/flux/test-parquet-lies.c: parquet files made by hand that promise what is not so.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/parquet-private.h"
#include "flux/files/thrift.h"

/* One row group with one list column "x" in one page of version 2. */
typedef struct {
  gint64 rows, group_rows;           /* of the file, of the row group */
  gint32 levels, page_rows;          /* of the page */
  gint64 chunk_levels, size, offset; /* of the column; size and offset are added to */
  gint32 uncompressed;               /* added to */
  gint codec, encoding, type, chunk_type;
  gint depth;                   /* groups around the list */
  gint children;                /* added to the root's */
  const char *name, *elsewhere; /* column's name; file it is said to be in */
  const char *rep, *def;        /* levels, with lengths */
  gsize n_rep, n_def, n_values;
} Spec;

/* [[0.0, 0.0, 0.0]]: three entries at levels rep 0 1 1, def 3 3 3. */
static const Spec honest = {.rows = 1,
    .group_rows = 1,
    .levels = 3,
    .page_rows = 1,
    .chunk_levels = 3,
    .codec = PARQUET_UNCOMPRESSED,
    .encoding = PARQUET_PLAIN,
    .type = PARQUET_DOUBLE,
    .chunk_type = PARQUET_DOUBLE,
    .name = "x",
    .rep = "\x02\x00\x04\x01",
    .n_rep = 4,
    .def = "\x06\x03",
    .n_def = 2,
    .n_values = 3};

static void
put_page (GByteArray *out, const Spec *s)
{
  FluxThriftWriter w = {.out = out};
  const double zero = 0;
  gsize n = s->n_rep + s->n_def + s->n_values * sizeof zero;

  flux_thrift_begin (&w);
  flux_thrift_put_i32 (&w, 1, PARQUET_DATA_PAGE_V2);
  flux_thrift_put_i32 (&w, 2, (gint32)n + s->uncompressed);
  flux_thrift_put_i32 (&w, 3, (gint32)n);
  flux_thrift_begin_field (&w, 8);
  flux_thrift_put_i32 (&w, 1, s->levels);
  flux_thrift_put_i32 (&w, 2, 0);
  flux_thrift_put_i32 (&w, 3, s->page_rows);
  flux_thrift_put_i32 (&w, 4, s->encoding);
  flux_thrift_put_i32 (&w, 5, (gint32)s->n_def);
  flux_thrift_put_i32 (&w, 6, (gint32)s->n_rep);
  flux_thrift_end (&w);
  flux_thrift_end (&w);
  g_byte_array_append (out, (const guint8 *)s->rep, (guint)s->n_rep);
  g_byte_array_append (out, (const guint8 *)s->def, (guint)s->n_def);
  for (gsize i = 0; i < s->n_values; i++)
    g_byte_array_append (out, (const guint8 *)&zero, sizeof zero);
}

static void
put_group_element (
    FluxThriftWriter *w, gint repetition, const char *name, gint children, gboolean list)
{
  flux_thrift_begin (w);
  flux_thrift_put_i32 (w, 3, repetition);
  flux_thrift_put_string (w, 4, name);
  flux_thrift_put_i32 (w, 5, children);
  if (list)
    flux_thrift_put_i32 (w, 6, 3);
  flux_thrift_end (w);
}

static void
put_schema (FluxThriftWriter *w, const Spec *s)
{
  flux_thrift_put_list (w, 2, FLUX_THRIFT_STRUCT, 4 + (gsize)s->depth);
  put_group_element (w, PARQUET_REQUIRED, "schema", 1 + s->children, FALSE);
  for (gint i = 0; i < s->depth; i++)
    put_group_element (w, PARQUET_REQUIRED, "g", 1, FALSE);
  put_group_element (w, PARQUET_OPTIONAL, s->name, 1, TRUE);
  put_group_element (w, PARQUET_REPEATED, "list", 1, FALSE);
  flux_thrift_begin (w);
  flux_thrift_put_i32 (w, 1, s->type);
  flux_thrift_put_i32 (w, 3, PARQUET_OPTIONAL);
  flux_thrift_put_string (w, 4, "element");
  flux_thrift_end (w);
}

static void
put_group (FluxThriftWriter *w, const Spec *s, gsize size)
{
  flux_thrift_put_list (w, 4, FLUX_THRIFT_STRUCT, 1);
  flux_thrift_begin (w);
  flux_thrift_put_list (w, 1, FLUX_THRIFT_STRUCT, 1);
  flux_thrift_begin (w);
  if (s->elsewhere != NULL)
    flux_thrift_put_string (w, 1, s->elsewhere);
  flux_thrift_begin_field (w, 3);
  flux_thrift_put_i32 (w, 1, s->chunk_type);
  flux_thrift_put_i32 (w, 4, s->codec);
  flux_thrift_put_i64 (w, 5, s->chunk_levels);
  flux_thrift_put_i64 (w, 7, (gint64)size + s->size);
  flux_thrift_put_i64 (w, 9, 4 + s->offset);
  flux_thrift_end (w);
  flux_thrift_end (w);
  flux_thrift_put_i64 (w, 3, s->group_rows);
  flux_thrift_end (w);
}

static char *
put_file (const Spec *s)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();
  FluxThriftWriter w = {.out = out};
  char *path = NULL;
  guint start;
  guint32 length;
  int fd = g_file_open_tmp ("flux-lie-XXXXXX", &path, NULL);

  g_assert_cmpint (fd, >=, 0);
  g_close (fd, NULL);
  g_byte_array_append (out, (const guint8 *)"PAR1", 4);
  put_page (out, s);
  start = out->len;
  flux_thrift_begin (&w);
  flux_thrift_put_i32 (&w, 1, 2);
  put_schema (&w, s);
  flux_thrift_put_i64 (&w, 3, s->rows);
  put_group (&w, s, start - 4);
  flux_thrift_end (&w);
  length = GUINT32_TO_LE (out->len - start);
  g_byte_array_append (out, (const guint8 *)&length, sizeof length);
  g_byte_array_append (out, (const guint8 *)"PAR1", 4);
  g_assert_true (g_file_set_contents (path, (char *)out->data, out->len, NULL));
  return path;
}

/* The first row's number of elements, or -1 with an error. */
static gint
read_length (const Spec *s, GError **error)
{
  g_autofree char *path = put_file (s);
  g_autoptr (FluxParquet) file = flux_parquet_open (path, error);
  g_autoptr (GArray) list = NULL;

  g_remove (path);
  if (file == NULL)
    return -1;
  list = flux_parquet_read_list (file, 0, 0, error);
  return list == NULL ? -1 : (gint)list->len;
}

static void
assert_lie (const Spec *s, const char *pattern)
{
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (read_length (s, &error), ==, -1);
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
  if (!g_pattern_match_simple (pattern, error->message))
    g_error ("'%s' does not match '%s'", error->message, pattern);
}

static void
test_honest_file_is_read (void)
{
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (read_length (&honest, &error), ==, 3);
  g_assert_no_error (error);
}

#define LIE(pattern, ...)                                                                \
  do {                                                                                   \
    Spec s = honest;                                                                     \
    __VA_ARGS__;                                                                         \
    assert_lie (&s, pattern);                                                            \
  } while (0)

static void
test_refuses_lies_of_the_footer (void)
{
  LIE ("*row groups have more rows*", s.group_rows = 2);
  LIE ("*row groups have fewer rows*", s.rows = 2);
  LIE ("*footer is malformed*", s.rows = -1);
  LIE ("*row group is malformed*", s.group_rows = -1);
  LIE ("*'x' would lie outside*", s.size = 1);
  LIE ("*'x' would lie outside*", s.size = G_MAXINT64 - 1000);
  LIE ("*'x' would lie outside*", s.size = -1000);
  LIE ("*'x' would lie outside*", s.offset = -1);
  LIE ("*'x' would lie outside*", s.offset = G_MAXINT64 - 1000);
  LIE ("*'x' is kept in another file*", s.elsewhere = "/etc/passwd");
  LIE ("*'x' has two types*", s.chunk_type = PARQUET_FLOAT);
  LIE ("*'x' has no type*", s.type = s.chunk_type = 8);
  LIE ("*schema is malformed*", s.children = 1);
  LIE ("*schema is malformed*", s.children = -1);
  LIE ("*schema is malformed*", s.children = G_MAXINT32 - 1);
}

static void
test_refuses_deep_schemas_and_long_names (void)
{
  g_autofree char *name = g_strnfill (1100, 'x');
  Spec deep = honest;
  g_autoptr (GError) error = NULL;

  deep.depth = 29; /* and list, entry, element */
  g_assert_cmpint (read_length (&deep, &error), ==, 3);
  g_assert_no_error (error);
  LIE ("*schema is malformed*", s.depth = 30);
  LIE ("*schema is malformed*", s.depth = 100000);
  LIE ("*name is longer than*", s.name = name);
  LIE ("*name is not UTF-8*", s.name = "\xff");
}

static void
test_refuses_lies_of_the_page (void)
{
  LIE ("*'x' has more values than it says*", s.chunk_levels = 2);
  LIE ("*levels are cut short*", s.chunk_levels = s.levels = 4);
  LIE ("*number of rows is wrong*", s.page_rows = 2);
  LIE ("*values of column 'x' are cut short*", s.n_values = 2);
  LIE ("*starts in the middle of a row*", s.rep = "\x06\x01", s.n_rep = 2,
      s.page_rows = 0);
  LIE ("*'x' has more rows than its row group*", s.rep = "\x06\x00", s.n_rep = 2,
      s.page_rows = 3);
  LIE ("*'x' has fewer rows than its row group*", s.levels = 0, s.chunk_levels = 0,
      s.page_rows = 0);
  LIE ("*levels of column 'x' are cut short or wrong*", s.def = "\x04\x03", s.n_def = 2);
  LIE ("*two sizes differ*", s.uncompressed = 8);
  LIE ("*compression is unknown*", s.codec = 77, s.uncompressed = 8);
  LIE ("*'x'*BIT_PACKED*", s.encoding = 4);
  LIE ("*'x' uses a dictionary that is not there*", s.encoding = PARQUET_RLE_DICTIONARY);
}

/* A few bytes that claim gigabytes. */
static void
test_refuses_bombs (void)
{
  /* runs of 2^30: rep 0 once, then 1; def 2, a null element */
  Spec bomb = honest;
  g_autoptr (GError) error = NULL;

  bomb.rep = "\x02\x00\xfe\xff\xff\xff\x07\x01";
  bomb.n_rep = 8;
  bomb.def = "\x80\x80\x80\x80\x08\x02";
  bomb.n_def = 6;
  bomb.n_values = 0;
  bomb.levels = 1000;
  bomb.chunk_levels = bomb.levels;
  g_assert_cmpint (read_length (&bomb, &error), ==, 1000);
  g_assert_no_error (error);
  bomb.levels = 1 << 30;
  bomb.chunk_levels = bomb.levels;
  assert_lie (&bomb, "*'x' has a list of more than 16777216 elements*");

  LIE ("*expand more than a thousandfold*", s.codec = PARQUET_SNAPPY,
      s.uncompressed = G_MAXINT32 - 1000);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/parquet-lies/honest-file-is-read", test_honest_file_is_read);
  g_test_add_func (
      "/parquet-lies/refuses-lies-of-the-footer", test_refuses_lies_of_the_footer);
  g_test_add_func ("/parquet-lies/refuses-deep-schemas-and-long-names",
      test_refuses_deep_schemas_and_long_names);
  g_test_add_func (
      "/parquet-lies/refuses-lies-of-the-page", test_refuses_lies_of_the_page);
  g_test_add_func ("/parquet-lies/refuses-bombs", test_refuses_bombs);
  return g_test_run ();
}
