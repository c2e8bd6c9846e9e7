/* fluximagedec: PIL's pixels and key, whatever comes after whatever.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testpictures.h"

#define CAPS "image/png,framerate=1/1"

static JsonObject *expected; /* by file name */

static GstHarness *
new_harness (const gchar *line)
{
  GstHarness *h = gst_harness_new_parse (line);

  gst_harness_set_src_caps_str (h, CAPS);
  return h;
}

static void
assert_pixels (GstHarness *h, GstBuffer *buffer, const gchar *name, const gchar *field)
{
  gchar *sha = test_pixels_sha (h, buffer);

  g_assert_cmpstr (sha, ==,
      json_object_get_string_member (
          json_object_get_object_member (expected, name), field));
  g_free (sha);
}

/* All pictures through one element: caps follow each. */
static void
test_every_picture (void)
{
  GstHarness *h = new_harness ("fluximagedec");
  GList *names = json_object_get_members (expected);
  guint n = 0;

  for (GList *l = names; l != NULL; l = l->next, n++) {
    JsonObject *want = json_object_get_object_member (expected, l->data);
    GstBuffer *out = gst_harness_push_and_pull (h, test_file (l->data, n));
    GstFluxSample sample;
    GstVideoInfo info;

    g_assert_nonnull (out);
    test_current_info (h, &info);
    g_assert_cmpint (info.width, ==, json_object_get_int_member (want, "width"));
    g_assert_cmpint (info.height, ==, json_object_get_int_member (want, "height"));
    g_assert_cmpint (info.fps_n, ==, 1);
    g_assert_true (gst_video_colorimetry_matches (&info.colorimetry, "sRGB"));
    assert_pixels (h, out, l->data, "rgb_white");

    g_assert_true (gst_flux_sample_meta_get (out, &sample));
    g_assert_cmpstr (sample.key, ==, json_object_get_string_member (want, "key"));
    g_assert_cmpstr (sample.filename, ==, l->data);
    g_assert_cmpstr (sample.caption, ==, "a caption");
    g_assert_cmpuint (sample.index, ==, n);
    g_assert_cmpint (sample.source_width, ==, info.width);
    g_assert_cmpint (sample.source_height, ==, info.height);
    g_assert_cmpint (
        sample.has_background, ==, json_object_get_boolean_member (want, "alpha"));
    g_assert_cmpuint (GST_BUFFER_PTS (out), ==, n * GST_SECOND);
    g_assert_cmpuint (GST_BUFFER_DURATION (out), ==, GST_SECOND);
    gst_buffer_unref (out);
  }
  g_assert_cmpuint (n, >, 80);
  g_list_free (names);
  gst_harness_teardown (h);
}

static void
test_alpha (void)
{
  static const struct {
    const gchar *line, *field;
    gboolean has_background;
  } cases[] = {{"fluximagedec", "rgb_white", TRUE},
      {"fluximagedec background=0x204080", "rgb_colour", TRUE},
      {"fluximagedec alpha=ignore background=0x204080", "rgb_opaque", FALSE}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    GstHarness *h = new_harness (cases[i].line);
    GstBuffer *out = gst_harness_push_and_pull (h, test_file ("rgba8.png", 0));
    GstFluxSample sample;

    assert_pixels (h, out, "rgba8.png", cases[i].field);
    gst_flux_sample_meta_get (out, &sample);
    g_assert_cmpint (sample.has_background, ==, cases[i].has_background);
    if (sample.has_background)
      g_assert_cmphex (sample.background, ==, i == 0 ? 0xffffff : 0x204080);
    gst_buffer_unref (out);
    gst_harness_teardown (h);
  }
}

static void
test_orientation_off (void)
{
  GstHarness *h = new_harness ("fluximagedec apply-orientation=false");
  GstBuffer *out = gst_harness_push_and_pull (h, test_file ("orientation-6.jpg", 0));
  JsonObject *want = json_object_get_object_member (expected, "orientation-6.jpg");
  GstFluxSample sample;
  GstVideoInfo info;

  test_current_info (h, &info);
  g_assert_cmpint (info.width, ==, json_object_get_int_member (want, "height"));
  gst_flux_sample_meta_get (out, &sample);
  g_assert_cmpstr (sample.key, ==, json_object_get_string_member (want, "key_unturned"));
  g_assert_cmpstr (sample.key, !=, json_object_get_string_member (want, "key"));
  gst_buffer_unref (out);
  gst_harness_teardown (h);
}

