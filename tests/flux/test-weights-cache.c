/* tests/flux/test-weights-cache.c: quantised weights on disk. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <signal.h>
#include <sys/resource.h>
#include <utime.h>

#include "flux/error.h"
#include "tests/flux/weights-bench.h"

enum { N = 192, K = 256, SIZE = N * K };

static const fx_qtype qtypes[] = {FX_Q_NF4, FX_Q_NF4_DOUBLE, FX_Q_INT8, FX_Q_FP8};

/* A model of all that a loader takes. */
typedef struct {
  fx_weight w, qkv;
  const float *v;
  fx_mat table;
} Model;

static gboolean
load_model (FluxLoader *loader, gpointer data, GError **error)
{
  static const char *const parts[] = {"q", "k"};
  static const gint64 rows[] = {N, N};
  Model *m = data;

  return flux_load_linear (loader, "a", N, K, TRUE, &m->w, error) &&
         flux_load_linear_rows (loader, parts, rows, 2, K, FALSE, &m->qkv, error) &&
         flux_load_vector (loader, "a.bias", N, &m->v, error) &&
         flux_load_table (loader, "t", 32, 33, &m->table, error);
}

/* A bench with a file of that model, and a cache in a folder of its own. */
typedef struct {
  Bench bench;
  FluxWeightsCache *cache;
  Model model;
} Fixture;

static void
fixture_init (Fixture *f)
{
  g_autofree float *x = g_new (float, SIZE);
  g_autofree guint16 *bf16 = g_new (guint16, SIZE);
  g_autofree char *dir = g_dir_make_tmp ("flux-cache-XXXXXX", NULL);

  memset (f, 0, sizeof *f);
  fx_philox_normal (1, 2, 3, 4, x, SIZE);
  fx_convert (bf16, FX_BF16, x, FX_F32, SIZE);
  bench_init (&f->bench);
  bench_add (&f->bench, "a.weight", FX_BF16, 2, N, K, bf16);
  bench_add (&f->bench, "a.bias", FX_BF16, 1, N, 0, bf16);
  bench_add (&f->bench, "q.weight", FX_F32, 2, N, K, x);
  bench_add (&f->bench, "k.weight", FX_F32, 2, N, K, x);
  bench_add (&f->bench, "t", FX_F32, 2, 32, 33, x);
  bench_open (&f->bench, FX_Q_NF4);
  f->cache = flux_weights_cache_new (dir);
}

/* The names in the cache's folder. g_strfreev() it. */
static char **
list (Fixture *f)
{
  GDir *dir = g_dir_open (f->cache->dir, 0, NULL);
  GPtrArray *names = g_ptr_array_new ();
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    g_ptr_array_add (names, g_build_filename (f->cache->dir, name, NULL));
  if (dir != NULL)
    g_dir_close (dir);
  g_ptr_array_add (names, NULL);
  return (char **)g_ptr_array_free (names, FALSE);
}

static void
fixture_clear (Fixture *f)
{
  g_auto (GStrv) names = list (f);

  for (guint i = 0; names[i] != NULL; i++)
    g_remove (names[i]);
  g_rmdir (f->cache->dir);
  flux_weights_cache_free (f->cache);
  bench_clear (&f->bench);
}

