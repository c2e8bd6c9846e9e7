/* fluximagecrop: sizes, draws, times and caps. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "tests/elements/testpictures.h"

static JsonObject *expected;

/* A decoded file: fluximagedec stands before the cropper, as in any pipeline. */
static GstHarness *
new_harness (const gchar *properties)
{
  gchar *line = g_strdup_printf ("fluximagedec ! fluximagecrop %s", properties);
  GstHarness *h = gst_harness_new_parse (line);

  gst_harness_set_src_caps_str (h, "image/png,framerate=1/1");
  g_free (line);
  return h;
}

static void
assert_size (GstHarness *h, gint width, gint height)
{
  GstVideoInfo info;

  test_current_info (h, &info);
  g_assert_cmpint (info.width, ==, width);
  g_assert_cmpint (info.height, ==, height);
  g_assert_cmpint (info.par_n, ==, info.par_d);
  g_assert_true (gst_video_colorimetry_matches (&info.colorimetry, "sRGB"));
}

/* Resize, centre crop and flip of torchvision; sources have odd sizes and padded rows. */
static void
test_equals_pil (void)
{
  JsonArray *cases = json_object_get_array_member (expected, "cropped");

  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *c = json_array_get_object_element (cases, i);
    gint size = json_object_get_int_member (c, "size");

    for (guint flip = 0; flip < 2; flip++) {
      gchar *properties = g_strdup_printf (
          "width=%d height=%d flip=%s", size, size, flip ? "always" : "none");
      GstHarness *h = new_harness (properties);
      GstBuffer *out = gst_harness_push_and_pull (
          h, test_file (json_object_get_string_member (c, "file"), 0));
      gchar *sha = test_pixels_sha (h, out);
      GstFluxSample sample;

      assert_size (h, size, size);
      g_assert_cmpstr (
          sha, ==, json_object_get_string_member (c, flip ? "flipped" : "sha256"));
      g_assert_true (gst_flux_sample_meta_get (out, &sample));
      g_assert_cmpint (
          sample.scaled_width, ==, json_object_get_int_member (c, "scaled_width"));
      g_assert_cmpint (
          sample.scaled_height, ==, json_object_get_int_member (c, "scaled_height"));
      g_assert_cmpint (sample.crop_x, ==, json_object_get_int_member (c, "x"));
      g_assert_cmpint (sample.crop_y, ==, json_object_get_int_member (c, "y"));
      g_assert_cmpint (sample.crop_width, ==, size);
      g_assert_cmpint (sample.flip, ==, flip);
      g_assert_cmpint (sample.n_variants, ==, 1);
      g_assert_nonnull (sample.key);
      g_assert_cmpstr (sample.caption, ==, "a caption");
      gst_buffer_unref (out);
      g_free (sha);
      g_free (properties);
      gst_harness_teardown (h);
    }
  }
}

/* Sizes change from picture to picture, and the caps with them. */
static void
test_sizes_follow (void)
{
  static const struct {
    const gchar *file;
    gint width, height;
  } pictures[] = {{"rgb-444.jpg", 32, 16}, {"orientation-6.jpg", 16, 16},
      {"one-column.png", 16, 32}, {"size-17x33.jpg", 16, 32}, {"rgb-420.jpg", 32, 16}};
  GstHarness *h = new_harness ("");

  for (guint i = 0; i < G_N_ELEMENTS (pictures); i++) {
    gst_buffer_unref (gst_harness_push_and_pull (h, test_file (pictures[i].file, i)));
    assert_size (h, pictures[i].width, pictures[i].height);
  }
  gst_harness_teardown (h);
}

static void
test_buckets (void)
{
  GstHarness *h = new_harness ("resize=bucket max-area=4096 bucket-step=16");

  gst_buffer_unref (gst_harness_push_and_pull (h, test_file ("size-16x16.jpg", 0)));
  assert_size (h, 64, 64);
  gst_buffer_unref (gst_harness_push_and_pull (h, test_file ("size-17x33.jpg", 1)));
  assert_size (h, 48, 80);
  gst_buffer_unref (gst_harness_push_and_pull (h, test_file ("one-column.png", 2)));
  assert_size (h, 16, 256);
  gst_harness_teardown (h);
}

static void
test_squash (void)
{
  GstHarness *h = new_harness ("resize=squash width=16 height=48");
  GstBuffer *out = gst_harness_push_and_pull (h, test_file ("rgb-444.jpg", 0));
  GstFluxSample sample;

  gst_flux_sample_meta_get (out, &sample);
  g_assert_cmpint (sample.scaled_width, ==, 16);
  g_assert_cmpint (sample.scaled_height, ==, 48);
  gst_buffer_unref (out);
  gst_harness_teardown (h);
}

