/* SPDX-License-Identifier: LGPL-2.1-or-later
 * RMS norm with a weight (T5). */
#include "cpu.h"
#include "norm.h"

typedef struct {
  fx_mat y, x;
  const float *weight;
  float eps;
} rmsnorm_job;

static void
rmsnorm_rows (void *arg, int64_t begin, int64_t end)
{
  const rmsnorm_job *job = arg;
  int64_t n = job->x.cols;

  for (int64_t r = begin; r < end; r++) {
    const float *x = (const float *)job->x.p + r * job->x.ld;
    float *y = (float *)job->y.p + r * job->y.ld;
    float rstd = 1.0f / sqrtf (fx_norm_sum (x, n, 0.0f, 1) / (float)n + job->eps);
    for (int64_t i = 0; i < n; i += FX_VL) {
      int64_t count = n - i < FX_VL ? n - i : FX_VL;
      vf v = VF_LOAD (x + i, count) * rstd * VF_LOAD (job->weight + i, count);
      VF_STORE (y + i, v, count);
    }
  }
}

int
fx_cpu_rmsnorm (fx_backend *b, fx_mat y, fx_mat x, const float *weight, float eps)
{
  rmsnorm_job job = {y, x, weight, eps};

  fx_pool_run (
      fx_cpu_of (b)->pool, x.rows, fx_cpu_grain (x.cols, 1 << 14), rmsnorm_rows, &job);
  return FX_OK;
}
