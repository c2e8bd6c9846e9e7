/* tests/elements/test-trainsink.c: fluxtrainsink, one-shot.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testtrain.h"

static void
test_one_shot (void)
{
  TestRun run;
  GstElement *sink;
  guint64 step, position, duration;
  gchar *state;
  GValue value = G_VALUE_INIT;

  begin ();
  init (&run, "", "max-steps=5 checkpoint-interval=2", at ("a.safetensors"));
  test_run_all (&run);
  g_assert_cmpuint (run.n_steps, ==, 5);
  g_assert_cmpuint (run.last_step, ==, 5);
  g_assert_cmpuint (run.n_checkpoints, ==, 2);
  g_assert_cmpuint (run.n_final, ==, 1);
  for (guint i = 0; i < run.messages->len; i++) {
    GstStructure *s = g_ptr_array_index (run.messages, i);
    guint64 max_steps, time;
    gdouble loss, rate, norm;
    guint epoch;

    if (!gst_structure_has_name (s, "flux-step"))
      continue;
    g_assert_true (gst_structure_get (s, "step", G_TYPE_UINT64, &step, "max-steps",
        G_TYPE_UINT64, &max_steps, "epoch", G_TYPE_UINT, &epoch, "loss", G_TYPE_DOUBLE,
        &loss, "learning-rate", G_TYPE_DOUBLE, &rate, "grad-norm", G_TYPE_DOUBLE, &norm,
        "step-time", G_TYPE_UINT64, &time, NULL));
    g_assert_cmpuint (max_steps, ==, 5);
    g_assert_cmpuint (epoch, ==, (step - 1) / 3);
    g_assert_cmpfloat (loss, >, 0);
    g_assert_cmpfloat (norm, >, 0);
    g_assert_cmpfloat (rate, ==, 1e-3);
    g_assert_cmpuint (time, >, 0);
  }
  sink = sink_of (&run);
  g_object_get (sink, "step", &step, NULL);
  g_assert_cmpuint (step, ==, 5);
  g_value_init (&value, G_PARAM_SPEC_VALUE_TYPE (g_object_class_find_property (
                            G_OBJECT_GET_CLASS (sink), "state")));
  g_object_get_property (G_OBJECT (sink), "state", &value);
  state = gst_value_serialize (&value);
  g_assert_cmpstr (state, ==, "finished");
  g_assert_true (
      gst_element_query_position (run.pipeline, GST_FORMAT_TIME, (gint64 *)&position));
  g_assert_true (
      gst_element_query_duration (run.pipeline, GST_FORMAT_TIME, (gint64 *)&duration));
  g_assert_cmpuint (position, ==, 5 * GST_SECOND);
  g_assert_cmpuint (duration, ==, 5 * GST_SECOND);
  g_free (state);
  g_value_unset (&value);
  gst_object_unref (sink);
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  g_assert_true (exists (at ("a-checkpoints/checkpoint-2")));
  g_assert_true (exists (at ("a-checkpoints/checkpoint-4")));
  g_assert_false (exists (at ("a-checkpoints/checkpoint-5")));
  end ();
}

/* What is learnt depends on which samples there are, not on the order they came in. */
static void
test_order_of_arrival (void)
{
  begin ();
  train ("", "max-steps=4", at ("a.safetensors"));
  train ("shuffle=true seed=3", "max-steps=4", at ("b.safetensors"));
  train ("", "max-steps=4 seed=8", at ("c.safetensors"));
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  g_assert_true (test_files_differ (at ("a.safetensors"), at ("c.safetensors")));
  end ();
}

static void
test_resume (void)
{
  gchar *more;

  begin ();
  train ("", "max-steps=7", at ("whole.safetensors"));
  more = g_strdup_printf ("max-steps=4 output=%s", at ("points"));
  train ("", more, at ("half.safetensors"));
  g_free (more);
  g_assert_true (exists (at ("points/checkpoint-4")));
  more = g_strdup_printf ("max-steps=7 resume-from=%s", at ("points"));
  train ("", more, at ("again.safetensors"));
  g_free (more);
  test_same_file (at ("whole.safetensors"), at ("again.safetensors"));
  g_assert_true (test_files_differ (at ("half.safetensors"), at ("again.safetensors")));
  end ();
}

/* How many warnings a run gives that goes on from "points". */
static guint
resume_warnings (const gchar *with)
{
  gchar *more = g_strdup_printf ("max-steps=3 %s resume-from=%s", with, at ("points"));
  TestRun run;
  guint n;

  init (&run, "", more, at ("again.safetensors"));
  test_run_all (&run);
  n = run.n_warnings;
  test_run_clear (&run);
  g_free (more);
  return n;
}

