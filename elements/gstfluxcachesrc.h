/* gstfluxcachesrc.h: replays samples of a folder. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxsource.h"

G_BEGIN_DECLS

#define GST_TYPE_FLUX_CACHE_SRC (gst_flux_cache_src_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxCacheSrc, gst_flux_cache_src, GST, FLUX_CACHE_SRC, GstFluxSource)
GST_ELEMENT_REGISTER_DECLARE (fluxcachesrc);

G_END_DECLS
