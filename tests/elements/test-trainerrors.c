/* tests/elements/test-trainerrors.c: what goes wrong in fluxtrainsink: one error, that
 * says what to do, and nothing that was learnt is lost. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/elements/testtrain.h"

static void
expect_error (TestRun *run, const gchar *word)
{
  test_run_play (run);
  if (run->n_errors == 0)
    g_assert_cmpint (test_run_until_end (run), ==, GST_MESSAGE_ERROR);
  test_run_stop (run);
  g_assert_cmpuint (run->n_errors, ==, 1);
  if (strstr (run->error, word) == NULL)
    g_test_message ("'%s' is not in: %s", word, run->error);
  g_assert_nonnull (strstr (run->error, word));
  g_assert_cmpstr (GST_OBJECT_NAME (run->from), ==, "train");
}

static void
test_bad_settings (void)
{
  const gchar *settings[][2] = {{"targets=nothing", "nothing"},
      {"resume-from=/nowhere/at/all", "/nowhere/at/all"}, {"device=cuda:77", "77"},
      {"device=abacus", "abacus"}, {"device=cpu compute-dtype=float16", "float32"}};
  TestRun run;

  begin ();
  for (guint i = 0; i < G_N_ELEMENTS (settings); i++) {
    init (&run, "", settings[i][0], at ("a.safetensors"));
    expect_error (&run, settings[i][1]);
    test_run_clear (&run);
  }
  g_assert_false (exists (at ("a.safetensors")));
  end ();
}

/* The Hub has models, adapters and data sets; found out before anything is downloaded. */
static void
test_resume_from_hub (void)
{
  TestRun run;

  begin ();
  init (&run, "", "resume-from=hf://user/name", at ("a.safetensors"));
  g_assert_cmpint (gst_element_set_state (run.pipeline, GST_STATE_PLAYING), ==,
      GST_STATE_CHANGE_FAILURE);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  g_assert_cmpuint (run.n_errors, ==, 1);
  g_assert_nonnull (
      strstr (run.error, "a folder of this computer, not 'hf://user/name'"));
  test_run_clear (&run);
  end ();
}

/* Found before weights are read: the plan is made of the model's headers. */
static void
test_budget_too_small (void)
{
  guint64 needed = 0, available = 0;
  TestRun run;

  begin ();
  init (&run, "", "vram-budget=1", at ("a.safetensors"));
  expect_error (&run, "raise vram-budget");
  g_assert_true (run.error_domain == GST_RESOURCE_ERROR);
  g_assert_cmpint (run.error_code, ==, GST_RESOURCE_ERROR_NO_SPACE_LEFT);
  g_assert_true (gst_structure_get (run.error_details, "needed-bytes", G_TYPE_UINT64,
      &needed, "free-bytes", G_TYPE_UINT64, &available, NULL));
  g_assert_cmpuint (needed, >, available);
  g_assert_cmpuint (available, ==, 1 << 20);
  g_assert_nonnull (
      strstr (gst_structure_get_string (run.error_details, "hint"), "smaller pictures"));
  test_run_clear (&run);
  g_assert_false (exists (at ("a.safetensors")));
  end ();
}

static void
expect_no_start (TestRun *run, const gchar *word)
{
  g_assert_cmpint (gst_element_set_state (run->pipeline, GST_STATE_PAUSED), ==,
      GST_STATE_CHANGE_FAILURE);
  test_run_stop (run);
  g_assert_cmpuint (run->n_errors, ==, 1);
  g_assert_nonnull (strstr (run->error, word));
  test_run_clear (run);
}

/* A folder that takes no files is found out before anything is computed, by name: also
 * one that access() calls writable. */
