/* gstfluxtensor.h: the two tensor streams: caps, memories, the empty prompt.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * application/x-flux-latent: one memory, the moments of the VAE's posterior, dense fp32
 *   [2 * channels, height, width]: means, then log variances, unscaled.
 * application/x-flux-sample: the same memory 0, then prompt_embeds [text-length,
 *   text-dim] and pooled [pooled-dim], fp32.
 *
 * Caps fields: format F32LE; content "moments"; channels of a latent (half the planes of
 * the moments); width, height in latent cells; model, the VAE's fingerprint; version 1;
 * of a sample also text-length, text-dim and pooled-dim. Which image and caption a buffer
 * is of: GstFluxSampleMeta. One sample lasts one second of stream time. */
#pragma once

#include <gst/gst.h>

#include "flux/files/embedding-table.h"

G_BEGIN_DECLS

#define GST_FLUX_LATENT_CAPS                                                             \
  "application/x-flux-latent, format = (string) F32LE, content = (string) moments, "     \
  "channels = (int) [ 1, 1024 ], width = (int) [ 1, 65536 ], "                           \
  "height = (int) [ 1, 65536 ], version = (int) 1"

#define GST_FLUX_SAMPLE_CAPS                                                             \
  "application/x-flux-sample, format = (string) F32LE, content = (string) moments, "     \
  "channels = (int) [ 1, 1024 ], width = (int) [ 1, 65536 ], "                           \
  "height = (int) [ 1, 65536 ], text-length = (int) [ 1, 65536 ], "                      \
  "text-dim = (int) [ 1, 65536 ], pooled-dim = (int) [ 1, 65536 ], version = (int) 1"

/* What fixed caps of either stream say; text_* and pooled_dim are 0 for latents. */
typedef struct {
  gint channels, width, height;
  gint text_length, text_dim, pooled_dim;
  gchar model[65]; /* "" when the caps do not say */
} GstFluxTensorInfo;

gboolean gst_flux_tensor_info_from_caps (GstFluxTensorInfo *info, const GstCaps *caps);
/* Sample caps when text_length > 0, else latent caps. */
GstCaps *gst_flux_tensor_info_to_caps (const GstFluxTensorInfo *info);
/* Bytes of memory i, 0 when there is none. */
gsize gst_flux_tensor_info_get_size (const GstFluxTensorInfo *info, guint i);

/* Read-only memory around bytes, and the other way: no copy either way. */
GstMemory *gst_flux_memory_new (GBytes *bytes);
/* Memory i of buffer; an error unless it has the size that info says. */
GBytes *gst_flux_buffer_get_bytes (
    GstBuffer *buffer, guint i, const GstFluxTensorInfo *info, GError **error);

/* A sticky event that carries the embeddings of the empty prompt downstream, for caption
 * dropout: GST_EVENT_CUSTOM_DOWNSTREAM_STICKY, structure "flux-empty-prompt" with
 * text-length, text-dim, pooled-dim (int) and prompt-embeds, pooled (GstBuffer). */
GstEvent *gst_flux_empty_prompt_event_new (const FluxEmbedding *e);
/* FALSE when event is something else (or nonsense). flux_embedding_clear() e. */
gboolean gst_flux_empty_prompt_event_parse (GstEvent *event, FluxEmbedding *e);

G_END_DECLS
