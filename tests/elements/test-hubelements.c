/* tests/elements/test-hubelements.c: elements whose model, adapters and data set are on
 * the Hub. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testhub.h"

/* Every large file stops early, and then the server is silent. */
static void
stall (void)
{
  hub->n_cut = 1000;
  hub->cut_after = 4096;
  hub->stall = TRUE;
}

/* ---- the same as from folders ---- */

static void
test_sampler (void)
{
  gchar *loras = g_strconcat (adapter, ":0.5", NULL);

  setup ();
  draw (model, loras, at ("folder"));
  draw (MODEL, ADAPTER ":0.5", at ("hub"));
  test_same_file (at ("folder"), at ("hub"));
  draw (MODEL, "", at ("plain"));
  g_assert_true (test_files_differ (at ("folder"), at ("plain")));
  /* What is in the cache needs no Hub. */
  g_setenv ("HF_HUB_OFFLINE", "1", TRUE);
  draw (MODEL, ADAPTER ":0.5", at ("offline"));
  test_same_file (at ("folder"), at ("offline"));
  g_free (loras);
  teardown ();
}

/* Without caps the picture has the size that the model was trained at. */
static void
test_sampler_size (void)
{
  TestRun run;
  GStatBuf st;

  setup ();
  test_run_init (&run,
      "fluxsamplersrc model=" MODEL " prompt=fox num-buffers=1 " FAST
      " ! filesink location=%s",
      at ("hub"));
  test_run_all (&run);
  test_run_clear (&run);
  g_assert_cmpint (g_stat (at ("hub"), &st), ==, 0);
  g_assert_cmpint (st.st_size, ==, 3 * 128 * 128);
  teardown ();
}

static void
test_line (void)
{
  setup ();
  train_from (images, model, at ("folder.safetensors"));
  train_from (PICTURES, MODEL, at ("hub.safetensors"));
  test_same_file (at ("folder.safetensors"), at ("hub.safetensors"));
  g_assert_cmpuint (test_hub_count (hub, "scheduler_config.json"), ==, 0);
  g_setenv ("HF_HUB_OFFLINE", "1", TRUE);
  train_from (PICTURES, MODEL, at ("offline.safetensors"));
  test_same_file (at ("folder.safetensors"), at ("offline.safetensors"));
  teardown ();
}

/* A preview draws with the model that its trainer has downloaded. */
static void
test_preview (void)
{
  TestRun run;
  guint n = 0;

  setup ();
  test_run_init (&run,
      "fluxcachesrc location=%s ! fluxtrainsink model=" MODEL
      " max-steps=2 location=%s fluxsamplersrc every-steps=1 prompt=fox " FAST
      " ! video/x-raw,width=64,height=48 ! fakesink",
      cache, at ("a.safetensors"));
  test_run_all (&run);
  g_assert_cmpuint (run.n_errors, ==, 0);
  for (guint i = 0; i < run.messages->len; i++)
    n += gst_structure_has_name (run.messages->pdata[i], "flux-sample");
  g_assert_cmpuint (n, ==, 3);
  test_run_clear (&run);
  teardown ();
}

/* ---- only what is needed ---- */

static void
test_vae_alone (void)
{
  TestRun run;

  setup ();
  test_run_init (&run,
      "fluxdatasetsrc location=%s ! " CROP " ! fluxvaeenc model=" MODEL " ! fakesink",
      images);
  test_run_all (&run);
  test_run_clear (&run);
  g_assert_cmpuint (test_hub_count (hub, "cdn GET"), ==, 1);
  g_assert_cmpuint (
      test_hub_count (hub, "/resolve/" TEST_HUB_COMMIT "/text_encoder"), ==, 0);
  g_assert_cmpuint (
      test_hub_count (hub, "/resolve/" TEST_HUB_COMMIT "/transformer"), ==, 0);
  teardown ();
}

static void
embed (const gchar *from, const gchar *to)
{
  TestRun run;

  test_run_init (&run,
      "fluxdatasetsrc location=%s ! " CROP " ! fluxvaeenc model=%s ! "
      "fluxembed text-model=%s location=%s " EMBED " ! fakesink",
      images, model, from, to);
  test_run_all (&run);
  test_run_clear (&run);
}

