/* tests/flux/test-parquet.c: what pyarrow and pandas write is read value by value.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Files and expected values: tests/reference/make_parquet_cases.py. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/parquet.h"
#include "flux/files/safetensors.h"
#include "tests/testdata.h"

static char *
case_path (const char *name)
{
  return g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "parquet", name, NULL);
}

static FluxParquet *
open_case (const char *name)
{
  g_autofree char *path = case_path (name);
  g_autoptr (GError) error = NULL;
  FluxParquet *file = flux_parquet_open (path, &error);

  g_assert_no_error (error);
  return file;
}

static void
assert_number (double got, JsonNode *expected)
{
  if (json_node_get_value_type (expected) == G_TYPE_STRING)
    g_assert_true (isnan (got));
  else if (json_node_get_value_type (expected) == G_TYPE_BOOLEAN)
    g_assert_cmpfloat (got, ==, json_node_get_boolean (expected));
  else
    g_assert_cmpfloat (got, ==, json_node_get_double (expected));
}

static void
assert_bytes (GBytes *got, JsonNode *expected)
{
  GString *hex = g_string_new (NULL);
  gsize n;
  const guchar *p = g_bytes_get_data (got, &n);

  for (gsize i = 0; i < n; i++)
    g_string_append_printf (hex, "%02x", p[i]);
  g_assert_cmpstr (hex->str, ==, json_node_get_string (expected));
  g_string_free (hex, TRUE);
}

static void
assert_list (GArray *got, JsonNode *expected)
{
  JsonArray *list = json_node_get_array (expected);

  g_assert_cmpuint (got->len, ==, json_array_get_length (list));
  for (guint i = 0; i < got->len; i++)
    assert_number (g_array_index (got, double, i), json_array_get_element (list, i));
}

static void
assert_value (FluxParquet *file, guint column, gint64 row, JsonNode *expected)
{
  gboolean null = JSON_NODE_HOLDS_NULL (expected);
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (GArray) list = NULL;
  gboolean found = FALSE;
  FluxParquetKind kind;
  double number = 0;

  g_assert_true (flux_parquet_get_kind (file, column, &kind, &error));
  switch (kind) {
    case FLUX_PARQUET_BYTES:
      bytes = flux_parquet_read_bytes (file, column, row, &error);
      found = bytes != NULL;
      break;
    case FLUX_PARQUET_NUMBER:
      found = flux_parquet_read_number (file, column, row, &number, &error);
      break;
    case FLUX_PARQUET_NUMBER_LIST:
      list = flux_parquet_read_list (file, column, row, &error);
      found = list != NULL;
      break;
  }
  g_assert_no_error (error);
  g_assert_cmpint (found, ==, !null);
  if (null)
    return;
  if (kind == FLUX_PARQUET_BYTES)
    assert_bytes (bytes, expected);
  else if (kind == FLUX_PARQUET_NUMBER)
    assert_number (number, expected);
  else
    assert_list (list, expected);
}

/* Every column, in the order `stride` gives (1 in row order; it must share no factor with
 * the number of rows). */
static void
assert_file (const char *name, const char *values, guint stride)
{
  g_autoptr (FluxParquet) file = open_case (name);
  g_autofree char *path = case_path (values);
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonObject *object;
  GList *columns;

  g_assert_true (json_parser_load_from_file (parser, path, NULL));
  object = json_node_get_object (json_parser_get_root (parser));
  columns = json_object_get_members (object);
  g_assert_cmpuint (g_list_length (columns), ==, flux_parquet_get_n_columns (file));
  for (GList *l = columns; l != NULL; l = l->next) {
    JsonArray *rows = json_object_get_array_member (object, l->data);
    guint n = json_array_get_length (rows);
    gint column = flux_parquet_find_column (file, l->data);

    g_assert_cmpint (column, >=, 0);
    g_assert_cmpstr (flux_parquet_get_column_name (file, (guint)column), ==, l->data);
    g_assert_cmpint (flux_parquet_get_n_rows (file), ==, n);
    for (guint i = 0; i < n; i++) {
      guint row = i * stride % n;

      assert_value (file, (guint)column, row, json_array_get_element (rows, row));
    }
  }
  g_list_free (columns);
}

static void
test_reads_every_form_of_a_table (void)
{
  g_autofree char *folder = case_path ("");
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;
  guint n = 0;

  while ((name = g_dir_read_name (dir)) != NULL) {
    if (!g_str_has_prefix (name, "table-"))
      continue;
#ifndef HAVE_ZSTD
    if (strstr (name, "zstd") != NULL)
      continue;
#endif
    g_test_message ("%s", name);
    assert_file (name, "table.json", 1);
    assert_file (name, "table.json", 39); /* backwards */
    assert_file (name, "table.json", 27);
    n++;
  }
  g_dir_close (dir);
  g_assert_cmpuint (n, >=, 14);
}

