/* kernels/cuda/qknorm-rope.cu: RMSNorm of each head of q and k, then RoPE.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One warp a (row, head of q or k); a lane holds consecutive pairs, or, in heads of 64,
 * 128 and 256, a part of the warp whose lanes hold 8 elements each. Backward, with u the
 * gradient turned back and g = u w: dx = rstd (g - x rstd^2 mean (g x)). */
#include "kernels/cuda/rounded.cuh"

#define WARPS 8
#define MAX_PAIRS 4 /* head_dim <= 256 */
#define WIDE_THREADS 256

typedef struct {
  const float *cos, *sin; /* at the first row */
  const float *wq, *wk;
  int64_t rows;
  int heads, head_dim;
} args;

template <typename T>
static __global__ void
forward (T *qk, int64_t ldqk, float *rstd, const T *qkv, int64_t ldqkv, args a, float eps)
{
  const int lane = threadIdx.x & 31, pairs = a.head_dim / 2;
  const int64_t unit = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5);
  const int64_t row = unit / (2 * a.heads);
  const int head = (int)(unit % (2 * a.heads));
  float x0[MAX_PAIRS], x1[MAX_PAIRS], sum = 0;

  if (row >= a.rows)
    return;
  const T *in = qkv + row * ldqkv + head * a.head_dim;
  T *out = qk + row * ldqk + head * a.head_dim;
  const float *w = head < a.heads ? a.wq : a.wk;
#pragma unroll
  for (int j = 0; j < MAX_PAIRS; j++) {
    int p = lane + 32 * j;

    if (p < pairs) {
      float v[2];

      load<T, 2> (in + 2 * p, v);
      x0[j] = v[0];
      x1[j] = v[1];
      sum += v[0] * v[0] + v[1] * v[1];
    }
  }
  const float r = rsqrtf (warp_sum (sum) / a.head_dim + eps);
#pragma unroll
  for (int j = 0; j < MAX_PAIRS; j++) {
    int p = lane + 32 * j;

    if (p < pairs) {
      float c = a.cos[row * pairs + p], s = a.sin[row * pairs + p];
      float y0 = x0[j] * r * w[2 * p], y1 = x1[j] * r * w[2 * p + 1];
      float v[2] = {y0 * c - y1 * s, y1 * c + y0 * s};

      store<T, 2> (out + 2 * p, v);
    }
  }
  if (lane == 0)
    rstd[row * 2 * a.heads + head] = r;
}

template <typename T>
static __global__ void
backward (T *dqkv, int64_t lddqkv, const T *dqk, int64_t lddqk, const T *qkv,
    int64_t ldqkv, const float *rstd, args a)
{
  const int lane = threadIdx.x & 31, pairs = a.head_dim / 2;
  const int64_t unit = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5);
  const int64_t row = unit / (2 * a.heads);
  const int head = (int)(unit % (2 * a.heads));
  float x0[MAX_PAIRS], x1[MAX_PAIRS], g0[MAX_PAIRS], g1[MAX_PAIRS], sum = 0;

  if (row >= a.rows)
    return;
  const T *x = qkv + row * ldqkv + head * a.head_dim;
  const T *dy = dqk + row * lddqk + head * a.head_dim;
  T *dx = dqkv + row * lddqkv + head * a.head_dim;
  const float *w = head < a.heads ? a.wq : a.wk;
  const float r = rstd[row * 2 * a.heads + head];
#pragma unroll
  for (int j = 0; j < MAX_PAIRS; j++) {
    int p = lane + 32 * j;

    if (p < pairs) {
      float c = a.cos[row * pairs + p], s = a.sin[row * pairs + p], v[2], d[2];

      load<T, 2> (x + 2 * p, v);
      load<T, 2> (dy + 2 * p, d);
      x0[j] = v[0];
      x1[j] = v[1];
      g0[j] = (d[0] * c + d[1] * s) * w[2 * p];
      g1[j] = (d[1] * c - d[0] * s) * w[2 * p + 1];
      sum += g0[j] * v[0] + g1[j] * v[1];
    }
  }
  const float m = warp_sum (sum) / a.head_dim * r * r;
#pragma unroll
  for (int j = 0; j < MAX_PAIRS; j++) {
    int p = lane + 32 * j;

    if (p < pairs) {
      float v[2] = {r * (g0[j] - x0[j] * m), r * (g1[j] - x1[j] * m)};

      store<T, 2> (dx + 2 * p, v);
    }
  }
}

/* ---- eight elements a lane: LANES lanes a head ---- */

/* The sum over a head's lanes, which are all there. */
template <int LANES>
static __device__ __forceinline__ float
head_sum (float v)
{
  const unsigned first = threadIdx.x & 31 & ~(LANES - 1);
  const unsigned mask = (LANES == 32 ? ~0u : (1u << LANES % 32) - 1) << first;

#pragma unroll
  for (int o = LANES / 2; o > 0; o >>= 1)
    v += __shfl_xor_sync (mask, v, o);
  return v;
}

