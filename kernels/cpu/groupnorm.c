/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Group norm over an image [pixels, channels], with SiLU.
 *
 * Sums of x and x^2 are taken in double precision, a channel at a time, over CHUNKS fixed
 * ranges of pixels, so the result does not depend on the number of threads. Then
 * y = x * scale + shift with one scale and shift a channel, as PyTorch folds it. */
#include <math.h>

#include "cpu.h"
#include "simd.h"

enum { CHUNKS = 64 };

typedef struct {
  fx_mat y, x;
  double *sums; /* [CHUNKS, 2, channels]: of x, of x^2 */
  float *scale, *shift;
  bool silu;
} groupnorm_job;

static void
sum_chunks (void *arg, int64_t begin, int64_t end)
{
  const groupnorm_job *job = arg;
  int64_t channels = job->x.cols;

  for (int64_t chunk = begin; chunk < end; chunk++) {
    int64_t first = job->x.rows * chunk / CHUNKS,
            last = job->x.rows * (chunk + 1) / CHUNKS;
    double *restrict sum = job->sums + chunk * 2 * channels;
    double *restrict square = sum + channels;
    for (int64_t c = 0; c < 2 * channels; c++)
      sum[c] = 0.0;
    for (int64_t r = first; r < last; r++) {
      const float *restrict x = (const float *)job->x.p + r * job->x.ld;
      for (int64_t c = 0; c < channels; c++) {
        double v = (double)x[c];
        sum[c] += v;
        square[c] += v * v;
      }
    }
  }
}

/* scale and shift from the sums of all chunks, in a fixed order. */
static void
fold (const groupnorm_job *job, int groups, const float *weight, const float *bias,
    float eps)
{
  int64_t channels = job->x.cols, wide = channels / groups;
  double count = (double)job->x.rows * (double)wide;

  for (int64_t g = 0; g < groups; g++) {
    double sum = 0.0, square = 0.0, mean, variance, rstd;
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {
      const double *s = job->sums + chunk * 2 * channels + g * wide;
      for (int64_t c = 0; c < wide; c++) {
        sum += s[c];
        square += s[channels + c];
      }
    }
    mean = sum / count;
    variance = square / count - mean * mean;
    rstd = 1.0 / sqrt ((variance < 0.0 ? 0.0 : variance) + (double)eps);
    for (int64_t c = g * wide; c < (g + 1) * wide; c++) {
      job->scale[c] = (float)(rstd * (double)weight[c]);
      job->shift[c] = (float)((double)bias[c] - mean * rstd * (double)weight[c]);
    }
  }
}

static void
apply_rows (void *arg, int64_t begin, int64_t end)
{
  const groupnorm_job *job = arg;
  int64_t channels = job->x.cols;

  for (int64_t r = begin; r < end; r++) {
    const float *x = (const float *)job->x.p + r * job->x.ld;
    float *y = (float *)job->y.p + r * job->y.ld;
    for (int64_t c = 0; c < channels; c += FX_VL) {
      int64_t count = channels - c < FX_VL ? channels - c : FX_VL;
      vf v = VF_LOAD (x + c, count) * VF_LOAD (job->scale + c, count) +
             VF_LOAD (job->shift + c, count);
      if (job->silu)
        v *= vf_sigmoid (v);
      VF_STORE (y + c, v, count);
    }
  }
}

int
fx_cpu_groupnorm (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu)
{
  fx_cpu *cpu = fx_cpu_of (b);
  size_t sums = (size_t)(CHUNKS * 2 * x.cols);
  groupnorm_job job = {.y = y, .x = x, .silu = silu};

  FX_TRY (fx_cpu_shared (
      cpu, "groupnorm", sums * sizeof (double) + 2 * (size_t)x.cols * sizeof (float)));
  job.sums = cpu->shared;
  job.scale = (float *)(job.sums + sums);
  job.shift = job.scale + x.cols;
  fx_pool_run (cpu->pool, CHUNKS, fx_cpu_grain (x.rows / CHUNKS * x.cols, 16384),
      sum_chunks, &job);
  fold (&job, groups, weight, bias, eps);
  fx_pool_run (cpu->pool, x.rows, fx_cpu_grain (x.cols, 16384), apply_rows, &job);
  return FX_OK;
}
