/* kernels/cuda/adaln.cu: layer norm modulated by scale and shift.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Mean, then variance around it, then the output. A row stays in registers, and a block's
 * rows are under way at once. Backward, with xh = (x - mean) rstd and g = dy (1 + scale):
 * dx += rstd (g - mean (g) - xh mean (g xh)). */
#include "kernels/cuda/rounded.cuh"

#define THREADS 128 /* for rows that they can hold, else MANY_THREADS */
#define MANY_THREADS 256
#define MANY_ROWS 512 /* from there on a block has ROWS */
#define ROWS 2

/* Columns [i, i + V) of chunk c belong to this thread. */
template <int V>
static __device__ __forceinline__ int
column (int c)
{
  return (c * (int)blockDim.x + (int)threadIdx.x) * V;
}

/* What y has in a row, in 8 bits. */
template <typename T, int V, int C>
static __device__ __forceinline__ void
round_row (const fx_rounded &r, int64_t row, float (*v)[V], float *shared)
{
  const bool is_int8 = r.dtype == FX_I8;
  float largest = 0;

#pragma unroll
  for (int c = 0; c < C; c++) {
    if (column<V> (c) < r.cols) {
#pragma unroll
      for (int j = 0; j < V; j++) {
        v[c][j] = to_f (from_f<T> (v[c][j]));
        largest = fmaxf (largest, magnitude (is_int8, v[c][j]));
      }
    }
  }
  const rounding round (is_int8, block_max (largest, shared));

#pragma unroll
  for (int c = 0; c < C; c++) {
    if (column<V> (c) < r.cols) {
      pack<uint8_t, V> p;

#pragma unroll
      for (int j = 0; j < V; j++)
        p.v[j] = round (v[c][j]);
      *reinterpret_cast<pack<uint8_t, V> *> (
          (uint8_t *)r.q + row * r.cols + column<V> (c)) = p;
    }
  }
  if (threadIdx.x == 0)
    r.scales[row] = round.scale;
}

/* r.q NULL: y alone. */
template <typename T, typename R, int V, int C>
static __global__ void
adaln (T *y, int64_t ldy, fx_rounded r, float *stats, const R *x, int64_t ldx,
    int64_t rows, int per_block, int cols, const float *shift, const float *scale,
    float eps)
{
  __shared__ float shared[MANY_THREADS / 32];
  const int64_t first = blockIdx.x * (int64_t)per_block;
  const int n = (int)min ((int64_t)per_block, rows - first);
  pack<R, V> p[ROWS][C];
  float v[C][V], a[V], b[V];

#pragma unroll
  for (int i = 0; i < ROWS; i++) {
#pragma unroll
    for (int c = 0; c < C; c++) {
      if (i < n && column<V> (c) < cols)
        p[i][c] =
            *reinterpret_cast<const pack<R, V> *> (x + (first + i) * ldx + column<V> (c));
    }
  }
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    const int64_t row = first + i;
    float sum = 0;

    if (i >= n)
      break;
#pragma unroll
    for (int c = 0; c < C; c++) {
      if (column<V> (c) < cols) {
#pragma unroll
        for (int j = 0; j < V; j++) {
          v[c][j] = to_f (p[i][c].v[j]);
          sum += v[c][j];
        }
      }
    }
    const float mean = block_sum (sum, shared) / cols;
    sum = 0;
#pragma unroll
    for (int c = 0; c < C; c++) {
      if (column<V> (c) < cols) {
#pragma unroll
        for (int j = 0; j < V; j++)
          sum += (v[c][j] - mean) * (v[c][j] - mean);
      }
    }
    const float rstd = rsqrtf (block_sum (sum, shared) / cols + eps);

#pragma unroll
    for (int c = 0; c < C; c++) {
      if (column<V> (c) < cols) {
        load<float, V> (scale + column<V> (c), a);
        load<float, V> (shift + column<V> (c), b);
#pragma unroll
        for (int j = 0; j < V; j++)
          v[c][j] = (v[c][j] - mean) * rstd * (1 + a[j]) + b[j];
        store<T, V> (y + row * ldy + column<V> (c), v[c]);
      }
    }
    if (r.q != NULL)
      round_row<T, V, C> (r, row, v, shared);
    if (stats != NULL && threadIdx.x == 0) {
      stats[2 * row] = mean;
      stats[2 * row + 1] = rstd;
    }
  }
}

