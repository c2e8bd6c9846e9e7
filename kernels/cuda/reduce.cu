/* kernels/cuda/reduce.cu: the loss and sums of squares. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * In fp64, in two launches with a fixed order of summation: the same bits each time. */
#include "kernels/cuda/common.cuh"

#define THREADS 256
#define BLOCKS 256

static __global__ void
total (double *out, const double *partial, int n, double factor, bool add)
{
  __shared__ double shared[THREADS / 32];
  double sum = 0;

  for (int i = threadIdx.x; i < n; i += THREADS)
    sum += partial[i];
  sum = block_sum (sum, shared);
  if (threadIdx.x == 0)
    *out = (add ? *out : 0) + sum * factor;
}

template <typename T>
static __global__ void
mse (double *partial, T *dpred, int64_t ldd, const T *pred, int64_t ldp,
    const float *target, int64_t ldt, int64_t rows, int64_t cols, float factor)
{
  __shared__ double shared[THREADS / 32];
  double sum = 0;

  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < rows * cols;
       i += (int64_t)gridDim.x * THREADS) {
    int64_t r = i / cols, k = i % cols;
    float d = to_f (pred[r * ldp + k]) - target[r * ldt + k];

    sum += (double)d * d;
    if (dpred != NULL)
      dpred[r * ldd + k] = from_f<T> (factor * d);
  }
  sum = block_sum (sum, shared);
  if (threadIdx.x == 0)
    partial[blockIdx.x] = sum;
}

static __global__ void
squares (double *partial, const float *x, int64_t n)
{
  __shared__ double shared[THREADS / 32];
  double sum = 0;

  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n;
       i += (int64_t)gridDim.x * THREADS)
    sum += (double)x[i] * x[i];
  sum = block_sum (sum, shared);
  if (threadIdx.x == 0)
    partial[blockIdx.x] = sum;
}

int
fxc_mse (fx_backend *b, double *loss, fx_mat dpred, fx_mat pred, fx_mat target,
    float weight, float grad_scale)
{
  fx_cuda *c = fxc (b);
  const double count = (double)pred.rows * pred.cols;
  const float factor = (float)(2.0 * weight / count * grad_scale);
  void *partial;

  FX_TRY (fxc_scratch (c, FXC_SCRATCH_PARTIAL, BLOCKS * sizeof (double), &partial));
  FXC_WITH_TYPE (c, pred.dtype, {
    mse<T><<<BLOCKS, THREADS, 0, c->queue.stream>>> ((double *)partial, (T *)dpred.p,
        dpred.ld, (const T *)pred.p, pred.ld, (const float *)target.p, target.ld,
        pred.rows, pred.cols, factor);
  })
  total<<<1, THREADS, 0, c->queue.stream>>> (
      loss, (const double *)partial, BLOCKS, weight / count, false);
  FXC_LAUNCHED (c, "mse");
}

int
fxc_sum_squares (fx_backend *b, double *sum, const float *x, int64_t n)
{
  fx_cuda *c = fxc (b);
  void *partial;

  FX_TRY (fxc_scratch (c, FXC_SCRATCH_PARTIAL, BLOCKS * sizeof (double), &partial));
  squares<<<BLOCKS, THREADS, 0, c->queue.stream>>> ((double *)partial, x, n);
  total<<<1, THREADS, 0, c->queue.stream>>> (
      sum, (const double *)partial, BLOCKS, 1, true);
  FXC_LAUNCHED (c, "sum_squares");
}
