/* flux/convert/tensor-info.h: what is known of a tensor before its data.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/files/safetensors.h"

G_BEGIN_DECLS

typedef struct {
  char *name;
  fx_dtype dtype;
  guint n_dims;
  gint64 dims[FLUX_TENSOR_MAX_DIMS];
  gsize n_elements, n_bytes;
} FluxTensorInfo;

/* NULL when the shape is impossible. */
FluxTensorInfo *
flux_tensor_info_new (const char *name, fx_dtype dtype, guint n_dims, const gint64 *dims);
void flux_tensor_info_free (FluxTensorInfo *self);
/* An empty list that owns its FluxTensorInfo. */
GPtrArray *flux_tensor_infos_new (void);

/* A weight of a linear layer: floats [n, k] named PREFIX.weight. Every matrix of FLUX's
 * transformer is one. */
gboolean flux_tensor_info_is_linear (const FluxTensorInfo *self);

G_END_DECLS
