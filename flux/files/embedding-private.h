/* flux/files/embedding-private.h: the two layouts of an embedding table.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/files/embedding-table.h"
#include "flux/files/parquet.h"
#include "flux/files/safetensors.h"

G_BEGIN_DECLS

typedef struct {
  char *key;
  FluxEmbedding e;
} FluxEmbeddingRow;

struct _FluxEmbeddingTable {
  char *path;
  gboolean is_parquet;
  int joint_dim, pooled_dim;
  FluxSafetensors *file; /* what the file held when it was opened, or NULL */
  FluxParquet *parquet;
  gint hash_column, embeds_column, pooled_column, ids_column; /* ids may be -1 */
  GHashTable *rows; /* parquet: key -> gint64 row; of equal keys the last, as in a dict */
  GHashTable *added; /* key -> FluxEmbeddingRow */
  GPtrArray *order;  /* FluxEmbeddingRow, in the order of adding */
  guint n_unsaved;
};

void flux_embedding_row_free (gpointer row);
gboolean flux_embedding_sniff (const char *path, gboolean *is_parquet, GError **error);
/* FALSE, with the sentence. what: a column or tensor. */
gboolean flux_embedding_refuse_integers (
    FluxEmbeddingTable *self, const char *what, GError **error);
gboolean flux_embedding_check_finite (FluxEmbeddingTable *self, const char *key,
    const char *column, const float *x, gsize n, GError **error);

gboolean flux_embedding_open_parquet (FluxEmbeddingTable *self, GError **error);
gboolean flux_embedding_lookup_parquet (
    FluxEmbeddingTable *self, const char *key, FluxEmbedding *e, GError **error);
gboolean flux_embedding_save_parquet (FluxEmbeddingTable *self, GError **error);

gboolean flux_embedding_open_safetensors (FluxEmbeddingTable *self, GError **error);
gboolean flux_embedding_lookup_safetensors (
    FluxEmbeddingTable *self, const char *key, FluxEmbedding *e, GError **error);
gboolean flux_embedding_save_safetensors (FluxEmbeddingTable *self, GError **error);

G_END_DECLS
