/* kernels/cuda/gate.cu: out = x + gate * y and its gradient. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/rounded.cuh"

/* y of type T. */
template <typename T> struct gated_sum {
  const float *gate;
  __device__ float
  operator() (float x, float y, int i) const
  {
    y = bounded<T> (y);
    return x + (gate != NULL ? gate[i] * y : y);
  }
};
struct gated {
  const float *gate;
  __device__ float
  operator() (float d, float, int i) const
  {
    return gate != NULL ? gate[i] * d : d;
  }
};

int
fxc_gate_residual (fx_backend *b, fx_mat out, fx_mat x, fx_mat y, const float *gate)
{
  fx_cuda *c = fxc (b);

  FXC_WITH_TYPES (
      c, y.dtype, x.dtype, { fxc_map<R, R, T> (c, out, x, y, gated_sum<T>{gate}); })
  FXC_LAUNCHED (c, "gate_residual");
}

int
fxc_gate_bwd (fx_backend *b, fx_mat dy, fx_mat dout, const float *gate)
{
  fx_cuda *c = fxc (b);
  gated f = {gate};
  fx_mat none = {NULL, 0, 0, 0, dout.dtype};

  FXC_WITH_TYPES (c, dy.dtype, dout.dtype, { fxc_map<T, R, R> (c, dy, dout, none, f); })
  FXC_LAUNCHED (c, "gate_bwd");
}

template <typename T, typename R, int V> struct gated_row {
  const R *dout;
  const float *gate;
  int64_t ld, lddy;
  T *dy; /* NULL: not wanted */
  __device__ __forceinline__ void
  operator() (int64_t row, int i, float *v) const
  {
    const gated f = {gate};

    load<R, V> (dout + row * ld + i, v);
#pragma unroll
    for (int j = 0; j < V; j++)
      v[j] = to_f (from_f<T> (f (v[j], 0, i + j)));
    if (dy != NULL)
      store<T, V> (dy + row * lddy + i, v);
  }
};

int
fxc_gate_bwd_rounded (fx_backend *b, fx_mat dy, fx_rounded r, const float *factor,
    fx_mat dout, const float *gate)
{
  fx_cuda *c = fxc (b);
  const fx_dtype type = dy.p != NULL ? dy.dtype : c->base.compute;

  if (type != FX_F32 && fxc_round_fits (r, factor, 8) && fxc_aligned (dy, 2) &&
      fxc_aligned (dout, 2)) {
    FXC_WITH_TYPES (c, type, dout.dtype, {
      if constexpr (sizeof (T) == 2)
        fxc_round_made<8> (c, r, factor,
            gated_row<T, R, 8>{(const R *)dout.p, gate, dout.ld, dy.ld, (T *)dy.p});
    })
    FXC_LAUNCHED (c, "gate_bwd_rounded");
  }
  FX_TRY (fxc_unrounded (c, r, type, &dy));
  FX_TRY (fxc_gate_bwd (b, dy, dout, gate));
  return fxc_round_rows (b, r, dy, factor);
}
