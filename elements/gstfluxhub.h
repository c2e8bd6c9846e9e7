/* gstfluxhub.h: hf:// locations in elements. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A download takes minutes, so it is made in a streaming thread and never in a change of
 * state: elements check what is a path when they start, and what is on the Hub before
 * their first caps or buffer. Progress is posted with the code `download`.
 *
 * While a download runs the element has the source flag: so Ctrl-C under
 * gst-launch-1.0 -e, which sends EOS to sources, ends it too. What has arrived is kept,
 * and the next run goes on from there. Other work that takes as long, such as loading
 * text encoders, is ended in the same way between gst_flux_hub_begin() and _end(). */
#pragma once

#include "elements/gstfluxcommon.h"
#include "flux/hub/hub.h"

G_BEGIN_DECLS

typedef struct {
  GstElement *element; /* not owned */
  gint cancelled;      /* atomic: flushing, or leaving PAUSED */
  gint finish;         /* atomic: EOS was sent to the element meanwhile */
  gint busy;           /* atomic */
  gboolean was_source; /* before it was busy */
  GstFluxProgress progress;
} GstFluxHub;

/* At the start of a run. */
void gst_flux_hub_init (GstFluxHub *self, GstElement *element);
/* From any thread: makes what runs fail with FLUX_ERROR_CANCELLED, and what comes later
 * as long as it is set. FALSE, after a flush, also forgets an EOS. */
void gst_flux_hub_set_cancelled (GstFluxHub *self, gboolean cancelled);
/* For send_event(): TRUE when event (then taken) was EOS and has ended a download or
 * other work. */
gboolean gst_flux_hub_take_eos (GstFluxHub *self, GstEvent *event);
/* Around work of a streaming thread that asks gst_flux_hub_progress(); code: of its
 * progress messages, and text and error as gst_flux_progress_end() takes them. */
void gst_flux_hub_begin (GstFluxHub *self, const gchar *code);
void gst_flux_hub_end (GstFluxHub *self, const gchar *text, const GError *error);
/* A FluxProgressFunc; data is the GstFluxHub. FALSE when the work is to end. */
gboolean gst_flux_hub_progress (const char *what, gint percent, gpointer data);
/* What a streaming thread returns after error: EOS or FLUSHING when it was cancelled. */
GstFlowReturn gst_flux_hub_flow (GstFluxHub *self, const GError *error);

/* The local path of location, which may be NULL or a path; blocks. g_free() it. */
gchar *gst_flux_hub_resolve (
    GstFluxHub *self, const gchar *location, FluxHubWant want, GError **error);

G_END_DECLS
