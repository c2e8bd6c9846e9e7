/* kernels/cuda/groupnorm.cu: group norm over [pixels, channels]. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Two passes over the picture: partial sums of pixel chunks a group (added in order, in
 * fp64, so that mean and variance come from one read), then the output with SiLU fused
 * in. */
#include "kernels/cuda/common.cuh"

#define THREADS 256
#define CHUNKS 64

template <typename T>
static __global__ void
sums (double *partial, const T *x, int64_t ld, int64_t pixels, int per_group)
{
  __shared__ double shared[THREADS / 32];
  const int64_t each = (pixels + CHUNKS - 1) / CHUNKS, first = blockIdx.x * each;
  const int64_t n = max ((int64_t)0, min (each, pixels - first)) * per_group;
  const T *base = x + first * ld + blockIdx.y * per_group;
  double sum = 0, squares = 0;

  for (int64_t i = threadIdx.x; i < n; i += THREADS) {
    double v = to_f (base[i / per_group * ld + i % per_group]);

    sum += v;
    squares += v * v;
  }
  sum = block_sum (sum, shared);
  squares = block_sum (squares, shared);
  if (threadIdx.x == 0) {
    partial[2 * (blockIdx.y * CHUNKS + blockIdx.x)] = sum;
    partial[2 * (blockIdx.y * CHUNKS + blockIdx.x) + 1] = squares;
  }
}

static __global__ void
statistics (float *stats, const double *partial, double count, float eps)
{
  double sum = 0, squares = 0;

  for (int i = 0; i < CHUNKS; i++) {
    sum += partial[2 * (threadIdx.x * CHUNKS + i)];
    squares += partial[2 * (threadIdx.x * CHUNKS + i) + 1];
  }
  sum /= count;
  stats[2 * threadIdx.x] = (float)sum;
  stats[2 * threadIdx.x + 1] =
      (float)rsqrt (fmax (squares / count - sum * sum, 0.) + eps);
}

template <typename T>
static __global__ void
apply (T *y, int64_t ldy, const T *x, int64_t ldx, int64_t pixels, int channels,
    int per_group, const float *stats, const float *weight, const float *bias, bool silu)
{
  const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;
  const int64_t pixel = i / channels;
  const int ch = (int)(i % channels), g = ch / per_group;

  if (pixel >= pixels)
    return;
  float v = (to_f (x[pixel * ldx + ch]) - stats[2 * g]) * stats[2 * g + 1];

  v = v * weight[ch] + bias[ch];
  y[pixel * ldy + ch] = from_f<T> (silu ? v / (1 + expf (-v)) : v);
}

int
fxc_groupnorm (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu)
{
  fx_cuda *c = fxc (b);
  const int per_group = (int)(x.cols / groups);
  void *partial;
  float *stats;

  if (groups > 1024)
    return c->error (FX_ERR_UNSUPPORTED, "cuda: groupnorm: more than 1024 groups");
  FX_TRY (fxc_scratch (c, FXC_SCRATCH_PARTIAL,
      groups * (CHUNKS * 2 * sizeof (double) + 2 * sizeof (float)), &partial));
  stats = (float *)((double *)partial + (size_t)groups * CHUNKS * 2);
  FXC_WITH_TYPE (c, x.dtype, {
    sums<T><<<dim3 (CHUNKS, groups), THREADS, 0, c->queue.stream>>> (
        (double *)partial, (const T *)x.p, x.ld, x.rows, per_group);
    statistics<<<1, groups, 0, c->queue.stream>>> (
        stats, (const double *)partial, (double)x.rows * per_group, eps);
    apply<T><<<fxc_blocks (x.rows * x.cols, THREADS), THREADS, 0, c->queue.stream>>> (
        (T *)y.p, y.ld, (const T *)x.p, x.ld, x.rows, (int)x.cols, per_group, stats,
        weight, bias, silu);
  })
  FXC_LAUNCHED (c, "groupnorm");
}
