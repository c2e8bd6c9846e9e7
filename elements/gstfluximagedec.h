/* gstfluximagedec.h: decodes pictures and takes the reference's key of them.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_TYPE_FLUX_IMAGE_DEC (gst_flux_image_dec_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxImageDec, gst_flux_image_dec, GST, FLUX_IMAGE_DEC, GstElement)
GST_ELEMENT_REGISTER_DECLARE (fluximagedec);

/* GstFluxImageAlpha: composite, ignore. */
typedef enum {
  GST_FLUX_IMAGE_ALPHA_COMPOSITE,
  GST_FLUX_IMAGE_ALPHA_IGNORE,
} GstFluxImageAlpha;
#define GST_TYPE_FLUX_IMAGE_ALPHA (gst_flux_image_alpha_get_type ())
GType gst_flux_image_alpha_get_type (void);

/* GstFluxImageOnError: fail, skip. */
typedef enum {
  GST_FLUX_IMAGE_ON_ERROR_FAIL,
  GST_FLUX_IMAGE_ON_ERROR_SKIP,
} GstFluxImageOnError;
#define GST_TYPE_FLUX_IMAGE_ON_ERROR (gst_flux_image_on_error_get_type ())
GType gst_flux_image_on_error_get_type (void);

G_END_DECLS