/* A table that has every row needs no text encoder. */
static void
test_full_table (void)
{
  setup ();
  embed (model, at ("folder.parquet"));
  embed (MODEL, at ("folder.parquet"));
  g_assert_cmpuint (hub->log->len, ==, 0);
  embed (MODEL, at ("hub.parquet"));
  test_same_file (at ("folder.parquet"), at ("hub.parquet"));
  g_assert_cmpuint (
      test_hub_count (hub, "/resolve/" TEST_HUB_COMMIT "/transformer"), ==, 0);
  teardown ();
}

/* ---- what goes wrong ---- */

/* Lines with what is on the Hub in each of their places; %s: the location to use. */
static const gchar *const there[] = {MODEL, MODEL, MODEL, MODEL, ADAPTER, PICTURES};

static gchar *
line_of (guint i, const gchar *location)
{
  switch (i) {
    case 0:
      return g_strdup_printf (
          "fluxsamplersrc model=%s prompt=fox " FAST " ! fakesink", location);
    case 1:
      return g_strdup_printf ("fluxdatasetsrc location=%s ! " CROP
                              " ! fluxvaeenc model=%s ! fakesink",
          images, location);
    case 2:
      return g_strdup_printf ("fluxdatasetsrc location=%s ! " CROP
                              " ! fluxvaeenc model=%s ! fluxembed text-model=%s " EMBED
                              " ! fakesink",
          images, model, location);
    case 3:
      return g_strdup_printf ("fluxcachesrc location=%s ! fluxtrainsink model=%s "
                              "max-steps=2 location=%s",
          cache, location, at ("never.safetensors"));
    case 4:
      return g_strdup_printf ("fluxsamplersrc model=%s loras=%s prompt=fox " FAST
                              " ! fakesink",
          model, location);
    default:
      return g_strdup_printf ("fluxdatasetsrc location=%s ! fakesink", location);
  }
}

enum { N_LINES = G_N_ELEMENTS (there) };

static void
check_refused (const gchar *line, const gchar *words)
{
  TestRun run;

  test_run_init (&run, "%s", line);
  test_run_play (&run);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  test_run_stop (&run);
  if (strstr (run.error, words) == NULL || strstr (run.error, TOKEN) != NULL) {
    g_test_message ("%s: '%s' does not say '%s'", line, run.error, words);
    g_test_fail ();
  }
  g_assert_cmpuint (run.n_errors, ==, 1);
  g_assert_false (exists (at ("never.safetensors")));
  test_run_clear (&run);
}

static void
test_refused (void)
{
  setup ();
  for (guint i = 0; i < N_LINES; i++) {
    gchar *none = line_of (i, i == 5 ? "hf://datasets/tests/none" : "hf://tests/none");
    gchar *line = line_of (i, there[i]);

    check_refused (none, i == 5 ? "no data set tests/none" : "no model tests/none");
    hub->status = 403;
    hub->error_code = "GatedRepo";
    check_refused (line, "accept its conditions at http");
    hub->status = 401;
    hub->error_code = NULL;
    check_refused (line, "does not accept the token");
    hub->status = 0;
    g_setenv ("HF_HUB_OFFLINE", "1", TRUE);
    check_refused (line, "HF_HUB_OFFLINE");
    g_unsetenv ("HF_HUB_OFFLINE");
    g_free (line);
    g_free (none);
  }
  teardown ();
}

/* ---- stopping ---- */

/* Until something is being downloaded. */
static void
wait_for_download (TestRun *run)
{
  for (;;) {
    GstMessage *message = gst_bus_timed_pop_filtered (
        run->bus, TEST_TIMEOUT, GST_MESSAGE_PROGRESS | GST_MESSAGE_ERROR);
    gchar *code = NULL;
    gboolean found;

    g_assert_nonnull (message);
    g_assert_cmpint (GST_MESSAGE_TYPE (message), ==, GST_MESSAGE_PROGRESS);
    gst_message_parse_progress (message, NULL, &code, NULL);
    found = g_strcmp0 (code, "download") == 0;
    g_free (code);
    gst_message_unref (message);
    if (found)
      return;
  }
}

