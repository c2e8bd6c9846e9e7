/* kernels/cuda/rounded.cuh: rows in 8 bits where they are made. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/rounded.h"

#define ROUND_THREADS 512 /* a row's at most */

/* fx_fp8_scale (), bit for bit. */
static __device__ __forceinline__ float
e4m3_scale (float absmax)
{
  uint32_t u = __float_as_uint (__fdiv_rn (absmax, 448.f));

  if (!(absmax > 0))
    return 1;
  if (u >= 0x7f000000)
    return INFINITY;
  u = (u & 0x7fffff) != 0 ? (u & 0x7f800000) + 0x800000 : u;
  return __uint_as_float (u < 0x00800000 ? 0x00800000 : u);
}

/* What a row's numbers are divided by, and what a product is multiplied by instead. */
struct rounding {
  bool is_int8;
  float inverse, scale;

  __device__ __forceinline__
  rounding (bool is_int8_, float absmax)
      : is_int8 (is_int8_)
  {
    if (is_int8) {
      /* W is q absmax / 127 as well: that division is in x's scale. */
      inverse = absmax > 0 ? 127.f / absmax : 0;
      scale = absmax * (1 / (127.f * 127.f));
    } else {
      scale = e4m3_scale (absmax);
      inverse = 1.f / scale;
    }
  }

  __device__ __forceinline__ uint8_t
  operator() (float v) const
  {
    v *= inverse;
    if (is_int8)
      return (uint8_t)(int8_t)fminf (fmaxf (rintf (v), -127), 127);
    /* What does not fit is NaN, which __nv_cvt would make the largest number. */
    return isnan (v) ? 0x7f : __nv_cvt_float_to_fp8 (v, __NV_SATFINITE, __NV_E4M3);
  }
};

/* |v| for the row's largest. NaN counts in int8 alone, which has none: the scale is then
 * infinite, and the product not a number. */
static __device__ __forceinline__ float
magnitude (bool is_int8, float v)
{
  return is_int8 && isnan (v) ? INFINITY : fabsf (v);
}

/* A row a block, in registers: C pieces of V elements a thread. f (row, i, v) makes
 * elements [i, i + V), each a value of the compute dtype. */
template <int V, int C, typename F>
static __global__ void
__launch_bounds__ (ROUND_THREADS)
    round_made (fx_rounded r, const float *__restrict__ factor, F f)
{
  __shared__ float shared[ROUND_THREADS / 32];
  const bool is_int8 = r.dtype == FX_I8;
  const int cols = (int)r.cols;
  float v[C][V], largest = 0;

#pragma unroll
  for (int c = 0; c < C; c++) {
    const int i = (c * (int)blockDim.x + (int)threadIdx.x) * V;

    if (i < cols) {
      f (blockIdx.x, i, v[c]);
      if (factor != NULL) {
        float s[V];

        load<float, V> (factor + i, s);
#pragma unroll
        for (int j = 0; j < V; j++)
          v[c][j] *= s[j];
      }
#pragma unroll
      for (int j = 0; j < V; j++)
        largest = fmaxf (largest, magnitude (is_int8, v[c][j]));
    }
  }
  const rounding round (is_int8, block_max (largest, shared));

#pragma unroll
  for (int c = 0; c < C; c++) {
    const int i = (c * (int)blockDim.x + (int)threadIdx.x) * V;
    pack<uint8_t, V> p;

    if (i < cols) {
#pragma unroll
      for (int j = 0; j < V; j++)
        p.v[j] = round (v[c][j]);
      *reinterpret_cast<pack<uint8_t, V> *> ((uint8_t *)r.q + blockIdx.x * r.cols + i) =
          p;
    }
  }
  if (threadIdx.x == 0)
    r.scales[blockIdx.x] = round.scale;
}

/* Whether round_made () holds a row of pieces of V. */
static inline bool
fxc_round_fits (fx_rounded r, const float *factor, int v)
{
  return r.cols % v == 0 && r.cols <= 4 * ROUND_THREADS * v &&
         ((uintptr_t)r.q & 15) == 0 && ((uintptr_t)factor & 15) == 0;
}

template <int V, typename F>
static void
fxc_round_made (fx_cuda *c, fx_rounded r, const float *factor, F f)
{
  const int pieces = (int)(r.cols / V);
  const int threads = (pieces <= ROUND_THREADS ? pieces : (pieces + 3) / 4) + 31 & ~31;

  if (pieces <= ROUND_THREADS)
    round_made<V, 1><<<(unsigned)r.rows, threads, 0, c->queue.stream>>> (r, factor, f);
  else
    round_made<V, 4><<<(unsigned)r.rows, threads, 0, c->queue.stream>>> (r, factor, f);
}
