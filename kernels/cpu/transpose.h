/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Transposition into and out of the layout the product kernels read. */
#pragma once

#include "cpu.h"
#include "simd.h"

static inline int64_t
fx_smaller (int64_t a, int64_t b)
{
  return a < b ? a : b;
}

static inline int64_t
fx_whole_vectors (int64_t n)
{
  return (n + FX_VL - 1) / FX_VL * FX_VL;
}

#define fx_pack_transposed FX_NAME (fx_pack_transposed)
#define fx_unpack_transposed FX_NAME (fx_unpack_transposed)

/* dst [cols, ld] = transpose of x [rows, cols]. Rows of dst are filled with zeros up to
 * whole vectors, so ld is fx_whole_vectors (rows) at least. */
void fx_pack_transposed (
    float *dst, int64_t ld, const float *x, int64_t x_ld, int64_t rows, int64_t cols);

/* Up to FX_VL rows of y^T, t [n, ld], become columns of y [tokens, n]: y (+)= t^T + bias
 * [n] (NULL: none). */
void fx_unpack_transposed (
    fx_mat y, const float *t, int64_t ld, int64_t n, const float *bias, bool beta);