static void
test_bad_location (void)
{
  struct {
    const gchar *location, *settings, *word;
  } bad[3];
  TestRun run;

  begin ();
  g_assert_true (g_file_set_contents (at ("file"), "x", -1, NULL));
  g_assert_cmpint (g_mkdir (at ("folder.safetensors"), 0777), ==, 0);
  bad[0].location = at ("file/a.safetensors");
  bad[0].word = at ("file");
  bad[1].location = "/proc/a.safetensors";
  bad[1].word = "'/proc'";
  bad[2].location = bad[2].word = at ("folder.safetensors");
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    init (&run, "", "max-steps=3", bad[i].location);
    expect_no_start (&run, bad[i].word);
  }
  init (&run, "", "max-steps=3 output=/proc/run", at ("a.safetensors"));
  expect_no_start (&run, "'/proc/run'");
  /* What is tried leaves nothing behind, and a folder that can be made is made. */
  train ("", "max-steps=1", at ("new/folder/a.safetensors"));
  test_check_lora (model, at ("new/folder/a.safetensors"));
  g_assert_cmpint (g_remove (at ("new/folder/a.safetensors")), ==, 0);
  g_assert_cmpint (g_rmdir (at ("new/folder")), ==, 0);
  end ();
}

static void
test_no_samples (void)
{
  GstElement *sink = gst_element_factory_make ("fluxtrainsink", "train");
  GstBus *bus = gst_bus_new ();
  GstFluxTensorInfo info = test_sample_info (model, 4, 4);
  GstHarness *h;
  GError *error = NULL;

  begin ();
  gst_element_set_bus (sink, bus);
  g_object_set (sink, "model", model, "location", at ("a.safetensors"), NULL);
  h = gst_harness_new_with_element (sink, "sink", NULL);
  gst_harness_set_src_caps (h, gst_flux_tensor_info_to_caps (&info));
  gst_harness_push_event (h, gst_event_new_eos ());
  g_assert_cmpuint (test_count_errors (bus, &error), ==, 1);
  g_assert_nonnull (strstr (error->message, "No sample"));
  g_error_free (error);
  gst_harness_teardown (h);
  gst_element_set_bus (sink, NULL);
  gst_object_unref (bus);
  gst_object_unref (sink);
  end ();
}

/* Samples of another VAE, of other embeddings, of odd sizes. */
static void
test_other_model (void)
{
  begin ();
  for (guint i = 0; i < 5; i++) {
    GstElement *sink = gst_element_factory_make ("fluxtrainsink", "train");
    GstBus *bus = gst_bus_new ();
    GstFluxTensorInfo info = test_sample_info (model, 4, 4);
    GstHarness *h;
    GError *error = NULL;

    if (i == 0)
      g_strlcpy (info.model, "another", sizeof info.model);
    info.text_dim += i == 1;
    info.pooled_dim += i == 2;
    info.channels += i == 3;
    info.width += i == 4;
    gst_element_set_bus (sink, bus);
    g_object_set (sink, "model", model, "location", at ("a.safetensors"), NULL);
    h = gst_harness_new_with_element (sink, "sink", NULL);
    gst_harness_set_src_caps (h, gst_flux_tensor_info_to_caps (&info));
    g_assert_cmpint (gst_harness_push (h, test_sample (&info, 0)), !=, GST_FLOW_OK);
    g_assert_cmpuint (test_count_errors (bus, &error), ==, 1);
    g_assert_error (error, GST_STREAM_ERROR, GST_STREAM_ERROR_WRONG_TYPE);
    g_error_free (error);
    gst_harness_teardown (h);
    gst_element_set_bus (sink, NULL);
    gst_object_unref (bus);
    gst_object_unref (sink);
  }
  end ();
}

/* One sample of NaN among the others: training stops there, and what was learnt before is
 * in a checkpoint, whose adapter is finite. */
