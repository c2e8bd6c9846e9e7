/* flux/convert/quantise.h: tensors of a stream in another type.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * As diffusers saves a transformer that bitsandbytes has quantised: each linear layer's
 * weight becomes several tensors (flux/files/stored.h), everything else stays. Or as
 * floats: all tensors in bfloat16 or float32, or the weights of linear layers alone in
 * e4m3 without scales, which is how 8-bit floats lie in diffusers' folders and is what
 * from_pretrained() casts back. */
#pragma once

#include "flux/convert/tensor-info.h"
#include "flux/files/stored.h"

G_BEGIN_DECLS

enum { FLUX_QUANTISED_PARTS = 6 /* at most, that one tensor becomes */ };

typedef struct {
  FluxTensorInfo *info;
  GBytes *bytes;
} FluxQuantised;

typedef struct _FluxQuantise FluxQuantise;

/* dtype: of FLUX_STORED_FLOAT: FX_BF16, FX_F32 or FX_E4M3; of the others not looked at.
 * infos: FluxTensorInfo of the floats that will come. */
FluxQuantise *
flux_quantise_new (FluxStoredKind kind, fx_dtype dtype, GPtrArray *infos, GError **error);
void flux_quantise_free (FluxQuantise *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxQuantise, flux_quantise_free)
/* FluxTensorInfo of what will be made of them. Owned by self. */
GPtrArray *flux_quantise_get_infos (FluxQuantise *self);
/* Names of the linear layers that stay floats, because in 4 bits a block of 64 weights
 * would lie over the end of a row. Owned by self. */
GPtrArray *flux_quantise_get_skipped (FluxQuantise *self);
/* Does the tensor become something else? */
gboolean flux_quantise_changes (FluxQuantise *self, const FluxTensorInfo *info);
/* Makes the parts, in the order of the list; their number, or 0 after an error. NaN, Inf,
 * and what is too large for e4m3 are one. Clear each of them. */
guint flux_quantise_run (FluxQuantise *self, const FluxTensorInfo *info,
    gconstpointer data, FluxQuantised parts[FLUX_QUANTISED_PARTS], GError **error);
void flux_quantised_clear (FluxQuantised *part);

G_END_DECLS
