/* SPDX-License-Identifier: LGPL-2.1-or-later
 * What attention's forward and backward share. */
#pragma once

#include "gemm-kernel.h"
#include "transpose.h"

/* Sizes of blocks: scores of a block fit the second-level cache. */
enum { FX_QUERIES = 64, FX_KEYS = 256 };

static inline float *
fx_attn_head (fx_mat m, int64_t row, int head, int64_t head_dim)
{
  return (float *)m.p + row * m.ld + head * head_dim;
}

/* Number of blocks of at most FX_QUERIES rows, all about the same size, and that size. */
static inline int64_t
fx_attn_blocks (int64_t rows, int64_t *size)
{
  int64_t blocks = (rows + FX_QUERIES - 1) / FX_QUERIES;

  *size = fx_smaller (FX_QUERIES, ((rows + blocks - 1) / blocks + 7) / 8 * 8);
  return (rows + *size - 1) / *size;
}

/* dst [rows, ld] = x [rows, cols], filled with zeros. */
static inline void
fx_attn_pad (
    float *dst, int64_t ld, const float *x, int64_t x_ld, int64_t rows, int64_t cols)
{
  for (int64_t r = 0; r < rows; r++) {
    memcpy (dst + r * ld, x + r * x_ld, (size_t)cols * sizeof *dst);
    memset (dst + r * ld + cols, 0, (size_t)(ld - cols) * sizeof *dst);
  }
}
