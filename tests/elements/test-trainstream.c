/* tests/elements/test-trainstream.c: fluxtrainsink on a stream, and what may change while
 * it plays. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testtrain.h"

enum { MANY = 5000 }; /* steps: what takes longer does not come */

/* A source that loops makes it a stream; max-steps ends it. */
static void
test_stream (void)
{
  TestRun run;
  guint epochs[8] = {0};

  begin ();
  init (&run, "epochs=-1", "max-steps=7 checkpoint-interval=5", at ("a.safetensors"));
  test_run_all (&run);
  g_assert_cmpuint (run.n_steps, ==, 7);
  g_assert_cmpuint (run.n_checkpoints, ==, 1);
  g_assert_cmpuint (run.n_final, ==, 1);
  for (guint i = 0; i < run.messages->len; i++) {
    GstStructure *s = g_ptr_array_index (run.messages, i);
    guint epoch;

    if (gst_structure_has_name (s, "flux-step") &&
        gst_structure_get_uint (s, "epoch", &epoch))
      epochs[epoch]++;
  }
  /* A window ends with its epoch: 4 + 4 + 2 samples. */
  g_assert_cmpuint (epochs[0], ==, 3);
  g_assert_cmpuint (epochs[1], ==, 3);
  g_assert_cmpuint (epochs[2], ==, 1);
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  /* The same when it is told, and across a queue. */
  train ("epochs=-1", "max-steps=7 mode=stream", at ("b.safetensors"));
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  train ("epochs=-1 ! queue", "max-steps=7", at ("c.safetensors"));
  test_same_file (at ("a.safetensors"), at ("c.safetensors"));
  end ();
}

/* A stream that ends before max-steps: what it had, the short last window too. */
static void
test_stream_ends (void)
{
  TestRun run;

  begin ();
  init (&run, "epochs=2", "max-steps=100 mode=stream", at ("a.safetensors"));
  test_run_all (&run);
  g_assert_cmpuint (run.n_steps, ==, 6);
  g_assert_cmpuint (run.n_final, ==, 1);
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  end ();
}

static void
test_stream_stops (void)
{
  TestRun run;

  begin ();
  init (&run, "epochs=-1", "max-steps=100000", at ("a.safetensors"));
  test_run_play (&run);
  test_run_until_step (&run, 2);
  gst_element_set_state (run.pipeline, GST_STATE_PAUSED);
  g_assert_cmpint (gst_element_get_state (run.pipeline, NULL, NULL, TEST_TIMEOUT), ==,
      GST_STATE_CHANGE_SUCCESS);
  test_run_play (&run);
  test_run_until_step (&run, 4);
  g_assert_true (gst_element_send_event (run.pipeline, gst_event_new_eos ()));
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  g_assert_cmpuint (run.n_final, ==, 1);
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  end ();
}

/* ---- changes while PLAYING ---- */

/* A learning rate of 0 from the third step on: nothing more is learnt. */
static void
test_learning_rate (void)
{
  TestRun run;
  GstElement *sink;
  gdouble rate = -1;

  begin ();
  init (&run, "", "max-steps=100000 weight-decay=0", at ("a.safetensors"));
  sink = sink_of (&run);
  test_run_play (&run);
  test_run_until_step (&run, 2);
  g_object_set (sink, "learning-rate", 0.0, NULL);
  while (rate != 0 && run.last_step < MANY) { /* messages of before may be queued */
    test_run_until_step (&run, run.last_step + 1);
    gst_structure_get_double (
        g_ptr_array_index (run.messages, run.messages->len - 1), "learning-rate", &rate);
  }
  g_assert_cmpfloat (rate, ==, 0);
  g_object_set (sink, "max-steps", (guint64)1, NULL);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  g_assert_cmpuint (run.n_final, ==, 1);
  gst_object_unref (sink);
  test_run_clear (&run);
  end ();
}

static void
test_save_signal (void)
{
  TestRun run;
  GstElement *sink;

  begin ();
  init (&run, "", "max-steps=100000 checkpoint-interval=0", at ("a.safetensors"));
  sink = sink_of (&run);
  test_run_play (&run);
  test_run_until_step (&run, 2);
  g_assert_cmpuint (run.n_checkpoints, ==, 0);
  g_signal_emit_by_name (sink, "save-checkpoint");
  while (run.n_checkpoints == 0 && run.last_step < MANY)
    test_run_until_step (&run, run.last_step + 1);
  test_run_until_step (&run, run.last_step + 2);
  g_assert_cmpuint (run.n_checkpoints, ==, 1);
  gst_object_unref (sink);
  test_run_clear (&run);
  end ();
}

static void
add_tests (void)
{
  g_test_add_func ("/trainsink/stream", test_stream);
  g_test_add_func ("/trainsink/stream-ends", test_stream_ends);
  g_test_add_func ("/trainsink/stream-stops", test_stream_stops);
  g_test_add_func ("/trainsink/learning-rate", test_learning_rate);
  g_test_add_func ("/trainsink/save-signal", test_save_signal);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
