/* kernels/cuda/flash-sm90-bwd.cu: attention backward with sm_90a's wgmma.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * As flash-bwd.cu: some blocks own 128 keys and walk over the queries for dk and dv,
 * others own 128 queries and walk over the keys for dq; no atomics, the same bits each
 * time. Both are one launch, the longer first, so that the last round of blocks is
 * fuller. An owner has its scores as rows, so weights and dS go from accumulators to A
 * operands without leaving registers. With "own" and "other" for (k, v) and (q, d_o), or
 * the reverse: s = own0 other0', dp = own1 other1', ds = exp (s scale - lse) (dp -
 * delta), d own0 += ds other0, and for keys d own1 += exp (s scale - lse) other1. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/wgmma.cuh"

#define OWN 128
#define STEP 64 /* of the others in a tile */
#define STAGES 3
#define OWN_TILE (OWN * 128 * 2)
#define TILE (STEP * 128 * 2)
#define STAGE (2 * TILE)
#define BYTES (2 * OWN_TILE + STAGES * STAGE + 1024)

typedef struct {
  CUtensorMap q, k, v, d_o;
} maps;

typedef struct {
  const float *lse, *delta; /* [heads, padded]; lse in base 2, infinite beyond the end */
  int n_q, n_k, padded;
  float scale;
} numbers;

typedef struct {
  uint32_t own0, own1, other0, other1;
  uint32_t full_own, full, empty; /* barriers, 8 bytes a stage */
} places;

/* delta[head, i] = sum_d d_o o and lse in base 2, both to the padded length; a warp a
 * (row, head). */
template <typename T>
static __global__ void
prepare (float *lse2, float *delta, const float *lse, const T *d_o, int64_t lddo,
    const T *o, int64_t ldo, int rows, int padded)
{
  const int lane = threadIdx.x & 31, head = blockIdx.y;
  const int row = blockIdx.x * 4 + (threadIdx.x >> 5);
  float s = 0, a[4], b[4];

  if (row < rows) {
    load<T, 4> (d_o + row * lddo + head * 128 + 4 * lane, a);
    load<T, 4> (o + row * ldo + head * 128 + 4 * lane, b);
    s = warp_sum (a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]);
  }
  if (lane == 0 && row < padded) {
    delta[head * padded + row] = s;
    lse2[head * padded + row] =
        row < rows ? lse[(int64_t)head * rows + row] * LOG2E : INFINITY;
  }
}

#if SM90A
template <bool KEYS>
static __device__ __forceinline__ void
produce (const maps &m, const places &p, int head, int own0, int tiles)
{
  barrier_expect (p.full_own, 2 * OWN_TILE);
  copy_tile<OWN> (p.own0, KEYS ? &m.k : &m.q, head, own0, p.full_own);
  copy_tile<OWN> (p.own1, KEYS ? &m.v : &m.d_o, head, own0, p.full_own);
  for (int j = 0; j < tiles; j++) {
    const int s = j % STAGES, bar = p.full + 8 * s;

    barrier_wait (p.empty + 8 * s, j / STAGES & 1 ^ 1);
    barrier_expect (bar, STAGE);
    copy_tile<STEP> (p.other0 + s * STAGE, KEYS ? &m.q : &m.k, head, j * STEP, bar);
    copy_tile<STEP> (p.other1 + s * STAGE, KEYS ? &m.d_o : &m.v, head, j * STEP, bar);
  }
}

/* The numbers of this thread's columns of a tile: 2t and 2t + 1 of each 8. */
static __device__ __forceinline__ void
take_columns (float2 (&v)[STEP / 8], const float *from)
{
#pragma unroll
  for (int n = 0; n < STEP / 8; n++)
    v[n] = __ldg ((const float2 *)(from + n * 8) + (threadIdx.x & 3));
}

/* One warp group: 64 of the owned rows, from row0 of the matrix. */
template <typename T, bool KEYS>
static __device__ __forceinline__ void
consume (const numbers &a, const places &p, T *out0, int64_t ld0, T *out1, int64_t ld1,
    int head, int row0, int tiles)
{
  const int lane = threadIdx.x & 31, t = lane & 3, warp = threadIdx.x >> 5 & 3;
  const uint32_t group = ((threadIdx.x >> 7) - 1) * 64 * 128;
  const int row = row0 + warp * 16 + (lane >> 2);
  const float scale = a.scale * LOG2E;
  const int n_own = KEYS ? a.n_k : a.n_q;
  float acc0[16][4] = {0}, acc1[16][4] = {0}, lse[2] = {0}, delta[2] = {0};

  if (!KEYS) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const bool inside = row + 8 * h < a.n_q;

      lse[h] = inside ? a.lse[head * a.padded + row + 8 * h] : INFINITY;
      delta[h] = inside ? a.delta[head * a.padded + row + 8 * h] : 0;
    }
  }
  barrier_wait (p.full_own, 0);
  for (int j = 0; j < tiles; j++) {
    const int stage = j % STAGES;
    const uint32_t other0 = p.other0 + stage * STAGE, other1 = p.other1 + stage * STAGE;
    float s[STEP / 8][4], ds[STEP / 8][4];
    uint32_t weights[STEP / 16][4];
    float2 columns[STEP / 8]; /* of lse, then of delta */

    barrier_wait (p.full + 8 * stage, j / STAGES & 1);
    products_begin ();
    scores<T, OWN> (s, p.own0 + group, other0);
    products_commit ();
    scores<T, OWN> (ds, p.own1 + group, other1);
    products_commit ();
    if (KEYS)
      take_columns (columns, a.lse + head * a.padded + j * STEP);
    products_wait<1> ();
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++)
        s[n][i] = power2 (fmaf (s[n][i], scale,
            KEYS ? (i & 1 ? -columns[n].y : -columns[n].x) : -lse[i >> 1]));
    }
    if (KEYS) {
      as_operand<T> (weights, s);
      products_wait<0> ();
      products_begin ();
      weighted_sum<T> (acc1, weights, other1);
      products_commit ();
      take_columns (columns, a.delta + head * a.padded + j * STEP);
    } else {
      products_wait<0> ();
    }
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        ds[n][i] = s[n][i] * (ds[n][i] - (KEYS ? (i & 1 ? columns[n].y : columns[n].x)
                                               : delta[i >> 1]));
        /* Beyond the keys the scores are 0, and exp (-lse) may be infinite. */
        if (!KEYS && (j + 1) * STEP > a.n_k &&
            j * STEP + n * 8 + 2 * t + (i & 1) >= a.n_k)
          ds[n][i] = 0;
      }
    }
    uint32_t operand[STEP / 16][4];

    as_operand<T> (operand, ds);
    products_begin ();
    weighted_sum<T> (acc0, operand, other0);
    products_commit ();
    products_wait<0> ();
    if ((threadIdx.x & 127) == 0)
      barrier_arrive (p.empty + 8 * stage);
  }
  put<T, 128> (out0, ld0, row0 + warp * 16, n_own, acc0, a.scale, a.scale);
  if (KEYS)
    put<T, 128> (out1, ld1, row0 + warp * 16, n_own, acc1, 1, 1);
}

