/* kernels/cuda/gate.cu: out = x + gate * y and its gradient. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "kernels/cuda/elementwise.cuh"

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
