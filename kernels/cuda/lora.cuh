/* kernels/cuda/lora.cuh: what the two directions of LoRA share. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * A group is n modules of one rank on n equal column parts of y; its width, n * rank
 * columns of h, goes through the kernels in slices of at most 16, so that the usual group
 * (q, k and v of rank 4) takes one reading of each matrix. All four kernels have blocks
 * of four warps; sums across blocks go through partial sums added in a fixed order. How
 * the work is split depends on shapes alone. */
#pragma once

#include "kernels/cuda/common.cuh"

#define LORA_PARTS 8 /* modules in one launch; larger groups take several */
#define LORA_THREADS 128
#define LORA_WARPS 4

typedef struct {
  const float *a[LORA_PARTS], *b[LORA_PARTS]; /* [rank, k], [part, rank] */
  float *da[LORA_PARTS], *db[LORA_PARTS];
  float scale[LORA_PARTS];
  int n, rank, width; /* modules, rank of each, n * rank */
  int k, part;        /* columns of x, and of one part of y */
} lora_group;

/* Row q of all A, one above the other. */
static __device__ __forceinline__ const float *
row_of_a (const lora_group &g, int q)
{
  return g.a[q / g.rank] + (int64_t)(q % g.rank) * g.k;
}

static __device__ __forceinline__ float
part_of (float4 v, int i)
{
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* V neighbouring columns of a row, moved 16 bytes at a time where WIDE says they lie
 * so; `left` columns, perhaps none or more than V, are there. */
template <typename T, int V> struct columns {
  static constexpr int P = V * sizeof (T) > 16 ? 16 / (int)sizeof (T) : V;
  pack<T, P> p[V / P];

  __device__ __forceinline__ float
  at (int i) const
  {
    return to_f (p[i / P].v[i % P]);
  }

  template <bool WIDE>
  __device__ __forceinline__ void
  take (const T *from, int left)
  {
#pragma unroll
    for (int i = 0; i < V; i += WIDE ? P : 1) {
      if (WIDE && i < left)
        p[i / P] = *reinterpret_cast<const pack<T, P> *> (from + i);
      else if (WIDE)
        p[i / P] = {};
      else
        p[i / P].v[i % P] = i < left ? from[i] : from_f<T> (0);
    }
  }
};

template <typename T, int V, bool WIDE>
static __device__ __forceinline__ void
give (T *to, int left, const float *v)
{
  constexpr int P = columns<T, V>::P;

#pragma unroll
  for (int i = 0; i < V; i += WIDE ? P : 1) {
    if (WIDE && i < left)
      store<T, P> (to + i, v + i);
    else if (!WIDE && i < left)
      to[i] = from_f<T> (v[i]);
  }
}

/* Adds N values of each lane over the warp. Each step halves what a lane still holds by
 * handing the other half to its partner: N + log2 32 shuffles at most, not 5 N. Then lane
 * has sums at() .. at() + left - 1; lanes that differ in the bits of `twice` alone hold
 * the same. */
template <int N, int O> struct folding {
  static constexpr bool even = N % 2 == 0;
  typedef folding<even ? N / 2 : N, O / 2> next;
  static constexpr int left = next::left, twice = (even ? 0 : O) | next::twice;

  static __device__ __forceinline__ int
  at (int lane)
  {
    return (even && (lane & O) != 0 ? N / 2 : 0) + next::at (lane);
  }

  static __device__ __forceinline__ void
  run (float *v, int lane)
  {
#pragma unroll
    for (int j = 0; j < (even ? N / 2 : N); j++) {
      const float kept = even && (lane & O) != 0 ? v[j + N / 2] : v[j];
      const float sent = even && (lane & O) == 0 ? v[j + N / 2] : v[j];

      v[j] = kept + __shfl_xor_sync (0xffffffffu, sent, O);
    }
    next::run (v, lane);
  }
};
template <int N> struct folding<N, 0> {
  static constexpr int left = N, twice = 0;
  static __device__ __forceinline__ int
  at (int)
  {
    return 0;
  }
  static __device__ __forceinline__ void
  run (float *, int)
  {
  }
};

/* The sum of n partial sums, `step` apart, in order; eight loads under way at once. */
static __device__ __forceinline__ float
sum_of (const float *partial, int64_t step, int n)
{
  float sum = 0;

  for (int i = 0; i < n; i += 8) {
    float v[8];

#pragma unroll
    for (int j = 0; j < 8; j++)
      v[j] = i + j < n ? partial[(i + j) * step] : 0;
#pragma unroll
    for (int j = 0; j < 8; j++)
      sum += v[j];
  }
  return sum;
}

/* Whether every `part` columns of every row begin on 16 bytes, and are whole pieces of 8
 * columns. */
static inline bool
lora_fits (fx_mat m, int64_t part)
{
  return m.p == NULL || (((uintptr_t)m.p & 15) == 0 && m.ld % 8 == 0 && part % 8 == 0);
}

/* The same for x and A. */
static inline bool
lora_fits_x (fx_mat x, const lora_group *g)
{
  bool fits = lora_fits (x, g->k);

  for (int i = 0; i < g->n; i++)
    fits = fits && ((uintptr_t)g->a[i] & 15) == 0;
  return fits;
}

lora_group fxc_lora_group (const fx_lora *l, int n, int64_t k, int64_t part);
/* partial [splits, rows, width]: x A^T over `splits` pieces of the columns, to be added
 * up by who reads it. */
int fxc_lora_splits (int64_t rows, int64_t k);
int fxc_lora_down (fx_cuda *c, float *partial, fx_mat x, const lora_group *g);
/* FX_ERR_UNSUPPORTED unless m has the dtype of x. */
int fxc_lora_dtype (fx_cuda *c, const char *name, fx_mat m, fx_mat x);
