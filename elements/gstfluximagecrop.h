/* gstfluximagecrop.h: scales and crops pictures to sizes that FLUX takes.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_TYPE_FLUX_IMAGE_CROP (gst_flux_image_crop_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxImageCrop, gst_flux_image_crop, GST, FLUX_IMAGE_CROP, GstElement)
GST_ELEMENT_REGISTER_DECLARE (fluximagecrop);

/* GstFluxImageResize: none, cover, squash, bucket as FluxResize. */
#define GST_TYPE_FLUX_IMAGE_RESIZE (gst_flux_image_resize_get_type ())
GType gst_flux_image_resize_get_type (void);
/* GstFluxImagePosition: centre, random as FluxCropPosition. */
#define GST_TYPE_FLUX_IMAGE_POSITION (gst_flux_image_position_get_type ())
GType gst_flux_image_position_get_type (void);
/* GstFluxImageFlip: none, random, always as FluxFlip. */
#define GST_TYPE_FLUX_IMAGE_FLIP (gst_flux_image_flip_get_type ())
GType gst_flux_image_flip_get_type (void);

G_END_DECLS
