/* tests/elements/test-preview.c: fluxsamplersrc shows how fluxtrainsink comes along.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/sample/sampler.h"
#include "tests/elements/testtrain.h"

/* Small and quick: pictures of 64x48 in 2 steps. */
#define PREVIEW "fluxsamplersrc name=preview prompt=apple steps=2 max-sequence-length=32 "
#define SHOW " ! video/x-raw,width=64,height=48 ! queue ! fakesink sync=false"

static void
init_with_preview (TestRun *run, const gchar *source, const gchar *sink,
    const gchar *location, const gchar *preview)
{
  test_run_init (run,
      "fluxcachesrc location=%s %s ! fluxtrainsink name=train model=%s location=%s "
      "learning-rate=1e-3 seed=7 %s " PREVIEW "%s" SHOW,
      cache, source, model, location, sink, preview);
}

/* The training steps that pictures came of, in their order. */
static GArray *
steps_of (TestRun *run)
{
  GArray *steps = g_array_new (FALSE, FALSE, sizeof (guint64));

  for (guint i = 0; i < run->messages->len; i++) {
    const GstStructure *s = g_ptr_array_index (run->messages, i);
    guint64 step;

    if (gst_structure_has_name (s, "flux-sample") &&
        gst_structure_get_uint64 (s, "step", &step))
      g_array_append_val (steps, step);
  }
  return steps;
}

static void
check_steps (TestRun *run, const guint64 *want, guint n)
{
  GArray *steps = steps_of (run);

  g_assert_cmpmem (
      steps->data, steps->len * sizeof (guint64), want, n * sizeof (guint64));
  g_array_unref (steps);
}

/* Pictures of exactly the steps that were asked for, the last included; what is learnt is
 * the same to the bit with and without; both branches end. */
static void
test_same_result (gconstpointer source)
{
  const guint64 want[] = {0, 2, 4, 6};
  TestRun run;

  begin ();
  train (source, "max-steps=6", at ("a.safetensors"));
  init_with_preview (&run, source, "max-steps=6", at ("b.safetensors"), "every-steps=2");
  test_run_all (&run);
  check_steps (&run, want, G_N_ELEMENTS (want));
  test_run_clear (&run);
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  end ();
}

typedef struct {
  guint n;
  GBytes *pictures[4];
} Seen;

static void
on_picture (GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer data)
{
  Seen *seen = data;
  gpointer copy;
  gsize size;

  gst_buffer_extract_dup (buffer, 0, -1, &copy, &size);
  if (seen->n < 4)
    seen->pictures[seen->n++] = g_bytes_new_take (copy, size);
  else
    g_free (copy);
}

/* What may change while it runs does, before each picture, in the preview's thread. */
static GstBusSyncReply
change_preview (GstBus *bus, GstMessage *message, gpointer data)
{
  const GstStructure *s = gst_message_get_structure (message);
  GHashTable *seen = data;
  guint64 frame;

  if (GST_MESSAGE_TYPE (message) != GST_MESSAGE_ELEMENT ||
      !gst_structure_has_name (s, "flux-sample") ||
      !gst_structure_get_uint64 (s, "frame", &frame))
    return GST_BUS_PASS;
  g_hash_table_add (seen, gst_structure_to_string (s));
  g_object_set (GST_MESSAGE_SRC (message), "prompt", frame % 2 == 0 ? "fox" : "owl",
      "seed", frame + 1, "lora-scale", 0.5 * (gdouble)(frame % 4), NULL);
  return GST_BUS_PASS;
}

/* Nor does it matter what they ask for. */
static void
test_changes_while_playing (void)
{
  g_autoptr (GHashTable) seen =
      g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  TestRun run;
  gdouble scale;

  begin ();
  train ("epochs=-1", "max-steps=6", at ("a.safetensors"));
  init_with_preview (
      &run, "epochs=-1", "max-steps=6", at ("b.safetensors"), "every-steps=1");
  gst_bus_set_sync_handler (run.bus, change_preview, seen, NULL);
  test_run_all (&run);
  gst_bus_set_sync_handler (run.bus, NULL, NULL, NULL);
  for (guint i = 0, n = 0; i < run.messages->len; i++) {
    const GstStructure *s = g_ptr_array_index (run.messages, i);
    guint64 seed;

    if (!gst_structure_has_name (s, "flux-sample"))
      continue;
    g_assert_true (gst_structure_get (
        s, "seed", G_TYPE_UINT64, &seed, "lora-scale", G_TYPE_DOUBLE, &scale, NULL));
    g_assert_cmpstr (gst_structure_get_string (s, "prompt"), ==,
        n == 0       ? "apple"
        : n % 2 == 1 ? "fox"
                     : "owl");
    g_assert_cmpuint (seed, ==, n);
    g_assert_cmpfloat (scale, ==, n == 0 ? 1 : 0.5 * ((n - 1) % 4));
    n++;
  }
  g_assert_cmpuint (g_hash_table_size (seen), ==, 7);
  test_run_clear (&run);
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  end ();
}

