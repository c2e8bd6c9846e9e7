/* kernels/cuda/attention-any.cu: attention without tensor cores. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Any dtype, any head size up to 256, causal mask, bias: for the text encoders, the fp32
 * mode and tests. A warp owns a query (forward, dq) or a key (dk, dv); tiles of 32 of the
 * others stand in shared memory as fp32, one a lane for the dot products; then a lane
 * owns head_dim / 32 columns for the weighted sums. No atomics: the same bits each time.
 */
#include "kernels/cuda/attention.cuh"

#define WARPS 4
#define TILE 32
#define MAX_PER_LANE 8 /* head_dim <= 256 */

typedef struct {
  const void *q, *k, *v, *o, *d_o;
  int64_t ldq, ldk, ldv, ldo, lddo;
  int64_t n_q, n_k;
  int head_dim;
  float scale;
  bool causal;
  const float *bias, *lse;
} args;

/* Rows [first, first + TILE) of m's head as fp32, rows padded by one against bank
 * conflicts. */
template <typename T>
static __device__ __forceinline__ void
stage (float *tile, const T *m, int64_t ld, int64_t first, int64_t rows, int head_dim)
{
  for (int i = threadIdx.x; i < TILE * head_dim; i += WARPS * 32) {
    int r = i / head_dim, d = i % head_dim;

    tile[r * (head_dim + 1) + d] = first + r < rows ? to_f (m[(first + r) * ld + d]) : 0;
  }
}

static __device__ __forceinline__ float
dot (const float *a, const float *b, int n)
{
  float s = 0;

  for (int i = 0; i < n; i++)
    s = fmaf (a[i], b[i], s);
  return s;
}

/* acc += sum over the tile of weight (lane j) * row j. */
static __device__ __forceinline__ void
add_rows (float *acc, float weight, const float *tile, int head_dim)
{
  const int lane = threadIdx.x & 31;

  for (int j = 0; j < TILE; j++) {
    float w = __shfl_sync (0xffffffffu, weight, j);

#pragma unroll
    for (int p = 0; p < MAX_PER_LANE; p++) {
      int d = lane + 32 * p;

      if (d < head_dim)
        acc[p] = fmaf (w, tile[j * (head_dim + 1) + d], acc[p]);
    }
  }
}

static __device__ __forceinline__ float
score (const args &a, int head, int64_t i, int64_t j, float qk)
{
  float s = qk * a.scale;

  if (a.bias != NULL)
    s += a.bias[(head * a.n_q + i) * a.n_k + j];
  return s;
}

template <typename T>
static __global__ void
forward (T *o, int64_t ldo, float *lse, args a)
{
  extern __shared__ float shared[];
  const int hd = a.head_dim, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int head = blockIdx.y;
  const int64_t i = blockIdx.x * (int64_t)WARPS + warp;
  float *ks = shared, *vs = ks + TILE * (hd + 1), *q = vs + TILE * (hd + 1) + warp * hd;
  float acc[MAX_PER_LANE] = {0}, m = -INFINITY, sum = 0;

  if (i < a.n_q) {
    for (int d = lane; d < hd; d += 32)
      q[d] = to_f (((const T *)a.q)[i * a.ldq + head * hd + d]);
  }
  for (int64_t j0 = 0; j0 < a.n_k; j0 += TILE) {
    const int64_t j = j0 + lane;

    __syncthreads ();
    stage (ks, (const T *)a.k + head * hd, a.ldk, j0, a.n_k, hd);
    stage (vs, (const T *)a.v + head * hd, a.ldv, j0, a.n_k, hd);
    __syncthreads ();
    if (i >= a.n_q)
      continue;
    bool seen = j < a.n_k && (!a.causal || j <= i);
    float s = seen ? score (a, head, i, j, dot (q, ks + lane * (hd + 1), hd)) : -INFINITY;
    float top = fmaxf (m, warp_max (s));

    if (top == -INFINITY)
      continue;
    float p = seen ? expf (s - top) : 0, keep = expf (m - top);

    sum = sum * keep + warp_sum (p);
    m = top;
#pragma unroll
    for (int d = 0; d < MAX_PER_LANE; d++)
      acc[d] *= keep;
    add_rows (acc, p, vs, hd);
  }
  if (i >= a.n_q)
    return;
#pragma unroll
  for (int p = 0; p < MAX_PER_LANE; p++) {
    int d = lane + 32 * p;

    if (d < hd)
      o[i * ldo + head * hd + d] = from_f<T> (sum > 0 ? acc[p] / sum : 0);
  }
  if (lse != NULL && lane == 0)
    lse[head * a.n_q + i] = m + logf (sum);
}

/* KEYS: the warp owns a key and makes dk, dv; else it owns a query and makes dq. With p =
 * exp (s - lse), dp = d_o v^T, delta = sum (d_o o): ds = p (dp - delta) scale. */
