/* tests/flux/test-plan-cache.c: GEMM plans kept between processes.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <string.h>

#include "flux/files/gemm-plans.h"
#include "tests/flux/chooser.h"

typedef struct {
  fx_backend *b;
} Fixture;

static void
setup (Fixture *f, gconstpointer key)
{
  f->b = fx_cpu_new (1);
  chooser_open (f->b, key);
}

static void
teardown (Fixture *f, gconstpointer key)
{
  chooser_close (f->b);
  fx_backend_free (f->b);
}

/* Another process: nothing is known any more. */
static void
restart (Fixture *f, const char *key)
{
  teardown (f, key);
  setup (f, key);
}

/* The one file of the folder; NULL when there is none. */
static char *
cache_file (void)
{
  g_autofree char *folder = g_build_filename (g_get_user_cache_dir (), "gst-flux", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name = dir != NULL ? g_dir_read_name (dir) : NULL;

  return name != NULL ? g_build_filename (folder, name, NULL) : NULL;
}

static void
remove_cache (void)
{
  char *path;

  while ((path = cache_file ()) != NULL) {
    g_assert_cmpint (g_remove (path), ==, 0);
    g_free (path);
  }
}

static void
test_next_process_knows (Fixture *f, gconstpointer key)
{
  remove_cache ();
  chooser_choose (5, 3);
  flux_gemm_plans_write (f->b);
  restart (f, key);
  g_assert_cmpint (chooser_chosen (5), ==, -1);
  flux_gemm_plans_read (f->b);
  g_assert_cmpint (chooser_chosen (5), ==, 3);
}

static void
test_two_processes_at_once (Fixture *f, gconstpointer key)
{
  remove_cache ();
  chooser_choose (5, 3);
  flux_gemm_plans_write (f->b);
  restart (f, key);
  chooser_choose (6, 4);
  chooser_choose (5, 9);
  flux_gemm_plans_write (f->b);
  g_assert_cmpint (chooser_chosen (5), ==, 9);
  restart (f, key);
  flux_gemm_plans_read (f->b);
  g_assert_cmpint (chooser_chosen (5), ==, 9);
  g_assert_cmpint (chooser_chosen (6), ==, 4);
}

static void
test_another_gpu (Fixture *f, gconstpointer key)
{
  remove_cache ();
  chooser_choose (5, 3);
  flux_gemm_plans_write (f->b);
  restart (f, "gpu 2");
  flux_gemm_plans_read (f->b);
  g_assert_cmpint (chooser_chosen (5), ==, -1);
  chooser_choose (5, 4);
  flux_gemm_plans_write (f->b);
  restart (f, key);
  flux_gemm_plans_read (f->b);
  g_assert_cmpint (chooser_chosen (5), ==, 3);
}

/* Damaged and foreign files are as none, and are written anew. */
static void
test_bad_file (Fixture *f, gconstpointer key)
{
  g_autofree char *path = NULL, *good = NULL;
  gsize n;

  remove_cache ();
  chooser_choose (5, 3);
  flux_gemm_plans_write (f->b);
  path = cache_file ();
  g_assert_true (g_file_get_contents (path, &good, &n, NULL));
  for (guint i = 0; i < 3; i++) {
    g_autofree char *bad = g_memdup2 (good, n), *now = NULL;
    gsize length = i == 0 ? n - 1 : i == 1 ? 0 : n, n_now;

    if (i == 2)
      bad[n - 1] ^= 1;
    g_assert_true (g_file_set_contents (path, bad, (gssize)length, NULL));
    restart (f, key);
    flux_gemm_plans_read (f->b);
    g_assert_cmpint (chooser_chosen (5), ==, -1);
    chooser_choose (5, 3);
    flux_gemm_plans_write (f->b);
    g_assert_true (g_file_get_contents (path, &now, &n_now, NULL));
    g_assert_cmpmem (good, n, now, n_now);
  }
}

static void
test_folder_that_cannot_be_written (Fixture *f, gconstpointer key)
{
  g_autofree char *folder = g_build_filename (g_get_user_cache_dir (), "gst-flux", NULL);

  remove_cache ();
  g_remove (folder);
  g_assert_true (g_file_set_contents (folder, "a file", -1, NULL));
  chooser_choose (5, 3);
  flux_gemm_plans_write (f->b);
  flux_gemm_plans_read (f->b);
  g_assert_cmpint (chooser_chosen (5), ==, 3);
  g_remove (folder);
}

static void
test_cpu_has_no_file (void)
{
  fx_backend *b = fx_cpu_new (1);

  remove_cache ();
  flux_gemm_plans_read (b);
  flux_gemm_plans_write (b);
  g_assert_null (flux_gemm_plans_get (b));
  g_assert_null (cache_file ());
  g_assert_cmpint (fx_set_gemm_plans (b, "x", 1, true), ==, FX_ERR_UNSUPPORTED);
  fx_backend_free (b);
}

int
main (int argc, char **argv)
{
  g_autofree char *dir = g_dir_make_tmp ("flux-plan-cache-XXXXXX", NULL);
  g_autofree char *folder = g_build_filename (dir, "gst-flux", NULL);
  int status;

  g_setenv ("XDG_CACHE_HOME", dir, TRUE);
  g_test_init (&argc, &argv, NULL);
#define ADD(name, func)                                                                  \
  g_test_add ("/plan-cache/" name, Fixture, "gpu 1", setup, func, teardown)
  ADD ("next-process-knows", test_next_process_knows);
  ADD ("two-processes-at-once", test_two_processes_at_once);
  ADD ("another-gpu", test_another_gpu);
  ADD ("bad-file", test_bad_file);
  ADD ("folder-that-cannot-be-written", test_folder_that_cannot_be_written);
  g_test_add_func ("/plan-cache/cpu-has-no-file", test_cpu_has_no_file);
  status = g_test_run ();
  g_remove (folder);
  g_remove (dir);
  return status;
}
