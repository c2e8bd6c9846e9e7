/* kernels/cuda/flash-sm90-fwd.cu: attention forward with sm_90a's wgmma.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A block makes 128 queries of one head. One thread of the first warp group has the copy
 * engine fetch keys and values, two tiles ahead; the other two groups make 64 queries
 * each, and are not held in step, so that one's softmax hides behind the other's products
 * (Shah et al., FlashAttention-3, arXiv 2407.08608, section 3.1). */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/wgmma.cuh"

#define BM 128
#define BN 128
#define STAGES 2
#define TILE (128 * 128 * 2) /* bytes */
#define BYTES ((1 + 2 * STAGES) * TILE + 1024)

typedef struct {
  CUtensorMap q, k, v;
} maps;

/* Addresses in shared memory. */
typedef struct {
  uint32_t q, k, v;
  uint32_t full_q, full_k, full_v, empty_k, empty_v; /* barriers, 8 bytes a stage */
} places;

#if SM90A
static __device__ __forceinline__ void
produce (const maps &m, const places &p, int head, int q0, int tiles)
{
  barrier_expect (p.full_q, TILE);
  copy_tile<BM> (p.q, &m.q, head, q0, p.full_q);
  for (int j = 0; j < tiles; j++) {
    const int s = j % STAGES, before = j / STAGES & 1 ^ 1;

    barrier_wait (p.empty_k + 8 * s, before);
    barrier_expect (p.full_k + 8 * s, TILE);
    copy_tile<BN> (p.k + s * TILE, &m.k, head, j * BN, p.full_k + 8 * s);
    barrier_wait (p.empty_v + 8 * s, before);
    barrier_expect (p.full_v + 8 * s, TILE);
    copy_tile<BN> (p.v + s * TILE, &m.v, head, j * BN, p.full_v + 8 * s);
  }
}

/* Scores to weights; the running maximum and sum go along, acc is brought to the new
 * maximum. Columns from `columns` on are beyond the keys. */
static __device__ __forceinline__ void
softmax (float (&s)[BN / 8][4], float (&acc)[16][4], float (&m)[2], float (&sum)[2],
    float scale, int columns)
{
  const int t = threadIdx.x & 3;

#pragma unroll
  for (int h = 0; h < 2; h++) {
    float top = m[h];

#pragma unroll
    for (int n = 0; n < BN / 8; n++) {
#pragma unroll
      for (int i = 2 * h; i < 2 * h + 2; i++) {
        if (columns < BN && n * 8 + 2 * t + (i & 1) >= columns)
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
        s[n][i] = power2 (fmaf (s[n][i], scale, -shift));
        sum[h] += s[n][i];
      }
    }
#pragma unroll
    for (int n = 0; n < 16; n++) {
      acc[n][2 * h] *= keep;
      acc[n][2 * h + 1] *= keep;
    }
  }
}

