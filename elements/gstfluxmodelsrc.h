/* gstfluxmodelsrc.h: the tensors of a transformer, one a buffer. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxsource.h"

G_BEGIN_DECLS

#define GST_TYPE_FLUX_MODEL_SRC (gst_flux_model_src_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxModelSrc, gst_flux_model_src, GST, FLUX_MODEL_SRC, GstFluxSource)
GST_ELEMENT_REGISTER_DECLARE (fluxmodelsrc)

G_END_DECLS
