/* kernels/cuda/elementwise.cuh: one functor over matrices of one shape.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "kernels/cuda/common.cuh"

#define FXC_EW_THREADS 256

/* out[r, i] = f (a[r, i], b[r, i], i); b may be NULL (then 0). */
template <typename T, int V, typename F>
static __global__ void
fxc_map2 (T *out, int64_t ldo, const T *a, int64_t lda, const T *b, int64_t ldb,
    int64_t rows, int cols, F f)
{
  const int per_row = cols / V;
  const int64_t unit = blockIdx.x * (int64_t)FXC_EW_THREADS + threadIdx.x;
  const int64_t row = unit / per_row;
  const int i = (int)(unit % per_row) * V;
  float av[V], bv[V] = {0};

  if (row >= rows)
    return;
  load<T, V> (a + row * lda + i, av);
  if (b != NULL)
    load<T, V> (b + row * ldb + i, bv);
#pragma unroll
  for (int j = 0; j < V; j++)
    av[j] = f (av[j], bv[j], i + j);
  store<T, V> (out + row * ldo + i, av);
}

template <typename T, typename F>
static void
fxc_map (fx_cuda *c, fx_mat out, fx_mat a, fx_mat b, F f)
{
  constexpr int V = 16 / sizeof (T);
  const bool wide = fxc_aligned (out, sizeof (T)) && fxc_aligned (a, sizeof (T)) &&
                    fxc_aligned (b, sizeof (T));
  const unsigned blocks =
      fxc_blocks (out.rows * (wide ? out.cols / V : out.cols), FXC_EW_THREADS);

  if (wide)
    fxc_map2<T, V, F><<<blocks, FXC_EW_THREADS, 0, c->stream>>> ((T *)out.p, out.ld,
        (const T *)a.p, a.ld, (const T *)b.p, b.ld, out.rows, (int)out.cols, f);
  else
    fxc_map2<T, 1, F><<<blocks, FXC_EW_THREADS, 0, c->stream>>> ((T *)out.p, out.ld,
        (const T *)a.p, a.ld, (const T *)b.p, b.ld, out.rows, (int)out.cols, f);
}
