/* tests/elements/testpictures.h: the pictures of tests/data/images and what PIL makes of
 * them. SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gst/video/video.h>
#include <json-glib/json-glib.h>

#include "tests/elements/testgst.h"

static inline gchar *
test_data (const gchar *name)
{
  return g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", name, NULL);
}

/* images.json; tests/reference/make_images.py has the meaning of its fields. Free the
 * parser. */
static inline JsonParser *
test_expected (JsonObject **root)
{
  JsonParser *parser = json_parser_new ();
  gchar *path = test_data ("images/images.json");
  GError *error = NULL;

  json_parser_load_from_file (parser, path, &error);
  g_assert_no_error (error);
  *root = json_node_get_object (json_parser_get_root (parser));
  g_free (path);
  return parser;
}

/* A file of tests/data/images as fluxdatasetsrc would send it. */
static inline GstBuffer *
test_file (const gchar *name, guint number)
{
  gchar *inner = g_build_filename ("images", name, NULL), *path = test_data (inner),
        *data;
  GstFluxSample sample = GST_FLUX_SAMPLE_INIT;
  GError *error = NULL;
  GstBuffer *buffer;
  gsize size;

  g_file_get_contents (path, &data, &size, &error);
  g_assert_no_error (error);
  buffer = gst_buffer_new_wrapped (data, size);
  sample.filename = name;
  sample.caption = "a caption";
  sample.index = number;
  gst_flux_sample_meta_set (buffer, &sample);
  GST_BUFFER_PTS (buffer) = number * GST_SECOND;
  GST_BUFFER_DURATION (buffer) = GST_SECOND;
  GST_BUFFER_OFFSET (buffer) = number;
  GST_BUFFER_OFFSET_END (buffer) = number + 1;
  g_free (path);
  g_free (inner);
  return buffer;
}

/* Caps that the harness's sink has now. */
static inline void
test_current_info (GstHarness *h, GstVideoInfo *info)
{
  GstCaps *caps = gst_pad_get_current_caps (h->sinkpad);

  g_assert_nonnull (caps);
  g_assert_true (gst_video_info_from_caps (info, caps));
  gst_caps_unref (caps);
}

/* SHA-256 of the pixels of an RGB buffer without the padding of its rows. */
static inline gchar *
test_pixels_sha (GstHarness *h, GstBuffer *buffer)
{
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  GstVideoInfo info;
  GstVideoFrame frame;
  gchar *sha;

  test_current_info (h, &info);
  g_assert_true (gst_video_frame_map (&frame, &info, buffer, GST_MAP_READ));
  for (gint y = 0; y < info.height; y++)
    g_checksum_update (sum,
        (guint8 *)GST_VIDEO_FRAME_PLANE_DATA (&frame, 0) +
            y * GST_VIDEO_FRAME_PLANE_STRIDE (&frame, 0),
        3 * info.width);
  gst_video_frame_unmap (&frame);
  sha = g_strdup (g_checksum_get_string (sum));
  g_checksum_free (sum);
  return sha;
}

/* The element of a harness that was made from a launch line. Unref it. */
static inline GstElement *
test_element (GstHarness *h, const gchar *factory)
{
  GstElement *element = gst_harness_find_element (h, factory);

  g_assert_nonnull (element);
  return element;
}

/* Gives the harnessed element a bus to post to; unref it after the teardown. */
static inline GstBus *
test_watch (GstHarness *h)
{
  GstBus *bus = gst_bus_new ();

  gst_element_set_bus (h->element, bus);
  return bus;
}

static inline void
test_unwatch (GstHarness *h, GstBus *bus)
{
  gst_element_set_bus (h->element, NULL);
  gst_harness_teardown (h);
  gst_object_unref (bus);
}

/* Exactly one message of the type, which holds `part`. */
static inline void
test_one_message (GstBus *bus, GstMessageType type, const gchar *part)
{
  GstMessage *message = gst_bus_pop_filtered (bus, type), *second;
  GError *error = NULL;

  g_assert_nonnull (message);
  if (type == GST_MESSAGE_ERROR)
    gst_message_parse_error (message, &error, NULL);
  else
    gst_message_parse_warning (message, &error, NULL);
  if (strstr (error->message, part) == NULL) {
    g_test_message ("\"%s\" is not in: %s", part, error->message);
    g_test_fail ();
  }
  g_assert_true (g_str_has_suffix (error->message, "."));
  g_error_free (error);
  gst_message_unref (message);
  second = gst_bus_pop_filtered (bus, type);
  g_assert_null (second);
}
