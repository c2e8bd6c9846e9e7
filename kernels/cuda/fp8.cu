/* kernels/cuda/fp8.cu: operands of 8-bit products. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Memory bound: rows are read twice, the second time from the caches. */
#include <cuda_fp8.h>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/fp8.h"

#define THREADS 256
#define TILE 64

/* fx_fp8_scale (), bit for bit. */
static __device__ __forceinline__ float
scale_of (float absmax)
{
  uint32_t u = __float_as_uint (__fdiv_rn (absmax, 448.f));

  if (!(absmax > 0))
    return 1;
  if (u >= 0x7f000000)
    return INFINITY;
  u = (u & 0x7fffff) != 0 ? (u & 0x7f800000) + 0x800000 : u;
  return __uint_as_float (u < 0x00800000 ? 0x00800000 : u);
}

/* What does not fit is NaN, which __nv_cvt would make the largest number. */
static __device__ __forceinline__ uint32_t
to_e4m3 (float v)
{
  return isnan (v) ? 0x7f : __nv_cvt_float_to_fp8 (v, __NV_SATFINITE, __NV_E4M3);
}

/* A block a row; V elements at once. */
template <typename T, int V>
static __global__ void
quantise_rows (uint8_t *__restrict__ q, float *__restrict__ scales,
    const T *__restrict__ x, int64_t ld, int64_t cols, const float *__restrict__ factor)
{
  __shared__ float shared[THREADS / 32];
  const T *row = x + blockIdx.x * ld;
  uint8_t *out = q + blockIdx.x * cols;
  float largest = 0, v[V];

  for (int64_t i = threadIdx.x * V; i < cols; i += THREADS * V) {
    load<T, V> (row + i, v);
#pragma unroll
    for (int j = 0; j < V; j++)
      largest = fmaxf (largest, fabsf (factor != NULL ? v[j] * factor[i + j] : v[j]));
  }
  largest = warp_max (largest);
  if ((threadIdx.x & 31) == 0)
    shared[threadIdx.x >> 5] = largest;
  __syncthreads ();
#pragma unroll
  for (int i = 0; i < THREADS / 32; i++)
    largest = fmaxf (largest, shared[i]);
  const float scale = scale_of (largest), inverse = 1.f / scale;

  for (int64_t i = threadIdx.x * V; i < cols; i += THREADS * V) {
    pack<uint8_t, V> p;

    load<T, V> (row + i, v);
#pragma unroll
    for (int j = 0; j < V; j++)
      p.v[j] =
          (uint8_t)to_e4m3 ((factor != NULL ? v[j] * factor[i + j] : v[j]) * inverse);
    *reinterpret_cast<pack<uint8_t, V> *> (out + i) = p;
  }
  if (threadIdx.x == 0)
    scales[blockIdx.x] = scale;
}

extern "C" int
fxc_fp8_quantize (fx_cuda *c, uint8_t *q, float *scales, fx_mat x, const float *factor)
{
  const unsigned rows = (unsigned)x.rows;

  FXC_WITH_TYPE (c, x.dtype, {
    if (fxc_aligned (x, sizeof (T)))
      quantise_rows<T, 16 / sizeof (T)><<<rows, THREADS, 0, c->queue.stream>>> (
          q, scales, (const T *)x.p, x.ld, x.cols, factor);
    else
      quantise_rows<T, 1><<<rows, THREADS, 0, c->queue.stream>>> (
          q, scales, (const T *)x.p, x.ld, x.cols, factor);
  })
  FXC_LAUNCHED (c, "fp8 quantize");
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
fxc_fp8_transpose (fx_cuda *c, uint8_t *out, const uint8_t *in, int64_t n, int64_t k)
{
  const dim3 grid (fxc_blocks (k, TILE), fxc_blocks (n, TILE));

  transpose<<<grid, THREADS, 0, c->queue.stream>>> (out, in, n, k);
  FXC_LAUNCHED (c, "fp8 transpose");
}

/* y [+]= p * row's scale * column's scale + bias. */
template <typename T>
static __global__ void
apply (T *__restrict__ y, int64_t ldy, const T *__restrict__ p, int64_t rows,
    int64_t cols, const float *__restrict__ row_scales,
    const float *__restrict__ col_scales, const float *__restrict__ bias, bool beta)
{
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < rows * cols;
       i += gridDim.x * (int64_t)THREADS) {
    const int64_t r = i / cols, col = i % cols;
    float v = to_f (p[i]) * row_scales[r] * (col_scales != NULL ? col_scales[col] : 1.f);

    v += bias != NULL ? bias[col] : 0.f;
    v += beta ? to_f (y[r * ldy + col]) : 0.f;
    y[r * ldy + col] = from_f<T> (v);
  }
}

extern "C" int
fxc_fp8_apply (fx_cuda *c, fx_mat y, const void *p, const float *row_scales,
    const float *col_scales, const float *bias, bool beta)
{
  FXC_WITH_TYPE (c, y.dtype, {
    apply<T><<<fxc_blocks (y.rows * y.cols, 4 * THREADS), THREADS, 0, c->queue.stream>>> (
        (T *)y.p, y.ld, (const T *)p, y.rows, y.cols, row_scales, col_scales, bias, beta);
  })
  FXC_LAUNCHED (c, "fp8 scales");
}

static __global__ void
fill_ones (float *p, int64_t n)
{
  int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;

  if (i < n)
    p[i] = 1;
}

extern "C" int
fxc_fp8_ones (fx_cuda *c, float *p, int64_t n)
{
  fill_ones<<<fxc_blocks (n, THREADS), THREADS, 0, c->queue.stream>>> (p, n);
  FXC_LAUNCHED (c, "ones");
}