/* 0 takes the size that stands in the caps downstream. */
static void
test_size_from_downstream (void)
{
  GstHarness *h = new_harness ("! capsfilter caps=video/x-raw,width=48,height=16");

  gst_buffer_unref (gst_harness_push_and_pull (h, test_file ("rgb-444.jpg", 0)));
  assert_size (h, 48, 16);
  gst_harness_teardown (h);
  h = new_harness ("! capsfilter caps=video/x-raw,width=48");
  gst_buffer_unref (gst_harness_push_and_pull (h, test_file ("rgb-444.jpg", 0)));
  assert_size (h, 48, 32); /* 48 x 37.6 of 37 x 29 */
  gst_harness_teardown (h);
}

/* What downstream insists on and the properties forbid is not negotiated. */
static void
test_size_conflict (void)
{
  GstHarness *h =
      new_harness ("width=32 height=32 ! capsfilter caps=video/x-raw,width=48");

  g_assert_cmpint (
      gst_harness_push (h, test_file ("rgb-444.jpg", 0)), ==, GST_FLOW_NOT_NEGOTIATED);
  gst_harness_teardown (h);
}

static void
test_variants (void)
{
  GstHarness *h =
      new_harness ("width=32 height=16 crop=random flip=random variants=4 seed=3");
  gchar *views[8];
  guint distinct = 0;

  for (guint n = 0; n < 2; n++)
    g_assert_cmpint (
        gst_harness_push (h, test_file (n ? "rgb-444.jpg" : "rgb-420.jpg", n)), ==,
        GST_FLOW_OK);
  g_assert_cmpuint (gst_harness_buffers_received (h), ==, 8);
  for (guint i = 0; i < 8; i++) {
    GstBuffer *out = gst_harness_pull (h);
    GstFluxSample sample;

    gst_flux_sample_meta_get (out, &sample);
    g_assert_cmpuint (sample.variant, ==, i % 4);
    g_assert_cmpuint (sample.n_variants, ==, 4);
    g_assert_cmpuint (sample.index, ==, i / 4);
    g_assert_cmpuint (GST_BUFFER_PTS (out), ==, i * GST_SECOND / 4);
    g_assert_cmpuint (GST_BUFFER_DURATION (out), ==, GST_SECOND / 4);
    g_assert_cmpuint (GST_BUFFER_OFFSET (out), ==, i);
    views[i] = gst_flux_sample_dup_view (&sample);
    gst_buffer_unref (out);
  }
  for (guint i = 1; i < 4; i++)
    distinct += g_strcmp0 (views[0], views[i]) != 0;
  g_assert_cmpuint (distinct, >, 0);
  for (guint i = 0; i < 8; i++)
    g_free (views[i]);
  {
    GstVideoInfo info;

    test_current_info (h, &info);
    g_assert_cmpint (info.fps_n, ==, 4);
    g_assert_cmpint (info.fps_d, ==, 1);
  }
  gst_harness_teardown (h);
}

static gchar *
view_of (const gchar *properties, const gchar *file, guint number, guint before)
{
  GstHarness *h = new_harness (properties);
  GstFluxSample sample;
  GstBuffer *out;
  gchar *view;

  for (guint i = 0; i < before; i++)
    gst_buffer_unref (gst_harness_push_and_pull (h, test_file ("size-17x33.jpg", i)));
  out = gst_harness_push_and_pull (h, test_file (file, number));
  gst_flux_sample_meta_get (out, &sample);
  view = gst_flux_sample_dup_view (&sample);
  gst_buffer_unref (out);
  gst_harness_teardown (h);
  return view;
}

/* A picture's crop is the same wherever it stands in the stream, and another one for
 * another seed. */
static void
test_draws_by_content (void)
{
  static const gchar random[] = "width=16 height=16 crop=random flip=random";
  guint differ = 0;
  gchar *first = view_of (random, "rgb-444.jpg", 0, 0);
  gchar *later = view_of (random, "rgb-444.jpg", 5, 3);

  g_assert_cmpstr (first, ==, later);
  for (guint seed = 1; seed < 9; seed++) {
    gchar *properties = g_strdup_printf ("%s seed=%u", random, seed);
    gchar *view = view_of (properties, "rgb-444.jpg", 0, 0);

    differ += g_strcmp0 (first, view) != 0;
    g_free (view);
    g_free (properties);
  }
  g_assert_cmpuint (differ, >=, 3);
  g_free (first);
  g_free (later);
}

