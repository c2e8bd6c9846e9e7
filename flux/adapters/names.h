/* flux/adapters/names.h: what tools call the linear layers of the transformer (internal).
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A tensor of an adapter file is PREFIX + MODULE + END: which layers the module is on,
 * and which part of it the tensor holds. diffusers splits the fused layers of the
 * original model (q, k and v; q, k, v and the MLP), so that a module of the others may be
 * on several of our slots. */
#pragma once

#include "flux/transformer/slots.h"

G_BEGIN_DECLS

enum { FLUX_FUSED_MAX = 4 };

/* One module, as a format has it. */
typedef struct {
  guint slots[FLUX_FUSED_MAX]; /* their outputs follow each other in this order */
  guint n_slots;
  gboolean swapped; /* the halves of its output, shift and scale, are the other way round
                       from diffusers' (scale and shift) */
  const char *name; /* in diffusers, or where it is a module of its own, there */
} FluxAdapterModule;

typedef enum {
  FLUX_PART_A,
  FLUX_PART_B,
  FLUX_PART_ALPHA,
  FLUX_PART_EXTRA, /* a bias or a difference: fits no plain LoRA unless it is all zero */
  FLUX_PART_COUNT
} FluxAdapterPart;

typedef struct _FluxAdapterNames FluxAdapterNames;

FluxAdapterNames *flux_adapter_names_new (const FluxConfig *c);
void flux_adapter_names_free (FluxAdapterNames *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxAdapterNames, flux_adapter_names_free)
guint flux_adapter_names_count (FluxAdapterNames *self);
const FluxAdapterModule *flux_adapter_names_get (FluxAdapterNames *self, guint module);
/* Finds the module that a tensor belongs to; format: which tool writes it so, static.
 * FALSE when there is none: no such layer, or no such layout. */
gboolean flux_adapter_names_find (FluxAdapterNames *self, const char *key, guint *module,
    FluxAdapterPart *part, const char **format);
/* The original model's module that slot belongs to (img_attn.qkv for to_q), and what it
 * is called there, "double_blocks.0.img_attn.qkv". */
const FluxAdapterModule *
flux_adapter_names_original (FluxAdapterNames *self, guint slot, const char **name);

G_END_DECLS
