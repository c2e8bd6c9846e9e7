/* tests/golden/parity.h: what the families of comparisons share.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A golden folder is one namespace: golden.safetensors and golden_more.safetensors
 * together. Nothing about it is assumed: groups are found by their names, settings come
 * from the metadata. Each comparison prints one line. */
#pragma once

#include <json-glib/json-glib.h>

#include "flux/model.h"

#define PARITY_MAX_FILES 4

typedef struct {
  const char *model_dir, *golden_dir;
  FluxSafetensors *files[PARITY_MAX_FILES];
  guint n_files;
  GHashTable *seen;     /* names of tensors and metadata that a family has looked at */
  GHashTable *reported; /* names of groups that were skipped */
  int device;
  fx_dtype compute; /* FX_BF16: every bound is twice the error of diffusers in bf16;
                     * FX_F16: half of it, for its rounding is eight times finer */
  double slack;     /* times the bounds in fp32: 1 on the CPU, 10 on a GPU */
  fx_backend *backend;
  FluxTransformer *bases[3]; /* loaded on demand: ParityBase */
  GError *base_errors[3];
  guint n_ok, n_failed, n_skipped, n_unknown;
} Parity;

/* ---- golden.c: the golden folder ---- */

gboolean parity_open (Parity *p, GError **error);
void parity_close (Parity *p);
/* The tensor, which counts as seen; NULL when there is none. */
const FluxTensor *parity_find (Parity *p, const char *format, ...) G_GNUC_PRINTF (2, 3);
/* The metadata entry, or NULL. */
const char *parity_metadata (Parity *p, const char *format, ...) G_GNUC_PRINTF (2, 3);
/* The metadata entry as a JSON object, or NULL; json_object_unref() it. */
JsonObject *parity_settings (Parity *p, const char *format, ...) G_GNUC_PRINTF (2, 3);
/* A number of it; fallback where it is absent or no number. */
double parity_number (JsonObject *settings, const char *name, double fallback);
/* What stands between prefix and the next dot in the names of all tensors, each once, in
 * order (numbers by value): the I of "text.I.pooled" for prefix "text.". */
char **parity_indices (Parity *p, const char *prefix);
/* Names of all tensors with this prefix, sorted. */
char **parity_names (Parity *p, const char *prefix);
/* Every tensor with this prefix counts as seen. */
void parity_mark (Parity *p, const char *prefix);
/* The tensor as fp32, or NULL without it. */
float *parity_floats (Parity *p, gsize *n, const char *format, ...) G_GNUC_PRINTF (3, 4);
/* The metadata's seed, or 0. */
guint64 parity_seed (Parity *p);
/* Prints tensors that no family has looked at. */
void parity_report_unknown (Parity *p);

/* ---- compare.c: one line each ---- */

/* What several tensors of one group come to. */
typedef struct {
  double absolute, relative; /* worst; relative to the largest value of its tensor */
  char worst[128];           /* which */
  guint n;
} ParityError;

/* One more tensor of n values. */
void parity_add (
    ParityError *e, const char *name, const float *got, const float *want, gsize n);
/* Prints the line; relative must stay within bound. */
void parity_judge (Parity *p, const char *group, const ParityError *e, double bound);
/* The three at once for a single tensor. Computing in bf16, the tensor bf16.GROUP (GROUP
 * up to a space) is the yardstick; without one it is skipped. */
void parity_compare (Parity *p, const char *group, const float *got, const float *want,
    gsize n, double bound);
/* Bit for bit. */
void parity_equal (
    Parity *p, const char *group, gconstpointer got, gconstpointer want, gsize bytes);
/* A measure of its own: ok when value is at most (or, with at_least, at least) bound. */
void parity_value (Parity *p, const char *group, const char *what, double value,
    double bound, gboolean at_least);
/* Could not be compared, though nothing is wrong. */
void parity_skip (Parity *p, const char *group, const char *reason);
/* Could not be computed. Frees the error and sets it to NULL. */
void parity_fail (Parity *p, const char *group, GError **error);
/* The same for kernels/. */
void parity_fail_fx (Parity *p, const char *group);

/* Codes of an 8-bit state: equal but for 0.1 % that may be off by one (adam8.c). */
void parity_compare_codes (
    Parity *p, const char *group, const guint8 *got, const guint8 *want, gsize n);

/* ---- adapter.c: models and adapters ---- */

typedef enum {
  PARITY_BASE_FLOAT,     /* weights as they are in the model folder */
  PARITY_BASE_QUANTISED, /* the same, quantised to NF4 on load */
  PARITY_BASE_STORED     /* golden/transformer-nf4 */
} ParityBase;

/* The base that an entry of metadata, or a name, speaks of. */
ParityBase parity_base_of (JsonObject *settings, const char *name);
/* Owned by p; NULL with *error set when it cannot be loaded. */
FluxTransformer *parity_base (Parity *p, ParityBase which, GError **error);
/* Sets the parameters of lora, which lives on b, to the tensors
 * PREFIX.transformer.NAME.lora_A.weight. */
gboolean parity_set_adapter (
    Parity *p, fx_backend *b, FluxLora *lora, const char *prefix, GError **error);
/* Adds up PREFIX.KEY against host values in the layout of lora's flat buffer. */
gboolean parity_add_adapter (Parity *p, ParityError *e, FluxLora *lora,
    const char *prefix, const float *flat, GError **error);
/* Flat host copy (flux_lora_n_flat() values) of a tensor set PREFIX.KEY. */
float *
parity_read_adapter (Parity *p, FluxLora *lora, const char *prefix, GError **error);
/* Targets (flux_lora_new()) and rank of the adapter PREFIX.KEY; "" and 0 without one. */
char *parity_targets (Parity *p, FluxTransformer *base, const char *prefix);
int parity_rank (Parity *p, const char *prefix);
/* An adapter on base, and on its backend, with these values. */
FluxLora *parity_new_adapter (Parity *p, FluxTransformer *base, const char *prefix,
    float alpha, gboolean with_gradients, GError **error);

/* The registered model with float or quantised weights. */
FluxModel *parity_model (Parity *p, ParityBase which, GError **error);

/* ---- families ---- */

void parity_rng (Parity *p);
void parity_schedules (Parity *p);
void parity_nf4 (Parity *p);
void parity_adam8 (Parity *p);
void parity_text (Parity *p);
void parity_vae (Parity *p);
void parity_forward (Parity *p);
void parity_files (Parity *p);
void parity_train (Parity *p);
void parity_sample (Parity *p);