/* One warp group: 64 queries. */
template <typename T>
static __device__ __forceinline__ void
consume (const places &p, T *o, int64_t ldo, float *lse, int row0, int n_q, int n_k,
    float a_scale, int tiles)
{
  const int lane = threadIdx.x & 31, g = lane >> 2, warp = threadIdx.x >> 5 & 3;
  const uint32_t mine = p.q + ((threadIdx.x >> 7) - 1) * 64 * 128;
  const bool first = (threadIdx.x & 127) == 0;
  const float scale = a_scale * LOG2E;
  float acc[16][4] = {0}, s[BN / 8][4], m[2] = {-INFINITY, -INFINITY}, sum[2] = {0};
  uint32_t weights[BN / 16][4];

  barrier_wait (p.full_q, 0);
  barrier_wait (p.full_k, 0);
  products_begin ();
  scores<T, BM> (s, mine, p.k);
  products_commit ();
  products_wait<0> ();
  if (first)
    barrier_arrive (p.empty_k);
  /* The next tile's scores follow the weighted sum without a pause. */
  for (int j = 0; j < tiles - 1; j++) {
    const int stage = j % STAGES, next = (j + 1) % STAGES;

    softmax (s, acc, m, sum, scale, BN);
    as_operand<T> (weights, s);
    barrier_wait (p.full_v + 8 * stage, j / STAGES & 1);
    barrier_wait (p.full_k + 8 * next, (j + 1) / STAGES & 1);
    products_begin ();
    weighted_sum<T> (acc, weights, p.v + stage * TILE);
    products_commit ();
    scores<T, BM> (s, mine, p.k + next * TILE);
    products_commit ();
    products_wait<0> ();
    if (first) {
      barrier_arrive (p.empty_v + 8 * stage);
      barrier_arrive (p.empty_k + 8 * next);
    }
  }
  softmax (s, acc, m, sum, scale, n_k - (tiles - 1) * BN);
  as_operand<T> (weights, s);
  barrier_wait (p.full_v + 8 * ((tiles - 1) % STAGES), (tiles - 1) / STAGES & 1);
  products_begin ();
  weighted_sum<T> (acc, weights, p.v + (tiles - 1) % STAGES * TILE);
  products_commit ();
  products_wait<0> ();
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int row = row0 + warp * 16 + g + 8 * h;

    sum[h] += __shfl_xor_sync (0xffffffffu, sum[h], 1);
    sum[h] += __shfl_xor_sync (0xffffffffu, sum[h], 2);
    if (lse != NULL && (lane & 3) == 0 && row < n_q)
      lse[row] = m[h] * a_scale + logf (sum[h]);
  }
  put<T, 128> (o, ldo, row0 + warp * 16, n_q, acc, 1 / sum[0], 1 / sum[1]);
}
#endif

template <typename T>
static __global__ void __launch_bounds__ (384, 1) forward (const __grid_constant__ maps m,
    T *o, int64_t ldo, float *lse, int n_q, int n_k, float scale)
{
#if SM90A
  extern __shared__ char shared[];
  __shared__ __align__ (8) uint64_t barriers[1 + 4 * STAGES];
  const int head = blockIdx.y, q0 = blockIdx.x * BM, tiles = (n_k + BN - 1) / BN;
  places p;

  p.q = (shared_address (shared) + 1023) & ~1023u;
  p.k = p.q + TILE;
  p.v = p.k + STAGES * TILE;
  p.full_q = shared_address (barriers);
  p.full_k = p.full_q + 8;
  p.full_v = p.full_k + 8 * STAGES;
  p.empty_k = p.full_v + 8 * STAGES;
  p.empty_v = p.empty_k + 8 * STAGES;
  if (threadIdx.x == 0) {
    barrier_init (p.full_q, 1);
    for (int s = 0; s < STAGES; s++) {
      barrier_init (p.full_k + 8 * s, 1);
      barrier_init (p.full_v + 8 * s, 1);
      barrier_init (p.empty_k + 8 * s, 2);
      barrier_init (p.empty_v + 8 * s, 2);
    }
    SM90_ASM ("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads ();
  if (threadIdx.x < 128) {
    registers_down<24> ();
    if (threadIdx.x == 0)
      produce (m, p, head, q0, tiles);
  } else {
    registers_up<240> ();
    consume<T> (p, o + head * 128, ldo, lse != NULL ? lse + (int64_t)head * n_q : NULL,
        q0 + ((int)(threadIdx.x >> 7) - 1) * 64, n_q, n_k, scale, tiles);
  }
#endif
}

template <typename T>
static int
launch (fx_cuda *c, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  maps m;

  FX_TRY (fxc_tensor_map (c, &m.q, q));
  FX_TRY (fxc_tensor_map (c, &m.k, k));
  FX_TRY (fxc_tensor_map (c, &m.v, v));
  FXC_TRY (c, cudaFuncSetAttribute (
                  forward<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES));
  forward<T><<<dim3 (fxc_blocks (q.rows, BM), a->heads), 384, BYTES, c->queue.stream>>> (
      m, (T *)o.p, o.ld, lse, (int)q.rows, (int)k.rows, a->scale);
  FXC_LAUNCHED (c, "attention");
}

int
fxc_attention_sm90 (
    fx_cuda *c, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  return q.dtype == FX_BF16 ? launch<bf16> (c, o, lse, q, k, v, a)
                            : launch<f16> (c, o, lse, q, k, v, a);
}
