/* tests/elements/test-cache.c: fluxcachesink and fluxcachesrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/train/trainer.h"
#include "tests/elements/testsamples.h"

enum { N = 7 };

static gchar *model;

static GstHarness *
open_source (const gchar *folder, const gchar *properties)
{
  gchar *line = g_strdup_printf ("fluxcachesrc location=%s %s", folder, properties);
  GstElement *element = gst_parse_launch (line, NULL);
  GstHarness *h = gst_harness_new_with_element (element, NULL, "src");

  g_free (line);
  gst_object_unref (element);
  gst_harness_play (h);
  return h;
}

static void
check_sample (GstBuffer *out, guint number)
{
  GstFluxTensorInfo info = test_cache_info (model, number);
  GstBuffer *want = test_sample (&info, number);
  GstFluxSample a, b;

  g_assert_cmpuint (gst_buffer_n_memory (out), ==, 3);
  for (guint i = 0; i < 3; i++) {
    GstMapInfo x, y;

    gst_memory_map (gst_buffer_peek_memory (out, i), &x, GST_MAP_READ);
    gst_memory_map (gst_buffer_peek_memory (want, i), &y, GST_MAP_READ);
    g_assert_cmpmem (x.data, x.size, y.data, y.size);
    gst_memory_unmap (gst_buffer_peek_memory (out, i), &x);
    gst_memory_unmap (gst_buffer_peek_memory (want, i), &y);
  }
  g_assert_true (gst_flux_sample_meta_get (out, &a));
  g_assert_true (gst_flux_sample_meta_get (want, &b));
  g_assert_cmpstr (a.key, ==, b.key);
  g_assert_cmpstr (a.caption, ==, b.caption);
  g_assert_cmpuint (a.index, ==, b.index);
  gst_buffer_unref (want);
}

static guint
number_of (GstBuffer *buffer)
{
  GstFluxSample sample;

  g_assert_true (gst_flux_sample_meta_get (buffer, &sample));
  return (guint)sample.index;
}

static gchar *
make_cache (void)
{
  gchar *folder = test_folder ();

  test_write_cache (model, folder, N);
  return folder;
}

static void
drop_cache (gchar *folder)
{
  test_remove (folder);
  g_free (folder);
}

/* What went in comes out, in its order, with sizes, captions, keys and time. */
static void
test_round_trip (void)
{
  gchar *folder = make_cache ();
  GstHarness *h = open_source (folder, "");
  GstEvent *event;
  guint n_empty = 0;

  for (guint i = 0; i < N; i++) {
    GstBuffer *out = gst_harness_pull (h);

    g_assert_nonnull (out);
    check_sample (out, i);
    g_assert_cmpuint (GST_BUFFER_PTS (out), ==, i * GST_SECOND);
    g_assert_cmpuint (GST_BUFFER_DURATION (out), ==, GST_SECOND);
    gst_buffer_unref (out);
  }
  for (;;) {
    FluxEmbedding e;
    gboolean end;

    event = gst_harness_pull_event (h);
    g_assert_nonnull (event);
    end = GST_EVENT_TYPE (event) == GST_EVENT_EOS;
    if (gst_flux_empty_prompt_event_parse (event, &e)) {
      n_empty++;
      flux_embedding_clear (&e);
    }
    gst_event_unref (event);
    if (end)
      break;
  }
  g_assert_cmpuint (n_empty, ==, 1);
  gst_harness_teardown (h);
  drop_cache (folder);
}

