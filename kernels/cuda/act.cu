/* kernels/cuda/act.cu: activation functions. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/rounded.cuh"

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

/* ---- with rounding: GELU is what FLUX has ---- */

template <typename T, int V> struct concatenated {
  const T *left, *x;
  int64_t ld_left, ldx, ldy;
  int before; /* columns of left */
  T *y;       /* NULL: not wanted */
  __device__ __forceinline__ void
  operator() (int64_t row, int i, float *v) const
  {
    if (i < before) {
      load<T, V> (left + row * ld_left + i, v);
    } else {
      const forward<T, T, FX_ACT_GELU_TANH, false> gelu;

      load<T, V> (x + row * ldx + i - before, v);
#pragma unroll
      for (int j = 0; j < V; j++)
        v[j] = to_f (from_f<T> (gelu (v[j], 0, 0)));
    }
    if (y != NULL)
      store<T, V> (y + row * ldy + i, v);
  }
};

template <typename T, int V> struct through {
  const T *dy, *x;
  int64_t lddy, ldx, lddx;
  T *dx; /* NULL: not wanted */
  __device__ __forceinline__ void
  operator() (int64_t row, int i, float *v) const
  {
    const backward<T, FX_ACT_GELU_TANH> gelu;
    float at[V];

    load<T, V> (dy + row * lddy + i, v);
    load<T, V> (x + row * ldx + i, at);
#pragma unroll
    for (int j = 0; j < V; j++)
      v[j] = to_f (from_f<T> (gelu (v[j], at[j], 0)));
    if (dx != NULL)
      store<T, V> (dx + row * lddx + i, v);
  }
};

static bool
is_fused (fx_act kind, fx_dtype dtype, fx_rounded r, const float *factor, fx_mat a,
    fx_mat b, fx_mat out)
{
  return kind == FX_ACT_GELU_TANH && dtype != FX_F32 && fxc_round_fits (r, factor, 8) &&
         fxc_aligned (a, 2) && fxc_aligned (b, 2) && fxc_aligned (out, 2);
}

int
fxc_act_rounded (
    fx_backend *b, fx_mat y, fx_rounded r, fx_mat left, fx_mat x, fx_act kind)
{
  fx_cuda *c = fxc (b);
  const int before = left.p != NULL ? (int)left.cols : 0;
  const fx_mat none = {NULL, 0, 0, 0, x.dtype};

  if (is_fused (kind, x.dtype, r, NULL, left, x, y)) {
    FXC_WITH_TYPE (c, x.dtype, {
      if constexpr (sizeof (T) == 2)
        fxc_round_made<8> (c, r, NULL,
            concatenated<T, 8>{(const T *)left.p, (const T *)x.p, left.ld, x.ld, y.ld,
                before, (T *)y.p});
    })
    FXC_LAUNCHED (c, "act_rounded");
  }
  FX_TRY (fxc_unrounded (c, r, x.dtype, &y));
  if (before > 0 && left.p != y.p)
    FX_TRY (fxc_copy (b, fx_cols (y, 0, before), left));
  FX_TRY (fxc_act (b, fx_cols (y, before, x.cols), x, none, kind));
  return fxc_round_rows (b, r, y, NULL);
}

int
fxc_act_bwd_rounded (fx_backend *b, fx_mat dx, fx_rounded r, const float *factor,
    fx_mat dy, fx_mat x, fx_act kind)
{
  fx_cuda *c = fxc (b);

  if (is_fused (kind, x.dtype, r, factor, dy, x, dx)) {
    FXC_WITH_TYPE (c, x.dtype, {
      if constexpr (sizeof (T) == 2)
        fxc_round_made<8> (c, r, factor,
            through<T, 8>{
                (const T *)dy.p, (const T *)x.p, dy.ld, x.ld, dx.ld, (T *)dx.p});
    })
    FXC_LAUNCHED (c, "act_bwd_rounded");
  }
  FX_TRY (fxc_unrounded (c, r, x.dtype, &dx));
  FX_TRY (fxc_act_bwd (b, dx, dy, x, kind));
  return fxc_round_rows (b, r, dx, factor);
}