template <typename T, int LANES>
static __global__ void
__launch_bounds__ (WIDE_THREADS) forward_wide (
    T *qk, int64_t ldqk, float *rstd, const T *qkv, int64_t ldqkv, args a, float eps)
{
  const int64_t unit = (blockIdx.x * (int64_t)WIDE_THREADS + threadIdx.x) / LANES;
  const int64_t row = unit / (2 * a.heads);
  const int head = (int)(unit % (2 * a.heads)), i = threadIdx.x % LANES * 8;
  float x[8], w[8], c[4], s[4], sum = 0;

  if (row >= a.rows)
    return;
  load<T, 8> (qkv + row * ldqkv + head * LANES * 8 + i, x);
  load<float, 8> ((head < a.heads ? a.wq : a.wk) + i, w);
  load<float, 4> (a.cos + row * LANES * 4 + i / 2, c);
  load<float, 4> (a.sin + row * LANES * 4 + i / 2, s);
#pragma unroll
  for (int j = 0; j < 8; j++)
    sum += x[j] * x[j];
  const float r = rsqrtf (head_sum<LANES> (sum) / (LANES * 8) + eps);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const float y0 = x[2 * j] * r * w[2 * j], y1 = x[2 * j + 1] * r * w[2 * j + 1];

    x[2 * j] = y0 * c[j] - y1 * s[j];
    x[2 * j + 1] = y1 * c[j] + y0 * s[j];
  }
  store<T, 8> (qk + row * ldqk + head * LANES * 8 + i, x);
  if (threadIdx.x % LANES == 0)
    rstd[row * 2 * a.heads + head] = r;
}

/* Columns [i, i + 8) of a row of dqkv, i < 2 d; in columns of v what is there. */
template <typename T, int LANES> struct gradient_row {
  T *dqkv;
  const T *dqk, *qkv;
  int64_t lddqkv, lddqk, ldqkv;
  const float *rstd;
  args a;

  __device__ __forceinline__ void
  operator() (int64_t row, int i, float *v) const
  {
    const int head = i / (LANES * 8), at = i % (LANES * 8);
    float x[8], w[8], c[4], s[4], sum = 0;

    if (head >= 2 * a.heads) {
      load<T, 8> (dqkv + row * lddqkv + i, v);
      return;
    }
    const float r = rstd[row * 2 * a.heads + head];

    load<T, 8> (qkv + row * ldqkv + i, x);
    load<T, 8> (dqk + row * lddqk + i, v);
    load<float, 8> ((head < a.heads ? a.wq : a.wk) + at, w);
    load<float, 4> (a.cos + row * LANES * 4 + at / 2, c);
    load<float, 4> (a.sin + row * LANES * 4 + at / 2, s);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float d0 = v[2 * j], d1 = v[2 * j + 1];

      v[2 * j] = (d0 * c[j] + d1 * s[j]) * w[2 * j];
      v[2 * j + 1] = (d1 * c[j] - d0 * s[j]) * w[2 * j + 1];
      sum += v[2 * j] * x[2 * j] + v[2 * j + 1] * x[2 * j + 1];
    }
    const float m = head_sum<LANES> (sum) / (LANES * 8) * r * r;
#pragma unroll
    for (int j = 0; j < 8; j++)
      v[j] = to_f (from_f<T> (r * (v[j] - x[j] * m)));
    store<T, 8> (dqkv + row * lddqkv + i, v);
  }
};

template <typename T, int LANES>
static __global__ void
__launch_bounds__ (WIDE_THREADS) backward_wide (gradient_row<T, LANES> f)
{
  const int64_t unit = (blockIdx.x * (int64_t)WIDE_THREADS + threadIdx.x) / LANES;
  const int64_t row = unit / (2 * f.a.heads);
  float v[8];

  if (row < f.a.rows)
    f (row, (int)(unit % (2 * f.a.heads)) * LANES * 8 + threadIdx.x % LANES * 8, v);
}

/* Runs body with LANES for heads of 64, 128 or 256. */
#define WITH_LANES(head_dim, ...)                                                        \
  switch (head_dim) {                                                                    \
    case 64: {                                                                           \
      constexpr int LANES = 8;                                                           \
      __VA_ARGS__                                                                        \
    } break;                                                                             \
    case 128: {                                                                          \
      constexpr int LANES = 16;                                                          \
      __VA_ARGS__                                                                        \
    } break;                                                                             \
    default: {                                                                           \
      constexpr int LANES = 32;                                                          \
      __VA_ARGS__                                                                        \
    }                                                                                    \
  }

