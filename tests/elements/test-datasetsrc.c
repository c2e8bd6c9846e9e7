/* fluxdatasetsrc: order, captions, caps, seeking, and what is refused.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testpictures.h"

static GstHarness *
new_harness (const gchar *folder, const gchar *properties)
{
  gchar *path = test_data (folder);
  gchar *line = g_strdup_printf ("fluxdatasetsrc location=\"%s\" %s", path, properties);
  GstHarness *h = gst_harness_new_parse (line);

  gst_harness_play (h);
  g_free (line);
  g_free (path);
  return h;
}

/* The captions, in order, of n pictures; g_free() it. */
static gchar *
captions (const gchar *properties, guint n)
{
  GstHarness *h = new_harness ("dataset/hub", properties);
  GString *all = g_string_new (NULL);

  for (guint i = 0; i < n; i++) {
    GstBuffer *buffer = gst_harness_pull (h);
    GstFluxSample sample;

    g_assert_nonnull (buffer);
    g_assert_true (gst_flux_sample_meta_get (buffer, &sample));
    g_string_append_printf (all, "%s%s", i > 0 ? "|" : "", sample.caption);
    gst_buffer_unref (buffer);
  }
  gst_harness_teardown (h);
  return g_string_free (all, FALSE);
}

/* Type, times, identity of each; caps follow the files. */
static void
test_stream (void)
{
  static const struct {
    const gchar *type, *caption, *filename;
  } wanted[] = {{"image/png", "first", "train-00000-of-00002.parquet row 0"},
      {"image/jpeg", "zwei Bäume", "train-00000-of-00002.parquet row 1"},
      {"image/webp", "第三", "train-00000-of-00002.parquet row 2"},
      {"image/jpeg", "fourth", "train-00001-of-00002.parquet row 0"}};
  GstHarness *h = new_harness ("dataset/hub", "");
  guint n_samples, caps_events = 0;
  GstElement *src;
  gint64 duration;
  GstEvent *event;

  for (guint i = 0; i < G_N_ELEMENTS (wanted); i++) {
    GstBuffer *buffer = gst_harness_pull (h);
    GstFluxSample sample;

    g_assert_true (gst_flux_sample_meta_get (buffer, &sample));
    g_assert_cmpstr (sample.caption, ==, wanted[i].caption);
    g_assert_true (g_str_has_suffix (sample.filename, wanted[i].filename));
    g_assert_cmpuint (sample.index, ==, i);
    g_assert_cmpuint (sample.epoch, ==, 0);
    g_assert_null (sample.key);
    g_assert_cmpuint (GST_BUFFER_PTS (buffer), ==, i * GST_SECOND);
    g_assert_cmpuint (GST_BUFFER_DURATION (buffer), ==, GST_SECOND);
    g_assert_cmpuint (GST_BUFFER_OFFSET (buffer), ==, i);
    gst_buffer_unref (buffer);
  }
  src = test_element (h, "fluxdatasetsrc");
  g_object_get (src, "n-samples", &n_samples, NULL);
  gst_object_unref (src);
  g_assert_cmpuint (n_samples, ==, 4);
  g_assert_true (gst_element_query_duration (h->element, GST_FORMAT_TIME, &duration));
  g_assert_cmpint (duration, ==, 4 * GST_SECOND);
  for (gboolean eos = FALSE; !eos; gst_event_unref (event)) {
    event = gst_harness_pull_event (h);
    g_assert_nonnull (event);
    eos = GST_EVENT_TYPE (event) == GST_EVENT_EOS;
    if (GST_EVENT_TYPE (event) == GST_EVENT_CAPS) {
      GstCaps *caps;

      gst_event_parse_caps (event, &caps);
      g_assert_cmpuint (caps_events, <, G_N_ELEMENTS (wanted));
      g_assert_cmpstr (gst_structure_get_name (gst_caps_get_structure (caps, 0)), ==,
          wanted[caps_events++].type);
    }
  }
  g_assert_cmpuint (caps_events, ==, 4);
  gst_harness_teardown (h);
}

