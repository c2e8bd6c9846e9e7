/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Layer norm with weight and bias (CLIP). */
#include "cpu.h"
#include "norm.h"

typedef struct {
  fx_mat y, x;
  const float *weight, *bias;
  float eps;
} layernorm_job;

static void
layernorm_rows (void *arg, int64_t begin, int64_t end)
{
  const layernorm_job *job = arg;
  int64_t n = job->x.cols;

  for (int64_t r = begin; r < end; r++) {
    const float *x = (const float *)job->x.p + r * job->x.ld;
    float *y = (float *)job->y.p + r * job->y.ld, mean, rstd;
    fx_norm_stats (x, n, job->eps, &mean, &rstd);
    for (int64_t i = 0; i < n; i += FX_VL) {
      int64_t count = n - i < FX_VL ? n - i : FX_VL;
      vf v = (VF_LOAD (x + i, count) - mean) * rstd;
      v = v * VF_LOAD (job->weight + i, count) + VF_LOAD (job->bias + i, count);
      VF_STORE (y + i, v, count);
    }
  }
}

int
fx_cpu_layernorm (
    fx_backend *b, fx_mat y, fx_mat x, const float *weight, const float *bias, float eps)
{
  layernorm_job job = {y, x, weight, bias, eps};

  fx_pool_run (
      fx_cpu_of (b)->pool, x.rows, fx_cpu_grain (x.cols, 1 << 14), layernorm_rows, &job);
  return FX_OK;
}