/* Pictures that no decoder of ours made. */
static void
test_without_key (void)
{
  GstHarness *h = gst_harness_new_parse ("fluximagecrop width=16 height=16 crop=random");
  GstBuffer *in, *out;
  GstFluxSample sample;

  gst_harness_set_src_caps (h, test_picture_caps (25, 30));
  in = test_picture (1, 25, 30, "x");
  gst_buffer_remove_meta (
      in, (GstMeta *)gst_buffer_get_custom_meta (in, "GstFluxSampleMeta"));
  out = gst_harness_push_and_pull (h, in);
  g_assert_true (gst_flux_sample_meta_get (out, &sample));
  g_assert_null (sample.key);
  g_assert_cmpint (sample.source_width, ==, 25);
  g_assert_cmpint (sample.scaled_height, ==, 19);
  gst_buffer_unref (out);
  gst_harness_teardown (h);
}

static void
test_settings_refused (void)
{
  static const gchar *const lines[][2] = {{"fluximagecrop width=500", "width=500"},
      {"fluximagecrop height=8", "use 16"},
      {"fluximagecrop resize=bucket bucket-step=40", "bucket-step=40"},
      {"fluximagecrop resize=bucket bucket-step=64 max-area=1024", "max-area"}};

  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    GstElement *element = gst_parse_launch (lines[i][0], NULL);
    GstBus *bus = gst_bus_new ();

    gst_element_set_bus (element, bus);
    g_assert_cmpint (
        gst_element_set_state (element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
    test_one_message (bus, GST_MESSAGE_ERROR, lines[i][1]);
    gst_element_set_state (element, GST_STATE_NULL);
    gst_element_set_bus (element, NULL);
    gst_object_unref (bus);
    gst_object_unref (element);
  }
}

static void
test_too_small (void)
{
  GstHarness *h = gst_harness_new_parse ("fluximagecrop resize=none width=32 height=32");
  GstBus *bus = test_watch (h);
  GstBuffer *in = test_picture (0, 31, 64, "x");
  GstFluxSample sample;

  gst_flux_sample_meta_get (in, &sample);
  sample.filename = "small.png";
  gst_flux_sample_meta_set (in, &sample);
  gst_harness_set_src_caps (h, test_picture_caps (31, 64));
  g_assert_cmpint (gst_harness_push (h, in), ==, GST_FLOW_ERROR);
  test_one_message (bus, GST_MESSAGE_ERROR, "small.png");
  gst_harness_set_src_caps (h, test_picture_caps (32, 64));
  g_assert_cmpint (gst_harness_push (h, test_picture (0, 32, 64, "x")), ==, GST_FLOW_OK);
  test_unwatch (h, bus);
}

static void
test_square_pixels_only (void)
{
  GstHarness *h = gst_harness_new_parse ("fluximagecrop");

  gst_harness_set_src_caps_str (h, "video/x-raw,format=RGB,width=32,height=32,"
                                   "framerate=1/1,pixel-aspect-ratio=2/1");
  g_assert_cmpint (gst_harness_push (h, gst_buffer_new_allocate (NULL, 3072, NULL)), ==,
      GST_FLOW_NOT_NEGOTIATED);
  gst_harness_teardown (h);
}

static void
test_short_buffer (void)
{
  GstHarness *h = gst_harness_new_parse ("fluximagecrop");
  GstBus *bus = test_watch (h);

  gst_harness_set_src_caps (h, test_picture_caps (32, 32));
  g_assert_cmpint (gst_harness_push (h, gst_buffer_new_allocate (NULL, 3000, NULL)), ==,
      GST_FLOW_ERROR);
  test_one_message (bus, GST_MESSAGE_ERROR, "32x32");
  test_unwatch (h, bus);
}

int
main (int argc, char **argv)
{
  JsonParser *parser;
  int status;

  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  parser = test_expected (&expected);
  g_test_add_func ("/imagecrop/equals-pil", test_equals_pil);
  g_test_add_func ("/imagecrop/sizes-follow", test_sizes_follow);
  g_test_add_func ("/imagecrop/buckets", test_buckets);
  g_test_add_func ("/imagecrop/squash", test_squash);
  g_test_add_func ("/imagecrop/size-from-downstream", test_size_from_downstream);
  g_test_add_func ("/imagecrop/size-conflict", test_size_conflict);
  g_test_add_func ("/imagecrop/variants", test_variants);
  g_test_add_func ("/imagecrop/draws-by-content", test_draws_by_content);
  g_test_add_func ("/imagecrop/without-key", test_without_key);
  g_test_add_func ("/imagecrop/settings-refused", test_settings_refused);
  g_test_add_func ("/imagecrop/too-small", test_too_small);
  g_test_add_func ("/imagecrop/square-pixels-only", test_square_pixels_only);
  g_test_add_func ("/imagecrop/short-buffer", test_short_buffer);
  status = g_test_run ();
  g_object_unref (parser);
  return status;
}