/* The order is a function of seed and epoch, and every picture comes once. */
static void
test_shuffle (void)
{
  gchar *plain = captions ("loop=true", 8);
  gchar *one = captions ("shuffle=true seed=1 loop=true", 8);
  gchar *again = captions ("shuffle=true seed=1 loop=true", 8);
  gchar **parts = g_strsplit (one, "|", -1);
  guint orders = 0, epochs_differ = 0;

  g_assert_cmpstr (
      plain, ==, "first|zwei Bäume|第三|fourth|first|zwei Bäume|第三|fourth");
  g_assert_cmpstr (one, ==, again);
  for (guint i = 0; i < 8; i++)
    for (guint j = i + 1; j < 8 && j / 4 == i / 4; j++)
      g_assert_cmpstr (parts[i], !=, parts[j]);
  for (guint seed = 2; seed < 10; seed++) {
    gchar *properties = g_strdup_printf ("shuffle=true seed=%u loop=true", seed);
    gchar *other = captions (properties, 8);
    gsize half = strlen (other) / 2;

    orders += g_strcmp0 (one, other) != 0;
    epochs_differ += strncmp (other, other + half + 1, half) != 0;
    g_free (other);
    g_free (properties);
  }
  g_assert_cmpuint (orders, >=, 4);
  g_assert_cmpuint (epochs_differ, >=, 4);
  g_strfreev (parts);
  g_free (plain);
  g_free (one);
  g_free (again);
}

static gchar *
decoded_identity (GstBuffer *buffer)
{
  GstHarness *h = gst_harness_new ("fluximagedec");
  GstFluxSample sample;
  GstBuffer *out;
  gchar *identity;

  gst_harness_set_src_caps_str (h, "image/png");
  out = gst_harness_push_and_pull (h, buffer);
  g_assert_nonnull (out);
  g_assert_true (gst_flux_sample_meta_get (out, &sample));
  identity = g_strdup_printf ("%s=%s", sample.key, sample.caption);
  gst_buffer_unref (out);
  gst_harness_teardown (h);
  return identity;
}

/* The reference pairs shuffled pictures with captions of another order; here key and
 * caption belong together in every order. */
static void
test_captions_stay_with_pictures (void)
{
  GHashTable *pairs = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  GstHarness *h = new_harness ("dataset/hub", "");
  guint moved = 0;

  for (guint i = 0; i < 4; i++)
    g_hash_table_insert (
        pairs, decoded_identity (gst_harness_pull (h)), GUINT_TO_POINTER (i + 1));
  gst_harness_teardown (h);
  g_assert_cmpuint (g_hash_table_size (pairs), ==, 4);
  h = new_harness ("dataset/hub", "shuffle=true seed=5 loop=true");
  for (guint i = 0; i < 40; i++) {
    gchar *identity = decoded_identity (gst_harness_pull (h));
    guint place = GPOINTER_TO_UINT (g_hash_table_lookup (pairs, identity));

    g_assert_cmpuint (place, !=, 0);
    moved += place != i % 4 + 1;
    g_free (identity);
  }
  g_assert_cmpuint (moved, >, 10);
  gst_harness_teardown (h);
  g_hash_table_unref (pairs);
}

static void
test_repeats (void)
{
  GstHarness *h = new_harness ("dataset/hub", "repeats=3 shuffle=true");
  guint seen[4] = {0};
  gint64 duration;
  GstEvent *event;

  for (guint i = 0; i < 12; i++) {
    GstBuffer *buffer = gst_harness_pull (h);
    GstFluxSample sample;

    gst_flux_sample_meta_get (buffer, &sample);
    g_assert_cmpuint (sample.epoch, ==, 0);
    seen[sample.index]++;
    gst_buffer_unref (buffer);
  }
  for (guint i = 0; i < 4; i++)
    g_assert_cmpuint (seen[i], ==, 3);
  g_assert_true (gst_element_query_duration (h->element, GST_FORMAT_TIME, &duration));
  g_assert_cmpint (duration, ==, 12 * GST_SECOND);
  while ((event = gst_harness_pull_event (h)) != NULL &&
         GST_EVENT_TYPE (event) != GST_EVENT_EOS)
    gst_event_unref (event);
  g_assert_nonnull (event);
  gst_event_unref (event);
  gst_harness_teardown (h);
}