/* All bytes that were loaded, padding between buffers apart. */
static GBytes *
load (Fixture *f, fx_qtype qtype, gboolean use_cache)
{
  g_autoptr (GError) error = NULL;
  FluxLoader *l = &f->bench.loader;
  fx_arena *arena = &f->bench.arena;

  fx_arena_clear (arena);
  fx_arena_init (arena, f->bench.backend, "test");
  l->qtype = qtype;
  l->what = "model";
  l->cache = use_cache ? f->cache : NULL;
  g_assert_true (flux_loader_run (l, load_model, &f->model, &error));
  g_assert_no_error (error);
  {
    GByteArray *all = g_byte_array_new ();
    const fx_weight *w[] = {&f->model.w, &f->model.qkv};

    for (guint i = 0; i < 2; i++) {
      gsize n = (gsize)(w[i]->n * w[i]->k), blocks = n / FX_NF4_BLOCK;
      gboolean rows = w[i]->qtype == FX_Q_INT8 || w[i]->qtype == FX_Q_FP8;
      g_byte_array_append (all, w[i]->data, rows ? n : n / 2);
      if (w[i]->absmax != NULL)
        g_byte_array_append (
            all, (guint8 *)w[i]->absmax, 4 * (rows ? (gsize)w[i]->n : blocks));
      if (w[i]->absmax_q != NULL) {
        g_byte_array_append (all, w[i]->absmax_q, blocks);
        g_byte_array_append (all, (guint8 *)w[i]->absmax2, blocks / 256 * 4);
        g_byte_array_append (all, (guint8 *)w[i]->offset2, blocks / 256 * 4);
        g_byte_array_append (all, (const guint8 *)w[i]->code8, 1024);
      }
    }
    g_byte_array_append (all, (const guint8 *)f->model.w.bias, N * 4);
    g_byte_array_append (all, (const guint8 *)f->model.v, N * 4);
    g_byte_array_append (all, f->model.table.p, 32 * 33 * 4);
    return g_byte_array_free_to_bytes (all);
  }
}

#define ASSERT_EQUAL(a, b)                                                               \
  g_assert_cmpmem (g_bytes_get_data (a, NULL), g_bytes_get_size (a),                     \
      g_bytes_get_data (b, NULL), g_bytes_get_size (b))

static void
test_second_load_is_a_copy_of_the_first (void)
{
  Fixture f;

  fixture_init (&f);
  for (gsize i = 0; i < G_N_ELEMENTS (qtypes); i++) {
    g_autoptr (GBytes) plain = load (&f, qtypes[i], FALSE);
    g_autoptr (GBytes) first = load (&f, qtypes[i], TRUE);
    g_autoptr (GBytes) second = NULL;

    g_assert_false (f.bench.loader.is_cached);
    second = load (&f, qtypes[i], TRUE);
    g_assert_true (f.bench.loader.is_cached);
    g_assert_null (f.cache->warning);
    g_assert_cmpuint (f.bench.loader.bytes_done, ==, f.bench.loader.bytes_total);
    ASSERT_EQUAL (first, plain);
    ASSERT_EQUAL (second, plain);
  }
  {
    g_auto (GStrv) names = list (&f);
    g_assert_cmpuint (g_strv_length (names), ==, G_N_ELEMENTS (qtypes));
  }
  fixture_clear (&f);
}

/* What there is nothing to save for is not kept. */
static void
test_floats_and_small_models_are_not_kept (void)
{
  Fixture f;

  fixture_init (&f);
  {
    g_autoptr (GError) error = NULL;
    f.bench.loader.qtype = FX_Q_NONE;
    f.bench.loader.cache = f.cache;
    fx_arena_clear (&f.bench.arena);
    fx_arena_init (&f.bench.arena, f.bench.backend, "test");
    g_assert_true (flux_loader_run (&f.bench.loader, load_model, &f.model, &error));
  }
  f.cache->min_bytes = 64 << 20;
  g_bytes_unref (load (&f, FX_Q_NF4, TRUE));
  {
    g_auto (GStrv) names = list (&f);
    g_assert_null (names[0]);
  }
  f.cache->min_bytes = f.bench.loader.bytes_total;
  g_bytes_unref (load (&f, FX_Q_NF4, TRUE));
  {
    g_auto (GStrv) names = list (&f);
    g_assert_cmpuint (g_strv_length (names), ==, 1);
  }
  fixture_clear (&f);
}

typedef void (*Damage) (char **bytes, gsize *length);

static void
flip_a_bit (char **bytes, gsize *length)
{
  (*bytes)[*length / 2] ^= 1;
}

static void
flip_a_bit_of_the_sum (char **bytes, gsize *length)
{
  (*bytes)[*length - 1] ^= 1;
}

