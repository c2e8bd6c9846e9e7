/* SPDX-License-Identifier: LGPL-2.1-or-later
 * LoRA modules: y += scale (x A^T) B^T, and its gradients.
 *
 * Ranks are small, so everything runs along the features: B is first transposed into
 * [rank, n], and each pass reads x or dy once per few ranks. A group goes module by
 * module: x stays in the caches, and the bits are those of single modules. */
#include "cpu.h"
#include "simd.h"

#include <string.h>

enum { WORK = 1 << 15 }; /* multiplications worth a piece */
enum { STRIP = 64 };     /* features at a time in the gradients of A and B */

typedef struct {
  fx_mat y, h, x, dh; /* y: y or dy */
  fx_mat dx;          /* dx.p may be NULL */
  bool recompute_h;
  const float *bt; /* [rank, n] */
  const fx_lora *l;
} lora_job;

static inline float *
row_of (fx_mat m, int64_t r)
{
  return (float *)m.p + r * m.ld;
}

static int
transpose_b (fx_cpu *cpu, const fx_lora *l, int64_t n, size_t more, float **bt)
{
  size_t floats = (size_t)(n * l->rank) + more;

  FX_TRY (fx_cpu_shared (cpu, "lora", floats * sizeof (float)));
  *bt = cpu->shared;
  for (int64_t i = 0; i < n; i++)
    for (int r = 0; r < l->rank; r++)
      (*bt)[r * n + i] = l->b[i * l->rank + r];
  return FX_OK;
}

/* out[0..rank) = scale times the dot products of v [n] with the rows of t [rank, n]. */
static void
project (float *out, const float *v, const float *t, int64_t n, int rank, float scale)
{
  for (int r = 0; r < rank; r += 4) {
    int many = rank - r < 4 ? rank - r : 4;
    const float *rows[4];
    vf sum[4] = {{0}, {0}, {0}, {0}};
    for (int j = 0; j < 4; j++)
      rows[j] = t + (r + (j < many ? j : 0)) * n;
    for (int64_t i = 0; i < n; i += FX_VL) {
      int64_t count = n - i < FX_VL ? n - i : FX_VL;
      vf x = VF_LOAD (v + i, count);
      FX_UNROLL
      for (int j = 0; j < 4; j++)
        sum[j] += x * VF_LOAD (rows[j] + i, count);
    }
    for (int j = 0; j < many; j++)
      out[r + j] = scale * vf_sum (sum[j]);
  }
}

/* v [n] += sum over r of c[r] times row r of t [rank, n]. */
static void
combine (float *v, const float *c, const float *t, int64_t n, int rank, float scale)
{
  for (int r = 0; r < rank; r += 4) {
    int many = rank - r < 4 ? rank - r : 4;
    const float *rows[4];
    vf factor[4];
    for (int j = 0; j < 4; j++) {
      rows[j] = t + (r + (j < many ? j : 0)) * n;
      factor[j] = vf_splat (j < many ? c[r + j] * scale : 0.0f);
    }
    for (int64_t i = 0; i < n; i += FX_VL) {
      int64_t count = n - i < FX_VL ? n - i : FX_VL;
      vf sum = factor[0] * VF_LOAD (rows[0] + i, count);
      FX_UNROLL
      for (int j = 1; j < 4; j++)
        sum += factor[j] * VF_LOAD (rows[j] + i, count);
      sum += VF_LOAD (v + i, count);
      VF_STORE (v + i, sum, count);
    }
  }
}

static void
lora_rows (void *arg, int64_t begin, int64_t end)
{
  const lora_job *job = arg;
  const fx_lora *l = job->l;

  for (int64_t m = begin; m < end; m++) {
    float *h = row_of (job->h, m);
    project (h, row_of (job->x, m), l->a, job->x.cols, l->rank, 1.0f);
    combine (row_of (job->y, m), h, job->bt, job->y.cols, l->rank, l->scale);
  }
}

static int
forward_one (fx_cpu *cpu, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l)
{
  lora_job job = {.y = y, .h = h, .x = x, .l = l};
  float *bt;

  FX_TRY (transpose_b (cpu, l, y.cols, 0, &bt));
  job.bt = bt;
  fx_pool_run (cpu->pool, x.rows, fx_cpu_grain ((x.cols + y.cols) * l->rank, WORK),
      lora_rows, &job);
  return FX_OK;
}

int
fx_cpu_lora (fx_backend *b, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l, int n)
{
  int64_t part = y.cols / n;

  for (int i = 0; i < n; i++)
    FX_TRY (forward_one (fx_cpu_of (b), fx_cols (y, i * part, part),
        fx_cols (h, i * (int64_t)l->rank, l->rank), x, l + i));
  return FX_OK;
}

