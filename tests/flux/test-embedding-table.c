/* tests/flux/test-embedding-table.c: content hash to text embeddings, in both layouts.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/embedding-table.h"
#include "flux/files/parquet.h"
#include "flux/files/safetensors.h"
#include "tests/testdata.h"

typedef struct {
  char *dir, *path;
} Fixture;

enum { TOKENS = 3, JOINT = 4, POOLED = 5 };

static void
setup (Fixture *f, gconstpointer suffix)
{
  f->dir = g_dir_make_tmp ("flux-table-XXXXXX", NULL);
  f->path = g_strconcat (f->dir, "/table", suffix, NULL);
}

static void
teardown (Fixture *f, gconstpointer suffix)
{
  GDir *dir = g_dir_open (f->dir, 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (f->dir, name, NULL);

    g_unlink (path);
  }
  g_dir_close (dir);
  g_rmdir (f->dir);
  g_free (f->path);
  g_free (f->dir);
}

static GBytes *
ramp (float first, gsize n)
{
  float *x = g_new (float, n);

  for (gsize i = 0; i < n; i++)
    x[i] = first + (float)i / 3.0f; /* no short decimal: the file must keep every bit */
  return g_bytes_new_take (x, n * sizeof (float));
}

static void
make_embedding (FluxEmbedding *e, float first)
{
  e->text_tokens = TOKENS;
  e->joint_dim = JOINT;
  e->pooled_dim = POOLED;
  e->prompt_embeds = ramp (first, TOKENS * JOINT);
  e->pooled = ramp (-first, POOLED);
}

static void
add (FluxEmbeddingTable *table, const char *key, float first)
{
  FluxEmbedding e;

  make_embedding (&e, first);
  flux_embedding_table_add (table, key, &e);
  flux_embedding_clear (&e);
}

static FluxEmbeddingTable *
open_table (const char *path, gboolean may_create)
{
  g_autoptr (GError) error = NULL;
  FluxEmbeddingTable *table =
      flux_embedding_table_open (path, may_create, JOINT, POOLED, &error);

  g_assert_no_error (error);
  g_assert_nonnull (table);
  return table;
}

static void
save (FluxEmbeddingTable *table)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (flux_embedding_table_save (table, &error));
  g_assert_no_error (error);
}

/* first < 0: must not be there. */
static void
check_row (FluxEmbeddingTable *table, const char *key, float first)
{
  g_autoptr (GError) error = NULL;
  FluxEmbedding e, want;
  gboolean found = flux_embedding_table_lookup (table, key, &e, &error);

  g_assert_no_error (error);
  g_assert_cmpint (found, ==, first >= 0);
  if (!found)
    return;
  make_embedding (&want, first);
  g_assert_cmpint (e.text_tokens, ==, TOKENS);
  g_assert_cmpint (e.joint_dim, ==, JOINT);
  g_assert_cmpint (e.pooled_dim, ==, POOLED);
  g_assert_true (g_bytes_equal (e.prompt_embeds, want.prompt_embeds));
  g_assert_true (g_bytes_equal (e.pooled, want.pooled));
  flux_embedding_clear (&e);
  flux_embedding_clear (&want);
}

static void
test_round_trip (Fixture *f, gconstpointer suffix)
{
  FluxEmbeddingTable *table = open_table (f->path, TRUE);

  add (table, "aa", 1);
  add (table, "", 2); /* the empty prompt */
  add (table, "bb", 3);
  g_assert_cmpuint (flux_embedding_table_n_added (table), ==, 3);
  check_row (table, "bb", 3); /* before it is saved */
  save (table);
  g_assert_cmpuint (flux_embedding_table_n_added (table), ==, 0);
  flux_embedding_table_free (table);

  table = open_table (f->path, FALSE);
  check_row (table, "aa", 1);
  check_row (table, "", 2);
  check_row (table, "bb", 3);
  check_row (table, "a", -1);
  flux_embedding_table_free (table);
}

