/* gstfluxmodelsink.h: writes a model folder. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gst/base/gstbasesink.h>

G_BEGIN_DECLS

#define GST_TYPE_FLUX_MODEL_SINK (gst_flux_model_sink_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxModelSink, gst_flux_model_sink, GST, FLUX_MODEL_SINK, GstBaseSink)
GST_ELEMENT_REGISTER_DECLARE (fluxmodelsink)

G_END_DECLS
