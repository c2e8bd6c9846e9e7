/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The inner product kernels (gemm-kernel.h). */
#include "gemm-kernel.h"

/* One tile of `rows` x `vectors` (compile-time constants) over `depth`. */
FX_INLINE void
tile (int rows, int vectors, int64_t depth, const float *a, int64_t a_row,
    int64_t a_depth, const float *b, int64_t b_ld, float *c, int64_t c_ld, bool add)
{
  vf sum[FX_TILE_ROWS][FX_TILE_VECTORS];

  FX_UNROLL
  for (int r = 0; r < rows; r++) {
    FX_UNROLL
    for (int v = 0; v < vectors; v++)
      sum[r][v] = (vf){0};
  }
  for (int64_t d = 0; d < depth; d++) {
    vf row[FX_TILE_VECTORS];
    FX_UNROLL
    for (int v = 0; v < vectors; v++)
      row[v] = vf_load (b + v * FX_VL);
    FX_UNROLL
    for (int r = 0; r < rows; r++) {
      vf x = vf_splat (a[r * a_row]);
      FX_UNROLL
      for (int v = 0; v < vectors; v++)
        sum[r][v] += x * row[v];
    }
    a += a_depth;
    b += b_ld;
  }
  FX_UNROLL
  for (int r = 0; r < rows; r++) {
    FX_UNROLL
    for (int v = 0; v < vectors; v++) {
      float *at = c + r * c_ld + v * FX_VL;
      vf_store (at, add ? vf_load (at) + sum[r][v] : sum[r][v]);
    }
  }
}

typedef void (*tile_fn) (int64_t depth, const float *a, int64_t a_row, int64_t a_depth,
    const float *b, int64_t b_ld, float *c, int64_t c_ld, bool add);

#define TILE(R, V)                                                                       \
  static __attribute__ ((noinline)) void tile_##R##_##V (int64_t depth, const float *a,  \
      int64_t a_row, int64_t a_depth, const float *b, int64_t b_ld, float *c,            \
      int64_t c_ld, bool add)                                                            \
  {                                                                                      \
    if (a_depth == 1)                                                                    \
      tile (R, V, depth, a, a_row, 1, b, b_ld, c, c_ld, add);                            \
    else                                                                                 \
      tile (R, V, depth, a, a_row, a_depth, b, b_ld, c, c_ld, add);                      \
  }

#if FX_VL == 16 || defined(__aarch64__)
#define TILES(V)                                                                         \
  TILE (1, V)                                                                            \
  TILE (2, V) TILE (3, V) TILE (4, V) TILE (5, V) TILE (6, V) TILE (7, V) TILE (8, V)
#define TILE_NAMES(V)                                                                    \
  {                                                                                      \
    tile_1_##V, tile_2_##V, tile_3_##V, tile_4_##V, tile_5_##V, tile_6_##V, tile_7_##V,  \
        tile_8_##V                                                                       \
  }
#else
#define TILES(V) TILE (1, V) TILE (2, V) TILE (3, V) TILE (4, V)
#define TILE_NAMES(V)                                                                    \
  {                                                                                      \
    tile_1_##V, tile_2_##V, tile_3_##V, tile_4_##V                                       \
  }
#endif

/* clang-format off */
TILES (1)
TILES (2)
#if FX_VL > 4 || defined(__aarch64__)
TILES (3)
#endif
/* clang-format on */

static const tile_fn tiles[FX_TILE_VECTORS][FX_TILE_ROWS] = {
    TILE_NAMES (1),
    TILE_NAMES (2),
#if FX_VL > 4 || defined(__aarch64__)
    TILE_NAMES (3),
#endif
};

void
fx_gemm_product (const fx_product *p, int64_t rows, int64_t cols, int64_t depth, bool add)
{
  int64_t vectors = (cols + FX_VL - 1) / FX_VL;
  int64_t groups = (vectors + FX_TILE_VECTORS - 1) / FX_TILE_VECTORS;

  for (int64_t d = 0; d < depth || d == 0; d += FX_DEPTH_BLOCK) {
    int64_t deep = depth - d < FX_DEPTH_BLOCK ? depth - d : FX_DEPTH_BLOCK;
    /* Vectors are dealt evenly to the groups: two of 2 rather than 3 and 1. */
    for (int64_t g = 0; g < groups; g++) {
      int64_t first = vectors * g / groups, count = vectors * (g + 1) / groups - first;
      const float *b = p->b + d * p->b_ld + first * FX_VL;
      for (int64_t r = 0; r < rows; r += FX_TILE_ROWS) {
        int64_t high = rows - r < FX_TILE_ROWS ? rows - r : FX_TILE_ROWS;
        tiles[count - 1][high - 1](deep, p->a + r * p->a_row + d * p->a_depth, p->a_row,
            p->a_depth, b, p->b_ld, p->c + r * p->c_ld + first * FX_VL, p->c_ld,
            add || d > 0);
      }
    }
  }
}
