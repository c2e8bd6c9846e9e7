/* kernels/cuda/rounded.cu: operands and results of 8-bit products.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernels/cuda/rounded.cuh"

#define THREADS 256
#define TILE 64

template <typename T, int V> struct as_it_is {
  const T *x;
  int64_t ld;
  __device__ __forceinline__ void
  operator() (int64_t row, int i, float *v) const
  {
    load<T, V> (x + row * ld + i, v);
  }
};

/* Rows that round_made () does not hold: a block each, read twice. */
template <typename T>
static __global__ void
round_long (
    fx_rounded r, const T *__restrict__ x, int64_t ld, const float *__restrict__ factor)
{
  __shared__ float shared[THREADS / 32];
  const bool is_int8 = r.dtype == FX_I8;
  const T *row = x + blockIdx.x * ld;
  float largest = 0;

  for (int64_t i = threadIdx.x; i < r.cols; i += THREADS) {
    const float v = to_f (row[i]);

    largest = fmaxf (largest, magnitude (is_int8, factor != NULL ? v * factor[i] : v));
  }
  const rounding round (is_int8, block_max (largest, shared));

  for (int64_t i = threadIdx.x; i < r.cols; i += THREADS) {
    const float v = to_f (row[i]);

    ((uint8_t *)r.q)[blockIdx.x * r.cols + i] =
        round (factor != NULL ? v * factor[i] : v);
  }
  if (threadIdx.x == 0)
    r.scales[blockIdx.x] = round.scale;
}

int
fxc_round_rows (fx_backend *b, fx_rounded r, fx_mat x, const float *factor)
{
  fx_cuda *c = fxc (b);

  FXC_WITH_TYPE (c, x.dtype, {
    constexpr int V = 16 / sizeof (T);

    if (fxc_aligned (x, sizeof (T)) && fxc_round_fits (r, factor, V))
      fxc_round_made<V> (c, r, factor, as_it_is<T, V>{(const T *)x.p, x.ld});
    else
      round_long<T><<<(unsigned)x.rows, THREADS, 0, c->queue.stream>>> (
          r, (const T *)x.p, x.ld, factor);
  })
  FXC_LAUNCHED (c, "round_rows");
}

/* A tile of 64 x 64 bytes a block; n and k are multiples of 16. */
static __global__ void
transpose (
    uint8_t *__restrict__ out, const uint8_t *__restrict__ in, int64_t n, int64_t k)
{
  __shared__ uint32_t tile[TILE][TILE / 4 + 1];
  const int64_t row = blockIdx.y * (int64_t)TILE, col = blockIdx.x * (int64_t)TILE;
  const int word = threadIdx.x % 16, line = threadIdx.x / 16;

  for (int r = line; r < TILE; r += THREADS / 16)
    if (row + r < n && col + 4 * word < k)
      tile[r][word] =
          *reinterpret_cast<const uint32_t *> (in + (row + r) * k + col + 4 * word);
  __syncthreads ();
  /* Four rows of four bytes become four words of the other direction. */
  {
    const int r4 = threadIdx.x % 16 * 4, c4 = threadIdx.x / 16;
    uint32_t a = tile[r4][c4], b = tile[r4 + 1][c4], c = tile[r4 + 2][c4],
             d = tile[r4 + 3][c4];
    uint32_t ab = __byte_perm (a, b, 0x5140), cd = __byte_perm (c, d, 0x5140);
    uint32_t ab2 = __byte_perm (a, b, 0x7362), cd2 = __byte_perm (c, d, 0x7362);
    const uint32_t words[4] = {__byte_perm (ab, cd, 0x5410), __byte_perm (ab, cd, 0x7632),
        __byte_perm (ab2, cd2, 0x5410), __byte_perm (ab2, cd2, 0x7632)};

    if (row + r4 < n) {
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (col + 4 * c4 + i < k)
          *reinterpret_cast<uint32_t *> (out + (col + 4 * c4 + i) * n + row + r4) =
              words[i];
    }
  }
}

