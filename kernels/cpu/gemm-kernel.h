/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The inner product kernels: C [rows, cols] (+)= A [rows, depth] B [depth, cols] with
 * elements of A broadcast and rows of B held in vectors. gemm.c and attention.c feed
 * them.
 *
 * One tile keeps FX_TILE_ROWS x FX_TILE_VECTORS accumulators in registers over the whole
 * depth. Each element of C is summed along depth in the same order whatever tile it falls
 * in, so results do not depend on how the work was cut.
 */
#pragma once

#include "cpu.h"
#include "simd.h"

#if FX_VL == 16 || defined(__aarch64__)
enum { FX_TILE_ROWS = 8, FX_TILE_VECTORS = 3 };
#elif FX_VL == 8
enum { FX_TILE_ROWS = 4, FX_TILE_VECTORS = 3 };
#else
enum { FX_TILE_ROWS = 4, FX_TILE_VECTORS = 2 };
#endif

/* Longest sum kept in one accumulator: partial sums of longer ones are added up, which
 * keeps rounding errors small. */
enum { FX_DEPTH_BLOCK = 256 };

typedef struct {
  const float *a;
  int64_t a_row, a_depth; /* strides of A */
  const float *b;
  int64_t b_ld; /* rows of B are cols rounded up to FX_VL long, and may be read so far */
  float *c;
  int64_t c_ld; /* the same for C */
} fx_product;

#define fx_gemm_product FX_NAME (fx_gemm_product)

/* C = A B, or C += A B when `add`, written in whole vectors: columns up to the next
 * multiple of FX_VL are overwritten. */
void fx_gemm_product (
    const fx_product *p, int64_t rows, int64_t cols, int64_t depth, bool add);
