/* kernels/cuda/norm.cu: layer norm and RMS norm of the text encoders.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernels/cuda/common.cuh"

#define THREADS 128

/* RMS: no mean and no bias. */
template <typename T, typename R, bool RMS>
static __global__ void
norm (T *y, int64_t ldy, const R *x, int64_t ldx, int cols, const float *weight,
    const float *bias, float eps)
{
  __shared__ float shared[THREADS / 32];
  const R *row = x + blockIdx.x * ldx;
  float mean = 0, sum = 0;

  if (!RMS) {
    for (int i = threadIdx.x; i < cols; i += THREADS)
      sum += to_f (row[i]);
    mean = block_sum (sum, shared) / cols;
    sum = 0;
  }
  for (int i = threadIdx.x; i < cols; i += THREADS) {
    float d = to_f (row[i]) - mean;

    sum += d * d;
  }
  const float rstd = rsqrtf (block_sum (sum, shared) / cols + eps);
  for (int i = threadIdx.x; i < cols; i += THREADS) {
    float v = (to_f (row[i]) - mean) * rstd * (weight != NULL ? weight[i] : 1);

    y[blockIdx.x * ldy + i] = from_f<T> (v + (bias != NULL ? bias[i] : 0));
  }
}

int
fxc_layernorm (
    fx_backend *b, fx_mat y, fx_mat x, const float *weight, const float *bias, float eps)
{
  fx_cuda *c = fxc (b);

  FXC_WITH_TYPES (c, y.dtype, x.dtype, {
    norm<T, R, false><<<x.rows, THREADS, 0, c->queue.stream>>> (
        (T *)y.p, y.ld, (const R *)x.p, x.ld, (int)x.cols, weight, bias, eps);
  })
  FXC_LAUNCHED (c, "layernorm");
}

int
fxc_rmsnorm (fx_backend *b, fx_mat y, fx_mat x, const float *weight, float eps)
{
  fx_cuda *c = fxc (b);

  FXC_WITH_TYPES (c, y.dtype, x.dtype, {
    norm<T, R, true><<<x.rows, THREADS, 0, c->queue.stream>>> (
        (T *)y.p, y.ld, (const R *)x.p, x.ld, (int)x.cols, weight, NULL, eps);
  })
  FXC_LAUNCHED (c, "rmsnorm");
}
