/* kernels/cuda/groupnorm.cu: group norm over [pixels, channels]. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Two passes over the picture: sums a channel of chunks of pixels (added in order, in
 * fp64, so that mean and variance come from one read), then the output with SiLU fused
 * in. Rows are read V channels at a time, whatever group they belong to. */
#include "kernels/cuda/common.cuh"

#define THREADS 256
#define CHUNKS 256

/* partial [CHUNKS, channels, 2]. A thread has V channels of every `lanes`th pixel. */
template <typename T, int V>
static __global__ void
sums (double *partial, const T *x, int64_t ld, int64_t pixels, int channels)
{
  __shared__ double shared[2][THREADS * V];
  const int packs = channels / V, lanes = max (1, THREADS / packs);
  const int64_t each = (pixels + CHUNKS - 1) / CHUNKS, first = blockIdx.x * each;
  const int64_t last = min (first + each, pixels);

  for (int from = 0; from < packs; from += THREADS) {
    const int width = min (THREADS, packs - from), lane = threadIdx.x / width;
    const int at = from + threadIdx.x % width;
    double sum[V] = {}, squares[V] = {};

    for (int64_t p = first + lane; lane < lanes && p < last; p += lanes) {
      float v[V];

      load<T, V> (x + p * ld + at * V, v);
#pragma unroll
      for (int j = 0; j < V; j++) {
        sum[j] += v[j];
        squares[j] += (double)v[j] * v[j];
      }
    }
    __syncthreads ();
#pragma unroll
    for (int j = 0; j < V; j++) {
      shared[0][j * THREADS + threadIdx.x] = sum[j];
      shared[1][j * THREADS + threadIdx.x] = squares[j];
    }
    __syncthreads ();
    for (int i = threadIdx.x; i < width * V; i += THREADS) {
      double total = 0, total_squares = 0;

      for (int l = 0; l < lanes; l++) {
        const int k = i % V * THREADS + l * width + i / V;

        total += shared[0][k];
        total_squares += shared[1][k];
      }
      double *out = partial + 2 * ((int64_t)blockIdx.x * channels + from * V + i);

      out[0] = total;
      out[1] = total_squares;
    }
  }
}

/* A block a group, a thread a chunk; stats [groups, 2] = mean, 1 / deviation. */
static __global__ void
statistics (float *stats, const double *partial, int channels, int per_group,
    double count, float eps)
{
  __shared__ double shared[THREADS / 32];
  const double *p =
      partial + 2 * ((int64_t)threadIdx.x * channels + blockIdx.x * per_group);
  double sum = 0, squares = 0;

  for (int i = 0; i < per_group; i++) {
    sum += p[2 * i];
    squares += p[2 * i + 1];
  }
  sum = block_sum (sum, shared) / count;
  squares = block_sum (squares, shared) / count;
  if (threadIdx.x == 0) {
    stats[2 * blockIdx.x] = (float)sum;
    stats[2 * blockIdx.x + 1] = (float)rsqrt (fmax (squares - sum * sum, 0.) + eps);
  }
}

template <typename T, int V>
static __global__ void
apply (T *y, int64_t ldy, const T *x, int64_t ldx, int64_t pixels, int channels,
    int per_group, const float *stats, const float *weight, const float *bias, bool silu)
{
  const int packs = channels / V;
  const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x, pixel = i / packs;
  const int at = (int)(i % packs) * V;
  float v[V];

  if (pixel >= pixels)
    return;
  load<T, V> (x + pixel * ldx + at, v);
#pragma unroll
  for (int j = 0; j < V; j++) {
    const int ch = at + j, g = ch / per_group;
    const float n = (v[j] - stats[2 * g]) * stats[2 * g + 1] * weight[ch] + bias[ch];

    v[j] = silu ? n / (1 + expf (-n)) : n;
  }
  store<T, V> (y + pixel * ldy + at, v);
}

template <typename T, int V>
static void
launch (fx_cuda *c, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu, double *partial)
{
  const int channels = (int)x.cols, per_group = channels / groups;
  float *stats = (float *)(partial + (size_t)channels * CHUNKS * 2);
  cudaStream_t stream = c->queue.stream;

  sums<T, V>
      <<<CHUNKS, THREADS, 0, stream>>> (partial, (const T *)x.p, x.ld, x.rows, channels);
  statistics<<<groups, CHUNKS, 0, stream>>> (
      stats, partial, channels, per_group, (double)x.rows * per_group, eps);
  apply<T, V><<<fxc_blocks (x.rows * channels / V, THREADS), THREADS, 0, stream>>> (
      (T *)y.p, y.ld, (const T *)x.p, x.ld, x.rows, channels, per_group, stats, weight,
      bias, silu);
}

int
fxc_groupnorm (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu)
{
  fx_cuda *c = fxc (b);
  void *partial;

  FX_TRY (fxc_scratch (c, FXC_SCRATCH_PARTIAL,
      (size_t)x.cols * CHUNKS * 2 * sizeof (double) + (size_t)groups * 2 * sizeof (float),
      &partial));
  FXC_WITH_TYPE (c, x.dtype, {
    constexpr int V = 16 / sizeof (T);

    if (fxc_aligned (x, sizeof (T)) && fxc_aligned (y, sizeof (T)))
      launch<T, V> (c, y, x, groups, weight, bias, eps, silu, (double *)partial);
    else
      launch<T, 1> (c, y, x, groups, weight, bias, eps, silu, (double *)partial);
  })
  FXC_LAUNCHED (c, "groupnorm");
}
