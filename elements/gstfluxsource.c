/* gstfluxsource.c: base class of the sources. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxsource.h"

typedef struct {
  gint eos; /* atomic: EOS was sent to the element */
} GstFluxSourcePrivate;

#define gst_flux_source_parent_class parent_class
G_DEFINE_ABSTRACT_TYPE_WITH_PRIVATE (GstFluxSource, gst_flux_source, GST_TYPE_PUSH_SRC)

static gint *
eos_of (gpointer self)
{
  GstFluxSourcePrivate *priv = gst_flux_source_get_instance_private (self);

  return &priv->eos;
}

static gboolean
gst_flux_source_send_event (GstElement *element, GstEvent *event)
{
  GstBaseSrc *base = GST_BASE_SRC (element);
  GstBaseSrcClass *klass = GST_BASE_SRC_GET_CLASS (element);

  if (GST_EVENT_TYPE (event) != GST_EVENT_EOS)
    return GST_ELEMENT_CLASS (parent_class)->send_event (element, event);
  gst_event_unref (event);
  g_atomic_int_set (eos_of (element), TRUE);
  if (klass->unlock != NULL)
    klass->unlock (base);
  return TRUE;
}

static GstFlowReturn
gst_flux_source_create (GstBaseSrc *base, guint64 offset, guint size, GstBuffer **buffer)
{
  GstBaseSrcClass *klass = GST_BASE_SRC_GET_CLASS (base);
  GstFlowReturn ret = GST_FLOW_EOS;

  if (!g_atomic_int_get (eos_of (base)))
    ret = GST_BASE_SRC_CLASS (parent_class)->create (base, offset, size, buffer);
  if (ret == GST_FLOW_OK || !g_atomic_int_get (eos_of (base)))
    return ret;
  if (klass->unlock_stop != NULL)
    klass->unlock_stop (base);
  return GST_FLOW_EOS;
}

/* Whoever seeks after EOS wants to see more. */
static gboolean
gst_flux_source_event (GstBaseSrc *base, GstEvent *event)
{
  if (GST_EVENT_TYPE (event) == GST_EVENT_SEEK)
    g_atomic_int_set (eos_of (base), FALSE);
  return GST_BASE_SRC_CLASS (parent_class)->event (base, event);
}

static GstStateChangeReturn
gst_flux_source_change_state (GstElement *element, GstStateChange transition)
{
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED)
    g_atomic_int_set (eos_of (element), FALSE);
  return GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
}

static void
gst_flux_source_class_init (GstFluxSourceClass *klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseSrcClass *src_class = GST_BASE_SRC_CLASS (klass);

  element_class->send_event = GST_DEBUG_FUNCPTR (gst_flux_source_send_event);
  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_source_change_state);
  src_class->create = GST_DEBUG_FUNCPTR (gst_flux_source_create);
  src_class->event = GST_DEBUG_FUNCPTR (gst_flux_source_event);
  gst_type_mark_as_plugin_api (GST_TYPE_FLUX_SOURCE, 0);
}

static void
gst_flux_source_init (GstFluxSource *self)
{
}
