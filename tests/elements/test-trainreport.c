/* tests/elements/test-trainreport.c: report-to of fluxtrainsink. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <signal.h>
#include <sys/resource.h>

#include "tests/elements/testtrain.h"

/* What flux-report says of that format; NULL: nothing. */
static const gchar *
location_of (TestRun *run, const gchar *format)
{
  for (guint i = 0; i < run->messages->len; i++) {
    const GstStructure *s = g_ptr_array_index (run->messages, i);

    if (gst_structure_has_name (s, "flux-report") &&
        strcmp (gst_structure_get_string (s, "format"), format) == 0)
      return gst_structure_get_string (s, "location");
  }
  return NULL;
}

/* A line a step, one for each reading of the meter, beside the adapter; and what is
 * learnt is what is learnt without. */
static void
test_files (void)
{
  TestRun run;
  gchar *text, *folder_of, *config, **lines;

  begin ();
  train ("", "max-steps=3", at ("a.safetensors"));
  init (&run, "", "max-steps=3 meter-triples=2 report-to=jsonl+tensorboard+wandb",
      at ("b.safetensors"));
  test_run_all (&run);
  g_assert_nonnull (location_of (&run, "jsonl"));
  folder_of = g_path_get_dirname (location_of (&run, "jsonl"));
  g_assert_cmpstr (folder_of, ==, at ("reports"));
  g_assert_true (g_file_get_contents (location_of (&run, "jsonl"), &text, NULL, NULL));
  lines = g_strsplit (text, "\n", -1);
  g_assert_cmpuint (g_strv_length (lines), ==, 3 + 2 + 1);
  g_assert_nonnull (strstr (lines[0], "\"paired_loss\""));
  g_assert_nonnull (strstr (lines[1], "\"step\":1"));
  g_assert_nonnull (strstr (lines[3], "\"step\":3"));
  g_assert_nonnull (strstr (lines[4], "\"paired_loss\""));
  g_assert_true (exists (location_of (&run, "tensorboard")));
  config = g_build_filename (location_of (&run, "wandb"), "files/config.yaml", NULL);
  g_assert_true (exists (config));
  g_free (config);
  g_strfreev (lines);
  g_free (text);
  g_free (folder_of);
  test_run_clear (&run);
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  end ();
}

/* The pictures of a preview are in the event file. */
static void
test_pictures (void)
{
  TestRun run;
  GDir *pictures;
  gchar *text;
  gsize length;

  begin ();
  test_run_init (&run,
      "fluxcachesrc location=%s ! fluxtrainsink model=%s location=%s max-steps=2 "
      "report-to=tensorboard+wandb report-dir=%s fluxsamplersrc prompt=apple steps=2 "
      "max-sequence-length=32 every-steps=2 ! video/x-raw,width=64,height=48 ! queue ! "
      "fakesink sync=false",
      cache, model, at ("a.safetensors"), at ("elsewhere"));
  test_run_all (&run);
  g_assert_true (g_str_has_prefix (location_of (&run, "tensorboard"), at ("elsewhere")));
  g_assert_true (
      g_file_get_contents (location_of (&run, "tensorboard"), &text, &length, NULL));
  for (gsize i = 0; i + 1 < length; i++)
    if (text[i] == 0)
      text[i] = 1; /* the tag is looked for among bytes */
  g_assert_nonnull (g_strstr_len (text, (gssize)length, "samples/apple"));
  g_free (text);
  text =
      g_build_filename (location_of (&run, "wandb"), "files/media/images/samples", NULL);
  pictures = g_dir_open (text, 0, NULL);
  g_assert_true (g_str_has_prefix (g_dir_read_name (pictures), "apple_"));
  g_dir_close (pictures);
  g_free (text);
  test_run_clear (&run);
  end ();
}

static void
test_unwritable (void)
{
  TestRun run;
  gchar *more;

  begin ();
  g_assert_true (g_file_set_contents (at ("file"), "x", 1, NULL));
  more = g_strdup_printf ("max-steps=2 report-to=jsonl report-dir=%s", at ("file"));
  init (&run, "", more, at ("a.safetensors"));
  g_free (more);
  g_assert_cmpint (gst_element_set_state (run.pipeline, GST_STATE_PLAYING), ==,
      GST_STATE_CHANGE_FAILURE);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  g_assert_nonnull (strstr (run.error, at ("file")));
  test_run_clear (&run);
  end ();
}

/* The disk has room again as soon as there is a warning. */
static GstBusSyncReply
make_room (GstBus *bus, GstMessage *message, gpointer room)
{
  (void)bus;
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_WARNING)
    g_assert_cmpint (setrlimit (RLIMIT_FSIZE, room), ==, 0);
  return GST_BUS_PASS;
}

/* A disk that is full ends the report with one warning that says so, and nothing else. */
static void
test_full_disk (void)
{
  struct rlimit room, small;
  TestRun run;
  gchar *text;
  gsize length;

  begin ();
  init (&run, "", "max-steps=6 report-to=jsonl", at ("a.safetensors"));
  g_assert_cmpint (getrlimit (RLIMIT_FSIZE, &room), ==, 0);
  gst_bus_set_sync_handler (run.bus, make_room, &room, NULL);
  small = room;
  small.rlim_cur = 500; /* write() then fails as on a full disk, with EFBIG */
  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &small), ==, 0);
  test_run_all (&run);
  g_assert_cmpuint (run.n_steps, ==, 6);
  g_assert_cmpuint (run.n_final, ==, 1);
  g_assert_cmpuint (run.n_warnings, ==, 1);
  g_assert_true (g_file_get_contents (location_of (&run, "jsonl"), &text, &length, NULL));
  g_assert_cmpuint (length, ==, 500);
  g_free (text);
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  end ();
}

static void
add_tests (void)
{
  g_test_add_func ("/trainreport/files", test_files);
  g_test_add_func ("/trainreport/pictures", test_pictures);
  g_test_add_func ("/trainreport/unwritable", test_unwritable);
  g_test_add_func ("/trainreport/full-disk", test_full_disk);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