static void
test_loop (void)
{
  GstHarness *h = new_harness ("dataset/hub", "loop=true");
  gint64 duration;

  for (guint i = 0; i < 10; i++) {
    GstBuffer *buffer = gst_harness_pull (h);
    GstFluxSample sample;

    gst_flux_sample_meta_get (buffer, &sample);
    g_assert_cmpuint (sample.epoch, ==, i / 4);
    g_assert_cmpuint (GST_BUFFER_PTS (buffer), ==, i * GST_SECOND);
    gst_buffer_unref (buffer);
  }
  g_assert_false (gst_element_query_duration (h->element, GST_FORMAT_TIME, &duration));
  gst_harness_teardown (h);

  h = new_harness ("dataset/hub", "loop=true num-buffers=6");
  for (guint i = 0; i < 6; i++)
    gst_buffer_unref (gst_harness_pull (h));
  g_assert_true (gst_element_query_duration (h->element, GST_FORMAT_TIME, &duration));
  g_assert_cmpint (duration, ==, 6 * GST_SECOND);
  gst_harness_teardown (h);
}

static void
keep_last (GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer data)
{
  gst_buffer_replace (data, buffer);
}

/* A flushing seek goes to a picture, of a later epoch too. */
static void
test_seek (void)
{
  gchar *path = test_data ("dataset/hub");
  gchar *line = g_strdup_printf ("fluxdatasetsrc location=\"%s\" loop=true ! fakesink "
                                 "name=sink signal-handoffs=true",
      path);
  GstElement *pipeline = gst_parse_launch (line, NULL);
  GstElement *sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  GstBuffer *last = NULL;
  GstFluxSample sample;

  g_signal_connect (sink, "preroll-handoff", G_CALLBACK (keep_last), &last);
  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  g_assert_cmpint (gst_element_get_state (pipeline, NULL, NULL, 10 * GST_SECOND), ==,
      GST_STATE_CHANGE_SUCCESS);
  g_assert_true (gst_element_seek_simple (
      pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 6 * GST_SECOND));
  g_assert_cmpint (gst_element_get_state (pipeline, NULL, NULL, 10 * GST_SECOND), ==,
      GST_STATE_CHANGE_SUCCESS);
  g_assert_true (gst_flux_sample_meta_get (last, &sample));
  g_assert_cmpuint (sample.index, ==, 2);
  g_assert_cmpuint (sample.epoch, ==, 1);
  g_assert_cmpuint (GST_BUFFER_PTS (last), ==, 6 * GST_SECOND);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_buffer_unref (last);
  gst_object_unref (sink);
  gst_object_unref (pipeline);
  g_free (line);
  g_free (path);
}

static void
put (const gchar *folder, const gchar *name, const gchar *text)
{
  gchar *path = g_build_filename (folder, name, NULL);

  g_assert_true (g_file_set_contents (path, text, -1, NULL));
  g_free (path);
}

