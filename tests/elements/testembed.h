/* tests/elements/testembed.h: a fluxembed that gets latents. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxtensor.h"
#include "tests/elements/testgst.h"

static gchar *model; /* may be NULL */

typedef struct {
  GstElement *element;
  GstHarness *h; /* after play() */
  GstBus *bus;
  gchar *folder, *table;
} Fixture;

static inline GstCaps *
latent_caps (gint width, gint height)
{
  GstFluxTensorInfo info = {
      .channels = 16, .width = width, .height = height, .model = "vae"};

  return gst_flux_tensor_info_to_caps (&info);
}

/* A latent of picture `number`, all of whose values are number. */
static inline GstBuffer *
latent (guint number, gint width, gint height, const gchar *caption)
{
  gsize n = 2 * 16 * (gsize)width * (gsize)height;
  float *values = g_new (float, n);
  GstBuffer *picture = test_picture (number, 16, 16, caption);
  GstBuffer *buffer = gst_buffer_new_wrapped (values, n * sizeof (float));
  GstFluxSample sample;

  for (gsize i = 0; i < n; i++)
    values[i] = (float)number;
  gst_flux_sample_meta_get (picture, &sample);
  gst_flux_sample_meta_set (buffer, &sample);
  gst_buffer_copy_into (buffer, picture, GST_BUFFER_COPY_TIMESTAMPS, 0, -1);
  gst_buffer_unref (picture);
  return buffer;
}

static inline void
setup (Fixture *f, const gchar *suffix)
{
  f->folder = test_folder ();
  f->table = g_strconcat (f->folder, "/table", suffix, NULL);
  f->bus = gst_bus_new ();
  f->h = NULL;
  f->element = gst_element_factory_make ("fluxembed", NULL);
  g_object_set (
      f->element, "location", f->table, "max-sequence-length", TEST_TOKENS, NULL);
  gst_element_set_bus (f->element, f->bus);
}

/* After the properties are set. */
static inline void
play (Fixture *f)
{
  f->h = gst_harness_new_with_element (f->element, "sink", "src");
  gst_harness_set_src_caps (f->h, latent_caps (2, 2));
}

static inline void
teardown (Fixture *f)
{
  gst_harness_teardown (f->h);
  gst_element_set_bus (f->element, NULL);
  gst_object_unref (f->element);
  gst_object_unref (f->bus);
  test_remove (f->folder);
  g_free (f->folder);
  g_free (f->table);
}
