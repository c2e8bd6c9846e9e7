/* kernels/cuda/weight.cuh: a quantised weight inside a kernel. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/common.cuh"

/* fx_weight without what kernels do not need. */
typedef struct {
  const void *data;
  const float *absmax;
  const uint8_t *absmax_q;
  const float *absmax2, *offset2, *code8;
  int64_t n, k;
  fx_qtype qtype;
  fx_dtype dtype;
} fxc_weight;

static inline fxc_weight
fxc_weight_of (const fx_weight *w)
{
  fxc_weight v = {w->data, w->absmax, w->absmax_q, w->absmax2, w->offset2, w->code8, w->n,
      w->k, w->qtype, w->dtype};

  return v;
}

/* bitsandbytes functional.py:772-805: the same table as fx_nf4_code, for kernels. */
static __constant__ float fxc_nf4_code[16] = {-1.0f, -0.6961928009986877f,
    -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
    -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f,
    0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

/* Ends with a barrier. */
template <bool DOUBLE>
static __device__ __forceinline__ void
fxc_stage_codes (const fxc_weight &w, float *code, float *code8)
{
  for (int i = threadIdx.x; i < 16; i += blockDim.x)
    code[i] = fxc_nf4_code[i];
  if (DOUBLE) {
    for (int i = threadIdx.x; i < 256; i += blockDim.x)
      code8[i] = w.code8[i];
  }
  __syncthreads ();
}

/* absmax of block j of 64 elements; product and sum are rounded one by one, as on the
 * host. */
template <bool DOUBLE>
static __device__ __forceinline__ float
fxc_absmax (const fxc_weight &w, int64_t j, const float *code8)
{
  if (!DOUBLE)
    return w.absmax[j];
  return __fadd_rn (
      __fmul_rn (code8[w.absmax_q[j]], w.absmax2[j >> 8]), w.offset2[j >> 8]);
}

static __device__ __forceinline__ float
fxc_round (float v, fx_dtype dtype)
{
  if (dtype == FX_BF16)
    return __bfloat162float (__float2bfloat16_rn (v));
  if (dtype == FX_F16)
    return __half2float (__float2half_rn (v));
  return v;
}

/* The 8 weights of one packed word of a 4-bit weight. */
static __device__ __forceinline__ void
fxc_unpack8 (uint32_t packed, float scale, const float *code, fx_dtype dtype, float *v)
{
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t byte = (packed >> (8 * i)) & 255;

    v[2 * i] = fxc_round (code[byte >> 4] * scale, dtype);
    v[2 * i + 1] = fxc_round (code[byte & 15] * scale, dtype);
  }
}

/* Element i of a weight that is not 4-bit. */
static __device__ __forceinline__ float
fxc_element (const fxc_weight &w, int64_t i)
{
  switch (w.qtype) {
    case FX_Q_INT8:
      return fxc_round (
          __fdiv_rn (
              __fmul_rn ((float)((const int8_t *)w.data)[i], w.absmax[i / w.k]), 127.f),
          w.dtype);
    case FX_Q_FP8:
      return fxc_round (
          (float)((const __nv_fp8_e4m3 *)w.data)[i] * w.absmax[i / w.k], w.dtype);
    default:
      return w.dtype == FX_BF16  ? to_f (((const bf16 *)w.data)[i])
             : w.dtype == FX_F16 ? to_f (((const f16 *)w.data)[i])
                                 : ((const float *)w.data)[i];
  }
}
