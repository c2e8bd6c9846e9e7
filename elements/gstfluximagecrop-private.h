/* gstfluximagecrop-private.h: the parts of fluximagecrop. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 *   gstfluximagecrop.c        caps and pictures
 *   gstfluximagecrop-props.c  properties
 */
#pragma once

#include <gst/video/video.h>

#include "elements/gstfluxcommon.h"
#include "elements/gstfluxheld.h"
#include "elements/gstfluximagecrop.h"
#include "flux/image/crop.h"

G_BEGIN_DECLS

struct _GstFluxImageCrop {
  GstElement parent;

  GstPad *sinkpad, *srcpad;

  FluxCropOptions options; /* properties */
  guint variants;

  GstVideoInfo in, out; /* width 0: no caps yet */
  GstFluxHeld held;
  gint wanted_width, wanted_height; /* of the caps downstream; 0: any */
};

/* ---- -props.c ---- */
void gst_flux_image_crop_install_properties (GstFluxImageCropClass *klass);
void gst_flux_image_crop_init_properties (GstFluxImageCrop *self);

G_END_DECLS