static void
test_stop (gconstpointer data)
{
  gboolean by_eos = GPOINTER_TO_INT (data);

  setup ();
  for (guint i = 0; i < N_LINES; i++) {
    gchar *line = line_of (i, there[i]);
    TestRun run;
    gint64 start;

    stall ();
    test_run_init (&run, "%s", line);
    test_run_play (&run);
    wait_for_download (&run);
    start = g_get_monotonic_time ();
    if (by_eos) {
      gst_element_send_event (run.pipeline, gst_event_new_eos ());
      g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
    }
    test_run_stop (&run);
    g_assert_cmpint (g_get_monotonic_time () - start, <, 2 * G_TIME_SPAN_SECOND);
    g_assert_cmpuint (run.n_errors, ==, 0);
    test_run_clear (&run);
    g_assert_false (exists (at ("never.safetensors")));
    /* The same again goes on with what has arrived, and does what it should. */
    hub->n_cut = 0;
    if (i != 0 && i != 4) {
      test_run_init (&run, "%s", line);
      test_run_all (&run);
      test_run_clear (&run);
      g_remove (at ("never.safetensors"));
    }
    test_remove (at ("cache"));
    g_free (line);
  }
  teardown ();
}

/* ---- gst-launch-1.0 ---- */

static void
test_ctrl_c (void)
{
  gchar *program = find_gst_launch ();

  if (program == NULL) {
    g_test_skip ("no gst-launch-1.0 that can load this build");
    return;
  }
  g_free (program);
  setup ();
  stall ();
  for (guint i = 0; i < N_LINES; i++)
    for (guint e = 0; e < 2; e++) {
      gchar *line = line_of (i, there[i]);
      gint64 start = g_get_monotonic_time ();

      g_assert_cmpint (interrupt_launch (e ? "-e" : "", line, "download"), ==, 0);
      g_assert_cmpint (g_get_monotonic_time () - start, <, 20 * G_TIME_SPAN_SECOND);
      g_free (line);
    }
  teardown ();
}

/* Nothing that can be switched on says the token; a refusal does not either. */
static void
test_token (void)
{
  gchar *program = find_gst_launch ();

  if (program == NULL) {
    g_test_skip ("no gst-launch-1.0 that can load this build");
    return;
  }
  g_free (program);
  setup ();
  for (guint i = 0; i < 2; i++) {
    gchar *line = g_strdup_printf (
        "sh -c 'GST_DEBUG_NO_COLOR=1 GST_DEBUG=*:9 G_MESSAGES_DEBUG=all gst-launch-1.0 "
        "-v -m fluxdatasetsrc location=%s ! " CROP " ! fluxvaeenc model=%s ! fakesink "
        ">%s 2>&1'",
        PICTURES, MODEL, at ("log"));
    gchar *log;
    gint status;

    hub->status = i == 0 ? 0 : 401;
    if (exists (at ("cache")))
      test_remove (at ("cache"));
    g_assert_true (g_spawn_command_line_sync (line, NULL, NULL, &status, NULL));
    g_assert_true ((status == 0) == (i == 0));
    g_assert_true (g_file_get_contents (at ("log"), &log, NULL, NULL));
    g_assert_nonnull (strstr (log, "download"));
    g_assert_null (strstr (log, TOKEN));
    /* It was sent. */
    g_assert_cmpuint (test_hub_count (hub, TOKEN), >, 0);
    g_free (log);
    g_free (line);
  }
  teardown ();
}

static void
add_tests (void)
{
  g_test_add_func ("/hub/sampler", test_sampler);
  g_test_add_func ("/hub/sampler-size", test_sampler_size);
  g_test_add_func ("/hub/pictures-to-lora", test_line);
  g_test_add_func ("/hub/preview", test_preview);
  g_test_add_func ("/hub/vae-alone", test_vae_alone);
  g_test_add_func ("/hub/full-table", test_full_table);
  g_test_add_func ("/hub/refused", test_refused);
  g_test_add_data_func ("/hub/stop/null", GINT_TO_POINTER (FALSE), test_stop);
  g_test_add_data_func ("/hub/stop/eos", GINT_TO_POINTER (TRUE), test_stop);
  g_test_add_func ("/hub/ctrl-c", test_ctrl_c);
  g_test_add_func ("/hub/token", test_token);
}

int
main (int argc, char **argv)
{
  return test_hub_main (argc, argv, add_tests);
}
