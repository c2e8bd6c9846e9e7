/* gstfluxquantize.h: a model's weights in another type. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxweightfilter.h"

G_BEGIN_DECLS

#define GST_TYPE_FLUX_QUANTIZE (gst_flux_quantize_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxQuantize, gst_flux_quantize, GST, FLUX_QUANTIZE, GstFluxWeightFilter)
GST_ELEMENT_REGISTER_DECLARE (fluxquantize)

G_END_DECLS