/* A run goes on with its own seed, and says so to who sets another. */
static void
test_resume_seed (void)
{
  gchar *more;

  begin ();
  more = g_strdup_printf ("max-steps=2 seed=3 output=%s", at ("points"));
  train ("", more, at ("half.safetensors"));
  g_free (more);
  g_assert_cmpuint (resume_warnings ("seed=0"), ==, 0);
  g_assert_cmpuint (resume_warnings ("seed=3"), ==, 0);
  g_assert_cmpuint (resume_warnings ("seed=4"), ==, 1);
  end ();
}

/* It tells who goes on with the base rounded otherwise. */
static void
test_resume_quantization (void)
{
  gchar *more;

  begin ();
  more = g_strdup_printf ("max-steps=2 quantization=none output=%s", at ("points"));
  train ("", more, at ("half.safetensors"));
  g_free (more);
  g_assert_cmpuint (resume_warnings ("quantization=none"), ==, 0);
  g_assert_cmpuint (resume_warnings ("quantization=nf4"), ==, 1);
  end ();
}

/* The output of a folder is diffusers' name in it. */
static void
test_output_folder (void)
{
  gchar *more;

  begin ();
  train ("", "max-steps=1", at ("made/folder"));
  test_check_lora (model, at ("made/folder/pytorch_lora_weights.safetensors"));
  more = g_strdup_printf ("max-steps=1 output=%s", at ("output"));
  {
    TestRun run;

    test_run_init (
        &run, "fluxcachesrc location=%s ! fluxtrainsink model=%s %s", cache, model, more);
    test_run_all (&run);
    test_run_clear (&run);
  }
  test_check_lora (model, at ("output/pytorch_lora_weights.safetensors"));
  g_assert_true (exists (at ("output/checkpoint-1/state.safetensors")));
  g_free (more);
  end ();
}

/* Resting in PAUSED changes nothing. */
static void
test_pause (void)
{
  TestRun run;

  begin ();
  train ("", "max-steps=6", at ("a.safetensors"));
  init (&run, "", "max-steps=6", at ("b.safetensors"));
  test_run_play (&run);
  for (guint step = 1; step < 4; step++) {
    guint64 before;

    g_assert_cmpint (test_run_until_step (&run, step), ==, 0);
    gst_element_set_state (run.pipeline, GST_STATE_PAUSED);
    g_assert_cmpint (gst_element_get_state (run.pipeline, NULL, NULL, TEST_TIMEOUT), ==,
        GST_STATE_CHANGE_SUCCESS);
    while (gst_bus_have_pending (run.bus)) {
      GstMessage *message = gst_bus_pop (run.bus);

      test_run_note (&run, message);
      gst_message_unref (message);
    }
    before = run.last_step;
    g_usleep (G_USEC_PER_SEC);
    g_assert_null (gst_bus_pop_filtered (run.bus, GST_MESSAGE_ELEMENT));
    g_assert_cmpuint (run.last_step, ==, before);
    test_run_play (&run);
  }
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  test_run_clear (&run);
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  end ();
}

/* Ctrl-C under gst-launch-1.0 -e: EOS to the pipeline. */
static void
test_finish_early (void)
{
  TestRun run;

  begin ();
  init (&run, "", "max-steps=100000", at ("a.safetensors"));
  test_run_play (&run);
  test_run_until_step (&run, 2);
  g_assert_true (gst_element_send_event (run.pipeline, gst_event_new_eos ()));
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  g_assert_cmpuint (run.last_step, <, 100000);
  g_assert_cmpuint (run.n_final, ==, 1);
  g_assert_cmpuint (run.n_checkpoints, ==, 1);
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  end ();
}

/* Ctrl-C without -e: straight to NULL. What was learnt is in a checkpoint, and a file
 * that was at location is as it was. */
static void
test_interrupt (void)
{
  TestRun run;
  gchar *path, *text;

  begin ();
  g_assert_true (g_file_set_contents (at ("a.safetensors"), "before", -1, NULL));
  init (&run, "", "max-steps=100000", at ("a.safetensors"));
  test_run_play (&run);
  test_run_until_step (&run, 2);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_checkpoints, ==, 1);
  path = g_strdup_printf ("%s/a-checkpoints/checkpoint-%" G_GUINT64_FORMAT
                          "/pytorch_lora_weights.safetensors",
      folder, run.last_step);
  test_check_lora (model, path);
  g_free (path);
  g_assert_true (g_file_get_contents (at ("a.safetensors"), &text, NULL, NULL));
  g_assert_cmpstr (text, ==, "before");
  g_free (text);
  test_run_clear (&run);
  end ();
}

