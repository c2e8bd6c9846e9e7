/* kernels/cuda/gemv.cu: a linear layer on a few rows. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The modulation layers act on one vector a sample: what counts is to read the quantised
 * weight once. A warp makes one or two output features for all rows; the inputs stand in
 * shared memory as fp32, in pieces of K_TILE columns. */
#include "kernels/cuda/weight.cuh"

#define WARPS 8
#define K_TILE 1024
#define PIECES (K_TILE / 256) /* of 8 columns that a lane has in a tile */
#define FEATURES 2            /* of a warp, of 4-bit weights */

/* Where column k of a tile lies: lanes read their 8 as two float4 without meeting in a
 * bank. */
static __device__ __forceinline__ int
place (int k)
{
  return (k >> 2 & 1) * (K_TILE / 2) + (k >> 3) * 4 + (k & 3);
}

/* sum[m] += v x[m, i..i+8) */
template <int M>
static __device__ __forceinline__ void
add8 (float *sum, const float *v, const float (*xs)[K_TILE], int i)
{
#pragma unroll
  for (int m = 0; m < M; m++) {
    const float4 a = *(const float4 *)&xs[m][place (i)];
    const float4 b = *(const float4 *)&xs[m][place (i + 4)];
    const float xv[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};

#pragma unroll
    for (int j = 0; j < 8; j++)
      sum[m] = fmaf (v[j], xv[j], sum[m]);
  }
}

template <typename T, int M>
static __device__ __forceinline__ void
stage_x (float (*xs)[K_TILE], const T *x, int64_t ldx, int64_t k0, int len)
{
  __syncthreads ();
  for (int m = 0; m < M; m++) {
    for (int i = threadIdx.x; i < len; i += WARPS * 32)
      xs[m][place (i)] = to_f (x[m * ldx + k0 + i]);
  }
  __syncthreads ();
}

template <typename T, int M>
static __device__ __forceinline__ void
finish (T *y, int64_t ldy, int64_t row, const float *sum, const float *bias, bool beta)
{
#pragma unroll
  for (int m = 0; m < M; m++) {
    float total = warp_sum (sum[m]);

    if ((threadIdx.x & 31) == 0) {
      T *out = y + m * ldy + row;

      total += bias != NULL ? bias[row] : 0;
      *out = from_f<T> (beta ? to_f (*out) + total : total);
    }
  }
}

/* 4 bits: a tile's words of FEATURES rows of W are under way before x is staged. */
template <typename T, bool DOUBLE, int M>
static __global__ void
__launch_bounds__ (WARPS * 32) gemv4 (T *y, int64_t ldy, const T *x, int64_t ldx,
    fxc_weight w, const float *bias, bool beta)
{
  __shared__ __align__ (16) float xs[M][K_TILE];
  __shared__ float code[16], code8[256];
  const int lane = threadIdx.x & 31;
  const int64_t row =
      (blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5)) * (int64_t)FEATURES;
  float sum[FEATURES][M] = {{0}};

  fxc_stage_codes<DOUBLE> (w, code, code8);
  for (int64_t k0 = 0; k0 < w.k; k0 += K_TILE) {
    const int len = (int)min ((int64_t)K_TILE, w.k - k0);
    uint32_t words[FEATURES][PIECES];
    float scales[FEATURES][PIECES];

#pragma unroll
    for (int f = 0; f < FEATURES; f++) {
#pragma unroll
      for (int u = 0; u < PIECES; u++) {
        const int i = lane * 8 + u * 256;
        const int64_t at = min (row + f, w.n - 1) * w.k + k0 + i;

        if (i < len) {
          words[f][u] = reinterpret_cast<const uint32_t *> (w.data)[at >> 3];
          scales[f][u] = fxc_absmax<DOUBLE> (w, at >> 6, code8);
        }
      }
    }
    stage_x<T, M> (xs, x, ldx, k0, len);
#pragma unroll
    for (int u = 0; u < PIECES; u++) {
      const int i = lane * 8 + u * 256;

      if (i < len) {
#pragma unroll
        for (int f = 0; f < FEATURES; f++) {
          float v[8];

          fxc_unpack8 (words[f][u], scales[f][u], code, w.dtype, v);
          add8<M> (sum[f], v, xs, i);
        }
      }
    }
  }
#pragma unroll
  for (int f = 0; f < FEATURES; f++) {
    if (row + f < w.n)
      finish<T, M> (y, ldy, row + f, sum[f], bias, beta);
  }
}