/* The pictures of a pipeline whose end is this line; it is run to its end. */
static void G_GNUC_PRINTF (2, 3) collect (Seen *seen, const gchar *format, ...)
{
  va_list args;
  gchar *line;
  TestRun run;
  GstElement *sink;

  va_start (args, format);
  line = g_strdup_vprintf (format, args);
  va_end (args);
  test_run_init (&run,
      "%s ! video/x-raw,width=64,height=48 ! queue ! fakesink name=show "
      "signal-handoffs=true",
      line);
  sink = gst_bin_get_by_name (GST_BIN (run.pipeline), "show");
  g_signal_connect (sink, "handoff", G_CALLBACK (on_picture), seen);
  gst_object_unref (sink);
  test_run_all (&run);
  test_run_clear (&run);
  g_free (line);
}

static void
forget (Seen *seen)
{
  for (guint i = 0; i < seen->n; i++)
    g_bytes_unref (seen->pictures[i]);
}

/* What it shows is the adapter of that step, at its scale: the picture of the last one is
 * the one that the file gives, and at 0 the model's own, which is that of step 0. */
static void
test_shows_adapter (gconstpointer data)
{
  const gchar *scale = data;
  Seen seen = {0}, after = {0};

  begin ();
  collect (&seen,
      "fluxcachesrc location=%s ! fluxtrainsink model=%s location=%s learning-rate=0.03 "
      "max-steps=4 " PREVIEW "text-quantization=none every-steps=4 lora-scale=%s",
      cache, model, at ("a.safetensors"), scale);
  collect (&after, PREVIEW "text-quantization=none model=%s loras=%s:%s num-buffers=1",
      model, at ("a.safetensors"), scale);
  g_assert_cmpuint (seen.n, ==, 2);
  g_assert_cmpuint (after.n, ==, 1);
  g_assert_true (g_bytes_equal (seen.pictures[1], after.pictures[0]));
  g_assert_cmpint (
      g_bytes_equal (seen.pictures[0], seen.pictures[1]), ==, strcmp (scale, "0") == 0);
  forget (&seen);
  forget (&after);
  end ();
}

/* A preview that wants no more pictures, or whose sink does not, holds nothing up. */
static void
test_ends_before (void)
{
  TestRun run;

  begin ();
  init_with_preview (
      &run, "", "max-steps=6", at ("a.safetensors"), "every-steps=1 num-buffers=2");
  test_run_all (&run);
  g_assert_cmpuint (run.n_steps, ==, 6);
  test_run_clear (&run);
  test_run_init (&run,
      "fluxcachesrc location=%s ! fluxtrainsink name=train model=%s location=%s "
      "max-steps=6 " PREVIEW "every-steps=1 ! video/x-raw,width=64,height=48 ! fakesink "
      "num-buffers=2 sync=false",
      cache, model, at ("b.safetensors"));
  test_run_all (&run);
  g_assert_cmpuint (run.n_steps, ==, 6);
  test_run_clear (&run);
  end ();
}

