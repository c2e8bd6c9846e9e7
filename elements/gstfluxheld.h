/* gstfluxheld.h: events that wait for the first caps. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * An element that knows its caps only when the first picture comes must not forward the
 * segment before: sticky events go in the order stream-start, caps, segment, tags. Used
 * from the streaming thread only. */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

typedef struct {
  GList *events;
  gboolean has_caps; /* they have been sent: nothing is held any more */
} GstFluxHeld;

/* Takes event when it has to wait. */
gboolean gst_flux_held_take (GstFluxHeld *self, GstEvent *event);
/* Call after the caps have been sent, and before EOS is. */
void gst_flux_held_push (GstFluxHeld *self, GstPad *srcpad);
void gst_flux_held_drop (GstFluxHeld *self);

G_END_DECLS
