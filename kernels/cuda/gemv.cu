/* kernels/cuda/gemv.cu: a linear layer on a few rows. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The modulation layers act on one vector a sample: what counts is to read the quantised
 * weight once. A warp makes one output feature for all rows; the inputs stand in shared
 * memory as fp32, in pieces of K_TILE columns. */
#include "kernels/cuda/weight.cuh"

#define WARPS 8
#define K_TILE 1024

/* Weights [n, k..k+8) as fp32. */
template <int Q>
static __device__ __forceinline__ void
weights8 (
    const fxc_weight &w, int64_t at, const float *code, const float *code8, float *v)
{
  if (Q == FX_Q_NF4 || Q == FX_Q_NF4_DOUBLE) {
    fxc_unpack8 (reinterpret_cast<const uint32_t *> (w.data)[at >> 3],
        fxc_absmax<Q == FX_Q_NF4_DOUBLE> (w, at >> 6, code8), code, w.dtype, v);
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++)
      v[i] = fxc_element (w, at + i);
  }
}

static __device__ __forceinline__ int
place (int k)
{
  return (k >> 2 & 1) * (K_TILE / 2) + (k >> 3) * 4 + (k & 3);
}

template <typename T, int Q, int M>
static __global__ void
gemv (T *y, int64_t ldy, const T *x, int64_t ldx, fxc_weight w, const float *bias,
    bool beta)
{
  /* Column k at (k / 4 % 2) * K_TILE / 2 + k / 8 * 4 + k % 4: lanes read their 8 as two
   * float4 without meeting in a bank. */
  __shared__ __align__ (16) float xs[M][K_TILE];
  __shared__ float code[16], code8[256];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int64_t row = blockIdx.x * (int64_t)WARPS + warp;
  float sum[M] = {0};

  fxc_stage_codes<Q == FX_Q_NF4_DOUBLE> (w, code, code8);
  for (int64_t k0 = 0; k0 < w.k; k0 += K_TILE) {
    int64_t len = min ((int64_t)K_TILE, w.k - k0);

    __syncthreads ();
    for (int m = 0; m < M; m++) {
      for (int i = threadIdx.x; i < len; i += WARPS * 32)
        xs[m][place (i)] = to_f (x[m * ldx + k0 + i]);
    }
    __syncthreads ();
    if (row >= w.n)
      continue;
    for (int i = lane * 8; i < len; i += 256) {
      float v[8];

      if (i + 8 <= len) {
        weights8<Q> (w, row * w.k + k0 + i, code, code8, v);
#pragma unroll
        for (int m = 0; m < M; m++) {
          const float4 a = *(const float4 *)&xs[m][place (i)];
          const float4 b = *(const float4 *)&xs[m][place (i + 4)];
          const float xv[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};

#pragma unroll
          for (int j = 0; j < 8; j++)
            sum[m] = fmaf (v[j], xv[j], sum[m]);
        }
      } else {
        for (int j = 0; i + j < len; j++) {
          float one = fxc_element (w, row * w.k + k0 + i + j);

          for (int m = 0; m < M; m++)
            sum[m] = fmaf (one, xs[m][place (i + j)], sum[m]);
        }
      }
    }
  }
  if (row >= w.n)
    return;
#pragma unroll
  for (int m = 0; m < M; m++) {
    float total = warp_sum (sum[m]);

    if (lane == 0) {
      T *out = y + m * ldy + row;

      total += bias != NULL ? bias[row] : 0;
      *out = from_f<T> (beta ? to_f (*out) + total : total);
    }
  }
}

template <typename T, int M>
static void
launch (fx_cuda *c, fx_mat y, fx_mat x, const fxc_weight &w, const float *bias, bool beta)
{
  unsigned blocks = fxc_blocks (w.n, WARPS);

#define GEMV(Q)                                                                          \
  gemv<T, Q, M><<<blocks, WARPS * 32, 0, c->queue.stream>>> (                            \
      (T *)y.p, y.ld, (const T *)x.p, x.ld, w, bias, beta)
  if (w.qtype == FX_Q_NF4)
    GEMV (FX_Q_NF4);
  else if (w.qtype == FX_Q_NF4_DOUBLE)
    GEMV (FX_Q_NF4_DOUBLE);
  else
    GEMV (FX_Q_NONE);
#undef GEMV
}

int
fxc_gemv (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *weight, bool beta)
{
  fx_cuda *c = fxc (b);
  fxc_weight w = fxc_weight_of (weight);

  /* Four rows at a time, then one by one: enough for the micro-batches of a step. */
  FXC_WITH_TYPE (c, x.dtype, {
    int64_t r = 0;

    for (; r + 4 <= x.rows; r += 4)
      launch<T, 4> (c, fx_rows (y, r, 4), fx_rows (x, r, 4), w, weight->bias, beta);
    for (; r < x.rows; r++)
      launch<T, 1> (c, fx_rows (y, r, 1), fx_rows (x, r, 1), w, weight->bias, beta);
  })
  FXC_LAUNCHED (c, "gemv");
}
