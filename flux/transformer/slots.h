/* flux/transformer/slots.h: numbering of the linear layers (internal).
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/transformer/lora.h"

G_BEGIN_DECLS

#define FLUX_TIME_FEATURES 256 /* of the sinusoids of timestep and guidance */

/* Slots of one double block: image stream and text stream of each layer. */
typedef enum {
  FLUX_D_MOD,
  FLUX_D_MOD_CONTEXT,
  FLUX_D_Q,
  FLUX_D_K,
  FLUX_D_V,
  FLUX_D_ADD_Q,
  FLUX_D_ADD_K,
  FLUX_D_ADD_V,
  FLUX_D_OUT,
  FLUX_D_ADD_OUT,
  FLUX_D_FC1,
  FLUX_D_FC1_CONTEXT,
  FLUX_D_FC2,
  FLUX_D_FC2_CONTEXT,
  FLUX_DOUBLE_SLOTS
} FluxDoubleSlot;

typedef enum {
  FLUX_S_MOD,
  FLUX_S_MLP,
  FLUX_S_Q,
  FLUX_S_K,
  FLUX_S_V,
  FLUX_S_OUT,
  FLUX_SINGLE_SLOTS
} FluxSingleSlot;

static inline guint
flux_slot_double (int block, int slot)
{
  return (guint)(block * FLUX_DOUBLE_SLOTS + slot);
}

static inline guint
flux_slot_single (const FluxConfig *c, int block, int slot)
{
  return (guint)(c->num_layers * FLUX_DOUBLE_SLOTS + block * FLUX_SINGLE_SLOTS + slot);
}

/* Slots outside the blocks; the guidance embedder's are not there without one. */
typedef enum {
  FLUX_E_IMAGE, /* x_embedder */
  FLUX_E_TEXT,  /* context_embedder */
  FLUX_E_TIME_1,
  FLUX_E_TIME_2,
  FLUX_E_POOLED_1,
  FLUX_E_POOLED_2,
  FLUX_E_NORM, /* norm_out */
  FLUX_E_OUT,  /* proj_out */
  FLUX_E_GUIDANCE_1,
  FLUX_E_GUIDANCE_2,
  FLUX_END_SLOTS
} FluxEndSlot;

static inline guint
flux_slot_end (const FluxConfig *c, int slot)
{
  return flux_slot_single (c, c->num_single_layers, 0) + (guint)slot;
}

static inline guint
flux_slot_count (const FluxConfig *c)
{
  return flux_slot_end (c, c->guidance_embeds ? FLUX_END_SLOTS : FLUX_E_GUIDANCE_1);
}

/* PEFT's rule for target_modules: the name itself, or its end after a dot. */
gboolean flux_slot_matches (const char *name, const char *suffix);
/* Sets chosen[i] for the slots that `targets` names (flux_lora_new()). */
gboolean flux_slots_choose (const FluxLoraSlot *slots, guint n, const char *targets,
    gboolean *chosen, GError **error);

G_END_DECLS
