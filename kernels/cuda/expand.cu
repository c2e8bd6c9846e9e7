/* kernels/cuda/expand.cu: quantised weights to the compute dtype.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * 4.5 bits in, 16 out: bound by the bytes written. A thread turns 4 bytes (8 weights)
 * into one 16-byte store; the 16 codes stand in 16 banks of shared memory, so that lanes
 * never collide. The arithmetic is bitsandbytes' (csrc/kernels.cu:517-527): code * absmax
 * in fp32, one rounding. */
#include "kernels/cuda/rounded.h"
#include "kernels/cuda/weight.cuh"

#define THREADS 256
#define PER_THREAD 8

template <typename T, bool DOUBLE>
static __global__ void
expand_nf4 (T *__restrict__ out, fxc_weight w, int64_t n_groups)
{
  __shared__ float code[16], code8[256];

  fxc_stage_codes<DOUBLE> (w, code, code8);
  for (int64_t g = blockIdx.x * (int64_t)THREADS + threadIdx.x; g < n_groups;
       g += gridDim.x * (int64_t)THREADS) {
    float v[8];

    fxc_unpack8 (reinterpret_cast<const uint32_t *> (w.data)[g],
        fxc_absmax<DOUBLE> (w, g >> 3, code8), code, w.dtype, v);
    if (sizeof (T) == 4) {
      store<T, 4> (out + g * 8, v);
      store<T, 4> (out + g * 8 + 4, v + 4);
    } else {
      store<T, 8> (out + g * 8, v);
    }
  }
}

/* INT8, FP8 and plain floats. */
template <typename T>
static __global__ void
expand_rows (T *__restrict__ out, fxc_weight w)
{
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < w.n * w.k;
       i += gridDim.x * (int64_t)THREADS)
    out[i] = from_f<T> (fxc_element (w, i));
}

int
fxc_expand (fx_backend *b, fx_mat dst, const fx_weight *weight)
{
  fx_cuda *c = fxc (b);
  fxc_weight w = fxc_weight_of (weight);
  int64_t n = w.n * w.k;
  unsigned blocks = fxc_blocks (n, 8 * THREADS * PER_THREAD);

  if (dst.dtype == FX_E4M3 || dst.dtype == FX_I8)
    return fxc_transpose_bytes (c, (uint8_t *)dst.p, (const uint8_t *)w.data, w.n, w.k);
  if (dst.ld != dst.cols)
    return c->error (FX_ERR_SHAPE, "cuda: expand: the destination's rows must be dense");
  FXC_WITH_TYPE (c, dst.dtype, {
    T *out = (T *)dst.p;

    if (w.qtype == FX_Q_NF4)
      expand_nf4<T, false><<<blocks, THREADS, 0, c->queue.stream>>> (out, w, n / 8);
    else if (w.qtype == FX_Q_NF4_DOUBLE)
      expand_nf4<T, true><<<blocks, THREADS, 0, c->queue.stream>>> (out, w, n / 8);
    else
      expand_rows<T>
          <<<fxc_blocks (n, THREADS * PER_THREAD), THREADS, 0, c->queue.stream>>> (
              out, w);
  })
  FXC_LAUNCHED (c, "expand");
}
