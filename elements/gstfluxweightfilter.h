/* gstfluxweightfilter.h: base class of what stands between fluxmodelsrc and
 * fluxmodelsink. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Takes plain weights. Errors are posted here, once, and end the stream. Nothing is done
 * before the list of tensors has come. */
#pragma once

#include "elements/gstfluxcommon.h"
#include "elements/gstfluxweights.h"

G_BEGIN_DECLS

#define GST_TYPE_FLUX_WEIGHT_FILTER (gst_flux_weight_filter_get_type ())
G_DECLARE_DERIVABLE_TYPE (
    GstFluxWeightFilter, gst_flux_weight_filter, GST, FLUX_WEIGHT_FILTER, GstElement)

struct _GstFluxWeightFilterClass {
  GstElementClass parent_class;

  /* Checks the properties, READY to PAUSED; may be NULL. */
  gboolean (*start) (GstFluxWeightFilter *self, GError **error);
  /* Frees what a run needed; may be called twice. */
  void (*stop) (GstFluxWeightFilter *self);
  /* From PAUSED to READY, from any thread: what blocks in plan() is to fail with
   * FLUX_ERROR_CANCELLED; may be NULL. */
  void (*cancel) (GstFluxWeightFilter *self);
  /* Changes the list of what comes into that of what will be sent. */
  gboolean (*plan) (GstFluxWeightFilter *self, GstFluxWeights *weights, GError **error);
  /* The layout of what is sent, "plain" or "stored"; may be NULL: "plain". */
  const gchar *(*get_layout) (GstFluxWeightFilter *self);
  /* Sends what becomes of a tensor, with gst_flux_weight_filter_push(). data: its bytes,
   * aligned; buffer: borrowed. A flow return that is not OK and no error: from
   * downstream. */
  GstFlowReturn (*convert) (GstFluxWeightFilter *self, const FluxTensorInfo *info,
      gconstpointer data, GstBuffer *buffer, GError **error);
};

/* Takes bytes. The times are those of the buffer that it came of. */
GstFlowReturn gst_flux_weight_filter_push (
    GstFluxWeightFilter *self, const FluxTensorInfo *info, GBytes *bytes, GstBuffer *of);
/* The buffer as it came. */
GstFlowReturn
gst_flux_weight_filter_push_same (GstFluxWeightFilter *self, GstBuffer *buffer);

G_END_DECLS