template <typename T, bool KEYS>
static __device__ __forceinline__ void
half_of_it (const maps &m, const numbers &a, const places &p, T *out0, int64_t ld0,
    T *out1, int64_t ld1, int own0)
{
  const int head = blockIdx.y, n_other = KEYS ? a.n_q : a.n_k;
  const int tiles = (n_other + STEP - 1) / STEP;

  if (threadIdx.x < 128) {
    registers_down<24> ();
    if (threadIdx.x == 0)
      produce<KEYS> (m, p, head, own0, tiles);
  } else {
    registers_up<240> ();
    consume<T, KEYS> (a, p, out0 + head * 128, ld0, KEYS ? out1 + head * 128 : NULL, ld1,
        head, own0 + ((int)(threadIdx.x >> 7) - 1) * 64, tiles);
  }
}
#endif

template <typename T>
static __global__ void __launch_bounds__ (384, 1)
    backward (const __grid_constant__ maps m, const __grid_constant__ numbers a, T *dq,
        int64_t lddq, T *dk, int64_t lddk, T *dv, int64_t lddv)
{
#if SM90A
  extern __shared__ char shared[];
  __shared__ __align__ (8) uint64_t barriers[1 + 2 * STAGES];
  places p;

  p.own0 = (shared_address (shared) + 1023) & ~1023u;
  p.own1 = p.own0 + OWN_TILE;
  p.other0 = p.own1 + OWN_TILE;
  p.other1 = p.other0 + TILE;
  p.full_own = shared_address (barriers);
  p.full = p.full_own + 8;
  p.empty = p.full + 8 * STAGES;
  if (threadIdx.x == 0) {
    barrier_init (p.full_own, 1);
    for (int s = 0; s < STAGES; s++) {
      barrier_init (p.full + 8 * s, 1);
      barrier_init (p.empty + 8 * s, 2);
    }
    SM90_ASM ("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads ();
  if (blockIdx.z == 0) {
    if ((int)blockIdx.x * OWN < a.n_k)
      half_of_it<T, true> (m, a, p, dk, lddk, dv, lddv, blockIdx.x * OWN);
  } else if ((int)blockIdx.x * OWN < a.n_q) {
    half_of_it<T, false> (m, a, p, dq, lddq, NULL, 0, blockIdx.x * OWN);
  }
#endif
}

template <typename T>
static int
launch (fx_cuda *c, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o, fx_mat o,
    const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *t)
{
  const int padded = (int)((q.rows + OWN - 1) / OWN * OWN);
  const int64_t most = q.rows > k.rows ? q.rows : k.rows;
  void *scratch;
  maps m;

  FX_TRY (fxc_scratch (
      c, FXC_SCRATCH_PARTIAL, sizeof (float) * 2 * t->heads * (size_t)padded, &scratch));
  float *lse2 = (float *)scratch, *delta = lse2 + (size_t)t->heads * padded;
  numbers a = {lse2, delta, (int)q.rows, (int)k.rows, padded, t->scale};

  FX_TRY (fxc_tensor_map (c, &m.q, q));
  FX_TRY (fxc_tensor_map (c, &m.k, k));
  FX_TRY (fxc_tensor_map (c, &m.v, v));
  FX_TRY (fxc_tensor_map (c, &m.d_o, d_o));
  FXC_TRY (c, cudaFuncSetAttribute (
                  backward<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES));
  prepare<T><<<dim3 (padded / 4, t->heads), 128, 0, c->queue.stream>>> (lse2, delta, lse,
      (const T *)d_o.p, d_o.ld, (const T *)o.p, o.ld, (int)q.rows, padded);
  backward<T>
      <<<dim3 (fxc_blocks (most, OWN), t->heads, 2), 384, BYTES, c->queue.stream>>> (
          m, a, (T *)dq.p, dq.ld, (T *)dk.p, dk.ld, (T *)dv.p, dv.ld);
  FXC_LAUNCHED (c, "attention_bwd");
}

int
fxc_attention_sm90_bwd (fx_cuda *c, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o, fx_mat o,
    const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *t)
{
  return q.dtype == FX_BF16 ? launch<bf16> (c, dq, dk, dv, d_o, o, lse, q, k, v, t)
                            : launch<f16> (c, dq, dk, dv, d_o, o, lse, q, k, v, t);
}
