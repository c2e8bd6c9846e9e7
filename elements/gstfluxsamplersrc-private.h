/* gstfluxsamplersrc-private.h: the parts of fluxsamplersrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 *   gstfluxsamplersrc.c        the class: states, caps, time
 *   gstfluxsamplersrc-props.c  properties
 *   gstfluxsamplersrc-paint.c  one picture: which prompt and seed, from which model
 */
#pragma once

#include <gst/video/video.h>

#include "elements/gstfluxadapters.h"
#include "elements/gstfluxcommon.h"
#include "elements/gstfluxcontext.h"
#include "elements/gstfluxpainter.h"
#include "elements/gstfluxsamplersrc.h"

G_BEGIN_DECLS

GST_DEBUG_CATEGORY_EXTERN (gst_flux_sampler_src_debug);

struct _GstFluxSamplerSrc {
  GstFluxSource parent;

  /* Properties; the object lock. */
  gchar *model, *device, *loras, *prompt, *prompt_location, *trainer, *weights_cache;
  fx_qtype quantization, text_quantization;
  gboolean has_quantization; /* it was set, so a preview must not differ */
  guint64 seed, every_steps;
  gint steps;
  gdouble guidance, lora_scale;
  gboolean strict, merge;
  FluxOffload offload;
  fx_dtype noise_dtype, compute_dtype; /* compute_dtype FX_N_DTYPES: auto */
  guint max_sequence_length;

  /* READY and above. */
  GstFluxPreview *preview; /* when every_steps > 0 */

  /* PAUSED and above. */
  gchar *path;          /* of the model; NULL: there is none, or it is on the Hub */
  GHashTable *adapters; /* those of the Hub: location to path */
  GstFluxHub hub;
  FluxWeightsCache *cache; /* or NULL */
  gboolean refused;        /* what is on the Hub; and posted */
  FluxVaeInfo vae;
  gchar **prompts; /* of prompt_location, or NULL */
  guint n_prompts;
  GstVideoInfo video;
  guint64 frame; /* the next one */
  GstFluxPainter *painter;
  gchar *merged; /* the adapters and scales in the weights, or NULL */
  gint unlocked; /* atomic */
};

/* ---- -props.c ---- */
void gst_flux_sampler_src_install_properties (GstFluxSamplerSrcClass *klass);
void gst_flux_sampler_src_init_properties (GstFluxSamplerSrc *self);
void gst_flux_sampler_src_free_properties (GstFluxSamplerSrc *self);

/* ---- -paint.c ---- */
/* The next picture, with its messages and tags. */
GstFlowReturn gst_flux_sampler_src_paint (GstFluxSamplerSrc *self, GstBuffer **buffer);
/* Model and adapters of the Hub, where there are such: what is not there is downloaded.
 */
GstFlowReturn gst_flux_sampler_src_fetch (GstFluxSamplerSrc *self);
/* FALSE when the settings cannot work; reads prompt_location. */
gboolean gst_flux_sampler_src_prepare (GstFluxSamplerSrc *self, GError **error);

G_END_DECLS