static void
test_nan (void)
{
  TestRun run;
  GstElement *sink = NULL;
  GstHarness *h;
  gchar *bad, *path;

  begin ();
  bad = test_folder ();
  sink = gst_element_factory_make ("fluxcachesink", NULL);
  g_object_set (sink, "location", bad, NULL);
  h = gst_harness_new_with_element (sink, "sink", NULL);
  for (guint i = 0; i < 8; i++) {
    GstFluxTensorInfo info = test_cache_info (model, i);
    GstBuffer *buffer = test_sample (&info, i);

    if (i == 6) {
      gsize size = gst_flux_tensor_info_get_size (&info, 0);
      float *x = g_new (float, size / sizeof (float));

      for (gsize j = 0; j < size / sizeof (float); j++)
        x[j] = NAN;
      gst_buffer_replace_memory (
          buffer, 0, gst_memory_new_wrapped (0, x, size, 0, size, x, g_free));
    }
    gst_harness_set_src_caps (h, gst_flux_tensor_info_to_caps (&info));
    g_assert_cmpint (gst_harness_push (h, buffer), ==, GST_FLOW_OK);
  }
  gst_harness_push_event (h, gst_event_new_eos ());
  gst_harness_teardown (h);
  gst_object_unref (sink);

  test_run_init (&run,
      "fluxcachesrc location=%s epochs=-1 ! fluxtrainsink name=train model=%s "
      "location=%s "
      "accumulate=1 mode=stream",
      bad, model, at ("a.safetensors"));
  test_run_play (&run);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_errors, ==, 1);
  g_assert_true (run.error_domain == GST_STREAM_ERROR);
  g_assert_cmpuint (run.last_step, ==, 6);
  path = g_strdup_printf ("%s/a-checkpoints/checkpoint-6", folder);
  g_assert_nonnull (strstr (run.error, path));
  g_free (path);
  test_check_lora (
      model, at ("a-checkpoints/checkpoint-6/pytorch_lora_weights.safetensors"));
  g_assert_false (exists (at ("a.safetensors")));
  test_run_clear (&run);
  test_remove (bad);
  g_free (bad);
  end ();
}

/* A disk that is full: files larger than a few bytes cannot be written. */
static void
set_disk_full (gboolean full)
{
  struct rlimit limit = {full ? 64 : RLIM_INFINITY, RLIM_INFINITY};

  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &limit), ==, 0);
}

/* On the way it is a warning, and training goes on; at the end it is an error, and what
 * was at location is whole. */
static void
test_disk_full (void)
{
  TestRun run;
  gchar *text;

  begin ();
  g_assert_true (g_file_set_contents (at ("a.safetensors"), "before", -1, NULL));
  init (&run, "", "max-steps=3 checkpoint-interval=1", at ("a.safetensors"));
  test_run_play (&run);
  set_disk_full (TRUE);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  set_disk_full (FALSE);
  g_assert_cmpuint (run.n_steps, ==, 3);
  g_assert_cmpuint (run.n_warnings, ==, 3);
  g_assert_cmpuint (run.n_errors, ==, 1);
  g_assert_true (run.error_domain == GST_RESOURCE_ERROR);
  g_assert_nonnull (strstr (run.error, at ("a")));
  g_assert_true (g_file_get_contents (at ("a.safetensors"), &text, NULL, NULL));
  g_assert_cmpstr (text, ==, "before");
  g_free (text);
  /* There is room again when the pipeline stops: nothing is lost. */
  test_run_stop (&run);
  test_check_lora (
      model, at ("a-checkpoints/checkpoint-3/pytorch_lora_weights.safetensors"));
  test_run_clear (&run);
  end ();
}

/* As soon as the first weights are loaded, somebody has had enough. */
static GstBusSyncReply
finish_at_open (GstBus *bus, GstMessage *message, gpointer data)
{
  gchar *code = NULL;

  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_PROGRESS) {
    gst_message_parse_progress (message, NULL, &code, NULL);
    if (strcmp (code, "open") == 0)
      gst_element_send_event (data, gst_event_new_eos ());
    g_free (code);
  }
  return GST_BUS_PASS;
}

/* EOS while the model is loaded is not answered only when it has been: no step, nothing
 * to save, no error. The same line without it trains. */