/* Passes have an order each, the same for the same seed. */
static void
test_shuffle (void)
{
  gchar *folder = make_cache ();
  guint32 want[N], seen[3][N];
  const gchar *properties[] = {"epochs=2 shuffle=true seed=5",
      "epochs=-1 shuffle=true seed=5", "epochs=2 shuffle=true seed=6"};
  guint same = 0;

  for (guint run = 0; run < 3; run++) {
    GstHarness *h = open_source (folder, properties[run]);

    for (guint epoch = 0; epoch < 2; epoch++) {
      flux_train_permutation (run == 2 ? 6 : 5, epoch, N, want);
      for (guint i = 0; i < N; i++) {
        GstBuffer *out = gst_harness_pull (h);
        GstFluxSample sample;

        g_assert_nonnull (out);
        seen[run][i] = number_of (out);
        g_assert_cmpuint (seen[run][i], ==, want[i]);
        gst_flux_sample_meta_get (out, &sample);
        g_assert_cmpuint (sample.epoch, ==, epoch);
        check_sample (out, seen[run][i]);
        gst_buffer_unref (out);
      }
    }
    gst_harness_teardown (h);
  }
  for (guint i = 0; i < N; i++)
    same += seen[0][i] == seen[2][i];
  g_assert_cmpuint (same, <, N);
  drop_cache (folder);
}

static void
check_shown (GstElement *pipeline, guint number, GstClockTime time)
{
  GstElement *sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  GstSample *sample;

  g_assert_cmpint (gst_element_get_state (pipeline, NULL, NULL, 10 * GST_SECOND), ==,
      GST_STATE_CHANGE_SUCCESS);
  g_object_get (sink, "last-sample", &sample, NULL);
  g_assert_nonnull (sample);
  g_assert_cmpuint (number_of (gst_sample_get_buffer (sample)), ==, number);
  g_assert_cmpuint (GST_BUFFER_PTS (gst_sample_get_buffer (sample)), ==, time);
  gst_sample_unref (sample);
  gst_object_unref (sink);
}

static void
test_duration_and_seek (void)
{
  gchar *folder = make_cache ();
  gchar *line =
      g_strdup_printf ("fluxcachesrc location=%s epochs=3 ! fakesink name=sink", folder);
  GstElement *pipeline = gst_parse_launch (line, NULL);
  gint64 duration;

  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  check_shown (pipeline, 0, 0);
  g_assert_true (gst_element_query_duration (pipeline, GST_FORMAT_TIME, &duration));
  g_assert_cmpint (duration, ==, 3 * N * GST_SECOND);
  g_assert_true (gst_element_seek_simple (
      pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, (N + 4) * GST_SECOND));
  check_shown (pipeline, 4, (N + 4) * GST_SECOND);
  g_assert_true (gst_element_seek_simple (
      pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 2 * GST_SECOND));
  check_shown (pipeline, 2, 2 * GST_SECOND);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
  g_free (line);
  drop_cache (folder);
}

/* Reads until the pipeline ends: the one error that it gives. */
static GError *
expect_error (const gchar *folder)
{
  gchar *line =
      g_strdup_printf ("fluxcachesrc name=cache location=%s ! fakesink", folder);
  GstElement *pipeline = gst_parse_launch (line, NULL);
  GstElement *cache = gst_bin_get_by_name (GST_BIN (pipeline), "cache");
  GstBus *bus = gst_element_get_bus (pipeline);
  GstMessage *message;
  GError *error = NULL;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  message = gst_bus_timed_pop_filtered (
      bus, 10 * GST_SECOND, GST_MESSAGE_ERROR | GST_MESSAGE_EOS);
  g_assert_nonnull (message);
  g_assert_cmpint (GST_MESSAGE_TYPE (message), ==, GST_MESSAGE_ERROR);
  g_assert_true (GST_MESSAGE_SRC (message) == GST_OBJECT (cache));
  gst_message_parse_error (message, &error, NULL);
  g_assert_nonnull (strstr (error->message, folder));
  gst_message_unref (message);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (bus);
  gst_object_unref (cache);
  gst_object_unref (pipeline);
  g_free (line);
  return error;
}

