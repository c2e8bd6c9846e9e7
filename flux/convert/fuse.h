/* flux/convert/fuse.h: adapters added to the tensors of a stream.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/convert/tensor-info.h"
#include "flux/transformer/lora.h"

G_BEGIN_DECLS

typedef struct _FluxFuse FluxFuse;

/* loras: in main memory, with their multipliers set; borrowed. infos: FluxTensorInfo of
 * the tensors that will come. A layer of an adapter whose weight is not among them, or of
 * another shape, or no floats, is an error that names it; with strict FALSE it is told of
 * in *left_out (g_free() it; NULL when there is none). */
FluxFuse *flux_fuse_new (FluxLora *const *loras, guint n_loras, GPtrArray *infos,
    gboolean strict, char **left_out, GError **error);
void flux_fuse_free (FluxFuse *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxFuse, flux_fuse_free)
/* Does an adapter change the tensor? */
gboolean flux_fuse_changes (FluxFuse *self, const FluxTensorInfo *info);
/* The tensor with all adapters added: summed in fp32, rounded once to its type. NaN or
 * Inf in it is an error. */
GBytes *flux_fuse_add (
    FluxFuse *self, const FluxTensorInfo *info, gconstpointer data, GError **error);

G_END_DECLS