extern "C" int
fxc_unrounded (fx_cuda *c, fx_rounded r, fx_dtype dtype, fx_mat *y)
{
  if (y->p != NULL)
    return FX_OK;
  *y = fx_mat_new (NULL, r.rows, r.cols, dtype);
  return fxc_scratch (
      c, FXC_SCRATCH_MATRIX, (size_t)(r.rows * r.cols) * fx_dtype_size (dtype), &y->p);
}

extern "C" int
fxc_transpose_bytes (fx_cuda *c, uint8_t *out, const uint8_t *in, int64_t n, int64_t k)
{
  const dim3 grid (fxc_blocks (k, TILE), fxc_blocks (n, TILE));

  transpose<<<grid, THREADS, 0, c->queue.stream>>> (out, in, n, k);
  FXC_LAUNCHED (c, "transpose");
}

/* y [+]= p * row's scale * column's scale + bias. V columns a thread. */
template <typename T, typename P, int V>
static __global__ void
apply (T *__restrict__ y, int64_t ldy, const P *__restrict__ p, int64_t rows, int cols,
    const float *__restrict__ row_scales, const float *__restrict__ col_scales,
    const float *__restrict__ bias, bool beta)
{
  const int per_row = cols / V;
  const int64_t unit = blockIdx.x * (int64_t)THREADS + threadIdx.x;
  const int64_t row = unit / per_row;
  const int i = (int)(unit % per_row) * V;
  float v[V], s[V];

  if (row >= rows)
    return;
  const float scale = row_scales[row];
  T *out = y + row * ldy + i;

  load<P, V> (p + row * cols + i, v);
#pragma unroll
  for (int j = 0; j < V; j++)
    v[j] *= scale;
  if (col_scales != NULL) {
    load<float, V> (col_scales + i, s);
#pragma unroll
    for (int j = 0; j < V; j++)
      v[j] *= s[j];
  }
  if (bias != NULL) {
    load<float, V> (bias + i, s);
#pragma unroll
    for (int j = 0; j < V; j++)
      v[j] += s[j];
  }
  if (beta) {
    load<T, V> (out, s);
#pragma unroll
    for (int j = 0; j < V; j++)
      v[j] += s[j];
  }
  store<T, V> (out, v);
}

template <typename T, typename P>
static void
run_apply (fx_cuda *c, fx_mat y, const P *p, const float *row_scales,
    const float *col_scales, const float *bias, bool beta)
{
  const bool wide = fxc_aligned (y, 2) &&
                    (((uintptr_t)p | (uintptr_t)col_scales | (uintptr_t)bias) & 15) == 0;
  const unsigned blocks = fxc_blocks (y.rows * (wide ? y.cols / 8 : y.cols), THREADS);
  auto kernel = wide ? apply<T, P, 8> : apply<T, P, 1>;

  kernel<<<blocks, THREADS, 0, c->queue.stream>>> (
      (T *)y.p, y.ld, p, y.rows, (int)y.cols, row_scales, col_scales, bias, beta);
}

extern "C" int
fxc_apply_scales (fx_cuda *c, fx_mat y, fx_mat p, const float *row_scales,
    const float *col_scales, const float *bias, bool beta)
{
  FXC_WITH_TYPE (c, y.dtype, {
    if (p.dtype == FX_I32)
      run_apply<T> (c, y, (const int32_t *)p.p, row_scales, col_scales, bias, beta);
    else
      run_apply<T> (c, y, (const T *)p.p, row_scales, col_scales, bias, beta);
  })
  FXC_LAUNCHED (c, "scales");
}

static __global__ void
fill_ones (float *p, int64_t n)
{
  int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;

  if (i < n)
    p[i] = 1;
}

extern "C" int
fxc_ones (fx_cuda *c, float *p, int64_t n)
{
  fill_ones<<<fxc_blocks (n, THREADS), THREADS, 0, c->queue.stream>>> (p, n);
  FXC_LAUNCHED (c, "ones");
}