static void
test_joins_lists_over_pages (void)
{
  assert_file ("long.parquet", "long.json", 1);
  assert_file ("long.parquet", "long.json", 3);
  assert_file ("long-old-split.parquet", "long.json", 1);
  assert_file ("long-old-split.parquet", "long.json", 3);
}

static void
test_reads_required_columns (void)
{
  assert_file ("required.parquet", "required.json", 1);
}

static void
test_reads_what_pandas_writes (void)
{
  assert_file ("pandas.parquet", "pandas.json", 1);
}

static void
test_reads_an_empty_table (void)
{
  g_autoptr (FluxParquet) file = open_case ("empty.parquet");
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (flux_parquet_get_n_rows (file), ==, 0);
  g_assert_cmpint (flux_parquet_find_column (file, "image.bytes"), >=, 0);
  g_assert_cmpint (flux_parquet_find_column (file, "image"), ==, -1);
  g_assert_null (flux_parquet_read_bytes (file, 0, 0, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
}

static void
test_tells_kinds_apart (void)
{
  g_autoptr (FluxParquet) file = open_case ("pandas.parquet");
  gint key = flux_parquet_find_column (file, "image_hash");
  gint list = flux_parquet_find_column (file, "text_ids");
  g_autoptr (GError) error = NULL;
  double number;

  g_assert_null (flux_parquet_read_list (file, (guint)key, 0, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_assert_nonnull (
      strstr (error->message, "holds strings where lists of numbers are expected"));
  g_clear_error (&error);
  g_assert_null (flux_parquet_read_bytes (file, (guint)list, 0, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_clear_error (&error);
  g_assert_false (flux_parquet_read_number (file, (guint)list, 0, &number, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_clear_error (&error);
  g_assert_null (flux_parquet_read_bytes (file, (guint)key, 3, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
  g_clear_error (&error);
  g_assert_null (flux_parquet_read_bytes (file, (guint)key, -1, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
}

static void
test_refuses_types_by_name (void)
{
  static const char *const messages[] = {"*'list_of_strings'*lists of strings*",
      "*'list_of_lists'*lists of lists*", "*'decimal'*", "*'fixed'*fixed length*"};
  g_autoptr (FluxParquet) file = open_case ("refused-types.parquet");

  g_assert_cmpuint (flux_parquet_get_n_columns (file), ==, G_N_ELEMENTS (messages));
  for (guint i = 0; i < G_N_ELEMENTS (messages); i++) {
    g_autoptr (GError) error = NULL;
    FluxParquetKind kind;

    g_assert_false (flux_parquet_get_kind (file, i, &kind, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
    g_assert_true (g_pattern_match_simple (messages[i], error->message));
  }
}

static void
test_refuses_half_floats (void)
{
  g_autoptr (FluxParquet) file = open_case ("refused-float16.parquet");
  g_autoptr (GError) error = NULL;
  FluxParquetKind kind;

  g_assert_false (flux_parquet_get_kind (file, 0, &kind, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_assert_true (
      g_pattern_match_simple ("*'halves'*16-bit floats; write 32-bit*", error->message));
}

static void
test_refuses_encodings_and_codecs_by_name (void)
{
  static const struct {
    const char *file, *column, *message;
  } cases[] = {
      {"refused-delta.parquet", "x", "*'x'*BYTE_STREAM_SPLIT*"},
      {"refused-delta.parquet", "i", "*'i'*DELTA_BINARY_PACKED*"},
      {"refused-delta.parquet", "s", "*'s'*DELTA_BYTE_ARRAY*"},
      {"refused-lz4.parquet", "x", "*lz4*"},
      {"refused-brotli.parquet", "x", "*brotli*"},
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (FluxParquet) file = open_case (cases[i].file);
    guint column = (guint)flux_parquet_find_column (file, cases[i].column);
    g_autoptr (GError) error = NULL;
    double number;

    if (*cases[i].column == 's')
      g_assert_null (flux_parquet_read_bytes (file, column, 0, &error));
    else
      g_assert_false (flux_parquet_read_number (file, column, 0, &number, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
    g_assert_true (g_pattern_match_simple (cases[i].message, error->message));
  }
}

static void
test_refuses_other_files (void)
{
  static const struct {
    const char *text, *message;
  } cases[] = {
      {"", "*does not start with PAR1*"},
      {"PK\3\4....", "*does not start with PAR1*"},
      {"PAR1", "*cut short*"},
      {"PAR1\x15\x04\x15\x10", "*cut short*"},
      {"PARE....PARE", "*encrypted*"},
      {"PAR1\xff\xff\xff\x7fPAR1", "*footer*"},
      {"version https://git-lfs.github.com/spec/v1\n", "*git lfs pull*"},
  };
  char *path = NULL;
  int fd = g_file_open_tmp ("flux-parquet-XXXXXX", &path, NULL);

  g_assert_cmpint (fd, >=, 0);
  g_close (fd, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;

    g_assert_true (g_file_set_contents (path, cases[i].text, -1, NULL));
    g_assert_null (flux_parquet_open (path, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
    g_assert_true (g_pattern_match_simple (cases[i].message, error->message));
    g_assert_nonnull (strstr (error->message, path));
  }
  g_remove (path);
  {
    g_autoptr (GError) error = NULL;

    g_assert_null (flux_parquet_open (path, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
  }
  g_free (path);
}

/* Row by row the texts of golden.safetensors, which were written as doubles. */
static void
assert_golden_column (
    FluxParquet *file, const char *column, FluxSafetensors *golden, const char *what)
{
  gint index = flux_parquet_find_column (file, column);

  g_assert_cmpint (index, >=, 0);
  for (gint64 row = 0; row < flux_parquet_get_n_rows (file); row++) {
    g_autofree char *name = g_strdup_printf ("text.%d.%s", (int)row, what);
    const FluxTensor *t = flux_safetensors_lookup (golden, name);
    g_autoptr (GError) error = NULL;
    g_autoptr (GArray) got = flux_parquet_read_list (file, (guint)index, row, &error);
    g_autofree float *values = NULL;

    g_assert_no_error (error);
    g_assert_nonnull (t);
    g_assert_cmpuint (got->len, ==, t->n_elements);
    values = g_new (float, t->n_elements);
    g_assert_true (flux_tensor_to_f32 (t, values, NULL));
    for (guint i = 0; i < got->len; i++)
      g_assert_cmpfloat (g_array_index (got, double, i), ==, values[i]);
  }
}

static void
test_reads_the_golden_embeddings (void)
{
  g_autofree char *shared = flux_test_shared ();
  g_autofree char *path = NULL, *tensors = NULL;
  g_autoptr (FluxParquet) file = NULL;
  g_autoptr (FluxSafetensors) golden = NULL;
  g_autoptr (GError) error = NULL;

  if (shared == NULL) {
    g_test_skip ("the shared data (golden/embeddings.parquet) is absent");
    return;
  }
  path = g_build_filename (shared, "golden", "embeddings.parquet", NULL);
  tensors = g_build_filename (shared, "golden", "golden.safetensors", NULL);
  file = flux_parquet_open (path, &error);
  g_assert_no_error (error);
  golden = flux_safetensors_open (tensors, &error);
  g_assert_no_error (error);
  assert_golden_column (file, "prompt_embeds", golden, "prompt_embeds");
  assert_golden_column (file, "pooled_prompt_embeds", golden, "pooled");
  assert_golden_column (file, "text_ids", golden, "text_ids");
  for (gint64 row = 0; row < flux_parquet_get_n_rows (file); row++) {
    g_autofree char *key = g_strdup_printf ("image_sha256.%d", (int)row);
    g_autoptr (GBytes) hash = flux_parquet_read_bytes (
        file, (guint)flux_parquet_find_column (file, "image_hash"), row, &error);
    const char *expected = flux_safetensors_get_metadata (golden, key);

    g_assert_no_error (error);
    g_assert_cmpmem (g_bytes_get_data (hash, NULL), g_bytes_get_size (hash), expected,
        strlen (expected));
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func (
      "/parquet/reads-every-form-of-a-table", test_reads_every_form_of_a_table);
  g_test_add_func ("/parquet/joins-lists-over-pages", test_joins_lists_over_pages);
  g_test_add_func ("/parquet/reads-required-columns", test_reads_required_columns);
  g_test_add_func ("/parquet/reads-what-pandas-writes", test_reads_what_pandas_writes);
  g_test_add_func ("/parquet/reads-an-empty-table", test_reads_an_empty_table);
  g_test_add_func ("/parquet/tells-kinds-apart", test_tells_kinds_apart);
  g_test_add_func ("/parquet/refuses-types-by-name", test_refuses_types_by_name);
  g_test_add_func ("/parquet/refuses-half-floats", test_refuses_half_floats);
  g_test_add_func ("/parquet/refuses-encodings-and-codecs-by-name",
      test_refuses_encodings_and_codecs_by_name);
  g_test_add_func ("/parquet/refuses-other-files", test_refuses_other_files);
  g_test_add_func (
      "/parquet/reads-the-golden-embeddings", test_reads_the_golden_embeddings);
  return g_test_run ();
}
