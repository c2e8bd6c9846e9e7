/* gstfluxdatasetsrc-private.h: the parts of fluxdatasetsrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "elements/gstfluxdatasetsrc.h"
#include "elements/gstfluxhub.h"
#include "flux/data/dataset.h"

G_BEGIN_DECLS

struct _GstFluxDatasetSrc {
  GstFluxSource parent;

  gchar *location, *caption_column, *instance_prompt; /* properties */
  gboolean shuffle, loop;
  guint64 seed;
  guint repeats;
  guint n_samples; /* 0: not open. Written with the object lock */

  GstFluxHub hub;
  gboolean failed;      /* and posted: of opening what is on the Hub */
  FluxDataset *dataset; /* NULL until then */
  guint64 next;         /* pictures sent or left out since the start */
  guint32 *order;       /* [n_samples * repeats], of order_epoch; when shuffling */
  guint64 order_epoch;
  FluxImageFormat format; /* of the caps that were set last */
  gboolean warned;        /* of a picture of another format */
};

/* ---- -props.c ---- */
void gst_flux_dataset_src_install_properties (GstFluxDatasetSrcClass *klass);
void gst_flux_dataset_src_init_properties (GstFluxDatasetSrc *self);
void gst_flux_dataset_src_free_properties (GstFluxDatasetSrc *self);

G_END_DECLS
