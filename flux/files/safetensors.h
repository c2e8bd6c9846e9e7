/* flux/files/safetensors.h: reading and writing safetensors. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Format: u64 little-endian header length, JSON header {name: {dtype, shape,
 * data_offsets}}, optional "__metadata__" of strings, then the data. Files are
 * memory-mapped; several files joined by a `*.safetensors.index.json` look like one.
 * Everything in a header is checked against the file's size before it is believed. */
#pragma once

#include <glib.h>

#include "flux/files/replace.h"
#include "kernels/fx.h"

G_BEGIN_DECLS

/* What diffusers and the Hub call a LoRA (LORA_WEIGHT_NAME_SAFE). */
#define FLUX_LORA_FILE "pytorch_lora_weights.safetensors"

#define FLUX_TENSOR_MAX_DIMS 8

typedef struct {
  const char *name;
  fx_dtype dtype;
  guint n_dims;
  gint64 dims[FLUX_TENSOR_MAX_DIMS];
  gconstpointer
      data; /* in the mapping; valid as long as the FluxSafetensors; may be unaligned */
  gsize n_elements, n_bytes;
} FluxTensor;

typedef struct _FluxSafetensors FluxSafetensors;

/* path: a .safetensors file, an index.json, or a folder, in which case the file is looked
 * for as diffusers and transformers do: STEM.safetensors, STEM.safetensors.index.json
 * with STEM "diffusion_pytorch_model", "model", "pytorch_lora_weights", else a folder's
 * only .safetensors. */
FluxSafetensors *flux_safetensors_open (const char *path, GError **error);
FluxSafetensors *flux_safetensors_ref (FluxSafetensors *self);
void flux_safetensors_unref (FluxSafetensors *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxSafetensors, flux_safetensors_unref)

const char *flux_safetensors_get_path (FluxSafetensors *self);
guint flux_safetensors_get_n_tensors (FluxSafetensors *self);
const FluxTensor *
flux_safetensors_get_nth (FluxSafetensors *self, guint i); /* file order */
/* NULL when there is none. */
const FluxTensor *flux_safetensors_lookup (FluxSafetensors *self, const char *name);
/* The same, but an error that names file and tensor when it is missing or has another
 * shape; n_dims and the dims that follow it (gint64 each) are what is expected, -1 any
 * size. */
const FluxTensor *flux_safetensors_require (
    FluxSafetensors *self, const char *name, GError **error, guint n_dims, ...);
/* A string of __metadata__, or NULL. */
const char *flux_safetensors_get_metadata (FluxSafetensors *self, const char *key);
/* n_elements values as fp32 (any float dtype) into out; FALSE when the dtype is no float.
 */
gboolean flux_tensor_to_f32 (const FluxTensor *t, float *out, GError **error);

/* What to write: name, dtype, dims and host data are used; n_bytes and n_elements are
 * computed. */
typedef struct {
  const char *name;
  fx_dtype dtype;
  guint n_dims;
  gint64 dims[FLUX_TENSOR_MAX_DIMS];
  gconstpointer data;
} FluxTensorSource;

/* Writes temporary file, fsync, rename, fsync of the folder: path is either the old file
 * or the new one, whole. metadata: alternating keys and values ended by NULL, or NULL. */
gboolean flux_safetensors_write (const char *path, const FluxTensorSource *tensors,
    guint n, const char *const *metadata, GError **error);

G_END_DECLS