template <typename T, bool KEYS>
static __global__ void
backward (T *out0, int64_t ld0, T *out1, int64_t ld1, args a, const float *delta)
{
  extern __shared__ float shared[];
  const int hd = a.head_dim, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int head = blockIdx.y;
  const int64_t own = blockIdx.x * (int64_t)WARPS + warp;
  const int64_t n_own = KEYS ? a.n_k : a.n_q, n_other = KEYS ? a.n_q : a.n_k;
  const T *own0 = (const T *)(KEYS ? a.k : a.q), *own1 = (const T *)(KEYS ? a.v : a.d_o);
  const T *other0 = (const T *)(KEYS ? a.q : a.k),
          *other1 = (const T *)(KEYS ? a.d_o : a.v);
  const int64_t ld_own0 = KEYS ? a.ldk : a.ldq, ld_own1 = KEYS ? a.ldv : a.lddo;
  const int64_t ld_other0 = KEYS ? a.ldq : a.ldk, ld_other1 = KEYS ? a.lddo : a.ldv;
  float *t0 = shared, *t1 = t0 + TILE * (hd + 1);
  float *mine0 = t1 + TILE * (hd + 1) + warp * 2 * hd, *mine1 = mine0 + hd;
  float acc0[MAX_PER_LANE] = {0}, acc1[MAX_PER_LANE] = {0};

  if (own < n_own) {
    for (int d = lane; d < hd; d += 32) {
      mine0[d] = to_f (own0[own * ld_own0 + head * hd + d]);
      mine1[d] = to_f (own1[own * ld_own1 + head * hd + d]);
    }
  }
  for (int64_t j0 = 0; j0 < n_other; j0 += TILE) {
    const int64_t j = j0 + lane, qi = KEYS ? j : own;
    float p = 0, ds = 0;

    __syncthreads ();
    stage (t0, other0 + head * hd, ld_other0, j0, n_other, hd);
    stage (t1, other1 + head * hd, ld_other1, j0, n_other, hd);
    __syncthreads ();
    if (own >= n_own)
      continue;
    if (j < n_other) {
      p = expf (
          dot (mine0, t0 + lane * (hd + 1), hd) * a.scale - a.lse[head * a.n_q + qi]);
      ds = p * (dot (mine1, t1 + lane * (hd + 1), hd) - delta[head * a.n_q + qi]) *
           a.scale;
    }
    add_rows (acc0, ds, t0, hd);
    if (KEYS)
      add_rows (acc1, p, t1, hd);
  }
  if (own >= n_own)
    return;
#pragma unroll
  for (int p = 0; p < MAX_PER_LANE; p++) {
    int d = lane + 32 * p;

    if (d < hd) {
      out0[own * ld0 + head * hd + d] = from_f<T> (acc0[p]);
      if (KEYS)
        out1[own * ld1 + head * hd + d] = from_f<T> (acc1[p]);
    }
  }
}

/* delta[head, i] = sum_d d_o[i, d] o[i, d]; a warp each. */
template <typename T>
static __global__ void
row_dots (float *delta, args a)
{
  const int lane = threadIdx.x & 31, head = blockIdx.y;
  const int64_t i = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5);
  float s = 0;

  if (i >= a.n_q)
    return;
  for (int d = lane; d < a.head_dim; d += 32)
    s += to_f (((const T *)a.d_o)[i * a.lddo + head * a.head_dim + d]) *
         to_f (((const T *)a.o)[i * a.ldo + head * a.head_dim + d]);
  s = warp_sum (s);
  if (lane == 0)
    delta[head * a.n_q + i] = s;
}

/* A block may have more than 48 KiB of shared memory only when asked for. */
template <typename F>
static cudaError_t
allow_shared (F *kernel, size_t bytes)
{
  if (bytes <= 48 << 10)
    return cudaSuccess;
  return cudaFuncSetAttribute (
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

int
fxc_attention_any (
    fx_cuda *c, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *t)
{
  args a = {q.p, k.p, v.p, NULL, NULL, q.ld, k.ld, v.ld, 0, 0, q.rows, k.rows,
      t->head_dim, t->scale, t->causal, t->bias, NULL};
  const dim3 grid (fxc_blocks (q.rows, WARPS), t->heads);
  const size_t bytes =
      sizeof (float) * (2 * TILE * (t->head_dim + 1) + WARPS * t->head_dim);

  if (t->head_dim > 32 * MAX_PER_LANE)
    return c->error (
        FX_ERR_UNSUPPORTED, "cuda: attention: heads of %d are too wide", t->head_dim);
  FXC_WITH_TYPE (c, q.dtype, {
    FXC_TRY (c, allow_shared (forward<T>, bytes));
    forward<T><<<grid, WARPS * 32, bytes, c->queue.stream>>> ((T *)o.p, o.ld, lse, a);
  })
  FXC_LAUNCHED (c, "attention");
}

int
fxc_attention_any_bwd (fx_cuda *c, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o, fx_mat o,
    const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *t)
{
  args a = {q.p, k.p, v.p, o.p, d_o.p, q.ld, k.ld, v.ld, o.ld, d_o.ld, q.rows, k.rows,
      t->head_dim, t->scale, false, NULL, lse};
  const dim3 grid_q (fxc_blocks (q.rows, WARPS), t->heads);
  const dim3 grid_k (fxc_blocks (k.rows, WARPS), t->heads);
  const size_t bytes =
      sizeof (float) * (2 * TILE * (t->head_dim + 1) + 2 * WARPS * t->head_dim);
  void *delta;

  if (t->head_dim > 32 * MAX_PER_LANE)
    return c->error (
        FX_ERR_UNSUPPORTED, "cuda: attention: heads of %d are too wide", t->head_dim);
  FX_TRY (fxc_scratch (
      c, FXC_SCRATCH_PARTIAL, sizeof (float) * t->heads * (size_t)q.rows, &delta));
  FXC_WITH_TYPE (c, q.dtype, {
    FXC_TRY (c, allow_shared (backward<T, true>, bytes));
    FXC_TRY (c, allow_shared (backward<T, false>, bytes));
    row_dots<T><<<grid_q, WARPS * 32, 0, c->queue.stream>>> ((float *)delta, a);
    backward<T, false><<<grid_q, WARPS * 32, bytes, c->queue.stream>>> (
        (T *)dq.p, dq.ld, NULL, 0, a, (const float *)delta);
    backward<T, true><<<grid_k, WARPS * 32, bytes, c->queue.stream>>> (
        (T *)dk.p, dk.ld, (T *)dv.p, dv.ld, a, (const float *)delta);
  })
  FXC_LAUNCHED (c, "attention_bwd");
}
