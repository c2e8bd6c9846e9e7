/* tests/elements/test-trainpaused.c: the property paused of fluxtrainsink.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testtrain.h"

/* Both designs: one-shot, and a stream that starts over. */
static const gchar *const sources[] = {"", "epochs=-1"};

/* Paused after some steps: it moves no more. */
static guint64
pause_after (TestRun *run, GstElement *sink, guint64 step)
{
  guint64 before, last;

  g_assert_cmpint (test_run_until_step (run, step), ==, 0);
  g_object_set (sink, "paused", TRUE, NULL);
  do { /* the one that runs ends */
    before = test_step_of (sink);
    g_usleep (G_USEC_PER_SEC / 2);
    last = test_step_of (sink);
  } while (last != before && last < 100000);
  g_assert_cmpuint (last, <, 100000);
  return last;
}

static void
test_goes_on (gconstpointer source)
{
  TestRun run;
  GstElement *sink;
  guint64 step;

  begin ();
  train (source, "max-steps=40", at ("a.safetensors"));
  init (&run, source, "max-steps=40 paused=true", at ("b.safetensors"));
  sink = sink_of (&run);
  test_run_play (&run);
  g_usleep (G_USEC_PER_SEC / 2);
  g_assert_cmpuint (test_step_of (sink), ==, 0);
  g_object_set (sink, "paused", FALSE, NULL);
  step = pause_after (&run, sink, 2);
  g_object_set (sink, "paused", FALSE, NULL);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  g_assert_cmpuint (run.last_step, ==, 40);
  g_assert_cmpuint (step, <=, 40);
  gst_object_unref (sink);
  test_run_clear (&run);
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  end ();
}

/* At once, and once only. */
static void
test_saves (gconstpointer source)
{
  TestRun run;
  GstElement *sink;
  gchar *name;
  guint64 step;

  begin ();
  init (&run, source, "max-steps=100000 checkpoint-interval=0", at ("a.safetensors"));
  sink = sink_of (&run);
  test_run_play (&run);
  step = pause_after (&run, sink, 2);
  name = g_strdup_printf ("a-checkpoints/checkpoint-%" G_GUINT64_FORMAT, step);
  for (guint i = 0; i < 2; i++) {
    g_signal_emit_by_name (sink, "save-checkpoint");
    for (guint tries = 0; tries < 100 && !exists (at (name)); tries++)
      g_usleep (G_USEC_PER_SEC / 10);
    g_usleep (G_USEC_PER_SEC / 4);
  }
  g_assert_true (exists (at (name)));
  g_assert_cmpuint (test_step_of (sink), ==, step);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_checkpoints, ==, 1);
  gst_object_unref (sink);
  test_run_clear (&run);
  g_free (name);
  end ();
}

/* Ctrl-C of somebody who has paused: the LoRA is there. */
static void
test_stops (gconstpointer source)
{
  TestRun run;
  GstElement *sink;
  guint64 step;

  begin ();
  init (&run, source, "max-steps=100000", at ("a.safetensors"));
  sink = sink_of (&run);
  test_run_play (&run);
  step = pause_after (&run, sink, 2);
  g_assert_true (gst_element_send_event (run.pipeline, gst_event_new_eos ()));
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  g_assert_cmpuint (run.last_step, ==, step);
  g_assert_cmpuint (run.n_final, ==, 1);
  gst_object_unref (sink);
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  end ();
}

/* The pipeline's own states are not in the way, nor it in theirs. */
static void
test_states (gconstpointer source)
{
  TestRun run;
  GstElement *sink;
  guint64 step;

  begin ();
  init (&run, source, "max-steps=100000", at ("a.safetensors"));
  sink = sink_of (&run);
  test_run_play (&run);
  step = pause_after (&run, sink, 2);
  for (guint i = 0; i < 2; i++) {
    gst_element_set_state (run.pipeline, i == 0 ? GST_STATE_PAUSED : GST_STATE_PLAYING);
    g_assert_cmpint (gst_element_get_state (run.pipeline, NULL, NULL, TEST_TIMEOUT), ==,
        GST_STATE_CHANGE_SUCCESS);
  }
  g_assert_cmpuint (test_step_of (sink), ==, step);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_errors, ==, 0);
  g_assert_cmpuint (run.n_checkpoints, ==, 1);
  gst_object_unref (sink);
  test_run_clear (&run);
  end ();
}

static void
add_tests (void)
{
  static const struct {
    const gchar *name;
    GTestDataFunc test;
  } tests[] = {{"goes-on", test_goes_on}, {"saves", test_saves}, {"stops", test_stops},
      {"states", test_states}};

  for (guint i = 0; i < G_N_ELEMENTS (tests); i++)
    for (guint s = 0; s < G_N_ELEMENTS (sources); s++) {
      gchar *path = g_strdup_printf (
          "/trainpaused/%s/%s", tests[i].name, s == 0 ? "one-shot" : "stream");

      g_test_add_data_func (path, sources[s], tests[i].test);
      g_free (path);
    }
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
