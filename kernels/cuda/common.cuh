/* kernels/cuda/common.cuh: what the kernels share. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/cuda.h"

typedef __nv_bfloat16 bf16;
typedef __half f16;

static __device__ __forceinline__ float
to_f (float v)
{
  return v;
}
static __device__ __forceinline__ float
to_f (bf16 v)
{
  return __bfloat162float (v);
}
static __device__ __forceinline__ float
to_f (int32_t v)
{
  return (float)v;
}
static __device__ __forceinline__ float
to_f (f16 v)
{
  return __half2float (v);
}
template <typename T> static __device__ __forceinline__ T from_f (float v);
template <>
__device__ __forceinline__ float
from_f<float> (float v)
{
  return v;
}
template <>
__device__ __forceinline__ bf16
from_f<bf16> (float v)
{
  return __float2bfloat16_rn (v);
}
template <>
__device__ __forceinline__ f16
from_f<f16> (float v)
{
  return __float2half_rn (v);
}

/* What of v a T can be asked to hold: in fp16 an overflow of the forward pass becomes the
 * largest number, as diffusers has it (transformer_flux.py:408, 494); NaN stays. */
template <typename T>
static __device__ __forceinline__ float
bounded (float v)
{
  return v;
}
template <>
__device__ __forceinline__ float
bounded<f16> (float v)
{
  return fabsf (v) > 65504.f ? copysignf (65504.f, v) : v;
}

/* V elements at once: 16 bytes or more, or one element where rows are not aligned to 16.
 */
template <typename T, int V>
struct alignas (sizeof (T) * V < 16 ? sizeof (T) * V : 16) pack {
  T v[V];
};

template <typename T, int V>
static __device__ __forceinline__ void
load (const T *p, float *out)
{
  pack<T, V> a = *reinterpret_cast<const pack<T, V> *> (p);
#pragma unroll
  for (int i = 0; i < V; i++)
    out[i] = to_f (a.v[i]);
}
template <typename T, int V>
static __device__ __forceinline__ void
store (T *p, const float *in)
{
  pack<T, V> a;
#pragma unroll
  for (int i = 0; i < V; i++)
    a.v[i] = from_f<T> (in[i]);
  *reinterpret_cast<pack<T, V> *> (p) = a;
}

static __device__ __forceinline__ float
warp_sum (float v)
{
#pragma unroll
  for (int o = 16; o > 0; o >>= 1)
    v += __shfl_xor_sync (0xffffffffu, v, o);
  return v;
}
static __device__ __forceinline__ float
warp_max (float v)
{
#pragma unroll
  for (int o = 16; o > 0; o >>= 1)
    v = fmaxf (v, __shfl_xor_sync (0xffffffffu, v, o));
  return v;
}

/* The sum over the block, in every thread; `shared` holds one element a warp. */
template <typename S>
static __device__ __forceinline__ S
block_sum (S v, S *shared)
{
#pragma unroll
  for (int o = 16; o > 0; o >>= 1)
    v += __shfl_xor_sync (0xffffffffu, v, o);
  __syncthreads ();
  if ((threadIdx.x & 31) == 0)
    shared[threadIdx.x >> 5] = v;
  __syncthreads ();
  S total = 0;
  for (unsigned i = 0; i < blockDim.x / 32; i++)
    total += shared[i];
  return total;
}

/* The same for the largest. */
static __device__ __forceinline__ float
block_max (float v, float *shared)
{
  v = warp_max (v);
  __syncthreads ();
  if ((threadIdx.x & 31) == 0)
    shared[threadIdx.x >> 5] = v;
  __syncthreads ();
  for (unsigned i = 0; i < blockDim.x / 32; i++)
    v = fmaxf (v, shared[i]);
  return v;
}

/* Runs body with T the type of a dtype. */
#define FXC_WITH_TYPE(c, dtype_, ...)                                                    \
  switch (dtype_) {                                                                      \
    case FX_F32: {                                                                       \
      typedef float T;                                                                   \
      __VA_ARGS__                                                                        \
    } break;                                                                             \
    case FX_BF16: {                                                                      \
      typedef bf16 T;                                                                    \
      __VA_ARGS__                                                                        \
    } break;                                                                             \
    case FX_F16: {                                                                       \
      typedef f16 T;                                                                     \
      __VA_ARGS__                                                                        \
    } break;                                                                             \
    default:                                                                             \
      return (c)->error (                                                                \
          FX_ERR_UNSUPPORTED, "cuda: %s: no such dtype %d", __func__, (int)(dtype_));    \
  }

/* Runs body with T the type of a matrix and R that of another which is either the same or
 * fp32: a residual stream beside what is computed from it. */
#define FXC_WITH_TYPES(c, dtype_, wide_, ...)                                            \
  FXC_WITH_TYPE (c, dtype_, {                                                            \
    if ((wide_) == (dtype_)) {                                                           \
      typedef T R;                                                                       \
      __VA_ARGS__                                                                        \
    } else if ((wide_) == FX_F32) {                                                      \
      typedef float R;                                                                   \
      __VA_ARGS__                                                                        \
    } else {                                                                             \
      return (c)->error (FX_ERR_UNSUPPORTED,                                             \
          "cuda: %s: dtypes %d and %d do not go "                                        \
          "together",                                                                    \
          __func__, (int)(dtype_), (int)(wide_));                                        \
    }                                                                                    \
  })

/* Whether every row of m can be read 16 bytes at a time. */
static inline bool
fxc_aligned (fx_mat m, size_t element)
{
  size_t v = 16 / element;

  return m.p == NULL ||
         (((uintptr_t)m.p & 15) == 0 && (size_t)m.ld % v == 0 && (size_t)m.cols % v == 0);
}

static inline unsigned
fxc_blocks (int64_t n, int64_t per_block)
{
  return (unsigned)((n + per_block - 1) / per_block);
}