template <typename T, typename R, int V, int C>
static __global__ void
adaln_bwd (R *dx, int64_t lddx, const T *dy, int64_t lddy, const R *x, int64_t ldx,
    int64_t rows, int per_block, int cols, const float *stats, const float *scale)
{
  __shared__ float shared[MANY_THREADS / 32];
  const int64_t first = blockIdx.x * (int64_t)per_block;
  float xh[C][V], g[C][V], a[C][V], dv[V];

#pragma unroll
  for (int c = 0; c < C; c++) {
    if (column<V> (c) < cols)
      load<float, V> (scale + column<V> (c), a[c]);
  }
  for (int64_t row = first; row < rows && row < first + per_block; row++) {
    const float mean = stats[2 * row], rstd = stats[2 * row + 1];
    float sum_g = 0, sum_gx = 0;

#pragma unroll
    for (int c = 0; c < C; c++) {
      if (column<V> (c) < cols) {
        load<R, V> (x + row * ldx + column<V> (c), xh[c]);
        load<T, V> (dy + row * lddy + column<V> (c), g[c]);
#pragma unroll
        for (int j = 0; j < V; j++) {
          xh[c][j] = (xh[c][j] - mean) * rstd;
          g[c][j] *= 1 + a[c][j];
          sum_g += g[c][j];
          sum_gx += g[c][j] * xh[c][j];
        }
      }
    }
    const float mean_g = block_sum (sum_g, shared) / cols;
    const float mean_gx = block_sum (sum_gx, shared) / cols;

#pragma unroll
    for (int c = 0; c < C; c++) {
      if (column<V> (c) < cols) {
        R *out = dx + row * lddx + column<V> (c);

        load<R, V> (out, dv);
#pragma unroll
        for (int j = 0; j < V; j++)
          dv[j] += rstd * (g[c][j] - mean_g - xh[c][j] * mean_gx);
        store<R, V> (out, dv);
      }
    }
  }
}

static bool
aligned (const float *v)
{
  return ((uintptr_t)v & 15) == 0;
}

/* 16 bytes of each at a time. */
template <typename T, typename R>
static bool
wide (fx_mat narrow, fx_mat x)
{
  return fxc_aligned (narrow, sizeof (T)) && fxc_aligned (x, sizeof (R)) &&
         x.cols % (int64_t)(16 / sizeof (T)) == 0;
}

/* Runs body with V, C and threads for rows of `cols` columns: 16 bytes and as few chunks
 * as hold them, or one element a thread. */
#define WITH_CHUNKS(c, wide_, cols, ...)                                                 \
  do {                                                                                   \
    constexpr int W = 16 / sizeof (T);                                                   \
    const int threads =                                                                  \
        (cols) <= ((wide_) ? 8 * W : 32) * THREADS ? THREADS : MANY_THREADS;             \
                                                                                         \
    if ((wide_) && (cols) <= W * threads) {                                              \
      constexpr int V = W, C = 1;                                                        \
      __VA_ARGS__                                                                        \
    } else if ((wide_) && (cols) <= 3 * W * threads) {                                   \
      constexpr int V = W, C = 3;                                                        \
      __VA_ARGS__                                                                        \
    } else if ((wide_) && (cols) <= 8 * W * threads) {                                   \
      constexpr int V = W, C = 8;                                                        \
      __VA_ARGS__                                                                        \
    } else if ((cols) <= 32 * threads) {                                                 \
      constexpr int V = 1, C = 32;                                                       \
      __VA_ARGS__                                                                        \
    } else {                                                                             \
      return (c)->error (FX_ERR_UNSUPPORTED, "cuda: %s: rows of %lld are too wide",      \
          __func__, (long long)(cols));                                                  \
    }                                                                                    \
  } while (0)

int
fxc_adaln_rounded (fx_backend *b, fx_mat y, fx_rounded r, float *stats, fx_mat x,
    const float *shift, const float *scale, float eps)
{
  fx_cuda *c = fxc (b);
  const int per_block = x.rows < MANY_ROWS ? 1 : ROWS;
  const unsigned blocks = fxc_blocks (x.rows, per_block);

  FXC_WITH_TYPES (c, y.dtype, x.dtype, {
    WITH_CHUNKS (c, (wide<T, R> (y, x) && aligned (scale) && aligned (shift)), x.cols, {
      adaln<T, R, V, C><<<blocks, threads, 0, c->queue.stream>>> ((T *)y.p, y.ld, r,
          stats, (const R *)x.p, x.ld, x.rows, per_block, (int)x.cols, shift, scale, eps);
    });
  })
  FXC_LAUNCHED (c, "adaln");
}

int
fxc_adaln (fx_backend *b, fx_mat y, float *stats, fx_mat x, const float *shift,
    const float *scale, float eps)
{
  const fx_rounded none = {};

  return fxc_adaln_rounded (b, y, none, stats, x, shift, scale, eps);
}

int
fxc_adaln_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, const float *stats, const float *scale)
{
  fx_cuda *c = fxc (b);
  const int per_block = x.rows < MANY_ROWS ? 1 : ROWS;
  const unsigned blocks = fxc_blocks (x.rows, per_block);

  if (dx.dtype != x.dtype)
    return c->error (FX_ERR_SHAPE, "cuda: adaln_bwd: dx and x are of different types");
  FXC_WITH_TYPES (c, dy.dtype, x.dtype, {
    WITH_CHUNKS (c,
        (wide<T, R> (dy, x) && fxc_aligned (dx, sizeof (R)) && aligned (scale)), x.cols, {
          adaln_bwd<T, R, V, C><<<blocks, threads, 0, c->queue.stream>>> ((R *)dx.p,
              dx.ld, (const T *)dy.p, dy.ld, (const R *)x.p, x.ld, x.rows, per_block,
              (int)x.cols, stats, scale);
        });
  })
  FXC_LAUNCHED (c, "adaln_bwd");
}
