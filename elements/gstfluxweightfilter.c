/* gstfluxweightfilter.c: base class of what stands between fluxmodelsrc and
 * fluxmodelsink. SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxweightfilter.h"

typedef struct {
  GstPad *sinkpad, *srcpad;
  GstFlowReturn flow; /* what the stream ended with; OK while it goes on */
  gboolean planned;
} GstFluxWeightFilterPrivate;

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE (
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_WEIGHTS_CAPS_PLAIN));

#define gst_flux_weight_filter_parent_class parent_class
G_DEFINE_ABSTRACT_TYPE_WITH_PRIVATE (
    GstFluxWeightFilter, gst_flux_weight_filter, GST_TYPE_ELEMENT)

static GstFluxWeightFilterPrivate *
priv_of (gpointer self)
{
  return gst_flux_weight_filter_get_instance_private (self);
}

/* ---- the stream ---- */

/* Somebody who asked to stop gets EOS, others one error. */
static void
fail (GstFluxWeightFilter *self, GError *error)
{
  priv_of (self)->flow = g_error_matches (error, FLUX_ERROR, FLUX_ERROR_CANCELLED)
                             ? GST_FLOW_EOS
                             : GST_FLOW_ERROR;
  gst_flux_post_error (self, error);
}

static gboolean
plan (GstFluxWeightFilter *self, GstFluxWeights *weights)
{
  GstFluxWeightFilterClass *klass = GST_FLUX_WEIGHT_FILTER_GET_CLASS (self);
  GstFluxWeightFilterPrivate *priv = priv_of (self);
  GError *error = NULL;

  if (priv->planned)
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The tensors of two models came in one stream.");
  else
    priv->planned = klass->plan (self, weights, &error);
  if (error != NULL) {
    fail (self, error);
    return FALSE;
  }
  gst_pad_push_event (priv->srcpad, gst_flux_weights_event_new (weights));
  return TRUE;
}

static gboolean
gst_flux_weight_filter_sink_event (GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstFluxWeightFilter *self = GST_FLUX_WEIGHT_FILTER (parent);
  GstFluxWeightFilterClass *klass = GST_FLUX_WEIGHT_FILTER_GET_CLASS (self);
  GstFluxWeightFilterPrivate *priv = priv_of (self);
  const gchar *layout;
  GstFluxWeights weights;
  gboolean ok;

  if (priv->flow == GST_FLOW_ERROR) {
    gst_event_unref (event);
    return FALSE;
  }
  if (gst_flux_weights_event_parse (event, &weights)) {
    ok = plan (self, &weights);
    gst_flux_weights_clear (&weights);
    gst_event_unref (event);
    return ok;
  }
  if (GST_EVENT_TYPE (event) == GST_EVENT_CAPS) {
    layout = klass->get_layout != NULL ? klass->get_layout (self) : "plain";
    gst_event_unref (event);
    event = gst_event_new_caps (gst_caps_new_simple ("application/x-flux-weights",
        "layout", G_TYPE_STRING, layout, "version", G_TYPE_INT, 1, NULL));
  }
  return gst_pad_event_default (pad, parent, event);
}

/* Data of 16 and 32 bits may lie anywhere in a file. */
static GstFlowReturn
convert (GstFluxWeightFilter *self, const FluxTensorInfo *info, const GstMapInfo *map,
    GstBuffer *buffer, GError **error)
{
  GstFluxWeightFilterClass *klass = GST_FLUX_WEIGHT_FILTER_GET_CLASS (self);
  const gsize size = fx_dtype_size (info->dtype);
  gpointer copy = (gsize)map->data % size != 0 ? g_memdup2 (map->data, map->size) : NULL;
  GstFlowReturn ret = klass->convert (
      self, info, copy != NULL ? copy : (gconstpointer)map->data, buffer, error);

  g_free (copy);
  return ret;
}