/* Pausing, stopping and EOS at any point, with a preview. */
static void
test_states (void)
{
  TestRun run;

  begin ();
  train ("", "max-steps=5", at ("a.safetensors"));
  init_with_preview (&run, "", "max-steps=5", at ("b.safetensors"), "every-steps=1");
  test_run_play (&run);
  for (guint i = 0; i < 4; i++) {
    g_usleep (g_test_rand_int_range (0, 400000));
    gst_element_set_state (run.pipeline, GST_STATE_PAUSED);
    g_assert_cmpint (gst_element_get_state (run.pipeline, NULL, NULL, TEST_TIMEOUT), !=,
        GST_STATE_CHANGE_FAILURE);
    test_run_play (&run);
  }
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  test_run_clear (&run);
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));

  init_with_preview (&run, "", "max-steps=100000", at ("c.safetensors"), "every-steps=2");
  for (guint i = 0; i < 10; i++) {
    test_run_play (&run);
    g_usleep (g_test_rand_int_range (0, 300000));
    test_run_stop (&run);
  }
  run.n_steps = 0;
  run.last_step = 0;
  test_run_play (&run);
  test_run_until_step (&run, 3);
  g_assert_true (gst_element_send_event (run.pipeline, gst_event_new_eos ()));
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  g_assert_cmpuint (run.n_errors, ==, 0);
  test_run_clear (&run);
  test_check_lora (model, at ("c.safetensors"));
  end ();
}

/* When training fails the preview gets EOS. */
static void
test_training_fails (void)
{
  TestRun run;
  GstPad *pad;
  GstElement *preview;
  GstEvent *eos = NULL;

  begin ();
  init_with_preview (
      &run, "", "max-steps=3 targets=nothing", at ("a.safetensors"), "every-steps=1");
  preview = gst_bin_get_by_name (GST_BIN (run.pipeline), "preview");
  pad = gst_element_get_static_pad (preview, "src");
  test_run_play (&run);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  for (guint i = 0; i < 100 && eos == NULL; i++) {
    eos = gst_pad_get_sticky_event (pad, GST_EVENT_EOS, 0);
    if (eos == NULL)
      g_usleep (100000);
  }
  g_assert_nonnull (eos);
  gst_event_unref (eos);
  gst_object_unref (pad);
  gst_object_unref (preview);
  test_run_clear (&run);
  end ();
}

/* Another form of the trainer's model is an error, and training goes on without. */
static void
test_other_form (void)
{
  const gchar *others[] = {"every-steps=1 quantization=int8", "every-steps=1 model=/"};

  begin ();
  for (guint i = 0; i < G_N_ELEMENTS (others); i++) {
    TestRun run;

    init_with_preview (&run, "", "max-steps=3", at ("a.safetensors"), others[i]);
    test_run_play (&run);
    g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
    g_assert_cmpstr (GST_OBJECT_NAME (run.from), ==, "preview");
    test_run_clear (&run);
  }
  end ();
}

/* Of two trainers one has to be named. */
static void
test_two_trainers (void)
{
  TestRun run;
  const gchar *line = "fluxcachesrc location=%s ! fluxtrainsink name=train model=%s "
                      "location=%s max-steps=4 "
                      "fluxcachesrc location=%s ! fluxtrainsink name=other model=%s "
                      "location=%s max-steps=2 "
                      "rank=2 " PREVIEW "every-steps=2 %s" SHOW;
  const guint64 want[] = {0, 2, 4};

  begin ();
  test_run_init (&run, line, cache, model, at ("a.safetensors"), cache, model,
      at ("b.safetensors"), "");
  g_assert_cmpint (gst_element_set_state (run.pipeline, GST_STATE_PLAYING), ==,
      GST_STATE_CHANGE_FAILURE);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  g_assert_nonnull (strstr (run.error, "trainer=NAME"));
  test_run_clear (&run);
  test_run_init (&run, line, cache, model, at ("a.safetensors"), cache, model,
      at ("b.safetensors"), "trainer=train");
  test_run_all (&run);
  check_steps (&run, want, G_N_ELEMENTS (want));
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  test_check_lora (model, at ("b.safetensors"));
  end ();
}

static void
add_tests (void)
{
  g_test_add_data_func ("/preview/same-result/one-shot", "", test_same_result);
  g_test_add_data_func ("/preview/same-result/stream", "epochs=-1", test_same_result);
  g_test_add_func ("/preview/changes-while-playing", test_changes_while_playing);
  g_test_add_data_func ("/preview/shows-adapter/whole", "1", test_shows_adapter);
  g_test_add_data_func ("/preview/shows-adapter/half", "0.5", test_shows_adapter);
  g_test_add_data_func ("/preview/shows-adapter/none", "0", test_shows_adapter);
  g_test_add_func ("/preview/ends-before", test_ends_before);
  g_test_add_func ("/preview/states", test_states);
  g_test_add_func ("/preview/training-fails", test_training_fails);
  g_test_add_func ("/preview/other-form", test_other_form);
  g_test_add_func ("/preview/two-trainers", test_two_trainers);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
