/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Attention, backward: one head at a time, scores recomputed from q, k and lse.
 *
 *   P = exp (scale q k^T - lse)       delta = rowsum (dO o)
 *   dS = scale P (dO v^T - delta)     dq = dS k   dk = dS^T q   dv = P^T dO
 *
 * Blocks of keys are outside, blocks of queries inside; the sums over each run in that
 * order on any number of threads. */
#include "attention.h"

#include <math.h>

typedef struct {
  fx_cpu *cpu;
  fx_mat dq, dk, dv, d_o, o, q, k, v;
  const float *lse;
  const fx_attn *a;
  int64_t queries; /* a block */
} backward_job;

/* One head's matrices; rows are `ld` floats long and whole vectors may be written. */
typedef struct {
  const float *p;
  int64_t ld;
} head_in;

typedef struct {
  float *p;
  int64_t ld;
} head_out;

typedef struct {
  float *kt, *vt, *s, *ds; /* [head_dim, KEYS] x 2, [QUERIES, KEYS] x 2 */
  float *delta;            /* [q rows] */
  float *pads;             /* where head_dim is not of whole vectors: 6 matrices */
} workspace;

static size_t
lay_out (workspace *ws, float *p, const backward_job *job)
{
  int64_t n = job->a->head_dim, d = fx_whole_vectors (n);
  float *start = p;

  ws->kt = p;
  p += n * FX_KEYS;
  ws->vt = p;
  p += n * FX_KEYS;
  ws->s = p;
  p += FX_QUERIES * FX_KEYS;
  ws->ds = p;
  p += FX_QUERIES * FX_KEYS;
  ws->delta = p;
  p += fx_whole_vectors (job->q.rows);
  ws->pads = p;
  if (d != n)
    p += d * (3 * job->q.rows + 3 * job->k.rows);
  return (size_t)(p - start);
}

static void
sum_delta (const backward_job *job, int head, float *delta)
{
  int64_t n = job->a->head_dim;

  for (int64_t r = 0; r < job->q.rows; r++) {
    const float *o = fx_attn_head (job->o, r, head, n),
                *d_o = fx_attn_head (job->d_o, r, head, n);
    vf sum = {0};
    for (int64_t i = 0; i < n; i += FX_VL) {
      int64_t count = fx_smaller (FX_VL, n - i);
      sum += VF_LOAD (o + i, count) * VF_LOAD (d_o + i, count);
    }
    delta[r] = vf_sum (sum);
  }
}

/* s = P and ds = dS of a block, from s = q k^T and ds = dO v^T. */
static void
score_gradients (const workspace *ws, int64_t rows, int64_t keys, const float *lse,
    const float *delta, float scale)
{
  for (int64_t r = 0; r < rows; r++) {
    float *s = ws->s + r * FX_KEYS, *ds = ws->ds + r * FX_KEYS;
    for (int64_t i = 0; i < keys; i += FX_VL) {
      vf p = vf_exp (vf_load (s + i) * scale - lse[r]);
      vf_store (s + i, p);
      vf_store (ds + i, scale * p * (vf_load (ds + i) - delta[r]));
    }
  }
}

typedef struct {
  head_in q, k, d_o;
  head_out dq, dk, dv;
} head_views;

/* Views of a head, or padded copies of it when rows are not of whole vectors. */
static head_views
open_head (const backward_job *job, const workspace *ws, int head)
{
  int64_t n = job->a->head_dim, d = fx_whole_vectors (n), m = job->q.rows,
          keys = job->k.rows;
  float *p = ws->pads;
  head_views h = {
      {fx_attn_head (job->q, 0, head, n), job->q.ld},
      {fx_attn_head (job->k, 0, head, n), job->k.ld},
      {fx_attn_head (job->d_o, 0, head, n), job->d_o.ld},
      {fx_attn_head (job->dq, 0, head, n), job->dq.ld},
      {fx_attn_head (job->dk, 0, head, n), job->dk.ld},
      {fx_attn_head (job->dv, 0, head, n), job->dv.ld},
  };

  if (d == n)
    return h;
  fx_attn_pad (p, d, h.q.p, h.q.ld, m, n);
  h.q = (head_in){p, d};
  p += m * d;
  fx_attn_pad (p, d, h.d_o.p, h.d_o.ld, m, n);
  h.d_o = (head_in){p, d};
  p += m * d;
  fx_attn_pad (p, d, h.k.p, h.k.ld, keys, n);
  h.k = (head_in){p, d};
  p += keys * d;
  h.dq = (head_out){p, d};
  p += m * d;
  h.dk = (head_out){p, d};
  p += keys * d;
  h.dv = (head_out){p, d};
  return h;
}

