/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Layer norm with modulation, y = (x - mean) rstd (1 + scale) + shift, and its gradient.
 */
#include "cpu.h"
#include "norm.h"

enum { WORK = 1 << 14 };

typedef struct {
  fx_mat y, x, dx;
  float *stats;
  const float *shift, *scale;
  float eps;
} adaln_job;

static void
adaln_rows (void *arg, int64_t begin, int64_t end)
{
  const adaln_job *job = arg;
  int64_t n = job->x.cols;

  for (int64_t r = begin; r < end; r++) {
    const float *x = (const float *)job->x.p + r * job->x.ld;
    float *y = (float *)job->y.p + r * job->y.ld, mean, rstd;
    fx_norm_stats (x, n, job->eps, &mean, &rstd);
    for (int64_t i = 0; i < n; i += FX_VL) {
      int64_t count = n - i < FX_VL ? n - i : FX_VL;
      vf v = (VF_LOAD (x + i, count) - mean) * rstd;
      v = v * (VF_LOAD (job->scale + i, count) + 1.0f) + VF_LOAD (job->shift + i, count);
      VF_STORE (y + i, v, count);
    }
    if (job->stats != NULL) {
      job->stats[2 * r] = mean;
      job->stats[2 * r + 1] = rstd;
    }
  }
}

int
fx_cpu_adaln (fx_backend *b, fx_mat y, float *stats, fx_mat x, const float *shift,
    const float *scale, float eps)
{
  adaln_job job = {
      .y = y, .x = x, .stats = stats, .shift = shift, .scale = scale, .eps = eps};

  fx_pool_run (
      fx_cpu_of (b)->pool, x.rows, fx_cpu_grain (x.cols, WORK), adaln_rows, &job);
  return FX_OK;
}

/* With g = dy (1 + scale) and n = (x - mean) rstd: dx += rstd (g - mean (g) - n mean (g
 * n)).
 */
static void
adaln_bwd_rows (void *arg, int64_t begin, int64_t end)
{
  const adaln_job *job = arg;
  int64_t n = job->x.cols;

  for (int64_t r = begin; r < end; r++) {
    const float *x = (const float *)job->x.p + r * job->x.ld,
                *dy = (const float *)job->y.p + r * job->y.ld;
    float *dx = (float *)job->dx.p + r * job->dx.ld;
    float mean = job->stats[2 * r], rstd = job->stats[2 * r + 1], mean_g, mean_gn;
    vf sum_g = {0}, sum_gn = {0};
    for (int64_t i = 0; i < n; i += FX_VL) {
      int64_t count = n - i < FX_VL ? n - i : FX_VL;
      vf g = VF_LOAD (dy + i, count) * (VF_LOAD (job->scale + i, count) + 1.0f);
      sum_g += g;
      sum_gn += g * ((VF_LOAD (x + i, count) - mean) * rstd);
    }
    mean_g = vf_sum (sum_g) / (float)n;
    mean_gn = vf_sum (sum_gn) / (float)n;
    for (int64_t i = 0; i < n; i += FX_VL) {
      int64_t count = n - i < FX_VL ? n - i : FX_VL;
      vf g = VF_LOAD (dy + i, count) * (VF_LOAD (job->scale + i, count) + 1.0f);
      vf v = (VF_LOAD (x + i, count) - mean) * rstd;
      v = VF_LOAD (dx + i, count) + rstd * (g - mean_g - v * mean_gn);
      VF_STORE (dx + i, v, count);
    }
  }
}

int
fx_cpu_adaln_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, const float *stats, const float *scale)
{
  adaln_job job = {.y = dy, .x = x, .dx = dx, .stats = (float *)stats, .scale = scale};

  fx_pool_run (
      fx_cpu_of (b)->pool, x.rows, fx_cpu_grain (x.cols, WORK), adaln_bwd_rows, &job);
  return FX_OK;
}
