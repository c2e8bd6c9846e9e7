/* tests/flux/test-parquet-write.c: the embedding table comes back as it was written.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tests/reference/check_parquet.py reads the same table with pandas and others; it runs
 * this program with FLUX_TEST_KEEP set to the folder in which tables are to be kept. */
#include <glib/gstdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/parquet.h"

static const char *const columns[] = {
    "prompt_embeds", "pooled_prompt_embeds", "text_ids", NULL};
enum { N_LISTS = 3 };

static char *
make_folder (void)
{
  return g_dir_make_tmp ("flux-parquet-XXXXXX", NULL);
}

/* Exact in fp32; check_parquet.py has the same line. */
static float
value_at (guint row, guint column, gsize i)
{
  return (float)((row * 7919 + column * 104729 + i * 31) % 65536) / 4096 - 8;
}

/* Row 2 has no prompt_embeds at all: an empty list, not a null. */
static gsize
length_at (guint row, guint column, gsize prompt)
{
  return column == 2 ? 21 : column == 1 ? 8 : row == 2 ? 0 : prompt;
}

static char *
key_at (guint row)
{
  return row == 1 ? g_strdup ("été 🍎") : g_strdup_printf ("%064x", row);
}

static FluxParquetWriter *
make_table (guint rows, gsize prompt)
{
  FluxParquetWriter *w = flux_parquet_writer_new ("image_hash", columns);

  for (guint row = 0; row < rows; row++) {
    g_autofree char *key = key_at (row);
    float *values[N_LISTS];
    gsize lengths[N_LISTS];

    for (guint c = 0; c < N_LISTS; c++) {
      lengths[c] = length_at (row, c, prompt);
      values[c] = g_new (float, lengths[c]);
      for (gsize i = 0; i < lengths[c]; i++)
        values[c][i] = value_at (row, c, i);
    }
    flux_parquet_writer_add (w, key, (const float *const *)values, lengths);
    for (guint c = 0; c < N_LISTS; c++)
      g_free (values[c]);
  }
  return w;
}

static void
assert_table (const char *path, guint rows, gsize prompt)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxParquet) file = flux_parquet_open (path, &error);

  g_assert_no_error (error);
  g_assert_cmpint (flux_parquet_get_n_rows (file), ==, rows);
  g_assert_cmpuint (flux_parquet_get_n_columns (file), ==, 1 + N_LISTS);
  for (guint row = 0; row < rows; row++) {
    g_autofree char *key = key_at (row);
    g_autoptr (GBytes) got = flux_parquet_read_bytes (
        file, (guint)flux_parquet_find_column (file, "image_hash"), row, &error);

    g_assert_no_error (error);
    g_assert_cmpmem (
        g_bytes_get_data (got, NULL), g_bytes_get_size (got), key, strlen (key));
    for (guint c = 0; c < N_LISTS; c++) {
      gint column = flux_parquet_find_column (file, columns[c]);
      g_autoptr (GArray) list = flux_parquet_read_list (file, (guint)column, row, &error);

      g_assert_no_error (error);
      g_assert_cmpuint (list->len, ==, length_at (row, c, prompt));
      for (guint i = 0; i < list->len; i++)
        g_assert_cmpfloat (g_array_index (list, double, i), ==, value_at (row, c, i));
    }
  }
}

static void
round_trip (guint rows, gsize prompt)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "t.parquet", NULL);
  g_autoptr (FluxParquetWriter) w = make_table (rows, prompt);
  g_autoptr (GError) error = NULL;

  g_assert_true (flux_parquet_writer_finish (w, path, &error));
  g_assert_no_error (error);
  assert_table (path, rows, prompt);
  g_assert_cmpint (g_remove (path), ==, 0);
  g_assert_cmpint (g_rmdir (folder), ==, 0); /* nothing else was left */
}

static void
test_comes_back (void)
{
  round_trip (5, 96);
}

static void
test_empty_table_comes_back (void)
{
  round_trip (0, 0);
}

/* Several pages in a column, several columns of different page counts. */
static void
test_pages_come_back (void)
{
  round_trip (40, 30000);
}

static void
test_row_groups_come_back (void)
{
  round_trip (16, 315392);
}

static void
test_failure_leaves_the_old_table (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "t.parquet", NULL);
  g_autofree char *below = g_build_filename (path, "t.parquet", NULL);
  g_autoptr (FluxParquetWriter) good = make_table (5, 4), bad = make_table (1, 4);
  const float one = 1;
  const float *const values[] = {&one, &one, &one};
  const gsize lengths[] = {1, 1, 1};
  g_autoptr (GError) error = NULL;

  g_assert_true (flux_parquet_writer_finish (good, path, &error));
  flux_parquet_writer_add (bad, "\xff", values, lengths);
  g_assert_false (flux_parquet_writer_finish (bad, path, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_clear_error (&error);
  assert_table (path, 5, 4);
  g_assert_false (flux_parquet_writer_finish (good, below, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_WRITE);
  g_assert_cmpint (g_remove (path), ==, 0);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
}

static void
keep (const char *name, guint rows, gsize prompt)
{
  g_autofree char *path = g_build_filename (g_getenv ("FLUX_TEST_KEEP"), name, NULL);
  g_autoptr (FluxParquetWriter) w = make_table (rows, prompt);
  g_autoptr (GError) error = NULL;

  g_assert_true (flux_parquet_writer_finish (w, path, &error));
  g_assert_no_error (error);
}

static void
test_keeps_tables_for_others (void)
{
  keep ("embeddings.parquet", 5, 96);
  keep ("big.parquet", 16, 315392);
  keep ("empty.parquet", 0, 0);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  if (g_getenv ("FLUX_TEST_KEEP") != NULL)
    g_test_add_func (
        "/parquet-write/keeps-tables-for-others", test_keeps_tables_for_others);
  g_test_add_func ("/parquet-write/comes-back", test_comes_back);
  g_test_add_func ("/parquet-write/empty-table-comes-back", test_empty_table_comes_back);
  g_test_add_func ("/parquet-write/pages-come-back", test_pages_come_back);
  g_test_add_func ("/parquet-write/row-groups-come-back", test_row_groups_come_back);
  g_test_add_func (
      "/parquet-write/failure-leaves-the-old-table", test_failure_leaves_the_old_table);
  return g_test_run ();
}
