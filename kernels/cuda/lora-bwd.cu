/* kernels/cuda/lora-bwd.cu: gradients through low-rank adapters.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Four launches, and each matrix goes through once: x for h (lora-fwd.cu); dy for dh =
 * scale dy B and dB; x again for dA, with dx += dh A; then the partial sums of dA and dB
 * are added up. dh is a sum over columns and dA and dB are sums over rows: blocks own
 * tiles, leave partial sums of both, and whoever reads those adds them in order. */
#include "kernels/cuda/lora.cuh"

#define CHUNK 256    /* rows of a block at most */
#define FEW_ROWS 512 /* below it, chunks of 32 rows; else of 64 and more */
#define MANY_CHUNKS 32
#define DY_BLOCKS 400 /* blocks that fill a GPU */
#define X_BLOCKS 300
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
  __shared__ alignas (16) float h_s[CHUNK * R], dh_s[CHUNK * R], b_s[32 * PAD],
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
  __shared__ alignas (16) float dh_s[CHUNK * R], sums[LORA_WARPS][4][128];
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

/* dA and dB of every module += what the chunks left. */
static __global__ void
add_chunks (const float *partial, int64_t stride, int chunks,
    const __grid_constant__ lora_group g)
{
  const int64_t at = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  const int64_t all_a = (int64_t)g.width * g.k;
  const bool is_a = at < all_a;
  const int64_t size = (int64_t)g.rank * (is_a ? g.k : g.part);
  const int64_t i = is_a ? at : at - all_a;

  if (at >= stride)
    return;
  const int part = (int)(i / size);
  float *out = is_a ? g.da[part] : g.db[part];

  if (out != NULL)
    out[i % size] += sum_of (partial + at, stride, chunks) * (is_a ? 1 : g.scale[part]);
}

/* Rows of a block of both passes: few enough to fill the GPU, and so many that partial
 * sums stay small beside what is read. */
static int
chunk_rows (int64_t rows)
{
  const int64_t of_64 = fxc_blocks (fxc_blocks (rows, MANY_CHUNKS), 64) * (int64_t)64;

  if (rows < FEW_ROWS)
    return 32;
  return of_64 < CHUNK ? (int)of_64 : CHUNK;
}

/* Tiles in a block's piece of the columns. */
static int
tiles_a_block (int64_t tiles, int64_t blocks_wanted, int64_t most)
{
  const int64_t n = tiles / blocks_wanted;

  return (int)(n < 1 ? 1 : n > most ? most : n);
}

typedef struct {
  int chunk, chunks, dy_tile, dy_tiles, dy_pieces, h_splits;
  int64_t stride; /* of a chunk's partial sums; A's before B's */
  float *h, *dh, *sums;
} work;

static int
plan (fx_cuda *c, work *w, const lora_group *g, int64_t rows, bool needs_h, bool trained)
{
  const int64_t tile = g->rank <= 4 ? 256 : 128, tiles = fxc_blocks (g->part, tile);
  void *p;

  w->chunk = chunk_rows (rows);
  w->chunks = (int)fxc_blocks (rows, w->chunk);
  w->dy_tiles = tiles_a_block (tiles * g->n * w->chunks, DY_BLOCKS, tiles);
  w->dy_pieces = (int)fxc_blocks (tiles, w->dy_tiles);
  w->h_splits = fxc_lora_splits (rows, g->k);
  w->stride = (int64_t)g->width * g->k + (int64_t)g->n * g->part * g->rank;
  FX_TRY (fxc_scratch (c, FXC_SCRATCH_MATRIX,
      sizeof (float) * (w->dy_pieces + (needs_h ? w->h_splits : 0)) *
          (size_t)(rows * g->width),
      &p));
  w->dh = (float *)p;
  w->h = needs_h ? w->dh + w->dy_pieces * rows * g->width : NULL;
  w->sums = NULL;
  if (trained) {
    FX_TRY (fxc_scratch (
        c, FXC_SCRATCH_PARTIAL, sizeof (float) * w->chunks * (size_t)w->stride, &p));
    w->sums = (float *)p;
  }
  return FX_OK;
}

template <typename T>
static void
run_dy (fx_cuda *c, fx_mat dy, fx_mat h, const lora_group *g, const work *w)
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

template <typename T>
static void
run_x (fx_cuda *c, fx_mat dx, fx_mat x, const lora_group *g, const work *w)
{
  const int64_t tiles = fxc_blocks (x.cols, 128);
  const int per_block = tiles_a_block (tiles * w->chunks, X_BLOCKS, tiles);
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

static int
backward (fx_cuda *c, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const lora_group *g)
{
  const bool needs_h = g->db[0] != NULL && h.p == NULL;
  const bool trained = g->da[0] != NULL || g->db[0] != NULL;
  work w;

  FX_TRY (plan (c, &w, g, x.rows, needs_h, trained));
  if (needs_h)
    FX_TRY (fxc_lora_down (c, w.h, x, g));
  FXC_WITH_TYPE (c, x.dtype, {
    run_dy<T> (c, dy, h, g, &w);
    if (dx.p != NULL || g->da[0] != NULL)
      run_x<T> (c, dx, x, g, &w);
  })
  if (trained)
    add_chunks<<<fxc_blocks (w.stride, 256), 256, 0, c->queue.stream>>> (
        w.sums, w.stride, w.chunks, *g);
  FXC_LAUNCHED (c, "lora_bwd");
}

int
fxc_lora_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n)
{
  const int64_t part = dy.cols / n;

  FX_TRY (fxc_lora_dtype (fxc (b), "dy", dy, x));
  FX_TRY (fxc_lora_dtype (fxc (b), "dx", dx, x));
  FX_TRY (fxc_lora_dtype (fxc (b), "h", h, x));
  for (int i = 0; i < n; i += LORA_PARTS) {
    const int many = n - i < LORA_PARTS ? n - i : LORA_PARTS;
    const lora_group g = fxc_lora_group (l + i, many, x.cols, part);

    FX_TRY (backward (fxc (b), dx, fx_cols (dy, i * part, many * part), x,
        h.p == NULL ? h : fx_cols (h, i * (int64_t)l->rank, g.width), &g));
  }
  return FX_OK;
}
