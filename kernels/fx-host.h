/* gst-flux kernels: random numbers and quantisation, on host buffers; fx.h includes
 * it. SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "kernels/fx.h"

#ifdef __cplusplus
extern "C" {
#endif

/* PyTorch's CPU generator (mt19937), bit for bit. */
typedef struct {
  uint32_t state[624];
  int index;
  bool has_next_normal; /* the second of a pair drawn by a randn of fewer than 16 */
  double next_normal;
} fx_torch_rng;

void fx_torch_seed (fx_torch_rng *r, uint64_t seed);
uint32_t fx_torch_u32 (fx_torch_rng *r);
/* torch.rand (n), torch.randn (n, dtype) and torch.randperm (n), n < 2^31; out of randn
 * has the given dtype (F32, BF16, F16). Calls that follow each other draw what they would
 * from one torch.Generator. */
void fx_torch_rand (fx_torch_rng *r, float *out, size_t n);
void fx_torch_randn (fx_torch_rng *r, void *out, fx_dtype dtype, size_t n);
void fx_torch_randperm (fx_torch_rng *r, int32_t *out, size_t n);

/* Counter-based (Philox 4x32-10) draws: the same (seed, step, sample, stream) gives the
 * same numbers wherever and whenever they are asked for. */
void fx_philox (uint64_t seed, uint32_t step, uint32_t sample, uint32_t stream,
    uint32_t index, uint32_t out[4]);
void fx_philox_uniform (uint64_t seed, uint32_t step, uint32_t sample, uint32_t stream,
    float *out, size_t n); /* [0, 1) */
void fx_philox_normal (
    uint64_t seed, uint32_t step, uint32_t sample, uint32_t stream, float *out, size_t n);

/* ---- quantisation, on host buffers ---- */

extern const float fx_nf4_code[16];
/* bitsandbytes create_dynamic_map: 256 ascending values; signed_ for m, unsigned for v.
 */
const float *fx_dynamic_map (bool signed_);
/* x [n] fp32 -> packed [n / 2], absmax [ceil (n / 64)]; bit-compatible with
 * quantize_4bit. */
void fx_nf4_quantize (const float *x, size_t n, uint8_t *packed, float *absmax);
void fx_nf4_dequantize (const uint8_t *packed, const float *absmax, size_t n, float *out);
/* absmax [n] -> codes [n], absmax2 [ceil (n / 256)], *offset. */
void fx_absmax_quantize (
    const float *absmax, size_t n, uint8_t *codes, float *absmax2, float *offset);
void
fx_absmax_dequantize (const uint8_t *codes, const float *absmax2, const float *offset2,
    size_t n, float *absmax); /* offset2: one value a block of 256 */
/* LLM.int8 rows: q = round (127 w / absmax). */
void
fx_int8_quantize (const float *x, size_t rows, size_t cols, int8_t *q, float *absmax);
/* The smallest power of two that brings absmax to 448, e4m3's largest, or below; 1 for 0,
 * infinity for what is not finite. */
float fx_fp8_scale (float absmax);
/* Rows of e4m3: q = x / scale, scale [rows] = fx_fp8_scale (largest of the row). */
void fx_fp8_quantize (const float *x, size_t rows, size_t cols, uint8_t *q, float *scale);

#ifdef __cplusplus
}
#endif
