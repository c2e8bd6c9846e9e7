/* tests/flux/test-weights-cache.c: quantised weights on disk. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <fcntl.h>
#include <sys/stat.h>
#include <utime.h>

#include "tests/flux/weights-cache-bench.h"

static const fx_qtype qtypes[] = {FX_Q_NF4, FX_Q_NF4_DOUBLE, FX_Q_INT8, FX_Q_FP8};

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

/* Its fingerprint is the same, since that has only the ends of a tensor. */
static void
test_model_with_another_inside_is_quantised_again (void)
{
  g_autoptr (GBytes) old = NULL, plain = NULL, again = NULL, then = NULL;
  g_autofree char *bytes = NULL, *before = NULL, *after = NULL;
  g_auto (GStrv) names = NULL;
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
  struct stat st;
  gsize length;
  Fixture f;

  fixture_init (&f);
  old = load (&f, FX_Q_INT8, TRUE);
  before = flux_safetensors_fingerprint (f.bench.file);
  g_assert_cmpint (stat (f.bench.path, &st), ==, 0);
  g_assert_true (g_file_get_contents (f.bench.path, &bytes, &length, NULL));
  memset (bytes + length / 2, 0, 4096);
  g_assert_true (g_file_set_contents (f.bench.path, bytes, (gssize)length, NULL));
  times[1] = st.st_mtim;
  times[1].tv_nsec = (times[1].tv_nsec + 1000000) % 1000000000;
  g_assert_cmpint (utimensat (AT_FDCWD, f.bench.path, times, 0), ==, 0);
  flux_safetensors_unref (f.bench.file);
  f.bench.loader.file = f.bench.file = flux_safetensors_open (f.bench.path, NULL);
  after = flux_safetensors_fingerprint (f.bench.file);
  g_assert_cmpstr (before, ==, after);

  plain = load (&f, FX_Q_INT8, FALSE);
  g_assert_false (g_bytes_equal (plain, old));
  again = load (&f, FX_Q_INT8, TRUE);
  g_assert_false (f.bench.loader.is_cached);
  ASSERT_EQUAL (again, plain);
  then = load (&f, FX_Q_INT8, TRUE);
  g_assert_true (f.bench.loader.is_cached);
  ASSERT_EQUAL (then, plain);
  g_assert_null (f.cache->warning); /* nothing is damaged */
  names = list (&f);
  g_assert_cmpuint (g_strv_length (names), ==, 1);
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

  if (strstr (what, "next start") == NULL)
    return TRUE;
  g_assert_true (g_str_has_prefix (what, "model, "));
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
    left = age (&f, ".flux-abc123", 400);
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

/* Another fixture's cache, and its model's file. */
static void
share (Fixture *f, const Fixture *other, gboolean model)
{
  g_rmdir (f->cache->dir);
  g_free (f->cache->dir);
  f->cache->dir = g_strdup (other->cache->dir);
  if (!model)
    return;
  flux_safetensors_unref (f->bench.file);
  f->bench.loader.file = f->bench.file = flux_safetensors_open (other->bench.path, NULL);
}

/* With times of their own, they would else replace each other's at every change. */
static void
test_two_copies_of_a_model_have_an_entry_each (void)
{
  Fixture f, copy;

  fixture_init (&f);
  fixture_init (&copy);
  share (&copy, &f, FALSE);
  for (guint i = 0; i < 2; i++) {
    g_bytes_unref (load (&f, FX_Q_NF4, TRUE));
    g_assert_cmpint (f.bench.loader.is_cached, ==, i == 1);
    g_bytes_unref (load (&copy, FX_Q_NF4, TRUE));
    g_assert_cmpint (copy.bench.loader.is_cached, ==, i == 1);
  }
  bench_clear (&copy.bench);
  flux_weights_cache_free (copy.cache);
  fixture_clear (&f);
}

static gpointer
load_in_thread (gpointer shared)
{
  Fixture f;

  fixture_init (&f);
  share (&f, shared, TRUE);
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
    threads[i] = g_thread_new ("load", load_in_thread, &f);
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
#define ADD(name, func) g_test_add_func ("/weights-cache/" name, func)
  ADD ("second-load-is-a-copy-of-the-first", test_second_load_is_a_copy_of_the_first);
  ADD ("floats-and-small-models-are-not-kept", test_floats_and_small_models_are_not_kept);
  ADD ("model-with-another-inside-is-quantised-again",
      test_model_with_another_inside_is_quantised_again);
  ADD ("write-tells-progress-and-can-be-cancelled",
      test_write_tells_progress_and_can_be_cancelled);
  ADD ("what-a-killed-process-left-is-removed",
      test_what_a_killed_process_left_is_removed);
  ADD ("two-copies-of-a-model-have-an-entry-each",
      test_two_copies_of_a_model_have_an_entry_each);
  ADD ("several-at-once", test_several_at_once);
  ADD ("settings", test_settings);
  return g_test_run ();
}
