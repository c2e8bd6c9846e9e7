/* kernels/cuda/flash-bwd.cu: attention backward on tensor cores. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Two kernels and no atomics, so that the same call gives the same bits: one owns keys
 * and walks over queries for dk and dv, one owns queries and walks over keys for dq. Both
 * make the scores again from lse. The first works on the transposed tile (keys are rows),
 * so that P and dS are already in the shape of an A operand and never leave registers.
 * With P = exp (scale QK' - lse): dV = P' dO, dP = dO V', dS = P (dP - delta), dQ = scale
 * dS K, dK = scale dS' Q. STEP: of the others in a tile. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/flash.cuh"

#define ROWS 64 /* owned by a block, 16 a warp */
#define THREADS (ROWS * 2)

/* delta[head, i] = sum_d d_o o; a warp a (row, head). */
template <typename T>
static __global__ void
row_dots (float *delta, const T *d_o, int64_t lddo, const T *o, int64_t ldo, int rows,
    int head_dim)
{
  const int lane = threadIdx.x & 31, head = blockIdx.y;
  const int row = blockIdx.x * 4 + (threadIdx.x >> 5);
  float s = 0, a[2], b[2];

  if (row >= rows)
    return;
  for (int d = 2 * lane; d < head_dim; d += 64) {
    load<T, 2> (d_o + row * lddo + head * head_dim + d, a);
    load<T, 2> (o + row * ldo + head * head_dim + d, b);
    s += a[0] * b[0] + a[1] * b[1];
  }
  s = warp_sum (s);
  if (lane == 0)
    delta[head * rows + row] = s;
}

/* lse (in base 2) and delta of a tile of queries; beyond the end: P becomes 0. */
template <int STEP>
static __device__ __forceinline__ void
fetch_rows (float *lse, float *delta, const flash_args &a, int head, int first)
{
  for (int i = threadIdx.x; i < STEP; i += THREADS) {
    const bool inside = first + i < a.n_q;

    lse[i] = inside ? a.lse[head * a.n_q + first + i] * LOG2E : INFINITY;
    delta[i] = inside ? a.delta[head * a.n_q + first + i] : 0;
  }
}

template <typename T, int HD, int STEP>
static __global__ void
__launch_bounds__ (THREADS)
    keys_backward (T *dk, int64_t lddk, T *dv, int64_t lddv, flash_args a)
{
  constexpr int TILE = STEP * HD * 2;
  extern __shared__ __align__ (128) char shared[];
  __shared__ float lse[2][STEP], delta[2][STEP];
  const int lane = threadIdx.x & 31, row0 = (threadIdx.x >> 5) * 16, t = lane & 3;
  const int head = blockIdx.y, k0 = blockIdx.x * ROWS;
  const uint32_t ks = shared_address (shared), vs = ks + ROWS * HD * 2;
  const uint32_t qs = vs + ROWS * HD * 2, os = qs + 2 * TILE;
  const T *q = (const T *)a.q + head * HD, *d_o = (const T *)a.d_o + head * HD;
  const int tiles = (a.n_q + STEP - 1) / STEP;
  const float scale = a.scale * LOG2E;
  float acc_k[HD / 8][4] = {0}, acc_v[HD / 8][4] = {0};

  fetch<T, HD, ROWS, THREADS> (ks, (const T *)a.k + head * HD, a.ldk, k0, a.n_k);
  fetch<T, HD, ROWS, THREADS> (vs, (const T *)a.v + head * HD, a.ldv, k0, a.n_k);
  fetch<T, HD, STEP, THREADS> (qs, q, a.ldq, 0, a.n_q);
  fetch<T, HD, STEP, THREADS> (os, d_o, a.lddo, 0, a.n_q);
  fetch_commit ();
  fetch_rows<STEP> (lse[0], delta[0], a, head, 0);
  for (int j = 0; j < tiles; j++) {
    const int now = j & 1;
    const uint32_t half = now * TILE, other = TILE - half;
    float p[STEP / 8][4] = {0}, ds[STEP / 8][4] = {0};

    if (j + 1 < tiles) {
      fetch<T, HD, STEP, THREADS> (qs + other, q, a.ldq, (j + 1) * STEP, a.n_q);
      fetch<T, HD, STEP, THREADS> (os + other, d_o, a.lddo, (j + 1) * STEP, a.n_q);
      fetch_commit ();
      fetch_rows<STEP> (lse[1 - now], delta[1 - now], a, head, (j + 1) * STEP);
      fetch_wait<1> ();
    } else {
      fetch_wait<0> ();
    }
    __syncthreads ();
    product_nt<T, HD, STEP / 8> (p, ks, row0, qs + half);
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++)
        p[n][i] = power2 (p[n][i] * scale - lse[now][n * 8 + 2 * t + (i & 1)]);
    }
    product_nn<T, HD, STEP / 8> (acc_v, p, os + half);
    product_nt<T, HD, STEP / 8> (ds, vs, row0, os + half);
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++)
        ds[n][i] = p[n][i] * (ds[n][i] - delta[now][n * 8 + 2 * t + (i & 1)]);
    }
    product_nn<T, HD, STEP / 8> (acc_k, ds, qs + half);
    __syncthreads ();
  }
  put<T, HD> (dk + head * HD, lddk, k0 + row0, a.n_k, acc_k, a.scale, a.scale);
  put<T, HD> (dv + head * HD, lddv, k0 + row0, a.n_k, acc_v, 1, 1);
}

