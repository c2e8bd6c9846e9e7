/* flux/sample/prompts.h: embeddings of the latest prompts. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * So that the text encoders, twice the size of the transformer in FLUX.1-dev, need not
 * stay for the next picture of the same prompt. */
#pragma once

#include "flux/text/text-encoder.h"

G_BEGIN_DECLS

typedef struct _FluxPrompts FluxPrompts;

typedef struct {
  int text_tokens;
  float *prompt_embeds; /* [text_tokens, joint_dim] */
  float *pooled;        /* [pooled_dim] */
} FluxPromptEmbedding;

FluxPrompts *flux_prompts_new (const char *dir, fx_backend *b, fx_qtype qtype);
void flux_prompts_free (FluxPrompts *self);
/* Loads the encoders when the prompt is not known. The answer is valid until the next
 * call. */
const FluxPromptEmbedding *
flux_prompts_get (FluxPrompts *self, const char *prompt, int text_tokens, GError **error);
/* Would that be at hand? */
gboolean flux_prompts_has (FluxPrompts *self, const char *prompt, int text_tokens);
/* At least this many prompts are kept. */
void flux_prompts_set_room (FluxPrompts *self, guint n);
/* For the weights of T5; borrowed, or NULL. */
void flux_prompts_set_cache (FluxPrompts *self, FluxWeightsCache *cache);
/* Is told of loading the encoders, and asked between their layers (percent -1); FALSE
 * gives up with FLUX_ERROR_CANCELLED. Or NULL. */
void
flux_prompts_set_progress (FluxPrompts *self, FluxProgressFunc progress, gpointer data);
void flux_prompts_free_encoder (FluxPrompts *self);

G_END_DECLS
