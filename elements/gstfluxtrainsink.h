/* gstfluxtrainsink.h: trains a LoRA on the samples that come. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gst/base/gstbasesink.h>

G_BEGIN_DECLS

#define GST_TYPE_FLUX_TRAIN_SINK (gst_flux_train_sink_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxTrainSink, gst_flux_train_sink, GST, FLUX_TRAIN_SINK, GstBaseSink)
GST_ELEMENT_REGISTER_DECLARE (fluxtrainsink);

G_END_DECLS