/* A flushing seek while it trains: the data come again, and training goes on. */
static void
test_flush (void)
{
  TestRun run;

  begin ();
  train ("", "max-steps=6", at ("a.safetensors"));
  init (&run, "", "max-steps=6", at ("b.safetensors"));
  test_run_play (&run);
  test_run_until_step (&run, 2);
  g_assert_true (
      gst_element_seek_simple (run.pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  g_assert_cmpuint (run.n_steps, ==, 6);
  test_run_clear (&run);
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  end ();
}

/* Up and down twenty times, at any point of a run. */
static void
test_cycles (gconstpointer source)
{
  TestRun run;

  begin ();
  init (&run, source, "max-steps=100000 accumulate=1", at ("a.safetensors"));
  for (guint i = 0; i < 20; i++) {
    test_run_play (&run);
    if (i % 4 == 3)
      test_run_until_step (&run, 0);
    else
      g_usleep (g_test_rand_int_range (0, 150000));
    if (i % 5 == 4)
      gst_element_set_state (run.pipeline, GST_STATE_PAUSED);
    test_run_stop (&run);
    run.n_steps = 0;
    run.last_step = 0;
  }
  g_assert_cmpuint (run.n_errors, ==, 0);
  test_run_clear (&run);
  end ();
}

/* Two at once learn what each learns alone. */
static void
test_two_trainers (void)
{
  TestRun a, b;

  begin ();
  train ("", "max-steps=4", at ("a.safetensors"));
  train ("", "max-steps=5 rank=2", at ("b.safetensors"));
  init (&a, "", "max-steps=4", at ("a2.safetensors"));
  init (&b, "", "max-steps=5 rank=2", at ("b2.safetensors"));
  test_run_play (&a);
  test_run_play (&b);
  g_assert_cmpint (test_run_until_end (&a), ==, GST_MESSAGE_EOS);
  g_assert_cmpint (test_run_until_end (&b), ==, GST_MESSAGE_EOS);
  test_run_clear (&a);
  test_run_clear (&b);
  test_same_file (at ("a.safetensors"), at ("a2.safetensors"));
  test_same_file (at ("b.safetensors"), at ("b2.safetensors"));
  end ();
}

/* Bytes without which training says that there is no room. */
static guint64
least_budget (void)
{
  guint64 bytes = 0;
  TestRun run;

  init (&run, "", "vram-budget=1", at ("a.safetensors"));
  test_run_play (&run);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  test_run_stop (&run);
  g_assert_true (
      gst_structure_get (run.error_details, "needed-bytes", G_TYPE_UINT64, &bytes, NULL));
  test_run_clear (&run);
  return bytes;
}

/* What the model and a run on it take of a device. */
static gsize
device_bytes (const FluxConfig *config, fx_home home)
{
  fx_backend *plan = fx_plan_new (FX_F32);
  FluxTransformer *t = flux_transformer_new_planned (config, plan, FX_Q_NF4, home, NULL);
  gsize bytes = flux_transformer_get_bytes (t) +
                flux_run_measure (t, FLUX_RUN_RECOMPUTE, 8, 16, 1, NULL, 0, NULL);

  flux_transformer_unref (t);
  fx_backend_free (plan);
  return bytes;
}

/* The same adapter by a base whose blocks do not fit the budget all at once. */
static void
test_budget_that_streams (void)
{
  FluxConfig config;
  guint64 least, budget;
  gchar *properties;

  begin ();
  g_assert_true (flux_config_read (model, &config, NULL));
  least = least_budget ();
  budget = (least >> 20) + 1;
  g_assert_cmpuint (budget << 20, <,
      least + device_bytes (&config, FX_HOME_DEVICE) -
          device_bytes (&config, FX_HOME_HOST));
  properties = g_strdup_printf ("max-steps=4 vram-budget=%" G_GUINT64_FORMAT, budget);
  train ("", "max-steps=4", at ("a.safetensors"));
  train ("", properties, at ("b.safetensors"));
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  g_free (properties);
  end ();
}

static void
add_tests (void)
{
  g_test_add_func ("/trainsink/budget-that-streams", test_budget_that_streams);
  g_test_add_func ("/trainsink/one-shot", test_one_shot);
  g_test_add_func ("/trainsink/order-of-arrival", test_order_of_arrival);
  g_test_add_func ("/trainsink/resume", test_resume);
  g_test_add_func ("/trainsink/resume-seed", test_resume_seed);
  g_test_add_func ("/trainsink/resume-quantization", test_resume_quantization);
  g_test_add_func ("/trainsink/output-folder", test_output_folder);
  g_test_add_func ("/trainsink/pause", test_pause);
  g_test_add_func ("/trainsink/finish-early", test_finish_early);
  g_test_add_func ("/trainsink/interrupt", test_interrupt);
  g_test_add_func ("/trainsink/flush", test_flush);
  g_test_add_data_func ("/trainsink/cycles/one-shot", "", test_cycles);
  g_test_add_data_func ("/trainsink/cycles/stream", "epochs=-1", test_cycles);
  g_test_add_func ("/trainsink/two-trainers", test_two_trainers);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
