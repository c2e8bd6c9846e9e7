/* kernels/cuda/adaln.cu: layer norm modulated by scale and shift.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One block a row: mean, then variance around it, then the output; the row comes from L1
 * after the first pass. Backward, with xh = (x - mean) rstd and g = dy (1 + scale): dx +=
 * rstd (g - mean (g) - xh mean (g xh)). */
#include "kernels/cuda/common.cuh"

#define THREADS 128

template <typename T, typename R, int V>
static __global__ void
adaln (T *y, int64_t ldy, float *stats, const R *x, int64_t ldx, int cols,
    const float *shift, const float *scale, float eps)
{
  __shared__ float shared[THREADS / 32];
  const R *row = x + blockIdx.x * ldx;
  T *out = y + blockIdx.x * ldy;
  float sum = 0, v[V];

  for (int i = threadIdx.x * V; i < cols; i += THREADS * V) {
    load<R, V> (row + i, v);
#pragma unroll
    for (int j = 0; j < V; j++)
      sum += v[j];
  }
  const float mean = block_sum (sum, shared) / cols;
  sum = 0;
  for (int i = threadIdx.x * V; i < cols; i += THREADS * V) {
    load<R, V> (row + i, v);
#pragma unroll
    for (int j = 0; j < V; j++)
      sum += (v[j] - mean) * (v[j] - mean);
  }
  const float rstd = rsqrtf (block_sum (sum, shared) / cols + eps);
  for (int i = threadIdx.x * V; i < cols; i += THREADS * V) {
    load<R, V> (row + i, v);
#pragma unroll
    for (int j = 0; j < V; j++)
      v[j] = (v[j] - mean) * rstd * (1 + scale[i + j]) + shift[i + j];
    store<T, V> (out + i, v);
  }
  if (stats != NULL && threadIdx.x == 0) {
    stats[2 * blockIdx.x] = mean;
    stats[2 * blockIdx.x + 1] = rstd;
  }
}

template <typename T, typename R, int V>
static __global__ void
adaln_bwd (R *dx, int64_t lddx, const T *dy, int64_t lddy, const R *x, int64_t ldx,
    int cols, const float *stats, const float *scale)
{
  __shared__ float shared[THREADS / 32];
  const R *xr = x + blockIdx.x * ldx;
  const T *gr = dy + blockIdx.x * lddy;
  R *out = dx + blockIdx.x * lddx;
  const float mean = stats[2 * blockIdx.x], rstd = stats[2 * blockIdx.x + 1];
  float sum_g = 0, sum_gx = 0, xv[V], gv[V], dv[V];

  for (int i = threadIdx.x * V; i < cols; i += THREADS * V) {
    load<R, V> (xr + i, xv);
    load<T, V> (gr + i, gv);
#pragma unroll
    for (int j = 0; j < V; j++) {
      float g = gv[j] * (1 + scale[i + j]);

      sum_g += g;
      sum_gx += g * (xv[j] - mean) * rstd;
    }
  }
  const float mean_g = block_sum (sum_g, shared) / cols;
  const float mean_gx = block_sum (sum_gx, shared) / cols;
  for (int i = threadIdx.x * V; i < cols; i += THREADS * V) {
    load<R, V> (xr + i, xv);
    load<T, V> (gr + i, gv);
    load<R, V> (out + i, dv);
#pragma unroll
    for (int j = 0; j < V; j++)
      dv[j] +=
          rstd * (gv[j] * (1 + scale[i + j]) - mean_g - (xv[j] - mean) * rstd * mean_gx);
    store<R, V> (out + i, dv);
  }
}

/* V elements of each fit into 16-byte accesses. */
template <typename T, typename R>
static bool
wide (fx_mat narrow, fx_mat x)
{
  return fxc_aligned (narrow, sizeof (T)) && fxc_aligned (x, sizeof (R)) &&
         x.cols % (int64_t)(16 / sizeof (T)) == 0;
}

int
fxc_adaln (fx_backend *b, fx_mat y, float *stats, fx_mat x, const float *shift,
    const float *scale, float eps)
{
  fx_cuda *c = fxc (b);

  FXC_WITH_TYPES (c, y.dtype, x.dtype, {
    if (wide<T, R> (y, x))
      adaln<T, R, 16 / sizeof (T)><<<x.rows, THREADS, 0, c->stream>>> (
          (T *)y.p, y.ld, stats, (const R *)x.p, x.ld, (int)x.cols, shift, scale, eps);
    else
      adaln<T, R, 1><<<x.rows, THREADS, 0, c->stream>>> (
          (T *)y.p, y.ld, stats, (const R *)x.p, x.ld, (int)x.cols, shift, scale, eps);
  })
  FXC_LAUNCHED (c, "adaln");
}

int
fxc_adaln_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, const float *stats, const float *scale)
{
  fx_cuda *c = fxc (b);

  if (dx.dtype != x.dtype)
    return c->error (FX_ERR_SHAPE, "cuda: adaln_bwd: dx and x are of different types");
  FXC_WITH_TYPES (c, dy.dtype, x.dtype, {
    if (wide<T, R> (dy, x) && fxc_aligned (dx, sizeof (R)))
      adaln_bwd<T, R, 16 / sizeof (T)><<<x.rows, THREADS, 0, c->stream>>> ((R *)dx.p,
          dx.ld, (const T *)dy.p, dy.ld, (const R *)x.p, x.ld, (int)x.cols, stats, scale);
    else
      adaln_bwd<T, R, 1><<<x.rows, THREADS, 0, c->stream>>> ((R *)dx.p, dx.ld,
          (const T *)dy.p, dy.ld, (const R *)x.p, x.ld, (int)x.cols, stats, scale);
  })
  FXC_LAUNCHED (c, "adaln_bwd");
}
