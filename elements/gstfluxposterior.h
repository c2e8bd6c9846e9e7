/* gstfluxposterior.h: pictures to posteriors, through the cache.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gst/video/video.h>

#include "elements/gstfluxsamplemeta.h"
#include "flux/vae/vae.h"

G_BEGIN_DECLS

typedef struct _GstFluxPosterior GstFluxPosterior;

/* element posts the progress of loading; model, cache_location (NULL: in memory) and
 * device are its properties. Reads no weights. */
GstFluxPosterior *gst_flux_posterior_new (GstElement *element, const gchar *model,
    const gchar *cache_location, const gchar *device, fx_dtype compute, GError **error);
void gst_flux_posterior_free (GstFluxPosterior *self);

/* The moments of the picture in frame (sizes: multiples of 16), which is the part of the
 * image that sample tells; rgb_hash: of its pixels. Loads the VAE at the first picture
 * that is not in the cache. */
GBytes *gst_flux_posterior_get (GstFluxPosterior *self, const GstVideoFrame *frame,
    const GstFluxSample *sample, const gchar *rgb_hash, GError **error);
gboolean gst_flux_posterior_is_loaded (GstFluxPosterior *self);
void gst_flux_posterior_free_weights (GstFluxPosterior *self);
/* From any thread: makes a load that is under way fail with FLUX_ERROR_CANCELLED. */
void gst_flux_posterior_cancel (GstFluxPosterior *self);
void
gst_flux_posterior_get_counts (GstFluxPosterior *self, guint64 *hits, guint64 *misses);

G_END_DECLS
