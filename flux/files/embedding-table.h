/* flux/files/embedding-table.h: content hash to text embeddings. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Two layouts: the reference's parquet (compute_embeddings.py: image_hash, prompt_embeds,
 * pooled_prompt_embeds, text_ids; facts.md section 1) and safetensors (KEY.prompt_embeds
 * [t, d], KEY.pooled [p]). Chosen by the file's first bytes when it exists, else by the
 * suffix. The row key "" holds the empty prompt's embeddings. Embeddings of integers are
 * FLUX_ERROR_FORMAT, in parquet when it is opened, in safetensors when a row is read. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxEmbeddingTable FluxEmbeddingTable;

typedef struct {
  GBytes *prompt_embeds; /* float [text_tokens, joint_dim] */
  GBytes *pooled;        /* float [pooled_dim] */
  int text_tokens, joint_dim, pooled_dim;
} FluxEmbedding;

void flux_embedding_clear (FluxEmbedding *e);

/* joint_dim, pooled_dim: what the model needs; 0 = take the file's word (pooled gives
 * itself, text_ids' length / 3 gives text_tokens). A missing file is an empty table when
 * may_create. */
FluxEmbeddingTable *flux_embedding_table_open (
    const char *path, gboolean may_create, int joint_dim, int pooled_dim, GError **error);
void flux_embedding_table_free (FluxEmbeddingTable *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxEmbeddingTable, flux_embedding_table_free)
/* FALSE without error: no such row. */
gboolean flux_embedding_table_lookup (
    FluxEmbeddingTable *self, const char *key, FluxEmbedding *e, GError **error);
void flux_embedding_table_add (FluxEmbeddingTable *self, const char *key,
    const FluxEmbedding *e); /* refs the bytes */
guint flux_embedding_table_n_added (FluxEmbeddingTable *self);
/* Atomically rewrites the file with the old rows and the new. */
gboolean flux_embedding_table_save (FluxEmbeddingTable *self, GError **error);

G_END_DECLS
