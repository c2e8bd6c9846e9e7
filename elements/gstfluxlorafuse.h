/* gstfluxlorafuse.h: adds adapters to a model's weights. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxweightfilter.h"

G_BEGIN_DECLS

#define GST_TYPE_FLUX_LORA_FUSE (gst_flux_lora_fuse_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxLoraFuse, gst_flux_lora_fuse, GST, FLUX_LORA_FUSE, GstFluxWeightFilter)
GST_ELEMENT_REGISTER_DECLARE (fluxlorafuse)

G_END_DECLS
