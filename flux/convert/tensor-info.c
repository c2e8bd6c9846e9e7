/* flux/convert/tensor-info.c: what is known of a tensor before its data.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/convert/tensor-info.h"

#include <string.h>

FluxTensorInfo *
flux_tensor_info_new (const char *name, fx_dtype dtype, guint n_dims, const gint64 *dims)
{
  FluxTensorInfo *self;
  gsize n = 1, bytes;

  if (n_dims > FLUX_TENSOR_MAX_DIMS || dtype >= FX_N_DTYPES)
    return NULL;
  for (guint i = 0; i < n_dims; i++) {
    if (dims[i] < 0 || !g_size_checked_mul (&n, n, (gsize)dims[i]))
      return NULL;
  }
  if (!g_size_checked_mul (&bytes, n, fx_dtype_size (dtype)) || bytes > G_MAXSSIZE)
    return NULL;
  self = g_new0 (FluxTensorInfo, 1);
  self->name = g_strdup (name);
  self->dtype = dtype;
  self->n_dims = n_dims;
  if (n_dims > 0)
    memcpy (self->dims, dims, n_dims * sizeof *dims);
  self->n_elements = n;
  self->n_bytes = bytes;
  return self;
}

void
flux_tensor_info_free (FluxTensorInfo *self)
{
  g_free (self->name);
  g_free (self);
}

GPtrArray *
flux_tensor_infos_new (void)
{
  return g_ptr_array_new_with_free_func ((GDestroyNotify)flux_tensor_info_free);
}

gboolean
flux_tensor_info_is_linear (const FluxTensorInfo *self)
{
  return self->n_dims == 2 && self->n_elements > 0 &&
         g_str_has_suffix (self->name, ".weight") &&
         (self->dtype == FX_F32 || self->dtype == FX_BF16 || self->dtype == FX_F16);
}