/* A picture that no source of ours sent: no meta, no frame rate. */
static void
test_without_meta (void)
{
  GstHarness *h = gst_harness_new ("fluximagedec");
  GstBuffer *in = test_file ("rgb8.png", 0), *out;
  GstFluxSample sample;
  GstVideoInfo info;

  gst_buffer_remove_meta (
      in, (GstMeta *)gst_buffer_get_custom_meta (in, "GstFluxSampleMeta"));
  gst_harness_set_src_caps_str (h, "image/png");
  out = gst_harness_push_and_pull (h, in);
  g_assert_true (gst_flux_sample_meta_get (out, &sample));
  g_assert_nonnull (sample.key);
  g_assert_null (sample.caption);
  test_current_info (h, &info);
  g_assert_cmpint (info.fps_n, ==, 0);
  gst_buffer_unref (out);
  gst_harness_teardown (h);
}

/* stream-start, caps, segment, tags: in this order, and all before the picture. */
static void
test_event_order (void)
{
  static const GstEventType wanted[] = {GST_EVENT_STREAM_START, GST_EVENT_CAPS,
      GST_EVENT_SEGMENT, GST_EVENT_TAG, GST_EVENT_EOS};
  GstHarness *h = new_harness ("fluximagedec");
  GstBuffer *out;

  gst_harness_push_event (
      h, gst_event_new_tag (gst_tag_list_new (GST_TAG_TITLE, "a title", NULL)));
  out = gst_harness_push_and_pull (h, test_file ("rgb8.png", 0));
  gst_harness_push_event (h, gst_event_new_eos ());
  for (guint i = 0; i < G_N_ELEMENTS (wanted); i++) {
    GstEvent *event = gst_harness_pull_event (h);

    g_assert_cmpstr (
        GST_EVENT_TYPE_NAME (event), ==, gst_event_type_get_name (wanted[i]));
    gst_event_unref (event);
  }
  gst_buffer_unref (out);
  gst_harness_teardown (h);
}

static void
test_after_flush (void)
{
  GstHarness *h = new_harness ("fluximagedec");
  GstSegment segment;
  GstBuffer *out = gst_harness_push_and_pull (h, test_file ("rgb8.png", 0));

  gst_buffer_unref (out);
  gst_harness_push_event (h, gst_event_new_flush_start ());
  gst_harness_push_event (h, gst_event_new_flush_stop (TRUE));
  gst_segment_init (&segment, GST_FORMAT_TIME);
  gst_harness_push_event (h, gst_event_new_segment (&segment));
  out = gst_harness_push_and_pull (h, test_file ("rgb-420.jpg", 1));
  assert_pixels (h, out, "rgb-420.jpg", "rgb_white");
  gst_buffer_unref (out);
  gst_harness_teardown (h);
}

/* A file cut in the middle. */
static GstBuffer *
cut_file (const gchar *name)
{
  GstBuffer *buffer = test_file (name, 0);

  gst_buffer_set_size (buffer, gst_buffer_get_size (buffer) / 2);
  return buffer;
}

static void
test_damaged_fails (gconstpointer name)
{
  GstHarness *h = new_harness ("fluximagedec");
  GstBus *bus = test_watch (h);

  g_assert_cmpint (gst_harness_push (h, cut_file (name)), ==, GST_FLOW_ERROR);
  test_one_message (bus, GST_MESSAGE_ERROR, name);
  test_unwatch (h, bus);
}

static void
test_damaged_skipped (gconstpointer name)
{
  GstHarness *h = new_harness ("fluximagedec on-error=skip");
  GstBus *bus = test_watch (h);
  GstBuffer *out;

  g_assert_cmpint (gst_harness_push (h, cut_file (name)), ==, GST_FLOW_OK);
  test_one_message (bus, GST_MESSAGE_WARNING, name);
  g_assert_cmpuint (gst_harness_buffers_received (h), ==, 0);
  out = gst_harness_push_and_pull (h, test_file (name, 1));
  assert_pixels (h, out, name, "rgb_white");
  gst_buffer_unref (out);
  g_assert_cmpuint (test_count_errors (bus, NULL), ==, 0);
  test_unwatch (h, bus);
}