/* Each way in which a data set can be wrong: no PAUSED, one error with the name. */
static void
test_refused (void)
{
  static const struct {
    const gchar *file, *text, *properties, *part;
  } cases[] = {{NULL, NULL, "", "is empty"},
      {"metadata.jsonl", "{\"text\": \"x\"}", "", "line 1"},
      {"metadata.jsonl", "{\"file_name\": \"no.png\", \"text\": \"x\"}", "", "no.png"},
      {"a.png", "", "", "a.png' has no caption"},
      {"a.txt", "caf\xe9", "instance-prompt=x", "a.txt' is not UTF-8"},
      {NULL, NULL, "location=http://a/b", "is no folder"},
      {NULL, NULL, "location=/nowhere/set", "/nowhere/set"}};
  gchar *folder = test_folder ();

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    gchar *line = g_strdup_printf (
        "fluxdatasetsrc location=\"%s\" %s", folder, cases[i].properties);
    GstElement *element = gst_parse_launch (line, NULL);
    GstBus *bus = gst_bus_new ();

    if (i == 3) {
      gchar *metadata = g_build_filename (folder, "metadata.jsonl", NULL);

      g_remove (metadata);
      g_free (metadata);
    }
    if (cases[i].file != NULL)
      put (folder, cases[i].file, cases[i].text);
    gst_element_set_bus (element, bus);
    g_assert_cmpint (
        gst_element_set_state (element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
    test_one_message (bus, GST_MESSAGE_ERROR, cases[i].part);
    gst_element_set_state (element, GST_STATE_NULL);
    gst_element_set_bus (element, NULL);
    gst_object_unref (bus);
    gst_object_unref (element);
    g_free (line);
  }
  test_remove (folder);
  g_free (folder);
}

/* Runs a pipeline to its end; the texts of its warnings, and of the first error last. */
static GPtrArray *
run_folder (const gchar *folder, const gchar *rest, gboolean *ended_well)
{
  gchar *line = g_strdup_printf (
      "fluxdatasetsrc location=\"%s\" instance-prompt=x %s", folder, rest);
  GstElement *pipeline = gst_parse_launch (line, NULL);
  GstBus *bus = gst_element_get_bus (pipeline);
  GPtrArray *texts = g_ptr_array_new_with_free_func (g_free);
  gboolean done = FALSE;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  while (!done) {
    GstMessage *message = gst_bus_timed_pop (bus, 30 * GST_SECOND);
    GError *error = NULL;

    g_assert_nonnull (message);
    if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_WARNING)
      gst_message_parse_warning (message, &error, NULL);
    else if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR)
      gst_message_parse_error (message, &error, NULL);
    if (error != NULL) {
      g_ptr_array_add (texts, g_strdup (error->message));
      g_error_free (error);
    }
    done = (GST_MESSAGE_TYPE (message) & (GST_MESSAGE_EOS | GST_MESSAGE_ERROR)) != 0;
    *ended_well = GST_MESSAGE_TYPE (message) == GST_MESSAGE_EOS;
    gst_message_unref (message);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (bus);
  gst_object_unref (pipeline);
  g_free (line);
  return texts;
}

static void
copy_picture (const gchar *from, const gchar *folder, const gchar *name)
{
  gchar *inner = g_build_filename ("images", from, NULL), *path = test_data (inner);
  gchar *to = g_build_filename (folder, name, NULL), *data;
  gsize size;

  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  g_assert_true (g_file_set_contents (to, data, size, NULL));
  g_free (data);
  g_free (to);
  g_free (path);
  g_free (inner);
}

/* Pictures of other formats: by name, and by content behind a good name. One warning. */
static void
test_other_formats (void)
{
  gchar *folder = test_folder ();
  gboolean well;
  GPtrArray *texts;

  copy_picture ("rgb8.png", folder, "a.png");
  put (folder, "b.gif", "GIF89a");
  put (folder, "c.tiff", "II*");
  texts = run_folder (folder, "! fluximagedec ! fakesink", &well);
  g_assert_true (well);
  g_assert_cmpuint (texts->len, ==, 1);
  g_assert_nonnull (strstr (texts->pdata[0], "2 pictures"));
  g_ptr_array_unref (texts);
  test_remove (folder);
  g_free (folder);

  folder = test_folder ();
  copy_picture ("rgb8.png", folder, "a.png");
  put (folder, "b.png", "GIF89a");
  put (folder, "c.jpg", "GIF89a");
  texts = run_folder (folder, "! fluximagedec ! fakesink", &well);
  g_assert_true (well);
  g_assert_cmpuint (texts->len, ==, 1);
  g_assert_nonnull (strstr (texts->pdata[0], "b.png' is left out"));
  g_ptr_array_unref (texts);
  test_remove (folder);
  g_free (folder);
}

