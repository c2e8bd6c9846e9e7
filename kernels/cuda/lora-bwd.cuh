/* kernels/cuda/lora-bwd.cuh: what the two passes of LoRA's gradients share.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "kernels/cuda/lora.cuh"

#define LORA_CHUNK 256 /* rows of a block at most */

/* How a call is cut up, and its scratch. */
typedef struct {
  int chunk, chunks, dy_tiles, dy_pieces, h_splits;
  int64_t stride;       /* of a chunk's partial sums; A's before B's */
  float *h, *dh, *sums; /* h: NULL when the forward kept it; sums: NULL when frozen */
} lora_work;

/* Tiles in a block's piece of the columns. */
static inline int
lora_tiles_a_block (int64_t tiles, int64_t blocks_wanted, int64_t most)
{
  const int64_t n = tiles / blocks_wanted;

  return (int)(n < 1 ? 1 : n > most ? most : n);
}

/* dy for dh and dB; x for dA, and dx (dx.p may be NULL). */
int fxc_lora_bwd_dy (
    fx_cuda *c, fx_mat dy, fx_mat h, const lora_group *g, const lora_work *w);
int
fxc_lora_bwd_x (fx_cuda *c, fx_mat dx, fx_mat x, const lora_group *g, const lora_work *w);
