/* gstfluxsamplersrc.h: pictures from prompts. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "elements/gstfluxsource.h"

G_BEGIN_DECLS

#define GST_TYPE_FLUX_SAMPLER_SRC (gst_flux_sampler_src_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxSamplerSrc, gst_flux_sampler_src, GST, FLUX_SAMPLER_SRC, GstFluxSource)
GST_ELEMENT_REGISTER_DECLARE (fluxsamplersrc);

G_END_DECLS