static void
close_output (fx_mat dst, int head, int64_t n, head_out h)
{
  for (int64_t r = 0; r < dst.rows; r++)
    memcpy (fx_attn_head (dst, r, head, n), h.p + r * h.ld, (size_t)n * sizeof (float));
}

static void
backward_head (const backward_job *job, int worker, int head)
{
  int64_t n = job->a->head_dim, d = fx_whole_vectors (n), m = job->q.rows;
  const float *v = fx_attn_head (job->v, 0, head, n);
  workspace ws;
  head_views h;

  lay_out (&ws, job->cpu->scratch[worker], job);
  h = open_head (job, &ws, head);
  sum_delta (job, head, ws.delta);
  for (int64_t key = 0; key < job->k.rows; key += FX_KEYS) {
    int64_t keys = fx_smaller (FX_KEYS, job->k.rows - key);
    fx_pack_transposed (ws.kt, FX_KEYS, h.k.p + key * h.k.ld, h.k.ld, keys, n);
    fx_pack_transposed (ws.vt, FX_KEYS, v + key * job->v.ld, job->v.ld, keys, n);
    for (int64_t query = 0; query < m; query += job->queries) {
      int64_t rows = fx_smaller (job->queries, m - query);
      const float *q = h.q.p + query * h.q.ld, *d_o = h.d_o.p + query * h.d_o.ld;
      fx_product qk = {q, h.q.ld, 1, ws.kt, FX_KEYS, ws.s, FX_KEYS},
                 dov = {d_o, h.d_o.ld, 1, ws.vt, FX_KEYS, ws.ds, FX_KEYS},
                 dq = {ws.ds, FX_KEYS, 1, h.k.p + key * h.k.ld, h.k.ld,
                     h.dq.p + query * h.dq.ld, h.dq.ld},
                 dk = {ws.ds, 1, FX_KEYS, q, h.q.ld, h.dk.p + key * h.dk.ld, h.dk.ld},
                 dv = {ws.s, 1, FX_KEYS, d_o, h.d_o.ld, h.dv.p + key * h.dv.ld, h.dv.ld};
      fx_gemm_product (&qk, rows, keys, n, false);
      fx_gemm_product (&dov, rows, keys, n, false);
      score_gradients (
          &ws, rows, keys, job->lse + head * m + query, ws.delta + query, job->a->scale);
      fx_gemm_product (&dq, rows, d, keys, key > 0);
      fx_gemm_product (&dk, keys, d, rows, query > 0);
      fx_gemm_product (&dv, keys, d, rows, query > 0);
    }
  }
  if (d != n) {
    close_output (job->dq, head, n, h.dq);
    close_output (job->dk, head, n, h.dk);
    close_output (job->dv, head, n, h.dv);
  }
}

static void
backward_heads (void *arg, int worker, int64_t begin, int64_t end)
{
  for (int64_t i = begin; i < end; i++)
    backward_head (arg, worker, (int)i);
}

int
fx_cpu_attention_bwd (fx_backend *b, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o,
    fx_mat o, const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  fx_cpu *cpu = fx_cpu_of (b);
  backward_job job = {cpu, dq, dk, dv, d_o, o, q, k, v, lse, a, 0};
  workspace ws;

  fx_attn_blocks (q.rows, &job.queries);
  FX_TRY (
      fx_cpu_scratch (cpu, "attention_bwd", lay_out (&ws, NULL, &job) * sizeof (float)));
  fx_pool_run_indexed (cpu->pool, a->heads, 1, backward_heads, &job);
  return FX_OK;
}
