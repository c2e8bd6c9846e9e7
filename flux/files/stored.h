/* flux/files/stored.h: how a linear layer's weight lies in a file.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Three layouts: a float tensor [n, k], in 8 bits (F8_E4M3) without scales too;
 * bitsandbytes 4 bits as diffusers saves them (bitsandbytes functional.py:423-438,
 * 545-578: X U8 [n k / 2, 1], X.absmax, X.quant_map, X.quant_state.bitsandbytes__nf4, and
 * with double quantisation X.nested_absmax and X.nested_quant_map); LLM.int8 (X I8 [n,
 * k], X = PREFIX.weight, PREFIX.SCB F32 [n], w = q SCB / 127). */
#pragma once

#include "flux/files/safetensors.h"

G_BEGIN_DECLS

typedef enum {
  FLUX_STORED_FLOAT,
  FLUX_STORED_NF4,
  FLUX_STORED_NF4_DOUBLE,
  FLUX_STORED_INT8
} FluxStoredKind;

typedef struct {
  FluxStoredKind kind;
  gint64 n, k;
  fx_dtype dtype; /* of the floats (BF16 for 8-bit ones), or what 4-bit values are rounded
                   * to when expanded; F32 for INT8, whose files do not say */
  const FluxTensor *weight;
  const FluxTensor *absmax;        /* NF4: F32; NF4_DOUBLE: U8 codes; INT8: SCB */
  const FluxTensor *nested_absmax; /* NF4_DOUBLE: F32, one for 256 codes */
  const FluxTensor *nested_map;    /* NF4_DOUBLE: F32 [256] */
  float nested_offset;
} FluxStored;

/* Finds PREFIX.weight and everything that belongs to it and checks types, sizes and the
 * quant_state; an error names file and tensor. Refused by name: fp4, block sizes but 64
 * and 256, other integer types. */
gboolean flux_stored_find (FluxSafetensors *file, const char *prefix, gint64 n, gint64 k,
    FluxStored *out, GError **error);
/* Elements first..first + count as fp32, rounded to dtype. first and count are multiples
 * of 64 for the 4-bit kinds and of k for INT8. */
void flux_stored_read (const FluxStored *self, gint64 first, gint64 count, float *out);
/* NF4 and NF4_DOUBLE: the fp32 absmax of blocks first..first + count. */
void flux_stored_absmax (const FluxStored *self, gint64 first, gint64 count, float *out);

/* F32, BF16 or F16? */
gboolean flux_tensor_is_float (const FluxTensor *t);
/* count values of a float tensor, or one of F8_E4M3, from element first on, as fp32; the
 * data may be unaligned. */
void flux_tensor_read (const FluxTensor *t, gint64 first, gint64 count, float *out);

G_END_DECLS
