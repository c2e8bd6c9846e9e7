/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Gated residual connections and their gradient. */
#include "cpu.h"
#include "simd.h"

enum { WORK = 1 << 14 };

typedef struct {
  fx_mat out, x, y; /* backward: x.p is NULL, y is dout */
  const float *gate;
} gate_job;

static void
gate_rows (void *arg, int64_t begin, int64_t end)
{
  const gate_job *job = arg;
  int64_t n = job->out.cols;

  for (int64_t r = begin; r < end; r++) {
    float *out = (float *)job->out.p + r * job->out.ld;
    const float *y = (const float *)job->y.p + r * job->y.ld;
    const float *x = job->x.p == NULL ? NULL : (const float *)job->x.p + r * job->x.ld;
    for (int64_t i = 0; i < n; i += FX_VL) {
      int64_t count = n - i < FX_VL ? n - i : FX_VL;
      vf v = VF_LOAD (y + i, count);
      if (job->gate != NULL)
        v *= VF_LOAD (job->gate + i, count);
      if (x != NULL)
        v += VF_LOAD (x + i, count);
      VF_STORE (out + i, v, count);
    }
  }
}

int
fx_cpu_gate_residual (fx_backend *b, fx_mat out, fx_mat x, fx_mat y, const float *gate)
{
  gate_job job = {out, x, y, gate};

  fx_pool_run (fx_cpu_of (b)->pool, x.rows, fx_cpu_grain (x.cols, WORK), gate_rows, &job);
  return FX_OK;
}

int
fx_cpu_gate_bwd (fx_backend *b, fx_mat dy, fx_mat dout, const float *gate)
{
  gate_job job = {dy, {NULL}, dout, gate};

  fx_pool_run (
      fx_cpu_of (b)->pool, dy.rows, fx_cpu_grain (dy.cols, WORK), gate_rows, &job);
  return FX_OK;
}
