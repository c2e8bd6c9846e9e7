/* gstfluxsamplemeta.c: which sample of the data set a buffer is. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxsamplemeta.h"

void
gst_flux_sample_meta_register (void)
{
  static gsize once = 0;
  static const gchar *tags[] = {NULL};

  if (g_once_init_enter (&once)) {
    /* An application that carries its own copy of this file may have been first. */
    if (gst_meta_get_info (GST_FLUX_SAMPLE_META_NAME) == NULL)
      gst_meta_register_custom (GST_FLUX_SAMPLE_META_NAME, tags, NULL, NULL, NULL);
    g_once_init_leave (&once, 1);
  }
}

gboolean
gst_flux_sample_meta_get (GstBuffer *buffer, GstFluxSample *sample)
{
  GstCustomMeta *meta;
  GstStructure *s;
  guint background;

  *sample = (GstFluxSample)GST_FLUX_SAMPLE_INIT;
  gst_flux_sample_meta_register ();
  meta = gst_buffer_get_custom_meta (buffer, GST_FLUX_SAMPLE_META_NAME);
  if (meta == NULL)
    return FALSE;
  s = gst_custom_meta_get_structure (meta);

  sample->filename = gst_structure_get_string (s, "filename");
  sample->caption = gst_structure_get_string (s, "caption");
  sample->key = gst_structure_get_string (s, "key");
  gst_structure_get_uint64 (s, "index", &sample->index);
  gst_structure_get_uint (s, "epoch", &sample->epoch);
  sample->has_background = gst_structure_get_uint (s, "background", &background);
  if (sample->has_background)
    sample->background = background;
  gst_structure_get_int (s, "source-width", &sample->source_width);
  gst_structure_get_int (s, "source-height", &sample->source_height);
  gst_structure_get_int (s, "scaled-width", &sample->scaled_width);
  gst_structure_get_int (s, "scaled-height", &sample->scaled_height);
  gst_structure_get_int (s, "crop-x", &sample->crop_x);
  gst_structure_get_int (s, "crop-y", &sample->crop_y);
  gst_structure_get_int (s, "crop-width", &sample->crop_width);
  gst_structure_get_int (s, "crop-height", &sample->crop_height);
  gst_structure_get_boolean (s, "flip", &sample->flip);
  gst_structure_get_uint (s, "variant", &sample->variant);
  gst_structure_get_uint (s, "n-variants", &sample->n_variants);
  return TRUE;
}

static GstStructure *
sample_to_structure (const GstFluxSample *sample)
{
  GstStructure *s = gst_structure_new (GST_FLUX_SAMPLE_META_NAME, "index", G_TYPE_UINT64,
      sample->index, "epoch", G_TYPE_UINT, sample->epoch, NULL);

  if (sample->filename != NULL)
    gst_structure_set (s, "filename", G_TYPE_STRING, sample->filename, NULL);
  if (sample->caption != NULL)
    gst_structure_set (s, "caption", G_TYPE_STRING, sample->caption, NULL);
  if (sample->key != NULL)
    gst_structure_set (s, "key", G_TYPE_STRING, sample->key, NULL);
  if (sample->has_background)
    gst_structure_set (s, "background", G_TYPE_UINT, (guint)sample->background, NULL);
  if (sample->source_width > 0)
    gst_structure_set (s, "source-width", G_TYPE_INT, sample->source_width,
        "source-height", G_TYPE_INT, sample->source_height, NULL);
  if (sample->crop_width > 0)
    gst_structure_set (s, "scaled-width", G_TYPE_INT, sample->scaled_width,
        "scaled-height", G_TYPE_INT, sample->scaled_height, "crop-x", G_TYPE_INT,
        sample->crop_x, "crop-y", G_TYPE_INT, sample->crop_y, "crop-width", G_TYPE_INT,
        sample->crop_width, "crop-height", G_TYPE_INT, sample->crop_height, "flip",
        G_TYPE_BOOLEAN, sample->flip, "variant", G_TYPE_UINT, sample->variant,
        "n-variants", G_TYPE_UINT, sample->n_variants, NULL);
  return s;
}

static gboolean
set_field (GQuark field, const GValue *value, gpointer structure)
{
  gst_structure_id_set_value (structure, field, value);
  return TRUE;
}

void
gst_flux_sample_meta_set (GstBuffer *buffer, const GstFluxSample *sample)
{
  GstStructure *fresh, *s;
  GstCustomMeta *meta;

  g_return_if_fail (gst_buffer_is_writable (buffer));
  gst_flux_sample_meta_register ();
  /* sample's strings may live in the structure that is about to be emptied. */
  fresh = sample_to_structure (sample);
  meta = gst_buffer_get_custom_meta (buffer, GST_FLUX_SAMPLE_META_NAME);
  if (meta == NULL)
    meta = gst_buffer_add_custom_meta (buffer, GST_FLUX_SAMPLE_META_NAME);
  s = gst_custom_meta_get_structure (meta);
  gst_structure_remove_all_fields (s);
  gst_structure_foreach (fresh, set_field, s);
  gst_structure_free (fresh);
}

gchar *
gst_flux_sample_dup_view (const GstFluxSample *sample)
{
  GString *view = g_string_new (NULL);

  g_string_printf (view, "%dx%d", sample->source_width, sample->source_height);
  if (sample->crop_width > 0)
    g_string_append_printf (view, ">%dx%d+%d+%d,%dx%d", sample->scaled_width,
        sample->scaled_height, sample->crop_x, sample->crop_y, sample->crop_width,
        sample->crop_height);
  if (sample->flip)
    g_string_append (view, ",flip");
  if (sample->has_background)
    g_string_append_printf (view, ",bg=%06x", sample->background & 0xffffff);
  return g_string_free (view, FALSE);
}
