/* gstfluxcaption.h: an image's caption to its embeddings: looked up, else computed.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxhub.h"
#include "flux/files/embedding-table.h"
#include "kernels/fx.h"

G_BEGIN_DECLS

typedef struct {
  const gchar *location;   /* the table's file, or NULL: in memory */
  const gchar *text_model; /* or NULL: look-up only; hf://... is downloaded for the first
                            * row that is missing */
  GstFluxHub *hub;         /* borrowed; ends loading and encoding too */
  const gchar *device;
  fx_dtype compute;
  fx_qtype text_quantization;
  gint max_sequence_length;
  const gchar *weights_cache; /* as flux_weights_cache_new() takes it */
} GstFluxCaptionSettings;

typedef struct _GstFluxCaption GstFluxCaption;

/* element posts the progress of loading. Opens the table; reads no weights. */
GstFluxCaption *gst_flux_caption_new (
    GstElement *element, const GstFluxCaptionSettings *settings, GError **error);
void gst_flux_caption_free (GstFluxCaption *self);

/* FALSE when key came with another caption before. */
gboolean
gst_flux_caption_is_first (GstFluxCaption *self, const gchar *key, const gchar *caption);
/* The row of key; when there is none and a text model was given, computes that of caption
 * (NULL is an error then) and adds it. FALSE without error: no row, no text model. e is
 * the caller's to clear. */
gboolean gst_flux_caption_get (GstFluxCaption *self, const gchar *key,
    const gchar *caption, FluxEmbedding *e, GError **error);
/* Writes what was added, when there is a file; atomically. */
gboolean gst_flux_caption_save (GstFluxCaption *self, GError **error);
guint gst_flux_caption_n_computed (GstFluxCaption *self);
void gst_flux_caption_free_weights (GstFluxCaption *self);

G_END_DECLS