static void
swap_words (char **bytes, gsize *length)
{
  char *p = *bytes + *length / 2 / 8 * 8, word[8];

  memcpy (word, p, 8);
  memcpy (p, p + 32, 8);
  memcpy (p + 32, word, 8);
}

static void
truncate_it (char **bytes, gsize *length)
{
  *length -= 100;
}

static void
empty_it (char **bytes, gsize *length)
{
  *length = 0;
}

static void
rename_the_layout (char **bytes, gsize *length)
{
  char *p = g_strstr_len (*bytes + 8, 400, "\"layout\":\"");

  g_assert_nonnull (p);
  p[10] = p[10] == '0' ? '1' : '0';
}

static void
rename_the_model (char **bytes, gsize *length)
{
  char *p = g_strstr_len (*bytes + 8, 400, "\"model\":\"");

  g_assert_nonnull (p);
  p[9] = p[9] == '0' ? '1' : '0';
}

static void
write_garbage (char **bytes, gsize *length)
{
  memset (*bytes, 0xa5, *length);
}

/* Made again, with the same bits and a warning, and good from then on. */
static void
test_damaged_entry_is_replaced (void)
{
  static const Damage damages[] = {flip_a_bit, flip_a_bit_of_the_sum, swap_words,
      truncate_it, empty_it, rename_the_layout, rename_the_model, write_garbage};
  g_autoptr (GBytes) plain = NULL;
  Fixture f;

  fixture_init (&f);
  plain = load (&f, FX_Q_NF4_DOUBLE, FALSE);
  g_bytes_unref (load (&f, FX_Q_NF4_DOUBLE, TRUE));
  for (gsize i = 0; i < G_N_ELEMENTS (damages); i++) {
    g_auto (GStrv) names = list (&f);
    g_autoptr (GBytes) again = NULL, then = NULL;
    g_autofree char *bytes = NULL;
    gsize length;

    g_assert_cmpuint (g_strv_length (names), ==, 1);
    g_assert_true (g_file_get_contents (names[0], &bytes, &length, NULL));
    damages[i](&bytes, &length);
    g_assert_true (g_file_set_contents (names[0], bytes, (gssize)length, NULL));
    again = load (&f, FX_Q_NF4_DOUBLE, TRUE);
    g_assert_false (f.bench.loader.is_cached);
    g_assert_error (f.cache->warning, FLUX_ERROR, FLUX_ERROR_FORMAT);
    g_assert_nonnull (strstr (f.cache->warning->message, names[0]));
    g_clear_error (&f.cache->warning);
    ASSERT_EQUAL (again, plain);
    then = load (&f, FX_Q_NF4_DOUBLE, TRUE);
    g_assert_true (f.bench.loader.is_cached);
    g_assert_null (f.cache->warning);
    ASSERT_EQUAL (then, plain);
  }
  fixture_clear (&f);
}

/* Loaded all the same; nothing half written stays. */
static void
test_full_disk_is_a_warning (void)
{
  const struct rlimit limit = {20000, RLIM_INFINITY};
  struct rlimit before;
  g_autoptr (GBytes) plain = NULL, again = NULL;
  Fixture f;

  fixture_init (&f);
  plain = load (&f, FX_Q_INT8, FALSE);
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &before);
  setrlimit (RLIMIT_FSIZE, &limit);
  again = load (&f, FX_Q_INT8, TRUE);
  setrlimit (RLIMIT_FSIZE, &before);
  ASSERT_EQUAL (again, plain);
  g_assert_nonnull (f.cache->warning);
  g_test_message ("%s", f.cache->warning->message);
  g_assert_nonnull (strstr (f.cache->warning->message, "weights-cache"));
  {
    g_auto (GStrv) names = list (&f);
    g_assert_null (names[0]);
  }
  fixture_clear (&f);
}

typedef struct {
  guint calls, cancel_at; /* of those about the cache; 0: never */
  gint percent;
} Progress;