/* dh, h when it is not kept, and dx += dh A, row by row. */
static void
backward_rows (void *arg, int64_t begin, int64_t end)
{
  const lora_job *job = arg;
  const fx_lora *l = job->l;

  for (int64_t m = begin; m < end; m++) {
    float *dh = row_of (job->dh, m);
    project (dh, row_of (job->y, m), job->bt, job->y.cols, l->rank, l->scale);
    if (job->recompute_h && l->db != NULL)
      project (row_of (job->h, m), row_of (job->x, m), l->a, job->x.cols, l->rank, 1.0f);
    if (job->dx.p != NULL)
      combine (row_of (job->dx, m), dh, l->a, job->x.cols, l->rank, 1.0f);
  }
}

/* out [rank, STRIP] = scale times the sum over tokens of c [rank] v [count]; the tokens
 * of 64 rows are summed first, which keeps rounding errors small. */
static void
outer_strip (
    float *out, fx_mat c, fx_mat v, int64_t first, int64_t count, int rank, float scale)
{
  for (int r = 0; r < rank; r++) {
    for (int64_t i = 0; i < count; i += FX_VL) {
      int64_t many = count - i < FX_VL ? count - i : FX_VL;
      const float *at = (const float *)v.p + first + i;
      vf total = {0};
      for (int64_t begin = 0; begin < v.rows; begin += 64) {
        int64_t end = v.rows < begin + 64 ? v.rows : begin + 64;
        vf even = {0}, odd = {0};
        int64_t m = begin;
        for (; m + 2 <= end; m += 2) {
          even += row_of (c, m)[r] * VF_LOAD (at + m * v.ld, many);
          odd += row_of (c, m + 1)[r] * VF_LOAD (at + (m + 1) * v.ld, many);
        }
        if (m < end)
          even += row_of (c, m)[r] * VF_LOAD (at + m * v.ld, many);
        total += even + odd;
      }
      VF_STORE (out + r * STRIP + i, total * scale, many);
    }
  }
}

/* Strips of features: dA [rank, k] += dh^T x, then dB [n, rank] += scale dy^T h. */
static void
gradient_strips (void *arg, int64_t begin, int64_t end)
{
  const lora_job *job = arg;
  const fx_lora *l = job->l;
  int64_t k = job->x.cols, n = job->y.cols, a_strips = (k + STRIP - 1) / STRIP;
  float sum[16 * STRIP];

  for (int64_t s = begin; s < end; s++) {
    bool is_a = s < a_strips;
    int64_t first = (is_a ? s : s - a_strips) * STRIP, all = is_a ? k : n,
            count = all - first < STRIP ? all - first : STRIP;
    if ((is_a ? l->da : l->db) == NULL)
      continue;
    for (int r = 0; r < l->rank; r += 16) {
      int many = l->rank - r < 16 ? l->rank - r : 16;
      outer_strip (sum, fx_cols (is_a ? job->dh : job->h, r, many),
          is_a ? job->x : job->y, first, count, many, is_a ? 1.0f : l->scale);
      for (int j = 0; j < many; j++)
        for (int64_t i = 0; i < count; i++) {
          if (is_a)
            l->da[(r + j) * k + first + i] += sum[j * STRIP + i];
          else
            l->db[(first + i) * l->rank + r + j] += sum[j * STRIP + i];
        }
    }
  }
}

static int
backward_one (fx_cpu *cpu, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l)
{
  lora_job job = {.y = dy, .h = h, .x = x, .dx = dx, .l = l};
  int64_t strips = (x.cols + STRIP - 1) / STRIP + (dy.cols + STRIP - 1) / STRIP;
  float *bt;

  /* Behind B^T: [rows, 2 rank], dh and h side by side. */
  FX_TRY (transpose_b (cpu, l, dy.cols, (size_t)(x.rows * 2 * l->rank), &bt));
  job.bt = bt;
  job.dh = fx_mat_new (bt + dy.cols * l->rank, x.rows, l->rank, FX_F32);
  job.dh.ld = 2 * l->rank;
  if (h.p == NULL) {
    job.recompute_h = true;
    job.h = job.dh;
    job.h.p = (float *)job.dh.p + l->rank;
  }
  fx_pool_run (cpu->pool, x.rows, fx_cpu_grain ((2 * x.cols + dy.cols) * l->rank, WORK),
      backward_rows, &job);
  fx_pool_run (cpu->pool, strips, fx_cpu_grain (x.rows * STRIP * l->rank, WORK),
      gradient_strips, &job);
  return FX_OK;
}

int
fx_cpu_lora_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n)
{
  int64_t part = dy.cols / n;

  for (int i = 0; i < n; i++)
    FX_TRY (backward_one (fx_cpu_of (b), dx, fx_cols (dy, i * part, part), x,
        h.p == NULL ? h : fx_cols (h, i * (int64_t)l->rank, l->rank), l + i));
  return FX_OK;
}
