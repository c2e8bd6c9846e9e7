/* kernels/cuda/lora-bwd-dy.cu: the pass over dy: dh = scale dy B, and dB.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernels/cuda/lora-bwd.cuh"

#define PAD 36 /* floats of a lane in shared memory: 32 without bank conflicts */

/* Where h [rows, width] comes from: as the forward kept it, or partial sums. */
template <typename T> struct kept {
  const T *h;
  int64_t ldh;
  const float *partial;
  int splits;

  __device__ __forceinline__ float
  at (int64_t row, int q, int64_t rows, int width) const
  {
    if (h != NULL)
      return to_f (h[row * ldh + q]);
    return sum_of (partial + row * width + q, rows * width, splits);
  }
};

/* v[0..32) of a lane's place in shared memory, or into it. */
static __device__ __forceinline__ void
read32 (float *v, const float *place)
{
#pragma unroll
  for (int i = 0; i < 32; i += 4)
    *(float4 *)(v + i) = *(const float4 *)(place + i);
}
static __device__ __forceinline__ void
write32 (float *place, const float *v)
{
#pragma unroll
  for (int i = 0; i < 32; i += 4)
    *(float4 *)(place + i) = *(const float4 *)(v + i);
}

/* One tile of dy: a lane has 32 / R columns, value e of its 32 being column e / R, rank
 * e % R. acc += dy^T h, and dh_s += dy B, 32 / R rows of a warp at a time: lane l then
 * gets the sum over the warp's columns of row l / R, rank l % R. */
template <typename T, int R, bool WIDE>
static __device__ __forceinline__ void
dy_tile (float *acc, float *dh_s, const float *h_s, const float *w, const T *dy,
    int64_t ldy, int left, int n_rows)
{
  constexpr int V = 32 / R, ROWS = 32 / R;
  const int lane = threadIdx.x & 31;

#pragma unroll
  for (int e = 0; e < 32; e++)
    acc[e] = 0;
  for (int row = (threadIdx.x >> 5) * ROWS; row < n_rows; row += LORA_WARPS * ROWS) {
    columns<T, V> v[ROWS];
    float s[32] = {0};

    /* h_s is 0 in rows past the end; what is read there does not count. */
#pragma unroll
    for (int i = 0; i < ROWS; i++)
      v[i].template take<WIDE> (dy + min (row + i, n_rows - 1) * ldy, left);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      float h[R];

#pragma unroll
      for (int r = 0; r < R; r += 4)
        *(float4 *)(h + r) = *(const float4 *)(h_s + (row + i) * R + r);
#pragma unroll
      for (int e = 0; e < 32; e++) {
        s[i * R + e % R] = fmaf (v[i].at (e / R), w[e], s[i * R + e % R]);
        acc[e] = fmaf (v[i].at (e / R), h[e % R], acc[e]);
      }
    }
    folding<32, 16>::run (s, lane);
    dh_s[row * R + lane] += s[0];
  }
}

/* Blocks: a part and a piece (`per_block` tiles) of its columns, by a chunk of rows.
 * dh [pieces, rows, width] and db [chunks, ...] (NULL: frozen) are partial sums; a
 * chunk's lie `stride` apart, in the order of B. */
template <typename T, int R, bool WIDE>
static __global__ void
__launch_bounds__ (LORA_THREADS, WIDE && sizeof (T) == 2 ? 4 : 3)
    dy_pass (float *db, int64_t stride, float *dh, const T *dy, int64_t ldy, kept<T> h,
        const __grid_constant__ lora_group g, int64_t rows, int chunk, int per_block)
{
  constexpr int V = 32 / R, TILE = 32 * V;
  __shared__ alignas (16) float h_s[LORA_CHUNK * R], dh_s[LORA_CHUNK * R], b_s[32 * PAD],
      sums[LORA_WARPS][32 * PAD];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int pieces = gridDim.x / g.n, part = blockIdx.x / pieces;
  const int piece = blockIdx.x % pieces, col0 = piece * per_block * TILE;
  const int end = min (col0 + per_block * TILE, g.part);
  const int64_t row0 = blockIdx.y * (int64_t)chunk;
  const int n_rows = (int)min ((int64_t)chunk, rows - row0);

  dy += row0 * ldy + (int64_t)part * g.part;
  for (int first = 0; first < g.rank; first += R) {
    const int q0 = part * g.rank + first, many = min (R, g.rank - first);

    __syncthreads ();
#pragma unroll 2
    for (int o = threadIdx.x; o < chunk * R; o += LORA_THREADS) {
      const bool is_there = db != NULL && o / R < n_rows && o % R < many;

      h_s[o] = is_there ? h.at (row0 + o / R, q0 + o % R, rows, g.width) : 0;
      dh_s[o] = 0;
    }
    for (int col = col0; col < end; col += TILE) {
      float w[32], acc[32];

      __syncthreads ();
      for (int o = threadIdx.x; o < 32 * 32; o += LORA_THREADS) {
        const int64_t c = col + o / R;

        b_s[(o >> 5) * PAD + (o & 31)] =
            c < g.part && o % R < many
                ? g.b[part][c * g.rank + first + o % R] * g.scale[part]
                : 0;
      }
      __syncthreads ();
      read32 (w, b_s + lane * PAD);
      dy_tile<T, R, WIDE> (
          acc, dh_s, h_s, w, dy + col + lane * V, ldy, g.part - col - lane * V, n_rows);
      if (db == NULL)
        continue;
      write32 (sums[warp] + lane * PAD, acc);
      __syncthreads ();
      for (int o = threadIdx.x; o < 32 * 32; o += LORA_THREADS) {
        const int64_t c = col + o / R;
        float sum = 0;

#pragma unroll
        for (int i = 0; i < LORA_WARPS; i++)
          sum += sums[i][(o >> 5) * PAD + (o & 31)];
        if (c < g.part && o % R < many)
          db[blockIdx.y * stride + (part * (int64_t)g.part + c) * g.rank + first +
              o % R] = sum;
      }
    }
    __syncthreads ();
    for (int o = threadIdx.x; o < n_rows * R; o += LORA_THREADS) {
      if (o % R < many)
        dh[(piece * rows + row0 + o / R) * g.width + q0 + o % R] = dh_s[o];
    }
  }
}

template <typename T>
static void
run_dy (fx_cuda *c, fx_mat dy, fx_mat h, const lora_group *g, const lora_work *w)
{
  const dim3 grid (g->n * w->dy_pieces, w->chunks);
  const bool wide = lora_fits (dy, g->part);
  const kept<T> from = {(const T *)h.p, h.ld, w->h, w->h_splits};
  float *sums = g->db[0] == NULL ? NULL : w->sums + (int64_t)g->width * g->k;
  auto kernel = g->rank <= 4 ? wide ? dy_pass<T, 4, true> : dy_pass<T, 4, false>
                : wide ? dy_pass<T, 8, true>
                             : dy_pass<T, 8, false>;

  kernel<<<grid, LORA_THREADS, 0, c->queue.stream>>> (sums, w->stride, w->dh,
      (const T *)dy.p, dy.ld, from, *g, dy.rows, w->chunk, w->dy_tiles);
}

int
fxc_lora_bwd_dy (fx_cuda *c, fx_mat dy, fx_mat h, const lora_group *g, const lora_work *w)
{
  FXC_WITH_TYPE (c, dy.dtype, { run_dy<T> (c, dy, h, g, w); })
  FXC_LAUNCHED (c, "lora_bwd");
}
