/* SPDX-License-Identifier: LGPL-2.1-or-later
 * RMS norm of each head of q and k followed by the rotary embedding, and its gradient. */
#include "cpu.h"
#include "norm.h"

enum { WORK = 1 << 14 };

typedef struct {
  fx_cpu *cpu;
  fx_mat out, qkv, dqk; /* out: qk or dqkv */
  float *rstd;          /* [rows, 2 heads] */
  const float *wq, *wk;
  const fx_rope *rope;
  int64_t row;
  int head_dim, heads;
  float eps;
} rope_job;

/* c [head_dim] = each cosine twice; s = each sine twice, the first negative: the rotation
 * of x is then x c + swap (x) s, and its transpose x c - swap (x) s. */
static void
spread_table (const fx_rope *rope, int64_t row, int head_dim, float *c, float *s)
{
  const float *cosine = rope->cos + row * (head_dim / 2),
              *sine = rope->sin + row * (head_dim / 2);

  for (int i = 0; i < head_dim / 2; i++) {
    c[2 * i] = c[2 * i + 1] = cosine[i];
    s[2 * i] = -sine[i];
    s[2 * i + 1] = sine[i];
  }
}

/* Neighbours change places. */
FX_INLINE vf
swap (vf v)
{
#if FX_VL == 16
  return VF_SHUFFLE (v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif FX_VL == 8
  return VF_SHUFFLE (v, v, 1, 0, 3, 2, 5, 4, 7, 6);
#else
  return VF_SHUFFLE (v, v, 1, 0, 3, 2);
#endif
}

static float
forward_head (float *y, const float *x, const float *w, const float *c, const float *s,
    int n, float eps)
{
  float rstd = 1.0f / sqrtf (fx_norm_sum (x, n, 0.0f, 1) / (float)n + eps);

  for (int i = 0; i < n; i += FX_VL) {
    int64_t count = n - i < FX_VL ? n - i : FX_VL;
    vf v = VF_LOAD (x + i, count) * rstd * VF_LOAD (w + i, count);
    v = v * VF_LOAD (c + i, count) + swap (v) * VF_LOAD (s + i, count);
    VF_STORE (y + i, v, count);
  }
  return rstd;
}

static void
forward_rows (void *arg, int worker, int64_t begin, int64_t end)
{
  const rope_job *job = arg;
  int n = job->head_dim, heads = job->heads;
  float *c = job->cpu->scratch[worker], *s = c + n;

  for (int64_t r = begin; r < end; r++) {
    const float *x = (const float *)job->qkv.p + r * job->qkv.ld;
    float *y = (float *)job->out.p + r * job->out.ld;
    spread_table (job->rope, job->row + r, n, c, s);
    for (int h = 0; h < 2 * heads; h++) {
      float rstd = forward_head (
          y + h * n, x + h * n, h < heads ? job->wq : job->wk, c, s, n, job->eps);
      if (job->rstd != NULL)
        job->rstd[r * 2 * heads + h] = rstd;
    }
  }
}

int
fx_cpu_qknorm_rope (fx_backend *b, fx_mat qk, float *rstd, fx_mat qkv, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim, float eps)
{
  fx_cpu *cpu = fx_cpu_of (b);
  rope_job job = {.cpu = cpu,
      .out = qk,
      .qkv = qkv,
      .rstd = rstd,
      .wq = wq,
      .wk = wk,
      .rope = rope,
      .row = rope_row,
      .head_dim = head_dim,
      .heads = (int)(qk.cols / 2 / head_dim),
      .eps = eps};

  FX_TRY (fx_cpu_scratch (cpu, "qknorm_rope", (size_t)head_dim * 2 * sizeof (float)));
  fx_pool_run_indexed (
      cpu->pool, qk.rows, fx_cpu_grain (qk.cols, WORK), forward_rows, &job);
  return FX_OK;
}

/* With g = w times the rotated-back dy and u = x rstd: dx = rstd (g - u mean (g u)). */
static void
backward_head (float *dx, const float *dy, const float *x, const float *w, const float *c,
    const float *s, float *g, int n, float rstd)
{
  vf sum = {0};
  float mean;

  for (int i = 0; i < n; i += FX_VL) {
    int64_t count = n - i < FX_VL ? n - i : FX_VL;
    vf v = VF_LOAD (dy + i, count);
    v = v * VF_LOAD (c + i, count) - swap (v) * VF_LOAD (s + i, count);
    v *= VF_LOAD (w + i, count);
    sum += v * (VF_LOAD (x + i, count) * rstd);
    VF_STORE (g + i, v, count);
  }
  mean = vf_sum (sum) / (float)n;
  for (int i = 0; i < n; i += FX_VL) {
    int64_t count = n - i < FX_VL ? n - i : FX_VL;
    vf v = VF_LOAD (x + i, count) * rstd;
    v = rstd * (VF_LOAD (g + i, count) - v * mean);
    VF_STORE (dx + i, v, count);
  }
}

static void
backward_rows (void *arg, int worker, int64_t begin, int64_t end)
{
  const rope_job *job = arg;
  int n = job->head_dim, heads = job->heads;
  float *c = job->cpu->scratch[worker], *s = c + n, *g = s + n;

  for (int64_t r = begin; r < end; r++) {
    const float *x = (const float *)job->qkv.p + r * job->qkv.ld,
                *dy = (const float *)job->dqk.p + r * job->dqk.ld;
    float *dx = (float *)job->out.p + r * job->out.ld;
    spread_table (job->rope, job->row + r, n, c, s);
    for (int h = 0; h < 2 * heads; h++)
      backward_head (dx + h * n, dy + h * n, x + h * n, h < heads ? job->wq : job->wk, c,
          s, g, n, job->rstd[r * 2 * heads + h]);
  }
}

int
fx_cpu_qknorm_rope_bwd (fx_backend *b, fx_mat dqkv, fx_mat dqk, fx_mat qkv,
    const float *rstd, const float *wq, const float *wk, const fx_rope *rope,
    int64_t rope_row, int head_dim)
{
  fx_cpu *cpu = fx_cpu_of (b);
  rope_job job = {.cpu = cpu,
      .out = dqkv,
      .qkv = qkv,
      .dqk = dqk,
      .rstd = (float *)rstd,
      .wq = wq,
      .wk = wk,
      .rope = rope,
      .row = rope_row,
      .head_dim = head_dim,
      .heads = (int)(dqk.cols / 2 / head_dim)};

  FX_TRY (fx_cpu_scratch (cpu, "qknorm_rope_bwd", (size_t)head_dim * 3 * sizeof (float)));
  fx_pool_run_indexed (
      cpu->pool, dqk.rows, fx_cpu_grain (dqk.cols, WORK), backward_rows, &job);
  return FX_OK;
}
