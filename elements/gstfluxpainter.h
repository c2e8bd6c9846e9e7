/* gstfluxpainter.h: prompts to pictures, for fluxsamplersrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gst/gst.h>

#include "elements/gstfluxhub.h"
#include "flux/sample/sampler.h"

G_BEGIN_DECLS

typedef struct _GstFluxPainter GstFluxPainter;

/* Asked between layers and steps and while loading; FALSE gives up with
 * FLUX_ERROR_CANCELLED. */
typedef gboolean (*GstFluxPainterFunc) (gpointer data);

/* key->cache, also for the text encoders, is borrowed. own: a copy of the model for
 * gst_flux_painter_merge_loras(), else one that is shared. element posts the progress of
 * loading (open) and of pictures (sample), and flux-adapter for each adapter. */
GstFluxPainter *
gst_flux_painter_new (GstElement *element, const FluxModelKey *key, fx_qtype text_qtype,
    gboolean own, GstFluxPainterFunc may_go_on, gpointer data, GError **error);
/* The same on a model that is loaded, with one more adapter: a trainer's, which must
 * outlive it and is only read. */
GstFluxPainter *gst_flux_painter_new_shared (GstElement *element, FluxModel *model,
    const gchar *dir, fx_qtype text_qtype, FluxWeightsCache *cache, FluxLora *lora,
    GstFluxPainterFunc may_go_on, gpointer data, GError **error);
void gst_flux_painter_free (GstFluxPainter *self);

/* The adapters from the next picture on: "a.safetensors:0.8,b.safetensors", a scale after
 * the last colon, or NULL; scale multiplies all of them, and the trainer's. Those that
 * are loaded stay, the base is not touched. strict: see flux_lora_read(). */
gboolean gst_flux_painter_set_loras (GstFluxPainter *self, const gchar *loras,
    gdouble scale, gboolean strict, GError **error);

/* The same into the weights of the model, once. */
gboolean gst_flux_painter_merge_loras (GstFluxPainter *self, const gchar *loras,
    gdouble scale, gboolean strict, GError **error);

/* keep_lock: nobody else uses the model until the picture is done. */
gboolean gst_flux_painter_paint (GstFluxPainter *self, const FluxSampleRequest *request,
    guint8 *rgb, gint stride, gboolean keep_lock, GError **error);

/* Where the adapters that have hf:// in their path are: the map that
 * gst_flux_adapters_fetch() filled; borrowed. */
void gst_flux_painter_set_files (GstFluxPainter *self, GHashTable *files);

G_END_DECLS
