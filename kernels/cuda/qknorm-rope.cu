/* kernels/cuda/qknorm-rope.cu: RMSNorm of each head of q and k, then RoPE.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One warp a (row, head of q or k); a lane holds consecutive pairs. Backward, with u the
 * gradient turned back and g = u w: dx = rstd (g - x rstd^2 mean (g x)). */
#include "kernels/cuda/common.cuh"

#define WARPS 8
#define MAX_PAIRS 4 /* head_dim <= 256 */

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
    backward<T>
        <<<fxc_blocks (a.rows * 2 * a.heads, WARPS), WARPS * 32, 0, c->queue.stream>>> (
            (T *)dqkv.p, dqkv.ld, (const T *)dqk.p, dqk.ld, (const T *)qkv.p, qkv.ld,
            rstd, a);
  })
  FXC_LAUNCHED (c, "qknorm_rope_bwd");
}
