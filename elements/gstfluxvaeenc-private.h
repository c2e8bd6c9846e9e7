/* gstfluxvaeenc-private.h: the parts of fluxvaeenc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gst/video/video.h>

#include "elements/gstfluxhub.h"
#include "elements/gstfluxposterior.h"
#include "elements/gstfluxvaeenc.h"

G_BEGIN_DECLS

struct _GstFluxVaeEnc {
  GstBaseTransform parent;

  gchar *model, *cache_location, *device; /* properties */
  fx_dtype compute_dtype;                 /* FX_N_DTYPES: auto */
  guint64 hits, misses;                   /* of the last run, object lock */

  /* READY and above; of a model on the Hub, once its caps have come. */
  gchar *path;
  FluxVaeInfo info; /* valid when fingerprint is set */
  gchar *fingerprint;

  GstFluxHub hub;
  GstPadEventFunction base_event; /* of the base class */

  GstVideoInfo video;
  gboolean refused;            /* its size, or the model; and posted */
  GstFluxPosterior *posterior; /* PAUSED and above, with path; object lock to set */
  GstFluxProgress progress;    /* "encode" */
};

/* ---- -props.c ---- */
void gst_flux_vae_enc_install_properties (GstFluxVaeEncClass *klass);
void gst_flux_vae_enc_init_properties (GstFluxVaeEnc *self);
void gst_flux_vae_enc_free_properties (GstFluxVaeEnc *self);

G_END_DECLS
