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

/* One picture after another by prompts that change, as when everything is there. */
static void
test_offload (void)
{
  static const gchar *const modes[] = {"model", "stream"};
  gchar *prompts = g_build_filename (dir, "prompts", NULL), *lines, *plain;
  gchar *cache = g_build_filename (dir, "weights", NULL), *entry;
  gsize size;
  guint warnings;

  g_assert_true (g_file_set_contents (prompts, "fox\nred apple\nfox\n", -1, NULL));
  lines = g_strdup_printf (
      "prompt-location=%s weights-cache=%s offload=none", prompts, cache);
  plain = paint (lines, &size, &warnings);
  g_assert_cmpuint (size, ==, 3 * 64 * 48 * 3);
  for (guint i = 0; i < G_N_ELEMENTS (modes); i++) {
    g_free (lines);
    lines = g_strdup_printf ("prompt-location=%s weights-cache=%s offload=%s", prompts,
        i > 0 ? "off" : cache, modes[i]);
    check_pixels (lines, plain, size, 0);
  }
  entry = only_file (cache);
  g_remove (entry);
  g_rmdir (cache);
  g_remove (prompts);
  g_free (entry);
  g_free (cache);
  g_free (lines);
  g_free (prompts);
  g_free (plain);
}

/* Adapters stay where they are when the transformer leaves. */
static void
test_offload_with_an_adapter (void)
{
  static const gchar *const modes[] = {"model", "stream"};
  gchar *lora = g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "data", "adapters", "emoji-b.safetensors", NULL);
  gchar *line = g_strdup_printf ("prompt=fox num-buffers=2 loras=%s:0.7", lora), *plain;
  gsize size;
  guint warnings;

  plain = paint (line, &size, &warnings);
  for (guint i = 0; i < G_N_ELEMENTS (modes); i++) {
    gchar *with = g_strdup_printf ("%s offload=%s", line, modes[i]);

    check_pixels (with, plain, size, 0);
    g_free (with);
  }
  g_free (plain);
  g_free (line);
  g_free (lora);
}

static void
check_refused (const gchar *properties, const gchar *part)
{
  gchar *path = g_build_filename (dir, "pixels", NULL);
  TestRun run;

  test_run_init (&run, LINE, model, properties, path);
  test_run_play (&run);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_errors, ==, 1);
  if (strstr (run.error, part) == NULL)
    g_error ("\"%s\" is not in: %s", part, run.error);
  test_run_clear (&run);
  g_remove (path);
  g_free (path);
}

static void
test_offload_where_it_means_nothing (void)
{
  check_refused ("prompt=x offload=model every-steps=5", "leave offload away");
  check_refused (
      "prompt=x offload=stream quantization=none merge=true", "leave merge away");
}

static void
add_tests (void)
{
  g_test_add_func ("/samplermemory/offload", test_offload);
  g_test_add_func (
      "/samplermemory/offload-with-an-adapter", test_offload_with_an_adapter);
  g_test_add_func ("/samplermemory/offload-where-it-means-nothing",
      test_offload_where_it_means_nothing);
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
