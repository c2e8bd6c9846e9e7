/* SPDX-License-Identifier: LGPL-2.1-or-later
 * What a product in 8 bits sees of its activations or gradients. */
#include "rounded.h"

#include <math.h>

typedef struct {
  fx_mat out, x;
  const float *factor; /* [cols] or NULL: ones */
  bool is_int8;
} round_job;

/* |v| <= 448 to the nearest e4m3, even when in the middle; NaN stays NaN. */
static inline float
to_e4m3 (float v)
{
  union {
    float f;
    uint32_t u;
  } a = {.f = v};
  /* Below 2^-6 steps are 2^-9: adding 1.5 * 2^14 leaves no finer bit in the sum. */
  float small = (v + 24576.0f) - 24576.0f;

  a.u = (a.u + 0x7ffff + ((a.u >> 20) & 1)) & 0xfff00000;
  return fabsf (v) < 0x1p-6f ? small : a.f;
}

static void
through_e4m3 (float *row, int64_t n, float largest)
{
  const float scale = fx_fp8_scale (largest), inverse = 1.0f / scale;

  for (int64_t i = 0; i < n; i++)
    row[i] = to_e4m3 (row[i] * inverse) * scale;
}

/* What is not finite leaves no finite number in its row. */
static void
through_int8 (float *row, int64_t n, float largest)
{
  const float inverse = largest > 0 ? 127.0f / largest : 0, scale = largest / 127.0f;

  for (int64_t i = 0; i < n; i++)
    row[i] = isfinite (largest) ? rintf (row[i] * inverse) * scale : NAN;
}

static void
round_rows (void *arg, int worker, int64_t begin, int64_t end)
{
  const round_job *job = arg;

  (void)worker;
  for (int64_t r = begin; r < end; r++) {
    const float *x = (const float *)job->x.p + r * job->x.ld;
    float *out = (float *)job->out.p + r * job->out.ld, largest = 0;

    for (int64_t i = 0; i < job->x.cols; i++) {
      out[i] = job->factor == NULL ? x[i] : x[i] * job->factor[i];
      if (job->is_int8 && isnan (out[i]))
        largest = INFINITY;
      largest = fabsf (out[i]) > largest ? fabsf (out[i]) : largest;
    }
    if (job->is_int8)
      through_int8 (out, job->x.cols, largest);
    else
      through_e4m3 (out, job->x.cols, largest);
    /* A row of zeros in W has no part in the sum. */
    for (int64_t i = 0; i < job->x.cols && job->factor != NULL; i++)
      out[i] = job->factor[i] != 0 ? out[i] / job->factor[i] : 0;
  }
}

int
fx_round_operand (
    fx_cpu *cpu, const char *op, fx_mat *x, const fx_weight *w, bool backward)
{
  round_job job = {
      .x = *x, .factor = backward ? w->absmax : NULL, .is_int8 = w->qtype == FX_Q_INT8};

  FX_TRY (fx_cpu_shared (cpu, op, (size_t)(x->rows * x->cols) * sizeof (float)));
  job.out = fx_mat_new (cpu->shared, x->rows, x->cols, FX_F32);
  fx_pool_run_indexed (
      cpu->pool, x->rows, fx_cpu_grain (x->cols, 1 << 14), round_rows, &job);
  *x = job.out;
  return FX_OK;
}