/* Old rows stay, replaced ones are the new, and a second save still has all. */
static void
test_adds_to_a_file (Fixture *f, gconstpointer suffix)
{
  FluxEmbeddingTable *table = open_table (f->path, TRUE);

  add (table, "aa", 1);
  add (table, "bb", 2);
  save (table);
  flux_embedding_table_free (table);

  table = open_table (f->path, TRUE);
  add (table, "bb", 20);
  save (table);
  add (table, "cc", 30);
  save (table);
  check_row (table, "aa", 1);
  flux_embedding_table_free (table);

  table = open_table (f->path, FALSE);
  check_row (table, "aa", 1);
  check_row (table, "bb", 20);
  check_row (table, "cc", 30);
  flux_embedding_table_free (table);
}

static void
test_layout_by_content (Fixture *f, gconstpointer suffix)
{
  FluxEmbeddingTable *table = open_table (f->path, TRUE);
  g_autofree char *other = g_strconcat (f->dir, "/renamed.bin", NULL);

  add (table, "aa", 1);
  save (table);
  flux_embedding_table_free (table);
  g_assert_cmpint (g_rename (f->path, other), ==, 0);
  table = open_table (other, FALSE);
  check_row (table, "aa", 1);
  flux_embedding_table_free (table);
}

static void
test_missing (Fixture *f, gconstpointer suffix)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (flux_embedding_table_open (f->path, FALSE, JOINT, POOLED, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, f->path));
}

static void
test_rubbish (Fixture *f, gconstpointer suffix)
{
  static const char *const texts[] = {"", "PAR", "PAR1", "PAR1PAR1PAR1PAR1", "{}", "xxxx",
      "\377\377\377\377\377\377\377\377xxxx"};

  for (guint i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (GError) error = NULL;

    g_assert_true (g_file_set_contents (f->path, texts[i], -1, NULL));
    g_assert_null (flux_embedding_table_open (f->path, TRUE, JOINT, POOLED, &error));
    g_assert_nonnull (error);
    g_assert_nonnull (strstr (error->message, f->path));
  }
}

/* Opened for a model of other features: the lookup says so. */
static void
test_other_model (Fixture *f, gconstpointer suffix)
{
  static const int dims[][3] = {{JOINT, POOLED, 1}, {0, 0, 1}, {JOINT + 1, POOLED, 0},
      {JOINT, POOLED + 1, 0}, {2 * JOINT, POOLED, 0}, {JOINT / 2, POOLED, 0}};
  FluxEmbeddingTable *table = open_table (f->path, TRUE);

  add (table, "aa", 1);
  save (table);
  flux_embedding_table_free (table);
  for (guint i = 0; i < G_N_ELEMENTS (dims); i++) {
    g_autoptr (GError) error = NULL;
    FluxEmbedding e = {0};
    gboolean found;

    table = flux_embedding_table_open (f->path, FALSE, dims[i][0], dims[i][1], &error);
    g_assert_no_error (error);
    found = flux_embedding_table_lookup (table, "aa", &e, &error);
    g_assert_cmpint (found, ==, dims[i][2]);
    if (!found) {
      g_assert_nonnull (error);
      g_assert_nonnull (strstr (error->message, f->path));
    } else {
      g_assert_cmpint (e.text_tokens, ==, TOKENS);
    }
    flux_embedding_clear (&e);
    flux_embedding_table_free (table);
  }
}

