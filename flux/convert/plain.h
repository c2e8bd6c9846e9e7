/* flux/convert/plain.h: the tensors of a model's file one after the other.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * As they are stored, or with `expand` as plain floats: weights in bitsandbytes' 4 or 8
 * bits become tensors of the type that they had (bfloat16 where the file does not say),
 * and what belongs to them (absmax, quant_state, SCB, ...) disappears. Order of the file.
 *
 * Nothing of the file stays resident: data that was handed out is a view of the mapping
 * whose pages are given back when the last reference to it goes. */
#pragma once

#include "flux/convert/tensor-info.h"

G_BEGIN_DECLS

typedef struct _FluxPlain FluxPlain;

FluxPlain *flux_plain_new (FluxSafetensors *file, gboolean expand, GError **error);
void flux_plain_free (FluxPlain *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxPlain, flux_plain_free)
/* Of FluxTensorInfo, owned by self. */
GPtrArray *flux_plain_get_infos (FluxPlain *self);
/* The data of tensor i: a view of the file, or expanded. */
GBytes *flux_plain_read (FluxPlain *self, guint i, GError **error);

G_END_DECLS
