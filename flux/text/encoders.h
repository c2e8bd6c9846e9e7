/* flux/text/encoders.h: the two encoders inside of text-encoder.h.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The residual streams are fp32 whatever the backend computes in. */
#pragma once

#include "flux/files/weights.h"

G_BEGIN_DECLS

enum { FLUX_TEXT_MAX_LAYERS = 128 };

/* ---- CLIP text model ---- */

typedef struct {
  int hidden, intermediate, heads, layers, positions, vocabulary, eos;
  float eps;
  fx_act act;
} FluxClipConfig;

typedef struct _FluxClip FluxClip;

/* dir: the text_encoder folder. */
gboolean flux_clip_config_read (const char *dir, FluxClipConfig *c, GError **error);
/* Weights stay floats. */
FluxClip *flux_clip_load (const char *dir, fx_backend *b, FluxProgressFunc progress,
    gpointer data, GError **error);
void flux_clip_free (FluxClip *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxClip, flux_clip_free)
const FluxClipConfig *flux_clip_get_config (FluxClip *self);
/* ids [positions] -> pooled, host [hidden]: the final norm's row at the end-of-text
 * token. progress, or NULL, is asked before each layer.
 */
gboolean flux_clip_encode (FluxClip *self, const gint32 *ids, float *pooled,
    FluxProgressFunc progress, gpointer data, GError **error);

/* ---- T5 v1.1 encoder ---- */

typedef struct {
  int d_model, d_kv, d_ff, heads, layers, vocabulary, buckets, max_distance;
  float eps;
} FluxT5Config;

typedef struct _FluxT5 FluxT5;

/* dir: the text_encoder_2 folder. */
gboolean flux_t5_config_read (const char *dir, FluxT5Config *c, GError **error);
FluxT5 *flux_t5_load (const char *dir, fx_backend *b, fx_qtype qtype,
    FluxWeightsCache *cache, FluxProgressFunc progress, gpointer data, GError **error);
/* T5-XXL, FLUX.1's, without a file: its weights have room and no values. For the plan
 * backend and for measurements, which fill them. */
FluxT5 *flux_t5_new_planned (fx_backend *b, fx_qtype qtype, GError **error);
void flux_t5_free (FluxT5 *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxT5, flux_t5_free)
const FluxT5Config *flux_t5_get_config (FluxT5 *self);
const fx_arena *flux_t5_get_weights (FluxT5 *self);
/* On the device: weights, and room for the longest text so far. */
gsize flux_t5_get_bytes (FluxT5 *self);
/* ids [tokens] -> embeds, host [tokens, d_model]; every token is seen, padding included.
 * progress, or NULL, is asked before each layer. */
gboolean flux_t5_encode (FluxT5 *self, const gint32 *ids, int tokens, float *embeds,
    FluxProgressFunc progress, gpointer data, GError **error);
/* The bucket of a key `distance` tokens after the query, both directions;
 * transformers models/t5/modeling_t5.py, T5Attention._relative_position_bucket. */
int flux_t5_bucket (int distance, int buckets, int max_distance);

/* ---- both ---- */

/* Rows of m, in the backend's compute dtype or fp32, to host floats. */
int flux_text_download (fx_backend *b, fx_mat m, float *out);
/* FALSE with FLUX_ERROR_CANCELLED when progress, which may be NULL, says so. */
gboolean flux_text_may_go_on (
    const char *what, FluxProgressFunc progress, gpointer data, GError **error);
/* An id outside of the vocabulary is an error naming `what`. */
gboolean flux_text_check_ids (
    const gint32 *ids, int n, int vocabulary, const char *what, GError **error);

G_END_DECLS
