/* gstfluxweights.h: the stream of weights. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * application/x-flux-weights: a buffer is the data of one tensor of a transformer, in one
 * memory, dense, little-endian. Caps fields: layout, "stored" as the tensors are in the
 * file, or "plain" when what was quantised has been expanded to floats, so that a tensor
 * of a quantised layer is one buffer and not five; version 1. An element that calculates
 * with weights takes plain ones only, and fluxmodelsrc then expands.
 *
 * Which tensor a buffer is: a GstCustomMeta named "GstFluxWeightMeta" with the fields
 * name (string), dtype (string as safetensors spells it: "BF16", "F32", "U8", ...) and
 * shape (GstValueArray of gint64).
 *
 * What will come, before the first buffer: a sticky event "flux-weights" with the fields
 * location (string: the folder of the source), config (string: config.json) and tensors
 * (GstValueArray of GstStructure "flux-tensor" with the fields of the meta). An element
 * that changes names, types or shapes sends a list of its own. A sink can so write the
 * headers of its files first. */
#pragma once

#include <gst/gst.h>

#include "flux/convert/tensor-info.h"

G_BEGIN_DECLS

#define GST_FLUX_WEIGHTS_CAPS(layout)                                                    \
  "application/x-flux-weights, layout = (string) " layout ", version = (int) 1"
#define GST_FLUX_WEIGHTS_CAPS_ANY GST_FLUX_WEIGHTS_CAPS ("{ stored, plain }")
#define GST_FLUX_WEIGHTS_CAPS_PLAIN GST_FLUX_WEIGHTS_CAPS ("plain")

#define GST_FLUX_WEIGHT_META_NAME "GstFluxWeightMeta"

/* Registers the meta; idempotent. */
void gst_flux_weight_meta_register (void);
/* Reads the meta of buffer; NULL when it has none, or nonsense. Free it. */
FluxTensorInfo *gst_flux_weight_meta_get (GstBuffer *buffer);
/* Writes (or replaces) the meta of a writable buffer. */
void gst_flux_weight_meta_set (GstBuffer *buffer, const FluxTensorInfo *info);
/* A buffer around the bytes, without a copy. */
GstBuffer *gst_flux_weight_buffer_new (const FluxTensorInfo *info, GBytes *bytes);

/* What the event says. */
typedef struct {
  gchar *location, *config;
  GPtrArray *tensors; /* FluxTensorInfo */
} GstFluxWeights;

GstEvent *gst_flux_weights_event_new (const GstFluxWeights *weights);
/* FALSE when event is something else (or nonsense). gst_flux_weights_clear() it. */
gboolean gst_flux_weights_event_parse (GstEvent *event, GstFluxWeights *weights);
void gst_flux_weights_clear (GstFluxWeights *weights);

G_END_DECLS
