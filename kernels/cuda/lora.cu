/* kernels/cuda/lora.cu: low-rank adapters beside a linear layer. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Skinny products: reading x, y or dy once is the cost, so each kernel makes up to 16
 * ranks of its result from one read. Sums over tokens go through partial sums of row
 * chunks, added in order. */
#include "kernels/cuda/common.cuh"

#define WARPS 4
#define CHUNK 64 /* rows whose outer products one block adds up */
#define COLS 128

/* h[row, r0 + r] = scale * sum_i x[row, i] w(r, i); w(r, i) = w[r * ws_r + i * ws_i]. A
 * warp a row. */
template <typename T, typename H, int R>
static __global__ void
down (H *h, int64_t ldh, const T *x, int64_t ldx, const float *w, int64_t ws_r,
    int64_t ws_i, int64_t rows, int cols, int rank, float scale)
{
  const int lane = threadIdx.x & 31;
  const int64_t row = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5);
  float sum[R] = {0};

  if (row >= rows)
    return;
  for (int i = lane; i < cols; i += 32) {
    float v = to_f (x[row * ldx + i]);

#pragma unroll
    for (int r = 0; r < R; r++) {
      if (r < rank)
        sum[r] = fmaf (v, w[r * ws_r + i * ws_i], sum[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    float total = warp_sum (sum[r]);

    if (lane == 0 && r < rank)
      h[row * ldh + r] = from_f<H> (total * scale);
  }
}

/* y[row, i] += scale * sum_r h[row, r] w(r, i). */
template <typename T, typename H, int R>
static __global__ void
up (T *y, int64_t ldy, const H *h, int64_t ldh, const float *w, int64_t ws_r,
    int64_t ws_i, int64_t rows, int cols, int rank, float scale)
{
  const int i = blockIdx.x * COLS + threadIdx.x;
  float c[R];

  if (i >= cols)
    return;
#pragma unroll
  for (int r = 0; r < R; r++)
    c[r] = r < rank ? w[r * ws_r + i * ws_i] * scale : 0;
  for (int64_t row = blockIdx.y * (int64_t)CHUNK;
       row < min (rows, (blockIdx.y + 1) * (int64_t)CHUNK); row++) {
    float v = to_f (y[row * ldy + i]);

#pragma unroll
    for (int r = 0; r < R; r++) {
      if (r < rank)
        v = fmaf (to_f (h[row * ldh + r]), c[r], v);
    }
    y[row * ldy + i] = from_f<T> (v);
  }
}

/* partial[chunk, r, i] = sum over the chunk's rows of h[row, r] x[row, i]. */
template <typename T, typename H, int R>
static __global__ void
outer (float *partial, const T *x, int64_t ldx, const H *h, int64_t ldh, int64_t rows,
    int cols, int rank)
{
  const int i = blockIdx.x * COLS + threadIdx.x;
  float sum[R] = {0};

  if (i >= cols)
    return;
  for (int64_t row = blockIdx.y * (int64_t)CHUNK;
       row < min (rows, (blockIdx.y + 1) * (int64_t)CHUNK); row++) {
    float v = to_f (x[row * ldx + i]);

#pragma unroll
    for (int r = 0; r < R; r++) {
      if (r < rank)
        sum[r] = fmaf (to_f (h[row * ldh + r]), v, sum[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    if (r < rank)
      partial[(blockIdx.y * (int64_t)rank + r) * cols + i] = sum[r];
  }
}

/* out(r, i) += scale * sum over chunks; out(r, i) = out[r * os_r + i * os_i]. */
static __global__ void
gather_chunks (float *out, int64_t os_r, int64_t os_i, const float *partial, int chunks,
    int rank, int cols, float scale)
{
  const int64_t at = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  const int64_t n = (int64_t)rank * cols;
  float sum = 0;

  if (at >= n)
    return;
  for (int j = 0; j < chunks; j++)
    sum += partial[j * n + at];
  out[at / cols * os_r + at % cols * os_i] += scale * sum;
}

/* A factor as a function of (rank index, column): A [rank, k], or B [n, rank] turned. */
typedef struct {
  float *p;
  int64_t s_r, s_i;
} factor;

static factor
factor_at (factor f, int r)
{
  f.p += r * f.s_r;
  return f;
}

template <typename T, typename H>
static void
run_down (fx_cuda *c, H *h, int64_t ldh, fx_mat x, factor f, int rank, float scale)
{
  for (int r = 0; r < rank; r += 16) {
    int n = rank - r < 16 ? rank - r : 16;
    factor g = factor_at (f, r);

    if (n <= 4)
      down<T, H, 4><<<fxc_blocks (x.rows, WARPS), WARPS * 32, 0, c->stream>>> (h + r, ldh,
          (const T *)x.p, x.ld, g.p, g.s_r, g.s_i, x.rows, (int)x.cols, n, scale);
    else
      down<T, H, 16><<<fxc_blocks (x.rows, WARPS), WARPS * 32, 0, c->stream>>> (h + r,
          ldh, (const T *)x.p, x.ld, g.p, g.s_r, g.s_i, x.rows, (int)x.cols, n, scale);
  }
}

template <typename T, typename H>
static void
run_up (fx_cuda *c, fx_mat y, const H *h, int64_t ldh, factor f, int rank, float scale)
{
  const dim3 grid (fxc_blocks (y.cols, COLS), fxc_blocks (y.rows, CHUNK));

  for (int r = 0; r < rank; r += 16) {
    int n = rank - r < 16 ? rank - r : 16;
    factor g = factor_at (f, r);

    if (n <= 4)
      up<T, H, 4><<<grid, COLS, 0, c->stream>>> (
          (T *)y.p, y.ld, h + r, ldh, g.p, g.s_r, g.s_i, y.rows, (int)y.cols, n, scale);
    else
      up<T, H, 16><<<grid, COLS, 0, c->stream>>> (
          (T *)y.p, y.ld, h + r, ldh, g.p, g.s_r, g.s_i, y.rows, (int)y.cols, n, scale);
  }
}

template <typename T, typename H>
static int
run_outer (
    fx_cuda *c, factor out, fx_mat x, const H *h, int64_t ldh, int rank, float scale)
{
  const int chunks = (int)fxc_blocks (x.rows, CHUNK), cols = (int)x.cols;
  const dim3 grid (fxc_blocks (cols, COLS), chunks);
  void *partial;

  FX_TRY (fxc_scratch (
      c, FXC_SCRATCH_PARTIAL, sizeof (float) * chunks * 16 * (size_t)cols, &partial));
  for (int r = 0; r < rank; r += 16) {
    int n = rank - r < 16 ? rank - r : 16;
    factor g = factor_at (out, r);

    if (n <= 4)
      outer<T, H, 4><<<grid, COLS, 0, c->stream>>> (
          (float *)partial, (const T *)x.p, x.ld, h + r, ldh, x.rows, cols, n);
    else
      outer<T, H, 16><<<grid, COLS, 0, c->stream>>> (
          (float *)partial, (const T *)x.p, x.ld, h + r, ldh, x.rows, cols, n);
    gather_chunks<<<fxc_blocks ((int64_t)n * cols, 256), 256, 0, c->stream>>> (
        g.p, g.s_r, g.s_i, (const float *)partial, chunks, n, cols, scale);
  }
  return FX_OK;
}

int
fxc_lora (fx_backend *b, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l)
{
  fx_cuda *c = fxc (b);
  factor a = {l->a, x.cols, 1}, up_b = {l->b, 1, l->rank};

  FXC_WITH_TYPE (c, x.dtype, {
    run_down<T, T> (c, (T *)h.p, h.ld, x, a, l->rank, 1);
    run_up<T, T> (c, y, (const T *)h.p, h.ld, up_b, l->rank, l->scale);
  })
  FXC_LAUNCHED (c, "lora");
}

int
fxc_lora_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l)
{
  fx_cuda *c = fxc (b);
  const int rank = l->rank;
  factor a = {l->a, x.cols, 1}, turned_b = {l->b, 1, rank};
  factor da = {l->da, x.cols, 1}, db = {l->db, 1, rank};
  void *scratch;
  float *dh, *h32;

  FX_TRY (fxc_scratch (
      c, FXC_SCRATCH_MATRIX, sizeof (float) * 2 * (size_t)(x.rows * rank), &scratch));
  dh = (float *)scratch;
  h32 = dh + x.rows * rank;
  FXC_WITH_TYPE (c, x.dtype, {
    run_down<T, float> (c, dh, rank, dy, turned_b, rank, l->scale);
    if (l->db != NULL && h.p != NULL) {
      FX_TRY ((run_outer<T, T> (c, db, dy, (const T *)h.p, h.ld, rank, l->scale)));
    } else if (l->db != NULL) {
      run_down<T, float> (c, h32, rank, x, a, rank, 1);
      FX_TRY ((run_outer<T, float> (c, db, dy, h32, rank, rank, l->scale)));
    }
    if (l->da != NULL)
      FX_TRY ((run_outer<T, float> (c, da, x, dh, rank, rank, 1)));
    if (dx.p != NULL)
      run_up<T, float> (c, dx, dh, rank, a, rank, 1);
  })
  FXC_LAUNCHED (c, "lora_bwd");
}
