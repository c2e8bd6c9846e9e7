/* flux/text/text-encoder.h: prompt to embeddings. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * CLIP text model (pooled output at the first end-of-text token) and T5 v1.1 encoder
 * (whole sequence, padding included, no attention mask), as FluxPipeline.encode_prompt
 * uses them; diffusers pipelines/flux/pipeline_flux.py:234-256. */
#pragma once

#include "flux/files/weights.h"

G_BEGIN_DECLS

typedef struct _FluxTextEncoder FluxTextEncoder;

typedef struct {
  int joint_dim;  /* features of prompt_embeds (T5 d_model: 4096) */
  int pooled_dim; /* features of pooled (CLIP hidden size: 768) */
} FluxTextInfo;

gboolean flux_text_read_info (const char *dir, FluxTextInfo *info, GError **error);
/* dir: model folder with tokenizer, tokenizer_2, text_encoder, text_encoder_2. qtype:
 * weights of T5's linear layers (FX_Q_NONE, FX_Q_INT8, FX_Q_NF4); CLIP stays as it is.
 * cache: for quantised weights, or NULL. */
FluxTextEncoder *flux_text_encoder_load (const char *dir, fx_backend *b, fx_qtype qtype,
    FluxWeightsCache *cache, FluxProgressFunc progress, gpointer data, GError **error);
void flux_text_encoder_free (FluxTextEncoder *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxTextEncoder, flux_text_encoder_free)
const FluxTextInfo *flux_text_encoder_get_info (FluxTextEncoder *self);

/* prompt: UTF-8. prompt_embeds: host [max_sequence_length, joint_dim]; pooled: host
 * [pooled_dim]. progress, or NULL, is asked before each layer of both (percent -1); FALSE
 * gives up with FLUX_ERROR_CANCELLED. */
gboolean flux_text_encode (FluxTextEncoder *self, const char *prompt,
    int max_sequence_length, float *prompt_embeds, float *pooled,
    FluxProgressFunc progress, gpointer data, GError **error);

G_END_DECLS
