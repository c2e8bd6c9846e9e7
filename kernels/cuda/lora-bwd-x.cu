/* kernels/cuda/lora-bwd-x.cu: the pass over x: dA, and dx += dh A.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernels/cuda/lora-bwd.cuh"

#define X_BLOCKS 300 /* blocks that fill a GPU */

/* dx += dh A: a lane's four columns, eight rows of a warp at a time. */
template <typename T, int R, bool WIDE>
static __device__ __forceinline__ void
dx_tile (T *dx, int64_t ldd, const float *dh_s, const lora_group &g, int first, int col,
    int n_rows)
{
  float w[R][4];

#pragma unroll
  for (int q = 0; q < R; q++) {
    columns<float, 4> a;

    /* dh_s is 0 in the columns past the last. */
    a.take<WIDE> (row_of_a (g, min (first + q, g.width - 1)) + col, g.k - col);
#pragma unroll
    for (int e = 0; e < 4; e++)
      w[q][e] = a.at (e);
  }
  for (int row = (threadIdx.x >> 5) * 8; row < n_rows; row += LORA_WARPS * 8) {
    columns<T, 4> v[8];

#pragma unroll
    for (int i = 0; i < 8; i++)
      v[i].template take<WIDE> (
          dx + (row + i) * ldd + col, row + i < n_rows ? g.k - col : 0);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float sum[4];

#pragma unroll
      for (int e = 0; e < 4; e++)
        sum[e] = v[i].at (e);
#pragma unroll
      for (int q = 0; q < R; q += 4) {
        const float4 d = *(const float4 *)(dh_s + (row + i) * R + q);

#pragma unroll
        for (int e = 0; e < 16; e++)
          sum[e % 4] = fmaf (part_of (d, e / 4), w[q + e / 4][e % 4], sum[e % 4]);
      }
      give<T, 4, WIDE> (
          dx + (row + i) * ldd + col, row + i < n_rows ? g.k - col : 0, sum);
    }
  }
}

/* acc += dh^T x in the same way. */
template <typename T, int R, bool WIDE>
static __device__ __forceinline__ void
da_tile (
    float (*acc)[4], const float *dh_s, const T *x, int64_t ldx, int left, int n_rows)
{
#pragma unroll
  for (int q = 0; q < R; q++)
#pragma unroll
    for (int e = 0; e < 4; e++)
      acc[q][e] = 0;
  for (int row = (threadIdx.x >> 5) * 8; row < n_rows; row += LORA_WARPS * 8) {
    columns<T, 4> v[8];

#pragma unroll
    for (int i = 0; i < 8; i++)
      v[i].template take<WIDE> (x + min (row + i, n_rows - 1) * ldx, left);
#pragma unroll
    for (int i = 0; i < 8; i++) {
#pragma unroll
      for (int q = 0; q < R; q += 4) {
        const float4 d = *(const float4 *)(dh_s + (row + i) * R + q);

#pragma unroll
        for (int e = 0; e < 16; e++)
          acc[q + e / 4][e % 4] =
              fmaf (part_of (d, e / 4), v[i].at (e % 4), acc[q + e / 4][e % 4]);
      }
    }
  }
}

/* Blocks: `per_block` tiles of 128 columns by a chunk of rows. dh: partial sums of
 * `pieces`; da [chunks, ...] (NULL: frozen): partial sums, a chunk's `stride` apart, in
 * the order of the A one above the other; dx may be NULL. */
template <typename T, int R, bool WIDE>
static __global__ void
__launch_bounds__ (LORA_THREADS, R > 12 ? 3 : 4) x_pass (float *da, int64_t stride, T *dx,
    int64_t ldd, const T *x, int64_t ldx, const float *dh, int pieces,
    const __grid_constant__ lora_group g, int64_t rows, int chunk, int per_block)
{
  __shared__ alignas (16) float dh_s[LORA_CHUNK * R], sums[LORA_WARPS][4][128];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int col0 = blockIdx.x * per_block * 128, end = min (col0 + per_block * 128, g.k);
  const int64_t row0 = blockIdx.y * (int64_t)chunk;
  const int n_rows = (int)min ((int64_t)chunk, rows - row0);

  x += row0 * ldx;
  /* Columns of h beyond 16 come round again; each thread then reads the dx that itself
   * wrote. */
  for (int first = 0; first < g.width; first += R) {
    __syncthreads ();
#pragma unroll 2
    for (int o = threadIdx.x; o < chunk * R; o += LORA_THREADS) {
      const int q = first + o % R;

      dh_s[o] = o / R < n_rows && q < g.width
                    ? sum_of (dh + (row0 + o / R) * g.width + q, rows * g.width, pieces)
                    : 0;
    }
    __syncthreads ();
    for (int tile = col0; tile < end; tile += 128) {
      const int col = tile + lane * 4;
      float acc[R][4];

      if (dx != NULL)
        dx_tile<T, R, WIDE> (dx + row0 * ldd, ldd, dh_s, g, first, col, n_rows);
      if (da == NULL)
        continue;
      da_tile<T, R, WIDE> (acc, dh_s, x + col, ldx, g.k - col, n_rows);
#pragma unroll
      for (int q = 0; q < R; q += 4) {
#pragma unroll
        for (int i = 0; i < 4; i++)
          *(float4 *)&sums[warp][i][lane * 4] = *(float4 *)acc[q + i];
        __syncthreads ();
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int c = tile + threadIdx.x, at = first + q + i;
          float sum = 0;

          for (int j = 0; j < LORA_WARPS; j++)
            sum += sums[j][i][threadIdx.x];
          if (c < g.k && at < g.width)
            da[blockIdx.y * stride + at * (int64_t)g.k + c] = sum;
        }
        __syncthreads ();
      }
    }
  }
}

template <typename T>
static void
run_x (fx_cuda *c, fx_mat dx, fx_mat x, const lora_group *g, const lora_work *w)
{
  const int64_t tiles = fxc_blocks (x.cols, 128);
  const int per_block = lora_tiles_a_block (tiles * w->chunks, X_BLOCKS, tiles);
  const dim3 grid (fxc_blocks (tiles, per_block), w->chunks);
  const bool wide = lora_fits_x (x, g) && lora_fits (dx, x.cols);
  auto kernel = !wide            ? x_pass<T, 16, false>
                : g->width <= 4  ? x_pass<T, 4, true>
                : g->width <= 12 ? x_pass<T, 12, true>
                                 : x_pass<T, 16, true>;

  kernel<<<grid, LORA_THREADS, 0, c->queue.stream>>> (g->da[0] == NULL ? NULL : w->sums,
      w->stride, (T *)dx.p, dx.ld, (const T *)x.p, x.ld, w->dh, w->dy_pieces, *g, x.rows,
      w->chunk, per_block);
}

int
fxc_lora_bwd_x (fx_cuda *c, fx_mat dx, fx_mat x, const lora_group *g, const lora_work *w)
{
  FXC_WITH_TYPE (c, x.dtype, { run_x<T> (c, dx, x, g, w); })
  FXC_LAUNCHED (c, "lora_bwd");
}
