/* gstfluxheld.c: events that wait for the first caps. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxheld.h"

gboolean
gst_flux_held_take (GstFluxHeld *self, GstEvent *event)
{
  if (self->has_caps || !GST_EVENT_IS_SERIALIZED (event) ||
      !GST_EVENT_IS_STICKY (event) || GST_EVENT_TYPE (event) <= GST_EVENT_CAPS ||
      GST_EVENT_TYPE (event) == GST_EVENT_EOS)
    return FALSE;
  self->events = g_list_append (self->events, event);
  return TRUE;
}

void
gst_flux_held_push (GstFluxHeld *self, GstPad *srcpad)
{
  GList *events = g_steal_pointer (&self->events);

  for (GList *l = events; l != NULL; l = l->next)
    gst_pad_push_event (srcpad, l->data);
  g_list_free (events);
}

void
gst_flux_held_drop (GstFluxHeld *self)
{
  g_list_free_full (self->events, (GDestroyNotify)gst_event_unref);
  self->events = NULL;
}