static gboolean
on_progress (const char *what, gint percent, gpointer data)
{
  Progress *self = data;

  if (strstr (what, "weights cache") == NULL)
    return TRUE;
  g_assert_true (g_str_has_prefix (what, "model "));
  g_assert_cmpint (percent, >=, self->percent);
  self->percent = percent;
  return ++self->calls != self->cancel_at;
}

/* Asked before each piece, and after the last; nothing stays of what is cancelled. */
static void
test_write_tells_progress_and_can_be_cancelled (void)
{
  Progress progress = {0};
  FluxLoader *l;
  guint n_calls;
  Fixture f;

  fixture_init (&f);
  l = &f.bench.loader;
  l->progress = on_progress;
  l->progress_data = &progress;
  g_bytes_unref (load (&f, FX_Q_INT8, TRUE));
  g_assert_cmpint (progress.percent, ==, 100);
  n_calls = progress.calls;
  g_assert_cmpuint (
      n_calls, ==, 7 + 1); /* two weights' data and absmax, and three more */
  g_bytes_unref (load (&f, FX_Q_INT8, TRUE));
  g_assert_true (l->is_cached);
  g_assert_cmpuint (progress.calls, ==, n_calls);
  for (guint at = 1; at < n_calls; at++) {
    g_autoptr (GError) error = NULL;
    g_auto (GStrv) names = list (&f);

    for (guint i = 0; names[i] != NULL; i++)
      g_remove (names[i]);
    progress = (Progress){.cancel_at = at};
    fx_arena_clear (&f.bench.arena);
    fx_arena_init (&f.bench.arena, f.bench.backend, "test");
    g_assert_false (flux_loader_run (l, load_model, &f.model, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
    g_assert_null (f.cache->warning);
    g_assert_cmpuint (progress.calls, ==, at);
    g_strfreev (names);
    names = list (&f);
    g_assert_null (names[0]);
  }
  fixture_clear (&f);
}

/* A file of this name in the cache's folder, last written to so many seconds ago. */
static char *
age (Fixture *f, const char *name, gint64 seconds)
{
  char *path = g_build_filename (f->cache->dir, name, NULL);
  const gint64 then = g_get_real_time () / G_USEC_PER_SEC - seconds;
  struct utimbuf times = {then, then};

  if (!g_file_test (path, G_FILE_TEST_EXISTS))
    g_assert_true (g_file_set_contents (path, "half", 4, NULL));
  g_assert_cmpint (g_utime (path, &times), ==, 0);
  return path;
}

/* One that is being written stays, however long that takes, as does what has another
 * name. Where the entry is there, and where it is not. */
static void
test_what_a_killed_process_left_is_removed (void)
{
  g_autoptr (GError) error = NULL;
  Fixture f;

  fixture_init (&f);
  for (guint i = 0; i < 2; i++) {
    g_autofree char *entry = g_build_filename (f.cache->dir, "other", NULL);
    g_autoptr (FluxReplace) writer = flux_replace_begin (entry, &error);
    g_auto (GStrv) names = list (&f);
    g_autofree char *left = NULL, *young = NULL, *other = NULL, *written = NULL;

    g_assert_no_error (error);
    for (guint j = 0; names[j] != NULL; j++)
      if (strstr (names[j], "/.flux-") != NULL)
        written = age (&f, strrchr (names[j], '/') + 1, 8000);
    left = age (&f, ".flux-abc123", 30);
    young = age (&f, ".flux-def456", 0);
    other = age (&f, ".flux-other", 8000);
    g_bytes_unref (load (&f, FX_Q_INT8, TRUE));
    g_assert_cmpint (f.bench.loader.is_cached, ==, i == 1);
    g_assert_null (f.cache->warning);
    g_assert_false (g_file_test (left, G_FILE_TEST_EXISTS));
    g_assert_true (g_file_test (young, G_FILE_TEST_EXISTS));
    g_assert_true (g_file_test (other, G_FILE_TEST_EXISTS));
    g_assert_true (g_file_test (written, G_FILE_TEST_EXISTS));
    g_unlink (young);
    g_unlink (other);
  }
  fixture_clear (&f);
}

static void
test_folder_that_cannot_be_is_a_warning (void)
{
  g_autoptr (GBytes) plain = NULL, again = NULL;
  Fixture f;

  fixture_init (&f);
  plain = load (&f, FX_Q_NF4, FALSE);
  g_rmdir (f.cache->dir);
  g_free (f.cache->dir);
  f.cache->dir = g_build_filename (f.bench.path, "below-a-file", NULL);
  again = load (&f, FX_Q_NF4, TRUE);
  ASSERT_EQUAL (again, plain);
  g_assert_error (f.cache->warning, FLUX_ERROR, FLUX_ERROR_WRITE);
  fixture_clear (&f);
}

static gpointer
load_in_thread (gpointer dir)
{
  Fixture f;

  fixture_init (&f);
  g_rmdir (f.cache->dir);
  g_free (f.cache->dir);
  f.cache->dir = g_strdup (dir);
  for (guint i = 0; i < 10; i++) {
    g_autoptr (GBytes) plain = load (&f, FX_Q_NF4, FALSE);
    g_autoptr (GBytes) cached = load (&f, FX_Q_NF4, TRUE);
    g_auto (GStrv) names = list (&f);

    ASSERT_EQUAL (cached, plain);
    g_assert_null (f.cache->warning);
    if (i % 3 == 0)
      for (guint j = 0; names[j] != NULL; j++)
        if (g_str_has_suffix (names[j], ".safetensors"))
          g_remove (names[j]); /* a user may, at any time */
  }
  bench_clear (&f.bench);
  flux_weights_cache_free (f.cache);
  return NULL;
}

static void
test_several_at_once (void)
{
  GThread *threads[4];
  Fixture f;

  fixture_init (&f);
  for (guint i = 0; i < 4; i++)
    threads[i] = g_thread_new ("load", load_in_thread, f.cache->dir);
  for (guint i = 0; i < 4; i++)
    g_thread_join (threads[i]);
  {
    g_auto (GStrv) names = list (&f);
    g_assert_cmpuint (g_strv_length (names), <=, 1); /* nothing temporary stays */
  }
  fixture_clear (&f);
}

static void
test_settings (void)
{
  g_autoptr (FluxWeightsCache) named = flux_weights_cache_new ("/some/folder");
  g_autoptr (FluxWeightsCache) usual = flux_weights_cache_new ("auto");

  g_assert_null (flux_weights_cache_new ("off"));
  g_assert_null (flux_weights_cache_new (""));
  g_assert_cmpstr (named->dir, ==, "/some/folder");
  g_assert_cmpuint (named->min_bytes, ==, 0);
  g_assert_true (g_str_has_prefix (usual->dir, g_get_user_cache_dir ()));
  g_assert_cmpuint (usual->min_bytes, ==, 256 << 20);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/weights-cache/second-load-is-a-copy-of-the-first",
      test_second_load_is_a_copy_of_the_first);
  g_test_add_func ("/weights-cache/floats-and-small-models-are-not-kept",
      test_floats_and_small_models_are_not_kept);
  g_test_add_func (
      "/weights-cache/damaged-entry-is-replaced", test_damaged_entry_is_replaced);
  g_test_add_func ("/weights-cache/full-disk-is-a-warning", test_full_disk_is_a_warning);
  g_test_add_func ("/weights-cache/write-tells-progress-and-can-be-cancelled",
      test_write_tells_progress_and_can_be_cancelled);
  g_test_add_func ("/weights-cache/folder-that-cannot-be-is-a-warning",
      test_folder_that_cannot_be_is_a_warning);
  g_test_add_func ("/weights-cache/what-a-killed-process-left-is-removed",
      test_what_a_killed_process_left_is_removed);
  g_test_add_func ("/weights-cache/several-at-once", test_several_at_once);
  g_test_add_func ("/weights-cache/settings", test_settings);
  return g_test_run ();
}
