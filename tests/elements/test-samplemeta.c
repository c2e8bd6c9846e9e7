/* The sample meta: what is written is read, and it survives common elements.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <gst/check/gstharness.h>
#include <gst/gst.h>

#include "elements/gstfluxsamplemeta.h"

static const GstFluxSample full = {.filename = "a/b.png",
    .caption = "ein Bär, \"zitiert\"; x=1",
    .index = G_GUINT64_CONSTANT (5000000000),
    .epoch = 3,
    .key = "00ff",
    .has_background = TRUE,
    .background = 0x102030,
    .source_width = 640,
    .source_height = 480,
    .scaled_width = 683,
    .scaled_height = 512,
    .crop_x = 85,
    .crop_y = 0,
    .crop_width = 512,
    .crop_height = 512,
    .flip = TRUE,
    .variant = 1,
    .n_variants = 4};

static void
assert_full (GstBuffer *buffer)
{
  GstFluxSample s;

  g_assert_true (gst_flux_sample_meta_get (buffer, &s));
  g_assert_cmpstr (s.filename, ==, full.filename);
  g_assert_cmpstr (s.caption, ==, full.caption);
  g_assert_cmpstr (s.key, ==, full.key);
  g_assert_cmpuint (s.index, ==, full.index);
  g_assert_cmpuint (s.epoch, ==, full.epoch);
  g_assert_true (s.has_background);
  g_assert_cmphex (s.background, ==, full.background);
  g_assert_cmpint (s.source_width, ==, full.source_width);
  g_assert_cmpint (s.source_height, ==, full.source_height);
  g_assert_cmpint (s.scaled_width, ==, full.scaled_width);
  g_assert_cmpint (s.scaled_height, ==, full.scaled_height);
  g_assert_cmpint (s.crop_x, ==, full.crop_x);
  g_assert_cmpint (s.crop_y, ==, full.crop_y);
  g_assert_cmpint (s.crop_width, ==, full.crop_width);
  g_assert_cmpint (s.crop_height, ==, full.crop_height);
  g_assert_true (s.flip);
  g_assert_cmpuint (s.variant, ==, full.variant);
  g_assert_cmpuint (s.n_variants, ==, full.n_variants);
}

static void
test_round_trip (void)
{
  GstBuffer *buffer = gst_buffer_new ();

  gst_flux_sample_meta_set (buffer, &full);
  assert_full (buffer);
  gst_buffer_unref (buffer);
}

static void
test_absent (void)
{
  GstBuffer *buffer = gst_buffer_new ();
  GstFluxSample s;

  g_assert_false (gst_flux_sample_meta_get (buffer, &s));
  g_assert_null (s.caption);
  g_assert_false (s.has_background);
  g_assert_cmpuint (s.n_variants, ==, 1);
  gst_buffer_unref (buffer);
}

/* Replacing the meta with strings read from it, and unsetting a field. */
static void
test_replace (void)
{
  GstBuffer *buffer = gst_buffer_new ();
  GstFluxSample s;

  gst_flux_sample_meta_set (buffer, &full);
  g_assert_true (gst_flux_sample_meta_get (buffer, &s));
  s.has_background = FALSE;
  s.key = NULL;
  gst_flux_sample_meta_set (buffer, &s);
  g_assert_true (gst_flux_sample_meta_get (buffer, &s));
  g_assert_cmpstr (s.caption, ==, full.caption);
  g_assert_null (s.key);
  g_assert_false (s.has_background);
  gst_buffer_unref (buffer);
}

static void
test_view (void)
{
  GstFluxSample s = full;
  gchar *view = gst_flux_sample_dup_view (&s);

  g_assert_cmpstr (view, ==, "640x480>683x512+85+0,512x512,flip,bg=102030");
  g_free (view);
  s.flip = FALSE;
  s.has_background = FALSE;
  view = gst_flux_sample_dup_view (&s);
  g_assert_cmpstr (view, ==, "640x480>683x512+85+0,512x512");
  g_free (view);
}

static void
test_survives (gconstpointer launch_line)
{
  GstHarness *h = gst_harness_new_parse (launch_line);
  GstBuffer *buffer;

  gst_harness_set_src_caps_str (h,
      "video/x-raw,format=RGB,width=4,height=4,framerate=1/1,interlace-mode=progressive");
  buffer = gst_buffer_new_allocate (NULL, 48, NULL);
  gst_buffer_memset (buffer, 0, 7, 48);
  gst_flux_sample_meta_set (buffer, &full);
  buffer = gst_harness_push_and_pull (h, buffer);
  g_assert_nonnull (buffer);
  assert_full (buffer);
  gst_buffer_unref (buffer);
  gst_harness_teardown (h);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/samplemeta/round-trip", test_round_trip);
  g_test_add_func ("/samplemeta/absent", test_absent);
  g_test_add_func ("/samplemeta/replace", test_replace);
  g_test_add_func ("/samplemeta/view", test_view);
  g_test_add_data_func ("/samplemeta/survives/queue", "queue", test_survives);
  g_test_add_data_func ("/samplemeta/survives/videoconvert",
      "videoconvert ! capsfilter caps=video/x-raw,format=BGRx", test_survives);
  g_test_add_data_func ("/samplemeta/survives/videoscale",
      "videoscale ! capsfilter caps=video/x-raw,width=8,height=8", test_survives);
  g_test_add_data_func ("/samplemeta/survives/videoflip",
      "videoflip method=horizontal-flip", test_survives);
  return g_test_run ();
}