/* A sink that never saw EOS leaves no cache. */
static void
test_not_whole (void)
{
  gchar *folder = test_folder ();
  GstElement *sink = gst_element_factory_make ("fluxcachesink", NULL);
  GstFluxTensorInfo info = test_sample_info (model, 4, 4);
  GstHarness *h;
  GError *error;

  g_object_set (sink, "location", folder, NULL);
  h = gst_harness_new_with_element (sink, "sink", NULL);
  gst_harness_set_src_caps (h, gst_flux_tensor_info_to_caps (&info));
  g_assert_cmpint (gst_harness_push (h, test_sample (&info, 0)), ==, GST_FLOW_OK);
  gst_harness_teardown (h);
  gst_object_unref (sink);
  error = expect_error (folder);
  g_assert_error (error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND);
  g_error_free (error);
  drop_cache (folder);
}

/* Said before anything is computed; the folder that can be written is the others' test.
 */
static void
test_unwritable (void)
{
  GstElement *sink = gst_element_factory_make ("fluxcachesink", NULL);
  GstBus *bus = gst_bus_new ();
  GError *error = NULL;

  gst_element_set_bus (sink, bus);
  g_object_set (sink, "location", "/proc/samples", NULL);
  g_assert_cmpint (
      gst_element_set_state (sink, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
  g_assert_cmpuint (test_count_errors (bus, &error), ==, 1);
  g_assert_error (error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_WRITE);
  g_assert_nonnull (strstr (error->message, "'/proc/samples'"));
  g_error_free (error);
  gst_element_set_state (sink, GST_STATE_NULL);
  gst_element_set_bus (sink, NULL);
  gst_object_unref (bus);
  gst_object_unref (sink);
}

static void
write_index (const gchar *folder, const gchar *text)
{
  gchar *path = g_build_filename (folder, "samples.ini", NULL);

  g_assert_true (g_file_set_contents (path, text, -1, NULL));
  g_free (path);
}

/* An index that lies: no key file, another version, no samples, names that lead out of
 * the folder, files that are not there. */
static void
test_bad_index (void)
{
  const gchar *texts[] = {"\x01\x02\xff", "",
      "[cache]\nversion=2\nmodel=x\nsamples=a.safetensors;\n",
      "[cache]\nversion=1\nmodel=x\nsamples=\n",
      "[cache]\nversion=1\nsamples=a.safetensors;\n",
      "[cache]\nversion=1\nmodel=x\nsamples=../a.safetensors;\n",
      "[cache]\nversion=1\nmodel=x\nsamples=/etc/a.safetensors;\n",
      "[cache]\nversion=1\nmodel=x\nsamples=a.safetensors;\n"};
  gchar *folder = test_folder ();

  for (guint i = 0; i < G_N_ELEMENTS (texts); i++) {
    write_index (folder, texts[i]);
    g_error_free (expect_error (folder));
  }
  drop_cache (folder);
}

static gchar *
first_sample (const gchar *folder)
{
  gchar *path = g_build_filename (folder, "samples.ini", NULL);
  GKeyFile *file = g_key_file_new ();
  gchar **names, *sample;

  g_assert_true (g_key_file_load_from_file (file, path, 0, NULL));
  names = g_key_file_get_string_list (file, "cache", "samples", NULL, NULL);
  sample = g_build_filename (folder, names[0], NULL);
  g_strfreev (names);
  g_key_file_free (file);
  g_free (path);
  return sample;
}

/* A sample that is cut off, or is another kind of file, at any length. */
static void
test_bad_sample (void)
{
  gchar *folder = make_cache (), *path = first_sample (folder), *text;
  gsize length;

  g_assert_true (g_file_get_contents (path, &text, &length, NULL));
  for (gsize cut = 0; cut < length; cut = cut < 16 ? cut + 1 : cut * 3 / 2) {
    g_assert_true (g_file_set_contents (path, text, (gssize)cut, NULL));
    g_error_free (expect_error (folder));
  }
  g_free (text);
  g_free (path);
  drop_cache (folder);
}

/* Two VAEs: neither in one stream, nor in one folder, nor in one cache that is read. */
static void
test_other_model (void)
{
  gchar *folder = make_cache ();
  GstElement *sink = gst_element_factory_make ("fluxcachesink", NULL);
  GstBus *bus = gst_bus_new ();
  GstFluxTensorInfo info = test_sample_info (model, 4, 4);
  GError *error = NULL;
  GstHarness *h;
  gchar *path, *text, *changed;

  gst_element_set_bus (sink, bus);
  g_object_set (sink, "location", folder, NULL);
  h = gst_harness_new_with_element (sink, "sink", NULL);
  g_strlcpy (info.model, "another", sizeof info.model);
  gst_harness_set_src_caps (h, gst_flux_tensor_info_to_caps (&info));
  g_assert_cmpint (gst_harness_push (h, test_sample (&info, 0)), !=, GST_FLOW_OK);
  g_assert_cmpuint (test_count_errors (bus, &error), ==, 1);
  g_assert_error (error, GST_STREAM_ERROR, GST_STREAM_ERROR_WRONG_TYPE);
  g_assert_nonnull (strstr (error->message, folder));
  g_error_free (error);
  gst_harness_teardown (h);
  gst_element_set_bus (sink, NULL);
  gst_object_unref (bus);
  gst_object_unref (sink);

  path = g_build_filename (folder, "samples.ini", NULL);
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  changed = g_strdup_printf ("%s", text);
  strstr (changed, "model=")[6] ^= 1;
  write_index (folder, changed);
  error = expect_error (folder);
  g_assert_error (error, GST_STREAM_ERROR, GST_STREAM_ERROR_WRONG_TYPE);
  g_error_free (error);
  g_free (changed);
  g_free (text);
  g_free (path);
  drop_cache (folder);
}

/* In a looping stream each sample is kept once. */
static void
test_looping_stream (void)
{
  gchar *folder = make_cache (), *copy = test_folder ();
  gchar *line = g_strdup_printf (
      "fluxcachesrc location=%s epochs=3 shuffle=true ! fluxcachesink location=%s",
      folder, copy);
  GstElement *pipeline = gst_parse_launch (line, NULL);
  GstBus *bus = gst_element_get_bus (pipeline);
  GstMessage *message;
  GstHarness *h;
  guint n = 0;
  GstBuffer *out;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  message = gst_bus_timed_pop_filtered (
      bus, 20 * GST_SECOND, GST_MESSAGE_ERROR | GST_MESSAGE_EOS);
  g_assert_nonnull (message);
  g_assert_cmpint (GST_MESSAGE_TYPE (message), ==, GST_MESSAGE_EOS);
  gst_message_unref (message);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (bus);
  gst_object_unref (pipeline);
  h = open_source (copy, "");
  gst_harness_set_drop_buffers (h, FALSE);
  for (n = 0; n < N; n++) {
    out = gst_harness_pull (h);
    g_assert_nonnull (out);
    gst_buffer_unref (out);
  }
  g_usleep (50000);
  g_assert_cmpuint (gst_harness_buffers_received (h), ==, N);
  gst_harness_teardown (h);
  g_free (line);
  drop_cache (folder);
  drop_cache (copy);
}

int
main (int argc, char **argv)
{
  gint ret;

  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  model = test_model ();
  if (model == NULL) {
    g_print (
        "1..0 # SKIP no tiny model (examples/models, FLUX_TEST_MODEL or ../shared)\n");
    return 0;
  }
  g_test_add_func ("/cache/round-trip", test_round_trip);
  g_test_add_func ("/cache/shuffle", test_shuffle);
  g_test_add_func ("/cache/duration-and-seek", test_duration_and_seek);
  g_test_add_func ("/cache/not-whole", test_not_whole);
  g_test_add_func ("/cache/unwritable", test_unwritable);
  g_test_add_func ("/cache/bad-index", test_bad_index);
  g_test_add_func ("/cache/bad-sample", test_bad_sample);
  g_test_add_func ("/cache/other-model", test_other_model);
  g_test_add_func ("/cache/looping-stream", test_looping_stream);
  ret = g_test_run ();
  g_free (model);
  return ret;
}