template <typename T, int HD, int STEP>
static __global__ void
__launch_bounds__ (THREADS) queries_backward (T *dq, int64_t lddq, flash_args a)
{
  constexpr int TILE = STEP * HD * 2;
  extern __shared__ __align__ (128) char shared[];
  const int lane = threadIdx.x & 31, row0 = (threadIdx.x >> 5) * 16;
  const int head = blockIdx.y, q0 = blockIdx.x * ROWS, g = lane >> 2;
  const uint32_t qs = shared_address (shared), os = qs + ROWS * HD * 2;
  const uint32_t ks = os + ROWS * HD * 2, vs = ks + 2 * TILE;
  const T *k = (const T *)a.k + head * HD, *v = (const T *)a.v + head * HD;
  const int tiles = (a.n_k + STEP - 1) / STEP;
  const float scale = a.scale * LOG2E;
  float acc[HD / 8][4] = {0}, lse[2], delta[2];

#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int row = q0 + row0 + g + 8 * h;

    lse[h] = row < a.n_q ? a.lse[head * a.n_q + row] * LOG2E : INFINITY;
    delta[h] = row < a.n_q ? a.delta[head * a.n_q + row] : 0;
  }
  fetch<T, HD, ROWS, THREADS> (qs, (const T *)a.q + head * HD, a.ldq, q0, a.n_q);
  fetch<T, HD, ROWS, THREADS> (os, (const T *)a.d_o + head * HD, a.lddo, q0, a.n_q);
  fetch<T, HD, STEP, THREADS> (ks, k, a.ldk, 0, a.n_k);
  fetch<T, HD, STEP, THREADS> (vs, v, a.ldv, 0, a.n_k);
  fetch_commit ();
  for (int j = 0; j < tiles; j++) {
    const uint32_t half = (j & 1) * TILE, other = TILE - half;
    float p[STEP / 8][4] = {0}, ds[STEP / 8][4] = {0};

    if (j + 1 < tiles) {
      fetch<T, HD, STEP, THREADS> (ks + other, k, a.ldk, (j + 1) * STEP, a.n_k);
      fetch<T, HD, STEP, THREADS> (vs + other, v, a.ldv, (j + 1) * STEP, a.n_k);
      fetch_commit ();
      fetch_wait<1> ();
    } else {
      fetch_wait<0> ();
    }
    __syncthreads ();
    product_nt<T, HD, STEP / 8> (p, qs, row0, ks + half);
    product_nt<T, HD, STEP / 8> (ds, os, row0, vs + half);
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        ds[n][i] = power2 (p[n][i] * scale - lse[i >> 1]) * (ds[n][i] - delta[i >> 1]);
        /* Beyond the keys the scores are 0, and exp (-lse) may be infinite. */
        if ((j + 1) * STEP > a.n_k &&
            j * STEP + n * 8 + 2 * (lane & 3) + (i & 1) >= a.n_k)
          ds[n][i] = 0;
      }
    }
    product_nn<T, HD, STEP / 8> (acc, ds, ks + half);
    __syncthreads ();
  }
  put<T, HD> (dq + head * HD, lddq, q0 + row0, a.n_q, acc, a.scale, a.scale);
}

template <typename T, int HD, int STEP>
static int
launch (fx_cuda *c, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat o, flash_args a, float *delta,
    int heads)
{
  const int bytes = (2 * ROWS + 4 * STEP) * HD * 2;

  FXC_TRY (c, cudaFuncSetAttribute (keys_backward<T, HD, STEP>,
                  cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  FXC_TRY (c, cudaFuncSetAttribute (queries_backward<T, HD, STEP>,
                  cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  row_dots<T><<<dim3 (fxc_blocks (a.n_q, 4), heads), 128, 0, c->queue.stream>>> (
      delta, (const T *)a.d_o, a.lddo, (const T *)o.p, o.ld, a.n_q, HD);
  keys_backward<T, HD, STEP>
      <<<dim3 (fxc_blocks (a.n_k, ROWS), heads), THREADS, bytes, c->queue.stream>>> (
          (T *)dk.p, dk.ld, (T *)dv.p, dv.ld, a);
  queries_backward<T, HD, STEP>
      <<<dim3 (fxc_blocks (a.n_q, ROWS), heads), THREADS, bytes, c->queue.stream>>> (
          (T *)dq.p, dq.ld, a);
  FXC_LAUNCHED (c, "attention_bwd");
}

int
fxc_attention_flash_bwd (fx_cuda *c, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o,
    fx_mat o, const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *t)
{
  void *delta;
  flash_args a = {q.p, k.p, v.p, d_o.p, q.ld, k.ld, v.ld, d_o.ld, (int)q.rows,
      (int)k.rows, t->scale, lse, NULL};

  FX_TRY (fxc_scratch (
      c, FXC_SCRATCH_PARTIAL, sizeof (float) * t->heads * (size_t)q.rows, &delta));
  a.delta = (const float *)delta;
  if (q.dtype == FX_BF16)
    return t->head_dim == 128
               ? launch<bf16, 128, 64> (c, dq, dk, dv, o, a, (float *)delta, t->heads)
               : launch<bf16, 64, 64> (c, dq, dk, dv, o, a, (float *)delta, t->heads);
  if (!c->has_mma) /* 64 KiB of shared memory */
    return t->head_dim == 128
               ? launch<f16, 128, 16> (c, dq, dk, dv, o, a, (float *)delta, t->heads)
               : launch<f16, 64, 16> (c, dq, dk, dv, o, a, (float *)delta, t->heads);
  return t->head_dim == 128
             ? launch<f16, 128, 64> (c, dq, dk, dv, o, a, (float *)delta, t->heads)
             : launch<f16, 64, 64> (c, dq, dk, dv, o, a, (float *)delta, t->heads);
}
