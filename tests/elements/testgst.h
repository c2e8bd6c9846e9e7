/* tests/elements/testgst.h: what the element tests share. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <glib/gstdio.h>
#include <gst/check/gstharness.h>
#include <gst/gst.h>
#include <string.h>

#include "elements/gstfluxsamplemeta.h"
#include "tests/testdata.h"

/* Text length of the tiny model. */
#define TEST_TOKENS 32

/* A tiny model: the 4-bit one of the examples, else the bf16 one. NULL when there is
 * none. g_free() it. */
static inline gchar *
test_model (void)
{
  const gchar *src = g_getenv ("FLUX_TEST_SRC");
  gchar *dir = src != NULL ? g_build_filename (
                                 src, "..", "examples", "models", "tiny-flux-emoji", NULL)
                           : NULL;

  if (dir != NULL && g_file_test (dir, G_FILE_TEST_IS_DIR))
    return dir;
  g_free (dir);
  return flux_test_model ();
}

static inline gboolean
test_need_model (gchar **model)
{
  *model = test_model ();
  if (*model == NULL)
    g_test_skip ("no tiny model (examples/models, FLUX_TEST_MODEL or ../shared)");
  return *model != NULL;
}

/* A folder of its own that is empty. g_free() it; test_remove() it. */
static inline gchar *
test_folder (void)
{
  gchar *dir = g_dir_make_tmp ("gst-flux-XXXXXX", NULL);

  g_assert_nonnull (dir);
  return dir;
}

static inline void
test_remove (const gchar *path)
{
  GDir *dir =
      g_file_test (path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open (path, 0, NULL);
  const gchar *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    gchar *child = g_build_filename (path, name, NULL);

    test_remove (child);
    g_free (child);
  }
  if (dir != NULL)
    g_dir_close (dir);
  g_assert_cmpint (g_remove (path), ==, 0);
}

/* A picture of its own for each number: a disc on a plain ground. */
static inline GstBuffer *
test_picture (guint number, gint width, gint height, const gchar *caption)
{
  gint stride = GST_ROUND_UP_4 (3 * width);
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, (gsize)stride * height, NULL);
  GstFluxSample sample = GST_FLUX_SAMPLE_INIT;
  gchar *key = g_strdup_printf ("%064x", number + 1);
  GstMapInfo map;

  g_assert_true (gst_buffer_map (buffer, &map, GST_MAP_WRITE));
  memset (map.data, 0, map.size);
  for (gint y = 0; y < height; y++)
    for (gint x = 0; x < width; x++) {
      gint dx = 2 * x - width, dy = 2 * y - height;
      gboolean inside = dx * dx + dy * dy < width * width / 4 * (gint)(1 + number % 3);
      guint8 *p = map.data + y * stride + 3 * x;

      p[0] = inside ? (guint8)(40 * number + 30) : 250;
      p[1] = inside ? (guint8)(90 * number + 60) : 240;
      p[2] = inside ? (guint8)(17 * number + 90) : (guint8)(230 - number);
    }
  gst_buffer_unmap (buffer, &map);
  sample.key = key;
  sample.caption = caption;
  sample.index = number;
  sample.source_width = width;
  sample.source_height = height;
  gst_flux_sample_meta_set (buffer, &sample);
  GST_BUFFER_PTS (buffer) = number * GST_SECOND;
  GST_BUFFER_DURATION (buffer) = GST_SECOND;
  g_free (key);
  return buffer;
}

static inline GstCaps *
test_picture_caps (gint width, gint height)
{
  return gst_caps_new_simple ("video/x-raw", "format", G_TYPE_STRING, "RGB", "width",
      G_TYPE_INT, width, "height", G_TYPE_INT, height, "framerate", GST_TYPE_FRACTION, 1,
      1, NULL);
}

/* Of the messages on a bus: how many errors, and the first one. */
static inline guint
test_count_errors (GstBus *bus, GError **first)
{
  GstMessage *message;
  guint n = 0;

  while ((message = gst_bus_pop_filtered (bus, GST_MESSAGE_ERROR)) != NULL) {
    if (n++ == 0 && first != NULL)
      gst_message_parse_error (message, first, NULL);
    gst_message_unref (message);
  }
  return n;
}
