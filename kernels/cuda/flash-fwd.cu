/* kernels/cuda/flash-fwd.cu: attention forward on tensor cores. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * A block makes BM queries of one head, a warp 16 of them; keys and values come in tiles
 * of BN, two of them in flight. The running maximum and sum are kept in base 2 (Dao,
 * FlashAttention-2, arXiv 2307.08691). */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/flash.cuh"

template <typename T, int HD, int BM, int BN>
static __global__ void
__launch_bounds__ (BM * 2) forward (T *o, int64_t ldo, float *lse, flash_args a)
{
  constexpr int THREADS = BM * 2, TILE = BN * HD * 2;
  extern __shared__ __align__ (128) char shared[];
  const int lane = threadIdx.x & 31, row0 = (threadIdx.x >> 5) * 16;
  const int head = blockIdx.y, q0 = blockIdx.x * BM, g = lane >> 2, t = lane & 3;
  const uint32_t qs = shared_address (shared), ks = qs + BM * HD * 2, vs = ks + 2 * TILE;
  const T *k = (const T *)a.k + head * HD, *v = (const T *)a.v + head * HD;
  const int tiles = (a.n_k + BN - 1) / BN;
  const float scale = a.scale * LOG2E;
  float acc[HD / 8][4] = {0}, m[2] = {-INFINITY, -INFINITY}, sum[2] = {0};

  fetch<T, HD, BM, THREADS> (qs, (const T *)a.q + head * HD, a.ldq, q0, a.n_q);
  fetch<T, HD, BN, THREADS> (ks, k, a.ldk, 0, a.n_k);
  fetch<T, HD, BN, THREADS> (vs, v, a.ldv, 0, a.n_k);
  fetch_commit ();
  for (int j = 0; j < tiles; j++) {
    const uint32_t half = (j & 1) * TILE, other = TILE - half;
    float s[BN / 8][4] = {0};

    if (j + 1 < tiles) {
      fetch<T, HD, BN, THREADS> (ks + other, k, a.ldk, (j + 1) * BN, a.n_k);
      fetch<T, HD, BN, THREADS> (vs + other, v, a.ldv, (j + 1) * BN, a.n_k);
      fetch_commit ();
      fetch_wait<1> ();
    } else {
      fetch_wait<0> ();
    }
    __syncthreads ();
    product_nt<T, HD, BN / 8> (s, qs, row0, ks + half);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float top = m[h];

#pragma unroll
      for (int n = 0; n < BN / 8; n++) {
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; i++) {
          if (j * BN + n * 8 + 2 * t + (i & 1) >= a.n_k)
            s[n][i] = -INFINITY;
          top = fmaxf (top, s[n][i]);
        }
      }
      top = fmaxf (top, __shfl_xor_sync (0xffffffffu, top, 1));
      top = fmaxf (top, __shfl_xor_sync (0xffffffffu, top, 2));
      const float keep = power2 ((m[h] - top) * scale), shift = top * scale;

      m[h] = top;
      sum[h] *= keep;
#pragma unroll
      for (int n = 0; n < BN / 8; n++) {
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; i++) {
          s[n][i] = power2 (s[n][i] * scale - shift);
          sum[h] += s[n][i];
        }
      }
#pragma unroll
      for (int n = 0; n < HD / 8; n++) {
        acc[n][2 * h] *= keep;
        acc[n][2 * h + 1] *= keep;
      }
    }
    product_nn<T, HD, BN / 8> (acc, s, vs + half);
    __syncthreads ();
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    sum[h] += __shfl_xor_sync (0xffffffffu, sum[h], 1);
    sum[h] += __shfl_xor_sync (0xffffffffu, sum[h], 2);
    const int row = q0 + row0 + g + 8 * h;

    if (lse != NULL && t == 0 && row < a.n_q)
      lse[head * a.n_q + row] = m[h] * a.scale + logf (sum[h]);
  }
  put<T, HD> (o + head * HD, ldo, q0 + row0, a.n_q, acc, 1 / sum[0], 1 / sum[1]);
}

template <typename T, int HD, int BN>
static int
launch (fx_cuda *c, fx_mat o, float *lse, flash_args a, int heads)
{
  constexpr int BM = 128;
  const int bytes = (BM + 4 * BN) * HD * 2;

  FXC_TRY (c, cudaFuncSetAttribute (forward<T, HD, BM, BN>,
                  cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  forward<T, HD, BM, BN>
      <<<dim3 (fxc_blocks (a.n_q, BM), heads), BM * 2, bytes, c->queue.stream>>> (
          (T *)o.p, o.ld, lse, a);
  FXC_LAUNCHED (c, "attention");
}

/* Takes what fxc_attention() has found fit: 16-bit, heads of 64 or 128, aligned rows;
 * fp16 where there is no mma of bf16. */
int
fxc_attention_flash (
    fx_cuda *c, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *t)
{
  flash_args a = {q.p, k.p, v.p, NULL, q.ld, k.ld, v.ld, 0, (int)q.rows, (int)k.rows,
      t->scale, NULL, NULL};

  if (q.dtype == FX_BF16)
    return t->head_dim == 128 ? launch<bf16, 128, 64> (c, o, lse, a, t->heads)
                              : launch<bf16, 64, 64> (c, o, lse, a, t->heads);
  if (!c->has_mma) /* 64 KiB of shared memory */
    return t->head_dim == 128 ? launch<f16, 128, 32> (c, o, lse, a, t->heads)
                              : launch<f16, 64, 32> (c, o, lse, a, t->heads);
  return t->head_dim == 128 ? launch<f16, 128, 64> (c, o, lse, a, t->heads)
                            : launch<f16, 64, 64> (c, o, lse, a, t->heads);
}
