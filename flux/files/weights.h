/* flux/files/weights.h: tensors of a file to weights on a backend.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Used by every model. A loader is run twice: with an arena that only measures (no data
 * is read, only names and shapes are checked), then with a reserved arena, tensor by
 * tensor, so that the host never holds more than one tensor beside the page cache.
 *
 * A stored weight is either a float tensor or the bitsandbytes 4-bit layout (facts.md
 * section 6: X.weight U8, .absmax, .quant_map, .nested_absmax, .nested_quant_map,
 * .quant_state.bitsandbytes__nf4) or LLM.int8 (X.weight I8, X.SCB F32). */
#pragma once

#include "flux/files/safetensors.h"
#include "flux/files/weights-cache.h"

G_BEGIN_DECLS

/* percent 0..100, or below 0 when it is only asked whether to go on; FALSE cancels. */
typedef gboolean (*FluxProgressFunc) (const char *what, gint percent, gpointer data);

typedef struct {
  FluxSafetensors *file; /* NULL: no file, sizes are those of BF16 floats (planning) */
  gboolean is_planned;   /* of the file's tensors only names and shapes are read */
  fx_backend *backend;
  fx_arena *arena;        /* fx_arena.base NULL: measure only */
  fx_arena *host_arena;   /* or NULL: of an fx_host_new() */
  gboolean to_host;       /* linear layers, but for biases, go to host_arena now */
  fx_qtype qtype;         /* what float weights of linear layers are turned into */
  gboolean rounds_inputs; /* FX_Q_INT8 is for products in 8 bits, as FX_Q_FP8 always is,
                           * where n and k are multiples of 16 */
  fx_dtype
      compute; /* element type of weights kept as floats (FX_Q_NONE); F32, BF16 or F16 */
  gboolean keep_dtype;       /* float weights of linear layers keep the file's type (16
                              * bits instead of 32 for a CPU that computes in fp32) */
  const char *what;          /* for progress: "transformer" */
  FluxProgressFunc progress; /* may be NULL; called when the percentage changes, and while
                              * the cache is written more often */
  gpointer progress_data;
  FluxWeightsCache *cache;       /* where quantised weights are kept, or NULL */
  gsize bytes_done, bytes_total; /* of the file; counted by the two passes */
  gsize bytes_quantised;         /* of the total: floats that become something smaller */
  struct _FluxCacheEntry *entry; /* while it is read or written */
  gboolean is_cached;            /* buffers come from the entry */
} FluxLoader;

/* Loads the tensors of a model through the functions below; called twice. */
typedef gboolean (*FluxLoadFunc) (FluxLoader *self, gpointer model, GError **error);
/* Runs `load` to measure, reserves the (empty) arena, and runs it again to load, from the
 * cache when it is there, else from the file and then into the cache. On failure the
 * arena has been cleared. */
gboolean
flux_loader_run (FluxLoader *self, FluxLoadFunc load, gpointer model, GError **error);

/* PREFIX.weight [n, k] (+ PREFIX.bias when bias) as w. A file that is already in 4 or 8
 * bits stays so whatever qtype says, except FX_Q_NONE, which expands it to `compute`.
 * Kept as floats: 4 bits asked for with k % 64 != 0, which bitsandbytes would quantise
 * over row ends (FLUX has none). FX_Q_FP8 (FX_Q_INT8 with rounds_inputs) makes 8-bit rows
 * of whatever the file has, for products in 8 bits, and floats where n or k is no
 * multiple of 16. */
gboolean flux_load_linear (FluxLoader *self, const char *prefix, gint64 n, gint64 k,
    gboolean bias, fx_weight *w, GError **error);
/* The same for several tensors with k columns each, concatenated by rows (fused q, k, v);
 * rows[i] output features of prefixes[i]. Quantised one by one, as the reference does;
 * NF4_DOUBLE becomes NF4 with the same absmax, decoded, when a block of 256 absmax values
 * would straddle tensors. Tensors of different layouts or types become floats. */
gboolean
flux_load_linear_rows (FluxLoader *self, const char *const *prefixes, const gint64 *rows,
    guint n_prefixes, gint64 k, gboolean bias, fx_weight *w, GError **error);
/* A vector of n floats as fp32 on the backend. */
gboolean flux_load_vector (
    FluxLoader *self, const char *name, gint64 n, const float **v, GError **error);
/* A float tensor [rows, cols], in `compute` or, with keep_dtype, as it is (embedding
 * tables). */
gboolean flux_load_table (FluxLoader *self, const char *name, gint64 rows, gint64 cols,
    fx_mat *m, GError **error);
/* A convolution NAME.weight [out, in, kh, kw], stored as [out, kh * kw * in] (fx.h). */
gboolean flux_load_conv (FluxLoader *self, const char *prefix, gint64 out, gint64 in,
    gint64 kernel, fx_weight *w, GError **error);

/* 16 hex digits: SHA-256 over every tensor's name, dtype, shape and first and last 4 KiB,
 * in order of names, so that sharding does not matter. The identity of a model in caches
 * and caps: cheap (8 KiB a tensor is read), yet training moves the first bytes of every
 * tensor it touches. g_free() it. */
char *flux_safetensors_fingerprint (FluxSafetensors *file);

G_END_DECLS
