/* gstfluxhub.c: hf:// locations in elements. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxhub.h"

void
gst_flux_hub_init (GstFluxHub *self, GstElement *element)
{
  self->element = element;
  g_atomic_int_set (&self->cancelled, FALSE);
  g_atomic_int_set (&self->finish, FALSE);
  g_atomic_int_set (&self->busy, FALSE);
}

void
gst_flux_hub_set_cancelled (GstFluxHub *self, gboolean cancelled)
{
  g_atomic_int_set (&self->cancelled, cancelled);
  if (!cancelled)
    g_atomic_int_set (&self->finish, FALSE);
}

gboolean
gst_flux_hub_take_eos (GstFluxHub *self, GstEvent *event)
{
  if (GST_EVENT_TYPE (event) != GST_EVENT_EOS || !g_atomic_int_get (&self->busy))
    return FALSE;
  g_atomic_int_set (&self->finish, TRUE);
  gst_event_unref (event);
  return TRUE;
}

GstFlowReturn
gst_flux_hub_flow (GstFluxHub *self, const GError *error)
{
  if (error == NULL)
    return GST_FLOW_OK;
  if (!g_error_matches (error, FLUX_ERROR, FLUX_ERROR_CANCELLED))
    return GST_FLOW_ERROR;
  return g_atomic_int_get (&self->finish) ? GST_FLOW_EOS : GST_FLOW_FLUSHING;
}

void
gst_flux_hub_begin (GstFluxHub *self, const gchar *code)
{
  gst_flux_progress_init (&self->progress, self->element, code, NULL);
  self->was_source = GST_OBJECT_FLAG_IS_SET (self->element, GST_ELEMENT_FLAG_SOURCE);
  g_atomic_int_set (&self->busy, TRUE);
  GST_OBJECT_FLAG_SET (self->element, GST_ELEMENT_FLAG_SOURCE);
}

void
gst_flux_hub_end (GstFluxHub *self, const gchar *text, const GError *error)
{
  gst_flux_progress_end (&self->progress, text, error);
  if (!self->was_source)
    GST_OBJECT_FLAG_UNSET (self->element, GST_ELEMENT_FLAG_SOURCE);
  g_atomic_int_set (&self->busy, FALSE);
}

/* percent below 0: it is not known yet that there is anything to download, or it is only
 * asked whether to go on. */
gboolean
gst_flux_hub_progress (const char *what, gint percent, gpointer data)
{
  GstFluxHub *self = data;

  return !g_atomic_int_get (&self->cancelled) && !g_atomic_int_get (&self->finish) &&
         gst_flux_progress_update (what, percent, &self->progress);
}

gchar *
gst_flux_hub_resolve (
    GstFluxHub *self, const gchar *location, FluxHubWant want, GError **error)
{
  GError *failure = NULL;
  gchar *path;

  if (location == NULL || !flux_hub_is_uri (location))
    return g_strdup (location);
  gst_flux_hub_begin (self, "download");
  path = flux_hub_resolve (location, want, gst_flux_hub_progress, self, &failure);
  gst_flux_hub_end (self, location, failure);
  if (failure != NULL)
    g_propagate_error (error, failure);
  else
    GST_INFO_OBJECT (self->element, "%s is at %s", location, path);
  return path;
}
