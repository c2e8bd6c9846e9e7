/* kernels/cuda/elementwise.cuh: one functor over matrices of one shape.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "kernels/cuda/common.cuh"

#define FXC_EW_THREADS 256

/* out[r, i] = f (a[r, i], b[r, i], i); b may be NULL (then 0). */
template <typename O, typename A, typename B, int V, typename F>
static __global__ void
fxc_map2 (O *out, int64_t ldo, const A *a, int64_t lda, const B *b, int64_t ldb,
    int64_t rows, int cols, F f)
{
  const int per_row = cols / V;
  const int64_t unit = blockIdx.x * (int64_t)FXC_EW_THREADS + threadIdx.x;
  const int64_t row = unit / per_row;
  const int i = (int)(unit % per_row) * V;
  float av[V], bv[V] = {0};

  if (row >= rows)
    return;
  load<A, V> (a + row * lda + i, av);
  if (b != NULL)
    load<B, V> (b + row * ldb + i, bv);
#pragma unroll
  for (int j = 0; j < V; j++)
    av[j] = f (av[j], bv[j], i + j);
  store<O, V> (out + row * ldo + i, av);
}

template <typename O, typename A, typename B, typename F>
static void
fxc_map (fx_cuda *c, fx_mat out, fx_mat a, fx_mat b, F f)
{
  constexpr size_t AB = sizeof (A) < sizeof (B) ? sizeof (A) : sizeof (B);
  constexpr int V = (int)(16 / (sizeof (O) < AB ? sizeof (O) : AB));
  const bool wide = out.cols % V == 0 && fxc_aligned (out, sizeof (O)) &&
                    fxc_aligned (a, sizeof (A)) && fxc_aligned (b, sizeof (B));
  const unsigned blocks =
      fxc_blocks (out.rows * (wide ? out.cols / V : out.cols), FXC_EW_THREADS);

  if (wide)
    fxc_map2<O, A, B, V, F><<<blocks, FXC_EW_THREADS, 0, c->queue.stream>>> ((O *)out.p,
        out.ld, (const A *)a.p, a.ld, (const B *)b.p, b.ld, out.rows, (int)out.cols, f);
  else
    fxc_map2<O, A, B, 1, F><<<blocks, FXC_EW_THREADS, 0, c->queue.stream>>> ((O *)out.p,
        out.ld, (const A *)a.p, a.ld, (const B *)b.p, b.ld, out.rows, (int)out.cols, f);
}
