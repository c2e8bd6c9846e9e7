/* gstfluxdatasetsrc.h: sends the pictures of a data set with their captions.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxsource.h"

G_BEGIN_DECLS

#define GST_TYPE_FLUX_DATASET_SRC (gst_flux_dataset_src_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxDatasetSrc, gst_flux_dataset_src, GST, FLUX_DATASET_SRC, GstFluxSource)
GST_ELEMENT_REGISTER_DECLARE (fluxdatasetsrc);

G_END_DECLS
