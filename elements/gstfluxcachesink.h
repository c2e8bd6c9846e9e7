/* gstfluxcachesink.h: writes samples to a folder. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gst/base/gstbasesink.h>

G_BEGIN_DECLS

#define GST_TYPE_FLUX_CACHE_SINK (gst_flux_cache_sink_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxCacheSink, gst_flux_cache_sink, GST, FLUX_CACHE_SINK, GstBaseSink)
GST_ELEMENT_REGISTER_DECLARE (fluxcachesink);

G_END_DECLS