static bool
is_wide (const args &a, fx_mat m1, fx_mat m2, fx_mat m3)
{
  const uintptr_t vectors =
      (uintptr_t)a.cos | (uintptr_t)a.sin | (uintptr_t)a.wq | (uintptr_t)a.wk;

  return (a.head_dim == 64 || a.head_dim == 128 || a.head_dim == 256) &&
         (vectors & 15) == 0 && fxc_aligned (m1, 2) && fxc_aligned (m2, 2) &&
         fxc_aligned (m3, 2);
}

static args
make_args (fx_mat qk, const float *wq, const float *wk, const fx_rope *rope,
    int64_t rope_row, int head_dim)
{
  int64_t at = rope_row * (head_dim / 2);
  args a = {rope->cos + at, rope->sin + at, wq, wk, qk.rows,
      (int)(qk.cols / 2 / head_dim), head_dim};

  return a;
}

int
fxc_qknorm_rope (fx_backend *b, fx_mat qk, float *rstd, fx_mat qkv, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim, float eps)
{
  fx_cuda *c = fxc (b);
  args a = make_args (qk, wq, wk, rope, rope_row, head_dim);

  if (head_dim > 64 * MAX_PAIRS)
    return c->error (
        FX_ERR_UNSUPPORTED, "cuda: qknorm_rope: heads of %d are too wide", head_dim);
  FXC_WITH_TYPE (c, qkv.dtype, {
    if (is_wide (a, qk, qkv, qkv)) {
      WITH_LANES (head_dim, {
        forward_wide<T, LANES><<<fxc_blocks (a.rows * 2 * a.heads * LANES, WIDE_THREADS),
            WIDE_THREADS, 0, c->queue.stream>>> (
            (T *)qk.p, qk.ld, rstd, (const T *)qkv.p, qkv.ld, a, eps);
      })
      FXC_LAUNCHED (c, "qknorm_rope");
    }
    forward<T>
        <<<fxc_blocks (a.rows * 2 * a.heads, WARPS), WARPS * 32, 0, c->queue.stream>>> (
            (T *)qk.p, qk.ld, rstd, (const T *)qkv.p, qkv.ld, a, eps);
  })
  FXC_LAUNCHED (c, "qknorm_rope");
}

int
fxc_qknorm_rope_bwd (fx_backend *b, fx_mat dqkv, fx_mat dqk, fx_mat qkv,
    const float *rstd, const float *wq, const float *wk, const fx_rope *rope,
    int64_t rope_row, int head_dim)
{
  fx_cuda *c = fxc (b);
  args a = make_args (dqk, wq, wk, rope, rope_row, head_dim);

  if (head_dim > 64 * MAX_PAIRS)
    return c->error (
        FX_ERR_UNSUPPORTED, "cuda: qknorm_rope: heads of %d are too wide", head_dim);
  FXC_WITH_TYPE (c, qkv.dtype, {
    if (is_wide (a, dqkv, dqk, qkv)) {
      WITH_LANES (head_dim, {
        const gradient_row<T, LANES> f = {(T *)dqkv.p, (const T *)dqk.p, (const T *)qkv.p,
            dqkv.ld, dqk.ld, qkv.ld, rstd, a};

        backward_wide<T, LANES><<<fxc_blocks (a.rows * 2 * a.heads * LANES, WIDE_THREADS),
            WIDE_THREADS, 0, c->queue.stream>>> (f);
      })
      FXC_LAUNCHED (c, "qknorm_rope_bwd");
    }
    backward<T>
        <<<fxc_blocks (a.rows * 2 * a.heads, WARPS), WARPS * 32, 0, c->queue.stream>>> (
            (T *)dqkv.p, dqkv.ld, (const T *)dqk.p, dqk.ld, (const T *)qkv.p, qkv.ld,
            rstd, a);
  })
  FXC_LAUNCHED (c, "qknorm_rope_bwd");
}

int
fxc_qknorm_rope_bwd_rounded (fx_backend *b, fx_mat dqkv, fx_rounded r,
    const float *factor, fx_mat dqk, fx_mat qkv, const float *rstd, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim)
{
  fx_cuda *c = fxc (b);
  args a = make_args (dqk, wq, wk, rope, rope_row, head_dim);

  if (qkv.dtype != FX_F32 && is_wide (a, dqkv, dqk, qkv) &&
      fxc_round_fits (r, factor, 8)) {
    FXC_WITH_TYPE (c, qkv.dtype, {
      if constexpr (sizeof (T) == 2)
        WITH_LANES (head_dim, {
          fxc_round_made<8> (c, r, factor,
              gradient_row<T, LANES>{(T *)dqkv.p, (const T *)dqk.p, (const T *)qkv.p,
                  dqkv.ld, dqk.ld, qkv.ld, rstd, a});
        })
    })
    FXC_LAUNCHED (c, "qknorm_rope_bwd_rounded");
  }
  FX_TRY (
      fxc_qknorm_rope_bwd (b, dqkv, dqk, qkv, rstd, wq, wk, rope, rope_row, head_dim));
  return fxc_round_rows (b, r, dqkv, factor);
}