static void
test_eos_while_loading (void)
{
  const gchar *modes[] = {"mode=one-shot max-steps=2", "mode=stream max-steps=2"};

  begin ();
  for (guint i = 0; i < G_N_ELEMENTS (modes); i++) {
    TestRun run;
    GstMessage *message;
    gboolean cancelled = FALSE;

    init (&run, "", modes[i], at ("a.safetensors"));
    gst_bus_set_sync_handler (run.bus, finish_at_open, run.pipeline, NULL);
    test_run_play (&run);
    while ((message = gst_bus_timed_pop (run.bus, TEST_TIMEOUT)) != NULL &&
           GST_MESSAGE_TYPE (message) != GST_MESSAGE_EOS) {
      GstProgressType type;

      g_assert_cmpint (GST_MESSAGE_TYPE (message), !=, GST_MESSAGE_ERROR);
      if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_PROGRESS) {
        gst_message_parse_progress (message, &type, NULL, NULL);
        cancelled = cancelled || type == GST_PROGRESS_TYPE_CANCELED;
      }
      gst_message_unref (message);
    }
    g_assert_nonnull (message);
    gst_message_unref (message);
    g_assert_true (cancelled);
    test_run_stop (&run);
    g_assert_cmpuint (run.n_steps + run.n_errors + run.n_final, ==, 0);
    g_assert_false (exists (at ("a.safetensors")));
    test_run_clear (&run);
    train ("", modes[i], at ("b.safetensors"));
  }
  end ();
}

/* Where the adapter goes is there at start, and gone at the end: what was learnt is kept
 * elsewhere, and the error says where. */
static void
test_place_is_gone (void)
{
  TestRun run;
  gchar **quoted, *adapter;

  begin ();
  init (&run, "", "max-steps=3", at ("out/a.safetensors"));
  gst_element_set_state (run.pipeline, GST_STATE_PAUSED);
  test_run_play (&run);
  g_assert_cmpint (test_run_until_step (&run, 1), ==, 0);
  g_assert_cmpint (g_rmdir (at ("out")), ==, 0);
  g_assert_true (g_file_set_contents (at ("out"), "x", -1, NULL));
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  g_assert_cmpuint (run.n_errors, ==, 1);
  quoted = g_strsplit (run.error, "'", -1);
  g_assert_cmpuint (g_strv_length (quoted), ==, 5);
  g_assert_cmpstr (quoted[1], ==, at ("out/a.safetensors"));
  adapter = g_build_filename (quoted[3], "pytorch_lora_weights.safetensors", NULL);
  test_check_lora (model, adapter);
  g_free (adapter);
  adapter = g_path_get_dirname (quoted[3]);
  test_remove (adapter);
  g_free (adapter);
  g_strfreev (quoted);
  test_run_clear (&run);
  end ();
}

/* Caption dropout needs the empty prompt: it comes from the cache here, and cannot
 * elsewhere. */
static void
test_caption_dropout (void)
{
  TestRun run;
  gchar *index, *text;

  begin ();
  train ("", "max-steps=3", at ("a.safetensors"));
  train ("", "max-steps=3 caption-dropout=1", at ("b.safetensors"));
  g_assert_true (test_files_differ (at ("a.safetensors"), at ("b.safetensors")));

  index = g_build_filename (cache, "samples.ini", NULL);
  g_assert_true (g_file_get_contents (index, &text, NULL, NULL));
  {
    gchar *without = g_strdup (text), *flag = strstr (without, "empty-prompt=true");

    g_assert_nonnull (flag);
    memcpy (flag, "empty-prompt=0   ", 17);
    g_assert_true (g_file_set_contents (index, without, -1, NULL));
    g_free (without);
  }
  init (&run, "", "max-steps=3 caption-dropout=0.5", at ("c.safetensors"));
  expect_error (&run, "empty prompt");
  test_run_clear (&run);
  g_assert_true (g_file_set_contents (index, text, -1, NULL));
  g_free (text);
  g_free (index);
  end ();
}

static void
add_tests (void)
{
  g_test_add_func ("/trainsink/bad-settings", test_bad_settings);
  g_test_add_func ("/trainsink/resume-from-hub", test_resume_from_hub);
  g_test_add_func ("/trainsink/budget-too-small", test_budget_too_small);
  g_test_add_func ("/trainsink/bad-location", test_bad_location);
  g_test_add_func ("/trainsink/no-samples", test_no_samples);
  g_test_add_func ("/trainsink/other-model", test_other_model);
  g_test_add_func ("/trainsink/nan", test_nan);
  g_test_add_func ("/trainsink/disk-full", test_disk_full);
  g_test_add_func ("/trainsink/eos-while-loading", test_eos_while_loading);
  g_test_add_func ("/trainsink/place-is-gone", test_place_is_gone);
  g_test_add_func ("/trainsink/caption-dropout", test_caption_dropout);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
