/* kernels/cuda/lora-fwd.cu: low-rank adapters beside a linear layer.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Skinny products: what counts is reading x once and reading and writing y once. One
 * launch makes h = x A^T of all modules in pieces of x's columns (there are too few rows
 * to fill a GPU), a second adds the pieces up and adds scale h B^T to y. */
#include "kernels/cuda/lora.cuh"

#define ROWS 4    /* of x, a warp: each value of A read serves four rows */
#define STEP 128  /* columns of x in one reading of a warp */
#define STEPS 2   /* readings under way at once */
#define SPLIT 256 /* columns of x worth a block */
#define MAX_SPLITS 16
#define DOWN_BLOCKS 528 /* four for each multiprocessor of an H100 */
#define UP_COLS 256     /* tile of y */
#define UP_ROWS 64
#define UP_RANKS 16

/* a_s = STEPS * STEP columns of R rows of A, 0 past `end`; rows past the last repeat it.
 */
template <int R, bool WIDE>
static __device__ __forceinline__ void
stage_a (float (*a_s)[STEPS * STEP], const lora_group &g, int first, int col, int end)
{
  constexpr int PIECES = STEPS * STEP / 4;

#pragma unroll
  for (int o = threadIdx.x; o < R * PIECES; o += LORA_THREADS) {
    const int q = o / PIECES, j = o % PIECES * 4;
    columns<float, 4> v;

    v.take<WIDE> (row_of_a (g, min (first + q, g.width - 1)) + col + j, end - col - j);
    *(float4 *)&a_s[q][j] = make_float4 (v.at (0), v.at (1), v.at (2), v.at (3));
  }
}

/* partial[split, row, q] = sum over the split's columns of x[row, j] A[q, j]. */
template <typename T, int R, bool WIDE>
static __global__ void
__launch_bounds__ (LORA_THREADS, 4) down (float *partial, const T *x, int64_t ldx,
    const __grid_constant__ lora_group g, int64_t rows, int chunk)
{
  typedef folding<ROWS * R, 16> fold;
  __shared__ alignas (16) float a_s[R][STEPS * STEP];
  const int lane = threadIdx.x & 31;
  const int64_t row0 = (blockIdx.x * (int64_t)LORA_WARPS + (threadIdx.x >> 5)) * ROWS;
  const int begin = blockIdx.y * chunk, end = min (begin + chunk, g.k);

  for (int first = 0; first < g.width; first += R) {
    float s[ROWS * R] = {0};

    for (int col = begin; col < end; col += STEPS * STEP) {
      columns<T, 4> v[STEPS][ROWS];

      /* Before A is staged: both are then under way at once. */
#pragma unroll
      for (int u = 0; u < STEPS; u++)
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
          const int j = col + u * STEP + lane * 4;

          v[u][i].template take<WIDE> (x + min (row0 + i, rows - 1) * ldx + j, end - j);
        }
      __syncthreads ();
      stage_a<R, WIDE> (a_s, g, first, col, end);
      __syncthreads ();
#pragma unroll
      for (int u = 0; u < STEPS; u++)
#pragma unroll
        for (int q = 0; q < R; q++) {
          const float4 w = *(const float4 *)&a_s[q][u * STEP + lane * 4];

#pragma unroll
          for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
              s[i * R + q] = fmaf (v[u][i].at (e), part_of (w, e), s[i * R + q]);
        }
    }
    fold::run (s, lane);
#pragma unroll
    for (int j = 0; j < fold::left; j++) {
      const int i = (fold::at (lane) + j) / R, q = first + (fold::at (lane) + j) % R;

      if ((lane & fold::twice) == 0 && row0 + i < rows && q < g.width)
        partial[(blockIdx.y * rows + row0 + i) * g.width + q] = s[j];
    }
  }
}

/* Where column `col` of a tile of y lies in a row of B in shared memory: the eight
 * columns of a lane are read as two float4, each beside those of the next lane. */
static __device__ __forceinline__ int
place (int col)
{
  return (col >> 2 & 1) * (UP_COLS / 2) + (col >> 3) * 4 + (col & 3);
}

/* b_s = scale B of `many` ranks from `first` on, for the tile's columns; h_s = h of the
 * same, padded to four ranks, which the blocks of a part's first tile also store. */
