/* gstfluxweights.c: the stream of weights. SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxweights.h"

#include "elements/gstfluxtensor.h"

#define EVENT "flux-weights"
#define TENSOR "flux-tensor"

void
gst_flux_weight_meta_register (void)
{
  static gsize once = 0;
  static const gchar *tags[] = {NULL};

  if (g_once_init_enter (&once)) {
    /* An application that carries its own copy of this file may have been first. */
    if (gst_meta_get_info (GST_FLUX_WEIGHT_META_NAME) == NULL)
      gst_meta_register_custom (GST_FLUX_WEIGHT_META_NAME, tags, NULL, NULL, NULL);
    g_once_init_leave (&once, 1);
  }
}

static void
info_to_structure (const FluxTensorInfo *info, GstStructure *s)
{
  GValue shape = G_VALUE_INIT, dim = G_VALUE_INIT;

  gst_value_array_init (&shape, info->n_dims);
  for (guint i = 0; i < info->n_dims; i++) {
    g_value_init (&dim, G_TYPE_INT64);
    g_value_set_int64 (&dim, info->dims[i]);
    gst_value_array_append_and_take_value (&shape, &dim);
  }
  gst_structure_set (s, "name", G_TYPE_STRING, info->name, "dtype", G_TYPE_STRING,
      fx_dtype_name (info->dtype), NULL);
  gst_structure_take_value (s, "shape", &shape);
}

static FluxTensorInfo *
info_from_structure (const GstStructure *s)
{
  const gchar *name = gst_structure_get_string (s, "name");
  const gchar *dtype = gst_structure_get_string (s, "dtype");
  const GValue *shape = gst_structure_get_value (s, "shape");
  gint64 dims[FLUX_TENSOR_MAX_DIMS];
  guint n, type = 0;

  if (name == NULL || dtype == NULL || shape == NULL || !GST_VALUE_HOLDS_ARRAY (shape) ||
      (n = gst_value_array_get_size (shape)) > FLUX_TENSOR_MAX_DIMS)
    return NULL;
  while (type < FX_N_DTYPES && strcmp (fx_dtype_name ((fx_dtype)type), dtype) != 0)
    type++;
  for (guint i = 0; i < n; i++) {
    const GValue *dim = gst_value_array_get_value (shape, i);

    if (!G_VALUE_HOLDS_INT64 (dim))
      return NULL;
    dims[i] = g_value_get_int64 (dim);
  }
  return flux_tensor_info_new (name, (fx_dtype)type, n, dims);
}

FluxTensorInfo *
gst_flux_weight_meta_get (GstBuffer *buffer)
{
  GstCustomMeta *meta;

  gst_flux_weight_meta_register ();
  meta = gst_buffer_get_custom_meta (buffer, GST_FLUX_WEIGHT_META_NAME);
  return meta != NULL ? info_from_structure (gst_custom_meta_get_structure (meta)) : NULL;
}

void
gst_flux_weight_meta_set (GstBuffer *buffer, const FluxTensorInfo *info)
{
  GstCustomMeta *meta;

  g_return_if_fail (gst_buffer_is_writable (buffer));
  gst_flux_weight_meta_register ();
  meta = gst_buffer_get_custom_meta (buffer, GST_FLUX_WEIGHT_META_NAME);
  if (meta == NULL)
    meta = gst_buffer_add_custom_meta (buffer, GST_FLUX_WEIGHT_META_NAME);
  info_to_structure (info, gst_custom_meta_get_structure (meta));
}

GstBuffer *
gst_flux_weight_buffer_new (const FluxTensorInfo *info, GBytes *bytes)
{
  GstBuffer *buffer = gst_buffer_new ();

  gst_buffer_append_memory (buffer, gst_flux_memory_new (bytes));
  gst_flux_weight_meta_set (buffer, info);
  return buffer;
}

GstEvent *
gst_flux_weights_event_new (const GstFluxWeights *weights)
{
  GstStructure *s = gst_structure_new (EVENT, "location", G_TYPE_STRING,
      weights->location, "config", G_TYPE_STRING, weights->config, NULL);
  GValue tensors = G_VALUE_INIT, value = G_VALUE_INIT;

  gst_value_array_init (&tensors, weights->tensors->len);
  for (guint i = 0; i < weights->tensors->len; i++) {
    GstStructure *tensor = gst_structure_new_empty (TENSOR);

    info_to_structure (weights->tensors->pdata[i], tensor);
    g_value_init (&value, GST_TYPE_STRUCTURE);
    g_value_take_boxed (&value, tensor);
    gst_value_array_append_and_take_value (&tensors, &value);
  }
  gst_structure_take_value (s, "tensors", &tensors);
  return gst_event_new_custom (GST_EVENT_CUSTOM_DOWNSTREAM_STICKY, s);
}

gboolean
gst_flux_weights_event_parse (GstEvent *event, GstFluxWeights *weights)
{
  const GstStructure *s = gst_event_get_structure (event);
  const GValue *tensors;

  memset (weights, 0, sizeof *weights);
  if (GST_EVENT_TYPE (event) != GST_EVENT_CUSTOM_DOWNSTREAM_STICKY ||
      !gst_structure_has_name (s, EVENT))
    return FALSE;
  tensors = gst_structure_get_value (s, "tensors");
  weights->location = g_strdup (gst_structure_get_string (s, "location"));
  weights->config = g_strdup (gst_structure_get_string (s, "config"));
  weights->tensors = flux_tensor_infos_new ();
  if (tensors == NULL || !GST_VALUE_HOLDS_ARRAY (tensors) || weights->config == NULL)
    goto nonsense;
  for (guint i = 0; i < gst_value_array_get_size (tensors); i++) {
    const GValue *value = gst_value_array_get_value (tensors, i);
    FluxTensorInfo *info = GST_VALUE_HOLDS_STRUCTURE (value)
                               ? info_from_structure (gst_value_get_structure (value))
                               : NULL;

    if (info == NULL)
      goto nonsense;
    g_ptr_array_add (weights->tensors, info);
  }
  return TRUE;

nonsense:
  gst_flux_weights_clear (weights);
  return FALSE;
}

void
gst_flux_weights_clear (GstFluxWeights *weights)
{
  g_clear_pointer (&weights->location, g_free);
  g_clear_pointer (&weights->config, g_free);
  g_clear_pointer (&weights->tensors, g_ptr_array_unref);
}