/* 16 bits, rows of whole packs: as gemv4, one row. */
template <typename T, typename E, int M>
static __global__ void
__launch_bounds__ (WARPS * 32) gemv16 (T *y, int64_t ldy, const T *x, int64_t ldx,
    fxc_weight w, const float *bias, bool beta)
{
  __shared__ __align__ (16) float xs[M][K_TILE];
  const int lane = threadIdx.x & 31;
  const int64_t row = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5);
  const E *from = (const E *)w.data + min (row, w.n - 1) * w.k;
  float sum[M] = {0};

  for (int64_t k0 = 0; k0 < w.k; k0 += K_TILE) {
    const int len = (int)min ((int64_t)K_TILE, w.k - k0);
    pack<E, 8> p[PIECES];

#pragma unroll
    for (int u = 0; u < PIECES; u++) {
      const int i = lane * 8 + u * 256;

      if (i < len)
        p[u] = *reinterpret_cast<const pack<E, 8> *> (from + k0 + i);
    }
    stage_x<T, M> (xs, x, ldx, k0, len);
#pragma unroll
    for (int u = 0; u < PIECES; u++) {
      const int i = lane * 8 + u * 256;

      if (i < len) {
        float v[8];

#pragma unroll
        for (int j = 0; j < 8; j++)
          v[j] = to_f (p[u].v[j]);
        add8<M> (sum, v, xs, i);
      }
    }
  }
  if (row < w.n)
    finish<T, M> (y, ldy, row, sum, bias, beta);
}

template <typename T, int M>
static __global__ void
gemv (T *y, int64_t ldy, const T *x, int64_t ldx, fxc_weight w, const float *bias,
    bool beta)
{
  __shared__ __align__ (16) float xs[M][K_TILE];
  const int lane = threadIdx.x & 31;
  const int64_t row = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5);
  float sum[M] = {0};

  for (int64_t k0 = 0; k0 < w.k; k0 += K_TILE) {
    const int len = (int)min ((int64_t)K_TILE, w.k - k0);

    stage_x<T, M> (xs, x, ldx, k0, len);
    if (row >= w.n)
      continue;
    for (int i = lane * 8; i < len; i += 256) {
      float v[8];

      if (i + 8 <= len) {
#pragma unroll
        for (int j = 0; j < 8; j++)
          v[j] = fxc_element (w, row * w.k + k0 + i + j);
        add8<M> (sum, v, xs, i);
      } else {
        for (int j = 0; i + j < len; j++) {
          float one = fxc_element (w, row * w.k + k0 + i + j);

          for (int m = 0; m < M; m++)
            sum[m] = fmaf (one, xs[m][place (i + j)], sum[m]);
        }
      }
    }
  }
  if (row < w.n)
    finish<T, M> (y, ldy, row, sum, bias, beta);
}

template <typename T, int M>
static void
launch (fx_cuda *c, fx_mat y, fx_mat x, const fxc_weight &w, const float *bias, bool beta)
{
  const bool is_4bit = w.qtype == FX_Q_NF4 || w.qtype == FX_Q_NF4_DOUBLE;
  const unsigned blocks = fxc_blocks (w.n, is_4bit ? FEATURES * WARPS : WARPS);
  const bool packs =
      w.qtype == FX_Q_NONE && w.k % 8 == 0 && ((uintptr_t)w.data & 15) == 0;
  auto kernel = w.qtype == FX_Q_NF4           ? gemv4<T, false, M>
                : w.qtype == FX_Q_NF4_DOUBLE  ? gemv4<T, true, M>
                : packs && w.dtype == FX_BF16 ? gemv16<T, bf16, M>
                : packs && w.dtype == FX_F16  ? gemv16<T, f16, M>
                                              : gemv<T, M>;

  kernel<<<blocks, WARPS * 32, 0, c->queue.stream>>> (
      (T *)y.p, y.ld, (const T *)x.p, x.ld, w, bias, beta);
}

int
fxc_gemv (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *weight, bool beta)
{
  fx_cuda *c = fxc (b);
  fxc_weight w = fxc_weight_of (weight);

  /* Four rows at a time, then two, then one: the micro-batches of a step. */
  FXC_WITH_TYPE (c, x.dtype, {
    int64_t r = 0;

    for (; r + 4 <= x.rows; r += 4)
      launch<T, 4> (c, fx_rows (y, r, 4), fx_rows (x, r, 4), w, weight->bias, beta);
    for (; r + 2 <= x.rows; r += 2)
      launch<T, 2> (c, fx_rows (y, r, 2), fx_rows (x, r, 2), w, weight->bias, beta);
    for (; r < x.rows; r++)
      launch<T, 1> (c, fx_rows (y, r, 1), fx_rows (x, r, 1), w, weight->bias, beta);
  })
  FXC_LAUNCHED (c, "gemv");
}