static void
test_nan (Fixture *f, gconstpointer suffix)
{
  FluxEmbeddingTable *table = open_table (f->path, TRUE);
  float x[TOKENS * JOINT] = {0};
  FluxEmbedding e;
  g_autoptr (GError) error = NULL;

  make_embedding (&e, 1);
  g_bytes_unref (e.prompt_embeds);
  x[7] = NAN;
  e.prompt_embeds = g_bytes_new (x, sizeof x);
  flux_embedding_table_add (table, "aa", &e);
  flux_embedding_clear (&e);
  add (table, "bb", 2);
  save (table);
  flux_embedding_table_free (table);
  table = open_table (f->path, FALSE);
  g_assert_false (flux_embedding_table_lookup (table, "aa", &e, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC);
  check_row (table, "bb", 2);
  flux_embedding_table_free (table);
}

static void
assert_parquet_refused (const char *name, const char *column)
{
  g_autofree char *path =
      g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "parquet", name, NULL);
  g_autoptr (GError) error = NULL;

  g_assert_null (flux_embedding_table_open (path, FALSE, JOINT, POOLED, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
  g_assert_nonnull (strstr (error->message, "holds integers"));
  g_assert_nonnull (strstr (error->message, column));
  g_assert_nonnull (strstr (error->message, name));
}

/* Of text_ids, which count, they are taken. */
static void
test_integers_in_parquet (Fixture *f, gconstpointer suffix)
{
  g_autofree char *path = g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "data", "parquet", "embeddings-int-ids.parquet", NULL);
  FluxEmbeddingTable *table = open_table (path, FALSE);

  check_row (table, "aa", 1);
  flux_embedding_table_free (table);
  assert_parquet_refused ("refused-int-embeds.parquet", "\"prompt_embeds\"");
  assert_parquet_refused ("refused-int-pooled.parquet", "\"pooled_prompt_embeds\"");
}

static void
test_integers_in_safetensors (Fixture *f, gconstpointer suffix)
{
  static const gint32 embeds[TOKENS * JOINT] = {1};
  static const float pooled[POOLED] = {1};
  const FluxTensorSource tensors[] = {{.name = "aa.prompt_embeds",
                                          .dtype = FX_I32,
                                          .n_dims = 2,
                                          .dims = {TOKENS, JOINT},
                                          .data = embeds},
      {.name = "aa.pooled",
          .dtype = FX_F32,
          .n_dims = 1,
          .dims = {POOLED},
          .data = pooled}};
  g_autoptr (GError) error = NULL;
  FluxEmbeddingTable *table;
  FluxEmbedding e;

  g_assert_true (flux_safetensors_write (f->path, tensors, 2, NULL, &error));
  table = open_table (f->path, FALSE);
  g_assert_false (flux_embedding_table_lookup (table, "aa", &e, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
  g_assert_nonnull (strstr (error->message, "prompt_embeds"));
  g_assert_nonnull (strstr (error->message, "holds integers"));
  g_assert_nonnull (strstr (error->message, f->path));
  flux_embedding_table_free (table);
}

/* A parquet of other column names, or with one that a rewrite would lose. */
static void
test_columns (Fixture *f, gconstpointer suffix)
{
  static const char *const missing[] = {"prompt_embeds", "text_ids", NULL};
  static const char *const more[] = {
      "prompt_embeds", "pooled_prompt_embeds", "text_ids", "extra", NULL};
  g_autofree float *x = g_new0 (float, 12);
  const float *values[] = {x, x, x, x};
  const gsize lengths[] = {12, 5, 9, 1};
  FluxParquetWriter *writer = flux_parquet_writer_new ("image_hash", missing);
  FluxEmbeddingTable *table;
  g_autoptr (GError) error = NULL;

  flux_parquet_writer_add (writer, "aa", values, lengths);
  g_assert_true (flux_parquet_writer_finish (writer, f->path, NULL));
  flux_parquet_writer_free (writer);
  g_assert_null (flux_embedding_table_open (f->path, FALSE, JOINT, POOLED, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
  g_assert_nonnull (strstr (error->message, "pooled_prompt_embeds"));
  g_clear_error (&error);

  writer = flux_parquet_writer_new ("image_hash", more);
  flux_parquet_writer_add (writer, "aa", values, lengths);
  g_assert_true (flux_parquet_writer_finish (writer, f->path, NULL));
  flux_parquet_writer_free (writer);
  table = open_table (f->path, TRUE);
  add (table, "bb", 2);
  g_assert_false (flux_embedding_table_save (table, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_assert_nonnull (strstr (error->message, "extra"));
  flux_embedding_table_free (table);
}

/* The file that pandas wrote for the reference's trainer, against the same values in
 * golden.safetensors; then with a row added by us. */
static void
test_reference_file (Fixture *f, gconstpointer suffix)
{
  g_autofree char *shared = flux_test_shared ();
  g_autofree char *path = NULL;
  g_autofree char *golden = NULL;
  g_autofree char *copy = NULL;
  g_autofree char *bytes = NULL;
  g_autoptr (FluxSafetensors) file = NULL;
  gsize length;

  if (shared == NULL) {
    g_test_skip ("golden/embeddings.parquet is not here");
    return;
  }
  path = g_build_filename (shared, "golden", "embeddings.parquet", NULL);
  golden = g_build_filename (shared, "golden", "golden.safetensors", NULL);
  file = flux_safetensors_open (golden, NULL);
  g_assert_nonnull (file);
  g_assert_true (g_file_get_contents (path, &bytes, &length, NULL));
  copy = g_build_filename (f->dir, "copy.parquet", NULL);
  g_assert_true (g_file_set_contents (copy, bytes, (gssize)length, NULL));
  for (int round = 0; round < 2; round++) {
    g_autoptr (GError) error = NULL;
    FluxEmbeddingTable *table = flux_embedding_table_open (copy, TRUE, 0, 0, &error);
    FluxEmbedding e;

    g_assert_no_error (error);
    for (int i = 0; i < 4; i++) {
      g_autofree char *hash_name = g_strdup_printf ("image_sha256.%d", i);
      g_autofree char *embeds_name = g_strdup_printf ("text.%d.prompt_embeds", i);
      g_autofree char *pooled_name = g_strdup_printf ("text.%d.pooled", i);
      const FluxTensor *embeds = flux_safetensors_lookup (file, embeds_name);
      const FluxTensor *pooled = flux_safetensors_lookup (file, pooled_name);
      const char *hash = flux_safetensors_get_metadata (file, hash_name);

      g_assert_true (flux_embedding_table_lookup (table, hash, &e, &error));
      g_assert_cmpint (e.text_tokens, ==, embeds->dims[1]);
      g_assert_cmpint (e.joint_dim, ==, embeds->dims[2]);
      g_assert_cmpmem (g_bytes_get_data (e.prompt_embeds, NULL),
          g_bytes_get_size (e.prompt_embeds), embeds->data, embeds->n_bytes);
      g_assert_cmpmem (g_bytes_get_data (e.pooled, NULL), g_bytes_get_size (e.pooled),
          pooled->data, pooled->n_bytes);
      if (i == 0)
        flux_embedding_table_add (table, "another", &e);
      flux_embedding_clear (&e);
    }
    save (table);
    flux_embedding_table_free (table);
  }
}

int
main (int argc, char **argv)
{
  static const char *const suffixes[] = {".safetensors", ".parquet"};

  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (suffixes); i++) {
    const char *s = suffixes[i];
    struct {
      const char *name;
      void (*func) (Fixture *, gconstpointer);
    } tests[] = {{"round-trip", test_round_trip}, {"adds-to-a-file", test_adds_to_a_file},
        {"layout-by-content", test_layout_by_content}, {"missing-file", test_missing},
        {"rubbish-names-the-file", test_rubbish}, {"other-model", test_other_model},
        {"nan-is-refused", test_nan}};

    for (guint j = 0; j < G_N_ELEMENTS (tests); j++) {
      g_autofree char *name = g_strdup_printf ("/embedding-table/%s%s", tests[j].name, s);

      g_test_add (name, Fixture, s, setup, tests[j].func, teardown);
    }
  }
  g_test_add ("/embedding-table/columns.parquet", Fixture, ".parquet", setup,
      test_columns, teardown);
  g_test_add ("/embedding-table/integers-are-refused.parquet", Fixture, ".parquet", setup,
      test_integers_in_parquet, teardown);
  g_test_add ("/embedding-table/integers-are-refused.safetensors", Fixture,
      ".safetensors", setup, test_integers_in_safetensors, teardown);
  g_test_add ("/embedding-table/reference-file.parquet", Fixture, ".parquet", setup,
      test_reference_file, teardown);
  return g_test_run ();
}
