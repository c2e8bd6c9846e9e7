/* tests/elements/test-samplererrors.c: what fluxsamplersrc says to bad settings and
 * files. SPDX-License-Identifier: LGPL-2.1-or-later */
#include <unistd.h>

#include "tests/elements/testtrain.h"

/* Quick. */
#define FAST "steps=2 max-sequence-length=32 text-quantization=none"

/* Refused before anything is loaded, by one error that says `named`. */
static void
assert_refused (const gchar *dir, const gchar *properties, const gchar *named)
{
  TestRun run;

  test_run_init (&run, "fluxsamplersrc model=%s %s ! fakesink", dir, properties);
  g_assert_cmpint (gst_element_set_state (run.pipeline, GST_STATE_PAUSED), ==,
      GST_STATE_CHANGE_FAILURE);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_errors, ==, 1);
  g_assert_nonnull (strstr (run.error, named));
  test_run_clear (&run);
}

static void
test_errors (void)
{
  const gchar *lines[][2] = {
      {"prompt=x loras=/nowhere.safetensors", "/nowhere.safetensors"},
      {"prompt=x loras=/nowhere.safetensors:abc", "'abc'"},
      {"prompt=x loras=/nowhere.safetensors:", "''"},
      {"prompt=x loras=/no:where", "/no:where"}, {"prompt=x loras=,", "loras"},
      {"prompt-location=/nowhere.txt", "/nowhere.txt"},
      {"prompt=x merge=true", "quantization=none"}, {"prompt=x device=abacus", "abacus"},
      {"prompt=x every-steps=5", "fluxtrainsink"}};

  for (guint i = 0; i < G_N_ELEMENTS (lines); i++)
    assert_refused (model, lines[i][0], lines[i][1]);
}

/* An adapter that is none, or of another model. */
static void
test_bad_lora (void)
{
  TestRun run;

  begin ();
  g_assert_true (g_file_set_contents (at ("bad.safetensors"), "not one", -1, NULL));
  test_run_init (&run,
      "fluxsamplersrc name=train model=%s prompt=x loras=%s " FAST " ! fakesink", model,
      at ("bad.safetensors"));
  test_run_play (&run);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_errors, ==, 1);
  g_assert_nonnull (strstr (run.error, at ("bad.safetensors")));
  test_run_clear (&run);
  end ();
}

/* The model's files, those of one part excepted, whose folder is empty. */
static const gchar *
model_without (const gchar *part)
{
  const gchar *copy = at ("model");
  GDir *dir = g_dir_open (model, 0, NULL);
  const gchar *name;

  g_assert_cmpint (g_mkdir (copy, 0700), ==, 0);
  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree gchar *from = g_build_filename (model, name, NULL);
    g_autofree gchar *to = g_build_filename (copy, name, NULL);

    if (strcmp (name, part) == 0)
      g_assert_cmpint (g_mkdir (to, 0700), ==, 0);
    else
      g_assert_cmpint (symlink (from, to), ==, 0);
  }
  g_dir_close (dir);
  return copy;
}

/* A part that has a folder and no config.json in it: that file is named. */
static void
test_no_config (void)
{
  const gchar *parts[] = {"transformer", "vae"};

  for (guint i = 0; i < G_N_ELEMENTS (parts); i++) {
    g_autofree gchar *named = g_build_filename (parts[i], "config.json", NULL);

    begin ();
    assert_refused (model_without (parts[i]), "prompt=x", named);
    end ();
  }
}

/* A VAE that is cut short is found before the first step, not after the last. */
static void
test_cut_vae (void)
{
  g_autofree gchar *from = g_build_filename (model, "vae", NULL), *copy = NULL;
  const gchar *names[] = {"config.json", "diffusion_pytorch_model.safetensors"};

  begin ();
  copy = g_strdup (model_without ("vae"));
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree gchar *old = g_build_filename (from, names[i], NULL), *bytes = NULL;
    g_autofree gchar *new = g_build_filename (copy, "vae", names[i], NULL);
    gsize n;

    g_assert_true (g_file_get_contents (old, &bytes, &n, NULL));
    g_assert_true (g_file_set_contents (new, bytes, (gssize)(i == 0 ? n : n / 2), NULL));
  }
  assert_refused (copy, "prompt=x", names[1]);
  end ();
}

/* A size that is no multiple of 16 is said to be one. */
static void
test_size (void)
{
  TestRun run;
  GstElement *filter;

  test_run_init (&run,
      "fluxsamplersrc model=%s prompt=x " FAST " ! capsfilter name=size ! fakesink",
      model);
  filter = gst_bin_get_by_name (GST_BIN (run.pipeline), "size");
  gst_util_set_object_arg (G_OBJECT (filter), "caps", "video/x-raw,width=130,height=77");
  gst_object_unref (filter);
  test_run_play (&run);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  test_run_stop (&run);
  g_assert_nonnull (strstr (run.error, "multiples of 16, such as 128x64"));
  test_run_clear (&run);
}

static void
add_tests (void)
{
  g_test_add_func ("/samplererrors/settings", test_errors);
  g_test_add_func ("/samplererrors/bad-lora", test_bad_lora);
  g_test_add_func ("/samplererrors/no-config", test_no_config);
  g_test_add_func ("/samplererrors/cut-vae", test_cut_vae);
  g_test_add_func ("/samplererrors/size", test_size);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
