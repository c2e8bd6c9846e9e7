/* kernels/cuda/act.cu: activation functions. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "kernels/cuda/elementwise.cuh"

#define GELU_A 0.7978845608028654f /* sqrt (2 / pi) */
#define GELU_B 0.044715f

template <int KIND>
static __device__ __forceinline__ float
value (float x)
{
  switch (KIND) {
    case FX_ACT_GELU_TANH:
      return 0.5f * x * (1 + tanhf (GELU_A * (x + GELU_B * x * x * x)));
    case FX_ACT_GELU_ERF:
      return 0.5f * x * (1 + erff (x * 0.7071067811865476f));
    case FX_ACT_QUICK_GELU:
      return x / (1 + expf (-1.702f * x));
    case FX_ACT_SILU:
      return x / (1 + expf (-x));
    default:
      return fmaxf (x, 0);
  }
}

template <int KIND>
static __device__ __forceinline__ float
slope (float x)
{
  switch (KIND) {
    case FX_ACT_GELU_TANH: {
      float t = tanhf (GELU_A * (x + GELU_B * x * x * x));

      return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * GELU_A * (1 + 3 * GELU_B * x * x);
    }
    case FX_ACT_GELU_ERF:
      return 0.5f * (1 + erff (x * 0.7071067811865476f)) +
             x * 0.3989422804014327f * expf (-0.5f * x * x);
    case FX_ACT_QUICK_GELU: {
      float s = 1 / (1 + expf (-1.702f * x));

      return s + 1.702f * x * s * (1 - s);
    }
    case FX_ACT_SILU: {
      float s = 1 / (1 + expf (-x));

      return s + x * s * (1 - s);
    }
    default:
      return x > 0 ? 1 : 0;
  }
}

/* Of T, into R. */
template <typename R, typename T, int KIND, bool MUL> struct forward {
  __device__ float
  operator() (float x, float mul, int) const
  {
    x = bounded<T> (x);
    return bounded<R> (MUL ? value<KIND> (x) * bounded<T> (mul) : value<KIND> (x));
  }
};
template <typename T, int KIND> struct backward {
  __device__ float
  operator() (float dy, float x, int) const
  {
    return dy * slope<KIND> (bounded<T> (x));
  }
};

#define EACH_KIND(DO)                                                                    \
  switch (kind) {                                                                        \
    case FX_ACT_GELU_TANH:                                                               \
      DO (FX_ACT_GELU_TANH);                                                             \
      break;                                                                             \
    case FX_ACT_GELU_ERF:                                                                \
      DO (FX_ACT_GELU_ERF);                                                              \
      break;                                                                             \
    case FX_ACT_QUICK_GELU:                                                              \
      DO (FX_ACT_QUICK_GELU);                                                            \
      break;                                                                             \
    case FX_ACT_SILU:                                                                    \
      DO (FX_ACT_SILU);                                                                  \
      break;                                                                             \
    default:                                                                             \
      DO (FX_ACT_RELU);                                                                  \
      break;                                                                             \
  }

int
fxc_act (fx_backend *b, fx_mat y, fx_mat x, fx_mat mul, fx_act kind)
{
  fx_cuda *c = fxc (b);

#define FORWARD(K)                                                                       \
  do {                                                                                   \
    if (mul.p != NULL)                                                                   \
      fxc_map<R, T, T> (c, y, x, mul, forward<R, T, K, true> ());                        \
    else                                                                                 \
      fxc_map<R, T, T> (c, y, x, mul, forward<R, T, K, false> ());                       \
  } while (0)
  FXC_WITH_TYPES (c, x.dtype, y.dtype, {EACH_KIND (FORWARD)})
  FXC_LAUNCHED (c, "act");
}

int
fxc_act_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_act kind)
{
  fx_cuda *c = fxc (b);

#define BACKWARD(K) fxc_map<T, T, T> (c, dx, dy, x, backward<T, K> ())
  FXC_WITH_TYPE (c, x.dtype, {EACH_KIND (BACKWARD)})
  FXC_LAUNCHED (c, "act_bwd");
}
