/* flux/train/optimiser.h: AdamW over an adapter's flat buffers. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * ADAMW is torch's (decay before the update, fp32 moments). ADAMW8BIT is bitsandbytes':
 * decay after it, moments in 8 bits by blocks of 256, but fp32 for tensors of fewer than
 * 4096 elements (optimizer.py:502-529). Neighbouring tensors with the same kind of state
 * are one call: offsets are multiples of the block, and padding stays zero. */
#pragma once

#include "flux/train/trainer.h"

G_BEGIN_DECLS

typedef struct _FluxAdam FluxAdam;

/* State of zeros for every tensor of the adapter, which must outlive it. */
FluxAdam *
flux_adam_new (FluxLora *lora, fx_backend *b, FluxOptimizer kind, GError **error);
void flux_adam_free (FluxAdam *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxAdam, flux_adam_free)
gsize flux_adam_get_bytes (FluxAdam *self); /* on the device */

/* L2 norm of all gradients; Inf or NaN when one of them is. */
gboolean flux_adam_grad_norm (FluxAdam *self, double *norm, GError **error);
/* grad_scale multiplies the gradients; step counts from 1. */
gboolean flux_adam_step (FluxAdam *self, const FluxTrainConfig *c, double learning_rate,
    double grad_scale, guint64 step, GError **error);

/* One piece of state of one tensor, for checkpoints: "state1", "state2" (fp32 or codes),
 * "absmax1", "absmax2" (8 bits only). p is on the backend. */
typedef struct {
  const char *name;
  fx_dtype dtype;
  gsize n;
  void *p;
} FluxAdamPiece;

/* Pieces of the tensor at this index of flux_lora_get_tensors(); returns how many. */
guint flux_adam_pieces (FluxAdam *self, guint tensor, FluxAdamPiece pieces[4]);

G_END_DECLS