template <typename T>
static __device__ __forceinline__ void
stage_up (float (*b_s)[UP_COLS], float (*h_s)[UP_RANKS], T *h, int64_t ldh,
    const float *partial, int splits, const lora_group &g, int part, int col0,
    int64_t row0, int64_t rows, int n_rows, int first, int many)
{
  const int padded = (many + 3) & ~3;

  for (int o = threadIdx.x; o < UP_COLS * padded; o += LORA_THREADS) {
    const int col = o / padded, r = o % padded;
    float v = 0;

    if (r < many && col0 + col < g.part)
      v = g.b[part][(int64_t)(col0 + col) * g.rank + first + r] * g.scale[part];
    b_s[r][place (col)] = v;
  }
  for (int o = threadIdx.x; o < n_rows * padded; o += LORA_THREADS) {
    const int row = o / padded, r = o % padded, q = part * g.rank + first + r;
    float v = 0;

    if (r < many)
      v = sum_of (partial + (row0 + row) * g.width + q, rows * g.width, splits);
    h_s[row][r] = v;
    if (r < many && col0 == 0)
      h[(row0 + row) * ldh + q] = from_f<T> (v);
  }
}

/* Part p of y += scale h B^T: tiles of UP_COLS columns and n_rows rows, four rows of a
 * warp at a time. */
