/* flux/adapters/alpha.h: what an adapter file says about its alphas (internal).
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/files/safetensors.h"

G_BEGIN_DECLS

typedef struct _FluxLoraAlpha FluxLoraAlpha;

/* Reads the metadata entry lora_adapter_metadata, JSON of a peft LoraConfig whose keys
 * may start with "transformer."; absent metadata is fine. DoRA is an error. */
FluxLoraAlpha *flux_lora_alpha_read (FluxSafetensors *file, GError **error);
void flux_lora_alpha_free (FluxLoraAlpha *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxLoraAlpha, flux_lora_alpha_free)
/* The alpha of a module of this rank such that its scale is alpha / rank (rank-stabilised
 * adapters scale by alpha / sqrt (rank)); the rank itself when the file does not say. */
float flux_lora_alpha_of (FluxLoraAlpha *self, const char *module, int rank);

G_END_DECLS