/* Nothing but such pictures must not turn an endless source into an endless loop. */
static void
test_only_other_formats (void)
{
  gchar *folder = test_folder ();
  gboolean well;
  GPtrArray *texts;

  put (folder, "b.png", "GIF89a");
  texts = run_folder (folder, "loop=true ! fakesink", &well);
  g_assert_false (well);
  g_assert_nonnull (strstr (texts->pdata[texts->len - 1], "holds no PNG"));
  g_ptr_array_unref (texts);
  test_remove (folder);
  g_free (folder);
}

/* A broken picture among good ones: the decoder's choice. */
static void
test_broken_picture (void)
{
  gchar *folder = test_folder ();
  gboolean well;
  GPtrArray *texts;

  copy_picture ("rgb8.png", folder, "a.png");
  put (folder, "b.jpg", "");
  copy_picture ("grey.jpg", folder, "c.jpg");
  texts = run_folder (folder, "! fluximagedec ! fakesink", &well);
  g_assert_false (well);
  g_assert_cmpuint (texts->len, ==, 1);
  g_assert_nonnull (strstr (texts->pdata[0], "b.jpg"));
  g_ptr_array_unref (texts);
  texts = run_folder (folder, "! fluximagedec on-error=skip ! fakesink", &well);
  g_assert_true (well);
  g_assert_cmpuint (texts->len, ==, 1);
  g_assert_nonnull (strstr (texts->pdata[0], "b.jpg"));
  g_ptr_array_unref (texts);
  test_remove (folder);
  g_free (folder);
}

/* The whole way to training sizes, through queues; all pictures of all formats. */
static void
test_pipeline (void)
{
  gchar *folder = test_data ("images");
  gboolean well;
  GPtrArray *texts = run_folder (folder,
      "shuffle=true seed=2 ! queue ! fluximagedec ! queue ! fluximagecrop resize=bucket "
      "max-area=4096 bucket-step=16 crop=random flip=random variants=2 ! queue ! "
      "videoconvert ! fakesink",
      &well);

  g_assert_true (well);
  g_assert_cmpuint (texts->len, ==, 0);
  g_ptr_array_unref (texts);
  g_free (folder);
}

/* Up, some pictures, down: at points that differ. */
static void
test_cycles (void)
{
  gchar *path = test_data ("dataset/hub");
  gchar *line =
      g_strdup_printf ("fluxdatasetsrc location=\"%s\" loop=true shuffle=true ! "
                       "fluximagedec ! fluximagecrop ! fakesink",
          path);
  GstElement *pipeline = gst_parse_launch (line, NULL);

  for (guint i = 0; i < 20; i++) {
    gst_element_set_state (pipeline, i % 3 == 0 ? GST_STATE_PAUSED : GST_STATE_PLAYING);
    if (i % 2 == 0)
      gst_element_get_state (pipeline, NULL, NULL, 10 * GST_SECOND);
    g_usleep (i * 300);
    g_assert_cmpint (
        gst_element_set_state (pipeline, i % 4 == 0 ? GST_STATE_READY : GST_STATE_NULL),
        ==, GST_STATE_CHANGE_SUCCESS);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
  g_free (line);
  g_free (path);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/datasetsrc/stream", test_stream);
  g_test_add_func ("/datasetsrc/shuffle", test_shuffle);
  g_test_add_func (
      "/datasetsrc/captions-stay-with-pictures", test_captions_stay_with_pictures);
  g_test_add_func ("/datasetsrc/repeats", test_repeats);
  g_test_add_func ("/datasetsrc/loop", test_loop);
  g_test_add_func ("/datasetsrc/seek", test_seek);
  g_test_add_func ("/datasetsrc/refused", test_refused);
  g_test_add_func ("/datasetsrc/other-formats", test_other_formats);
  g_test_add_func ("/datasetsrc/only-other-formats", test_only_other_formats);
  g_test_add_func ("/datasetsrc/broken-picture", test_broken_picture);
  g_test_add_func ("/datasetsrc/pipeline", test_pipeline);
  g_test_add_func ("/datasetsrc/cycles", test_cycles);
  return g_test_run ();
}
