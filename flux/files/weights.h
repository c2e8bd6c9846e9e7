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

G_BEGIN_DECLS

/* percent 0..100; FALSE cancels. */
typedef gboolean (*FluxProgressFunc) (const char *what, gint percent, gpointer data);

typedef struct {
  FluxSafetensors *file;
  fx_backend *backend;
  fx_arena *arena; /* fx_arena.base NULL: measure only */
  fx_qtype qtype;  /* what float weights of linear layers are turned into */
  fx_dtype
      compute; /* element type of weights kept as floats (FX_Q_NONE); F32, BF16 or F16 */
  FluxProgressFunc progress; /* may be NULL */
  gpointer progress_data;
  gsize bytes_done, bytes_total; /* for progress; set bytes_total once */
} FluxLoader;

/* PREFIX.weight [n, k] (+ PREFIX.bias when bias) as w. A file that is already in 4 bits
 * stays so whatever qtype says, except FX_Q_NONE, which expands it to `compute`. */
gboolean flux_load_linear (FluxLoader *self, const char *prefix, gint64 n, gint64 k,
    gboolean bias, fx_weight *w, GError **error);
/* The same for several tensors with k columns each, concatenated by rows (fused q, k, v);
 * rows[i] output features of prefixes[i]. Quantised one by one, as the reference does. */
gboolean
flux_load_linear_rows (FluxLoader *self, const char *const *prefixes, const gint64 *rows,
    guint n_prefixes, gint64 k, gboolean bias, fx_weight *w, GError **error);
/* A vector of n floats as fp32 on the backend. */
gboolean flux_load_vector (
    FluxLoader *self, const char *name, gint64 n, const float **v, GError **error);
/* A float tensor [rows, cols] kept in `compute` (embedding tables). */
gboolean flux_load_table (FluxLoader *self, const char *name, gint64 rows, gint64 cols,
    fx_mat *m, GError **error);
/* A convolution NAME.weight [out, in, kh, kw], stored as [out, kh * kw * in] (fx.h). */
gboolean flux_load_conv (FluxLoader *self, const char *prefix, gint64 out, gint64 in,
    gint64 kernel, fx_weight *w, GError **error);

/* A short hex string that changes with names, shapes, dtypes and sampled contents of a
 * file: the identity of a model in caches and caps. g_free() it. */
char *flux_safetensors_fingerprint (FluxSafetensors *file);

G_END_DECLS