template <typename T, bool WIDE>
static __device__ __forceinline__ void
add_up (T *y, int64_t ldy, int left, const float (*b_s)[UP_COLS],
    const float (*h_s)[UP_RANKS], int n_rows, int padded)
{
  const int lane = threadIdx.x & 31;

  for (int row = (threadIdx.x >> 5) * 4; row < n_rows; row += LORA_WARPS * 4) {
    columns<T, 8> v[4];
    float sum[4][8];

#pragma unroll
    for (int i = 0; i < 4; i++)
      v[i].template take<WIDE> (y + (row + i) * ldy, row + i < n_rows ? left : 0);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int e = 0; e < 8; e++)
        sum[i][e] = v[i].at (e);
    for (int r = 0; r < padded; r += 4) {
      float4 h[4];

#pragma unroll
      for (int i = 0; i < 4; i++)
        h[i] = *(const float4 *)&h_s[row + i][r];
#pragma unroll
      for (int q = 0; q < 4; q++) {
        const float4 lo = *(const float4 *)&b_s[r + q][lane * 4];
        const float4 hi = *(const float4 *)&b_s[r + q][UP_COLS / 2 + lane * 4];
        const float w[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};

#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int e = 0; e < 8; e++)
            sum[i][e] = fmaf (part_of (h[i], q), w[e], sum[i][e]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
      give<T, 8, WIDE> (y + (row + i) * ldy, row + i < n_rows ? left : 0, sum[i]);
  }
}

template <typename T, bool WIDE>
static __global__ void
__launch_bounds__ (LORA_THREADS)
    up (T *y, int64_t ldy, T *h, int64_t ldh, const float *partial, int splits,
        const __grid_constant__ lora_group g, int64_t rows, int rows_a_block)
{
  __shared__ alignas (16) float b_s[UP_RANKS][UP_COLS], h_s[UP_ROWS][UP_RANKS];
  const int tiles = gridDim.x / g.n, part = blockIdx.x / tiles;
  const int col0 = blockIdx.x % tiles * UP_COLS;
  const int64_t row0 = blockIdx.y * (int64_t)rows_a_block;
  const int n_rows = (int)min ((int64_t)rows_a_block, rows - row0);
  const int col = col0 + (threadIdx.x & 31) * 8;
  T *at = y + row0 * ldy + (int64_t)part * g.part + col;

  /* Ranks beyond 16 come round again; each thread then reads what itself wrote. */
  for (int first = 0; first < g.rank; first += UP_RANKS) {
    const int many = min (g.rank - first, UP_RANKS);

    __syncthreads ();
    stage_up (b_s, h_s, h, ldh, partial, splits, g, part, col0, row0, rows, n_rows, first,
        many);
    __syncthreads ();
    add_up<T, WIDE> (at, ldy, g.part - col, b_s, h_s, n_rows, (many + 3) & ~3);
  }
}

lora_group
fxc_lora_group (const fx_lora *l, int n, int64_t k, int64_t part)
{
  lora_group g = {};

  for (int i = 0; i < n; i++) {
    g.a[i] = l[i].a;
    g.b[i] = l[i].b;
    g.da[i] = l[i].da;
    g.db[i] = l[i].db;
    g.scale[i] = l[i].scale;
  }
  g.n = n;
  g.rank = l->rank;
  g.width = n * l->rank;
  g.k = (int)k;
  g.part = (int)part;
  return g;
}

int
fxc_lora_dtype (fx_cuda *c, const char *name, fx_mat m, fx_mat x)
{
  if (m.p != NULL && m.dtype != x.dtype)
    return c->error (FX_ERR_UNSUPPORTED, "cuda: lora: %s has another dtype than x", name);
  return FX_OK;
}

/* Columns of x in one of the splits that fxc_lora_splits() counts. */
static int
split_columns (int64_t rows, int64_t k)
{
  const int64_t row_blocks = fxc_blocks (rows, LORA_WARPS * ROWS);
  int64_t splits = fxc_blocks (DOWN_BLOCKS, row_blocks);

  splits = splits < MAX_SPLITS ? splits : MAX_SPLITS;
  if (splits > fxc_blocks (k, SPLIT))
    splits = fxc_blocks (k, SPLIT);
  return (int)fxc_blocks (fxc_blocks (k, splits), STEP) * STEP;
}

int
fxc_lora_splits (int64_t rows, int64_t k)
{
  return (int)fxc_blocks (k, split_columns (rows, k));
}

int
fxc_lora_down (fx_cuda *c, float *partial, fx_mat x, const lora_group *g)
{
  const dim3 grid (
      fxc_blocks (x.rows, LORA_WARPS * ROWS), fxc_lora_splits (x.rows, g->k));
  const bool wide = lora_fits_x (x, g);

  FXC_WITH_TYPE (c, x.dtype, {
    auto kernel = !wide            ? down<T, 16, false>
                  : g->width <= 4  ? down<T, 4, true>
                  : g->width <= 12 ? down<T, 12, true>
                                   : down<T, 16, true>;
    kernel<<<grid, LORA_THREADS, 0, c->queue.stream>>> (
        partial, (const T *)x.p, x.ld, *g, x.rows, split_columns (x.rows, g->k));
  })
  FXC_LAUNCHED (c, "lora: x A^T");
}

static int
forward (fx_cuda *c, fx_mat y, fx_mat h, fx_mat x, const lora_group *g)
{
  const int splits = fxc_lora_splits (x.rows, g->k);
  const unsigned tiles = g->n * fxc_blocks (g->part, UP_COLS);
  /* Few rows: smaller tiles, more of them. */
  const int rows = tiles * fxc_blocks (y.rows, UP_ROWS) < DOWN_BLOCKS ? 16 : UP_ROWS;
  const dim3 grid (tiles, fxc_blocks (y.rows, rows));
  void *partial;

  FX_TRY (fxc_scratch (c, FXC_SCRATCH_MATRIX,
      sizeof (float) * splits * (size_t)(x.rows * g->width), &partial));
  FX_TRY (fxc_lora_down (c, (float *)partial, x, g));
  FXC_WITH_TYPE (c, x.dtype, {
    auto kernel = lora_fits (y, g->part) ? up<T, true> : up<T, false>;
    kernel<<<grid, LORA_THREADS, 0, c->queue.stream>>> (
        (T *)y.p, y.ld, (T *)h.p, h.ld, (const float *)partial, splits, *g, y.rows, rows);
  })
  FXC_LAUNCHED (c, "lora");
}

int
fxc_lora (fx_backend *b, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l, int n)
{
  const int64_t part = y.cols / n;

  FX_TRY (fxc_lora_dtype (fxc (b), "y", y, x));
  FX_TRY (fxc_lora_dtype (fxc (b), "h", h, x));
  for (int i = 0; i < n; i += LORA_PARTS) {
    const int many = n - i < LORA_PARTS ? n - i : LORA_PARTS;
    const lora_group g = fxc_lora_group (l + i, many, x.cols, part);

    FX_TRY (forward (fxc (b), fx_cols (y, i * part, many * part),
        fx_cols (h, i * (int64_t)l->rank, g.width), x, &g));
  }
  return FX_OK;
}