static GstFlowReturn
gst_flux_weight_filter_chain (GstPad *pad, GstObject *parent, GstBuffer *buffer)
{
  GstFluxWeightFilter *self = GST_FLUX_WEIGHT_FILTER (parent);
  GstFluxWeightFilterPrivate *priv = priv_of (self);
  FluxTensorInfo *info = NULL;
  GstFlowReturn ret = priv->flow;
  GError *error = NULL;
  GstMapInfo map;

  if (ret == GST_FLOW_OK)
    info = gst_flux_weight_meta_get (buffer);
  if (ret != GST_FLOW_OK) {
    GST_DEBUG_OBJECT (self, "the stream has ended");
  } else if (info == NULL || !priv->planned ||
             gst_buffer_get_size (buffer) != info->n_bytes) {
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "A buffer came that does not say which tensor it is, or before the list of "
        "tensors, or with another size than it says: weights come from fluxmodelsrc.");
  } else if (gst_buffer_map (buffer, &map, GST_MAP_READ)) {
    ret = convert (self, info, &map, buffer, &error);
    gst_buffer_unmap (buffer, &map);
  } else {
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "The tensor '%s' cannot be mapped.", info->name);
  }
  if (error != NULL) {
    fail (self, error);
    ret = priv->flow;
  }
  g_clear_pointer (&info, flux_tensor_info_free);
  gst_buffer_unref (buffer);
  return ret;
}

GstFlowReturn
gst_flux_weight_filter_push (
    GstFluxWeightFilter *self, const FluxTensorInfo *info, GBytes *bytes, GstBuffer *of)
{
  GstBuffer *buffer = gst_flux_weight_buffer_new (info, bytes);

  g_bytes_unref (bytes);
  gst_buffer_copy_into (buffer, of, GST_BUFFER_COPY_TIMESTAMPS, 0, -1);
  return gst_pad_push (priv_of (self)->srcpad, buffer);
}

GstFlowReturn
gst_flux_weight_filter_push_same (GstFluxWeightFilter *self, GstBuffer *buffer)
{
  return gst_pad_push (priv_of (self)->srcpad, gst_buffer_ref (buffer));
}

/* ---- states ---- */

static gboolean
start (GstFluxWeightFilter *self)
{
  GstFluxWeightFilterClass *klass = GST_FLUX_WEIGHT_FILTER_GET_CLASS (self);
  GstFluxWeightFilterPrivate *priv = priv_of (self);
  GError *error = NULL;

  priv->flow = GST_FLOW_OK;
  priv->planned = FALSE;
  if (klass->start == NULL || klass->start (self, &error))
    return TRUE;
  klass->stop (self);
  gst_flux_post_error (self, error);
  return FALSE;
}

static GstStateChangeReturn
gst_flux_weight_filter_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxWeightFilter *self = GST_FLUX_WEIGHT_FILTER (element);
  GstFluxWeightFilterClass *klass = GST_FLUX_WEIGHT_FILTER_GET_CLASS (self);
  GstStateChangeReturn ret;

  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY && klass->cancel != NULL)
    klass->cancel (self);
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY || ret == GST_STATE_CHANGE_FAILURE)
    klass->stop (self);
  return ret;
}

/* The source pad is a subclass's: its template is. */
static void
gst_flux_weight_filter_constructed (GObject *object)
{
  GstFluxWeightFilterPrivate *priv = priv_of (object);
  GstElementClass *klass = GST_ELEMENT_GET_CLASS (object);

  G_OBJECT_CLASS (parent_class)->constructed (object);
  priv->sinkpad = gst_pad_new_from_static_template (&sink_template, "sink");
  gst_pad_set_event_function (
      priv->sinkpad, GST_DEBUG_FUNCPTR (gst_flux_weight_filter_sink_event));
  gst_pad_set_chain_function (
      priv->sinkpad, GST_DEBUG_FUNCPTR (gst_flux_weight_filter_chain));
  gst_element_add_pad (GST_ELEMENT (object), priv->sinkpad);
  priv->srcpad = gst_pad_new_from_template (
      gst_element_class_get_pad_template (klass, "src"), "src");
  gst_pad_use_fixed_caps (priv->srcpad);
  gst_element_add_pad (GST_ELEMENT (object), priv->srcpad);
}

static void
gst_flux_weight_filter_class_init (GstFluxWeightFilterClass *klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);

  G_OBJECT_CLASS (klass)->constructed = gst_flux_weight_filter_constructed;
  gst_element_class_add_static_pad_template (element_class, &sink_template);
  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_weight_filter_change_state);
  gst_type_mark_as_plugin_api (GST_TYPE_FLUX_WEIGHT_FILTER, 0);
}

static void
gst_flux_weight_filter_init (GstFluxWeightFilter *self)
{
}
