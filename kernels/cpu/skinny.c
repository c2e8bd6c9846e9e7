/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Linear layers on a few tokens: dot products of FX_VL rows of W at a time, whose lanes
 * are summed by one transposition. */
#include "skinny.h"

#include "panel.h"
#include "simd.h"

enum { GAP = 16 }; /* between rows of a panel: strides of 4096 bytes share cache sets */

typedef struct {
  fx_cpu *cpu;
  fx_mat y, x;
  const fx_weight *w;
  const float *direct;
  bool beta;
} skinny_job;

/* FX_VL dot products of x [k] with rows of w. */
FX_INLINE vf
dots (const float *x, const float *w, int64_t ld, int64_t k)
{
  vf sum[FX_VL];
  int64_t i = 0;

  FX_UNROLL
  for (int r = 0; r < FX_VL; r++)
    sum[r] = (vf){0};
  for (; i + FX_VL <= k; i += FX_VL) {
    vf v = vf_load (x + i);
    FX_UNROLL
    for (int r = 0; r < FX_VL; r++)
      sum[r] += v * vf_load (w + r * ld + i);
  }
  if (i < k) {
    vf v = vf_load_part (x + i, k - i, 0);
    FX_UNROLL
    for (int r = 0; r < FX_VL; r++)
      sum[r] += v * vf_load_part (w + r * ld + i, k - i, 0);
  }
  vf_transpose (sum);
  FX_UNROLL
  for (int n = FX_VL / 2; n > 0; n /= 2) {
    FX_UNROLL
    for (int r = 0; r < n; r++)
      sum[r] += sum[r + n];
  }
  return sum[0];
}

static void
skinny_rows (void *arg, int worker, int64_t begin, int64_t end)
{
  const skinny_job *job = arg;
  const fx_weight *w = job->w;
  float *panel = job->cpu->scratch[worker];

  for (int64_t item = begin; item < end; item++) {
    int64_t row = item * FX_VL, n = w->n - row < FX_VL ? w->n - row : FX_VL;
    const float *rows = panel;
    int64_t ld = w->k + GAP;
    vf bias = w->bias == NULL ? (vf){0} : VF_LOAD (w->bias + row, n);
    if (job->direct != NULL && n == FX_VL) {
      rows = job->direct + row * w->k;
      ld = w->k;
    } else {
      fx_panel_expand (w, row, n, 0, w->k, panel, ld);
      memset (panel + n * ld, 0, (size_t)((FX_VL - n) * ld) * sizeof *panel);
    }
    for (int64_t m = 0; m < job->x.rows; m++) {
      float *at = (float *)job->y.p + m * job->y.ld + row;
      vf sum = dots ((const float *)job->x.p + m * job->x.ld, rows, ld, w->k) + bias;
      if (job->beta)
        sum += VF_LOAD (at, n);
      VF_STORE (at, sum, n);
    }
  }
}

int
fx_skinny_gemm (fx_cpu *cpu, fx_mat y, fx_mat x, const fx_weight *w, bool beta)
{
  skinny_job job = {cpu, y, x, w, fx_panel_direct (w), beta};

  FX_TRY (fx_cpu_scratch (cpu, "gemm", (size_t)(FX_VL * (w->k + GAP)) * sizeof (float)));
  fx_pool_run_indexed (cpu->pool, (w->n + FX_VL - 1) / FX_VL,
      fx_cpu_grain (FX_VL * w->k, 1 << 16), skinny_rows, &job);
  return FX_OK;
}
