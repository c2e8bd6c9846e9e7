/* tests/elements/test-samplermemory.c: where fluxsamplersrc has its weights.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testtrain.h"

#define LINE                                                                             \
  "fluxsamplersrc name=source model=%s seed=1 steps=2 max-sequence-length=32 %s ! "      \
  "video/x-raw,width=64,height=48 ! filesink location=%s"

static gchar *dir;

/* The pixels that these properties give. g_free() them. */
static gchar *
paint (const gchar *properties, gsize *size, guint *n_warnings)
{
  gchar *path = g_build_filename (dir, "pixels", NULL), *pixels;
  TestRun run;

  test_run_init (&run, LINE, model, properties, path);
  test_run_all (&run);
  *n_warnings = run.n_warnings;
  test_run_clear (&run);
  g_assert_true (g_file_get_contents (path, &pixels, size, NULL));
  g_remove (path);
  g_free (path);
  return pixels;
}

static void
check_pixels (const gchar *properties, const gchar *wanted, gsize size, guint n_warnings)
{
  gsize n;
  guint warnings;
  gchar *pixels = paint (properties, &n, &warnings);

  g_assert_cmpmem (pixels, n, wanted, size);
  g_assert_cmpuint (warnings, ==, n_warnings);
  g_free (pixels);
}

/* The only file of a folder. */
static gchar *
only_file (const gchar *folder)
{
  GDir *d = g_dir_open (folder, 0, NULL);
  gchar *path;

  g_assert_nonnull (d);
  path = g_build_filename (folder, g_dir_read_name (d), NULL);
  g_assert_null (g_dir_read_name (d));
  g_dir_close (d);
  return path;
}

/* T5 in int8 comes from the cache the second time; the transformer of this model is
 * stored in 4 bits, and needs none. */
static void
test_weights_cache (void)
{
  gchar *cache = g_build_filename (dir, "weights", NULL), *entry, *bytes, *plain;
  gchar *with = g_strdup_printf ("prompt=fox num-buffers=1 weights-cache=%s", cache);
  gsize size, n;
  guint warnings;

  plain = paint ("prompt=fox num-buffers=1 weights-cache=off", &size, &warnings);
  g_assert_false (g_file_test (cache, G_FILE_TEST_EXISTS));
  check_pixels (with, plain, size, 0);
  entry = only_file (cache);
  g_assert_nonnull (strstr (entry, "/T5-"));
  g_assert_nonnull (strstr (entry, "-int8-"));
  check_pixels (with, plain, size, 0);

  g_assert_true (g_file_get_contents (entry, &bytes, &n, NULL));
  bytes[n / 2] ^= 4;
  g_assert_true (g_file_set_contents (entry, bytes, (gssize)n, NULL));
  check_pixels (with, plain, size, 1);
  check_pixels (with, plain, size, 0);
  g_remove (entry);
  g_rmdir (cache);
  g_free (bytes);
  g_free (entry);
  g_free (with);
  g_free (cache);
  g_free (plain);
}

static void
add_tests (void)
{
  g_test_add_func ("/samplermemory/weights-cache", test_weights_cache);
}

int
main (int argc, char **argv)
{
  int result;

  dir = g_dir_make_tmp ("flux-memory-XXXXXX", NULL);
  result = test_main (argc, argv, add_tests);
  g_rmdir (dir);
  g_free (dir);
  return result;
}
