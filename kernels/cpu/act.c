/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Activation functions and their gradients. */
#include "cpu.h"
#include "simd.h"

#include <math.h>

enum { WORK = 1 << 12 };

typedef struct {
  fx_mat y, x, other; /* other: mul, or dy */
  fx_act kind;
  bool backward;
} act_job;

/* 0.5 (1 + tanh (u)) = sigmoid (2 u) with u = sqrt (2 / pi) (x + 0.044715 x^3). */
static const float gelu_a = 1.5957691216057308f; /* 2 sqrt (2 / pi) */
static const float gelu_b = 0.044715f;

/* erf through libm: only text encoders with the exact GELU come here. */
FX_INLINE vf
gelu_erf (vf x, bool backward)
{
  for (int i = 0; i < FX_VL; i++) {
    float cdf = 0.5f * erfcf (-x[i] * 0.70710678118654752f);
    x[i] = backward ? cdf + x[i] * 0.3989422804014327f * expf (-0.5f * x[i] * x[i])
                    : x[i] * cdf;
  }
  return x;
}

FX_INLINE vf
forward (vf x, fx_act kind)
{
  switch (kind) {
    case FX_ACT_GELU_TANH:
      return x * vf_sigmoid (x * (gelu_a + gelu_a * gelu_b * (x * x)));
    case FX_ACT_GELU_ERF:
      return gelu_erf (x, false);
    case FX_ACT_QUICK_GELU:
      return x * vf_sigmoid (1.702f * x);
    case FX_ACT_SILU:
      return x * vf_sigmoid (x);
    default:
      return vf_max ((vf){0}, x);
  }
}

/* d (x sigmoid (u)) = s + x s (1 - s) u'. */
FX_INLINE vf
derivative (vf x, fx_act kind)
{
  vf s;

  switch (kind) {
    case FX_ACT_GELU_TANH:
      s = vf_sigmoid (x * (gelu_a + gelu_a * gelu_b * (x * x)));
      return s + x * s * (1.0f - s) * (gelu_a + 3 * gelu_a * gelu_b * (x * x));
    case FX_ACT_GELU_ERF:
      return gelu_erf (x, true);
    case FX_ACT_QUICK_GELU:
      s = vf_sigmoid (1.702f * x);
      return s + x * s * (1.0f - s) * 1.702f;
    case FX_ACT_SILU:
      s = vf_sigmoid (x);
      return s + x * s * (1.0f - s);
    default:
      return vf_select ((vi)(x > 0.0f), vf_splat (1.0f), (vf){0});
  }
}

/* One row; kind and backward are constants where this is inlined. */
FX_INLINE void
row (float *y, const float *x, const float *other, int64_t n, fx_act kind, bool backward)
{
  for (int64_t i = 0; i < n; i += FX_VL) {
    int64_t count = n - i < FX_VL ? n - i : FX_VL;
    vf v = VF_LOAD (x + i, count);
    v = backward ? derivative (v, kind) : forward (v, kind);
    if (other != NULL)
      v *= VF_LOAD (other + i, count);
    VF_STORE (y + i, v, count);
  }
}

static void
act_rows (void *arg, int64_t begin, int64_t end)
{
  const act_job *job = arg;

  for (int64_t r = begin; r < end; r++) {
    float *y = (float *)job->y.p + r * job->y.ld;
    const float *x = (const float *)job->x.p + r * job->x.ld;
    const float *other =
        job->other.p == NULL ? NULL : (const float *)job->other.p + r * job->other.ld;
#define KIND(k)                                                                          \
  case k:                                                                                \
    if (job->backward)                                                                   \
      row (y, x, other, job->x.cols, k, true);                                           \
    else                                                                                 \
      row (y, x, other, job->x.cols, k, false);                                          \
    break;
    switch (job->kind) {
      KIND (FX_ACT_GELU_TANH)
      KIND (FX_ACT_GELU_ERF)
      KIND (FX_ACT_QUICK_GELU)
      KIND (FX_ACT_SILU)
      KIND (FX_ACT_RELU)
    }
  }
}

int
fx_cpu_act (fx_backend *b, fx_mat y, fx_mat x, fx_mat mul, fx_act kind)
{
  act_job job = {y, x, mul, kind, false};

  fx_pool_run (fx_cpu_of (b)->pool, x.rows, fx_cpu_grain (x.cols, WORK), act_rows, &job);
  return FX_OK;
}

int
fx_cpu_act_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_act kind)
{
  act_job job = {dx, x, dy, kind, true};

  fx_pool_run (fx_cpu_of (b)->pool, x.rows, fx_cpu_grain (x.cols, WORK), act_rows, &job);
  return FX_OK;
}
