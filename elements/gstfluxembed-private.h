/* gstfluxembed-private.h: the parts of fluxembed. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxcaption.h"
#include "elements/gstfluxembed.h"
#include "elements/gstfluxtensor.h"

G_BEGIN_DECLS

typedef enum { MISSING_ERROR, MISSING_SKIP } GstFluxEmbedMissing;

struct _GstFluxEmbed {
  GstElement parent;
  GstPad *sinkpad, *srcpad;

  gchar *location, *text_model, *device, *weights_cache; /* properties */
  fx_qtype text_quantization;
  fx_dtype compute_dtype; /* FX_N_DTYPES: auto */
  guint max_sequence_length;
  GstFluxEmbedMissing missing;

  GstFluxHub hub;
  GstFluxCaption *captions;   /* PAUSED and above */
  GstFluxTensorInfo in, out;  /* of the caps that came and were sent last */
  gboolean have_in, have_out; /* stream lock */
  GList *pending;             /* sticky events that came before the first sample */
  gboolean sent_empty;
  gboolean warned_captions;
  gboolean save_failed; /* and posted */
};

/* ---- -props.c ---- */
void gst_flux_embed_install_properties (GstFluxEmbedClass *klass);
void gst_flux_embed_init_properties (GstFluxEmbed *self);
void gst_flux_embed_free_properties (GstFluxEmbed *self);

G_END_DECLS