static void
test_max_pixels (void)
{
  GstHarness *h = new_harness ("fluximagedec max-pixels=246"); /* 19 x 13 is 247 */
  GstBus *bus = test_watch (h);
  GstElement *dec;

  g_assert_cmpint (gst_harness_push (h, test_file ("rgb8.png", 0)), ==, GST_FLOW_ERROR);
  test_one_message (bus, GST_MESSAGE_ERROR, "rgb8.png");
  dec = test_element (h, "fluximagedec");
  g_object_set (dec, "max-pixels", G_GUINT64_CONSTANT (247), NULL);
  gst_object_unref (dec);
  g_assert_cmpint (gst_harness_push (h, test_file ("rgb8.png", 0)), ==, GST_FLOW_OK);
  test_unwatch (h, bus);
}

/* Readable but damaged: a warning, and the picture. */
static void
test_damaged_warns (void)
{
  GstHarness *h = new_harness ("fluximagedec");
  GstBus *bus = test_watch (h);
  GstBuffer *in = test_file ("rgb-444.jpg", 0);

  gst_buffer_fill (in, gst_buffer_get_size (in) / 2, "\xff\xd9", 2);
  g_assert_cmpint (gst_harness_push (h, in), ==, GST_FLOW_OK);
  test_one_message (bus, GST_MESSAGE_WARNING, "rgb-444.jpg");
  g_assert_cmpuint (gst_harness_buffers_received (h), ==, 1);
  test_unwatch (h, bus);
}

static void
test_empty_buffer (void)
{
  GstHarness *h = new_harness ("fluximagedec");
  GstBus *bus = test_watch (h);

  g_assert_cmpint (gst_harness_push (h, gst_buffer_new ()), ==, GST_FLOW_ERROR);
  test_one_message (bus, GST_MESSAGE_ERROR, "picture");
  test_unwatch (h, bus);
}

/* Down and up again: the second time is like the first. */
static void
test_restart (void)
{
  for (guint i = 0; i < 20; i++) {
    GstHarness *h = new_harness ("fluximagedec");
    GstBuffer *out;

    if (i % 2 == 0) /* the other times it stops with events that wait for a picture */
      gst_buffer_unref (gst_harness_push_and_pull (h, test_file ("rgb8.png", 0)));
    gst_element_set_state (h->element, GST_STATE_NULL);
    gst_element_set_state (h->element, GST_STATE_PLAYING);
    gst_harness_set_src_caps_str (h, CAPS);
    out = gst_harness_push_and_pull (h, test_file ("grey.jpg", 0));
    assert_pixels (h, out, "grey.jpg", "rgb_white");
    gst_buffer_unref (out);
    gst_harness_teardown (h);
  }
}

int
main (int argc, char **argv)
{
  static const gchar *const files[] = {"rgb8.png", "rgb-420.jpg", "rgb-lossy.webp"};
  JsonObject *root;
  JsonParser *parser;
  int status;

  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  parser = test_expected (&root);
  expected = json_object_get_object_member (root, "images");
  g_test_add_func ("/imagedec/every-picture", test_every_picture);
  g_test_add_func ("/imagedec/alpha", test_alpha);
  g_test_add_func ("/imagedec/orientation-off", test_orientation_off);
  g_test_add_func ("/imagedec/without-meta", test_without_meta);
  g_test_add_func ("/imagedec/event-order", test_event_order);
  g_test_add_func ("/imagedec/after-flush", test_after_flush);
  for (guint i = 0; i < G_N_ELEMENTS (files); i++) {
    gchar *path = g_strdup_printf ("/imagedec/damaged/fails/%s", files[i]);

    g_test_add_data_func (path, files[i], test_damaged_fails);
    g_free (path);
    path = g_strdup_printf ("/imagedec/damaged/skipped/%s", files[i]);
    g_test_add_data_func (path, files[i], test_damaged_skipped);
    g_free (path);
  }
  g_test_add_func ("/imagedec/damaged/warns", test_damaged_warns);
  g_test_add_func ("/imagedec/max-pixels", test_max_pixels);
  g_test_add_func ("/imagedec/empty-buffer", test_empty_buffer);
  g_test_add_func ("/imagedec/restart", test_restart);
  status = g_test_run ();
  g_object_unref (parser);
  return status;
}
