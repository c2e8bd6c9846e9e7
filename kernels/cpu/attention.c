/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Attention, forward. An item is a block of queries of one head; it walks the keys in
 * blocks of KEYS, keeping a running maximum, sum and output (the online softmax of
 * flash attention, arXiv:2205.14135), so memory does not grow with the tokens. */
#include "attention.h"

#include <math.h>

typedef struct {
  fx_cpu *cpu;
  fx_mat o, q, k, v;
  float *lse;
  const fx_attn *a;
  int64_t queries, blocks; /* queries a block, blocks a head */
} attention_job;

/* s [keys] = scale s + bias, keys from `visible` on masked; returns the maximum. */
static float
scale_row (float *s, int64_t keys, int64_t visible, float scale, const float *bias)
{
  vf largest = vf_splat (-INFINITY);

  for (int64_t i = 0; i < keys; i += FX_VL) {
    int64_t count = fx_smaller (FX_VL, keys - i);
    vf v = count == FX_VL ? vf_load (s + i) : vf_load_part (s + i, count, -INFINITY);
    v *= scale;
    if (bias != NULL)
      v += VF_LOAD (bias + i, count);
    if (i + count > visible)
      for (int64_t j = 0; j < count; j++)
        if (i + j >= visible)
          v[j] = -INFINITY;
    largest = vf_max (v, largest);
    vf_store (s + i, v);
  }
  return vf_largest (largest);
}

/* s [keys] = e^(s - minus); returns the sum. */
static float
exp_row (float *s, int64_t keys, float minus)
{
  vf sum = {0};

  for (int64_t i = 0; i < keys; i += FX_VL) {
    vf e = vf_exp (vf_load (s + i) - minus);
    sum += e;
    vf_store (s + i, e);
  }
  return vf_sum (sum);
}

typedef struct {
  float *kt, *v, *s, *o; /* [head_dim, KEYS], [KEYS, d], [QUERIES, KEYS], [QUERIES, d] */
  float *max, *sum;      /* [QUERIES] */
} workspace;

static size_t
lay_out (workspace *ws, float *p, int64_t head_dim)
{
  int64_t d = fx_whole_vectors (head_dim);
  float *start = p;

  ws->kt = p;
  p += head_dim * FX_KEYS;
  ws->v = p;
  p += FX_KEYS * d;
  ws->s = p;
  p += FX_QUERIES * FX_KEYS;
  ws->o = p;
  p += FX_QUERIES * d;
  ws->max = p;
  p += FX_QUERIES;
  ws->sum = p;
  p += FX_QUERIES;
  return (size_t)(p - start);
}

/* Softmax numerators of one block of keys, and the rescaling of what came before. */
static void
softmax_block (const attention_job *job, const workspace *ws, int head, int64_t query,
    int64_t rows, int64_t key, int64_t keys)
{
  const fx_attn *a = job->a;
  int64_t d = fx_whole_vectors (a->head_dim);

  for (int64_t r = 0; r < rows; r++) {
    float *s = ws->s + r * FX_KEYS, max = ws->max[r], factor;
    const float *bias =
        a->bias == NULL ? NULL
                        : a->bias + (head * job->q.rows + query + r) * job->k.rows + key;
    int64_t visible = a->causal ? query + r + 1 - key : keys;
    float block_max = scale_row (s, keys, visible, a->scale, bias);
    /* Nothing stands in max yet for the first keys. */
    if (key == 0 || block_max > max) {
      factor = key == 0 ? 0.0f : expf (max - block_max);
      max = block_max;
      ws->sum[r] *= factor;
      if (key > 0)
        for (int64_t i = 0; i < d; i += FX_VL)
          vf_store (ws->o + r * d + i, vf_load (ws->o + r * d + i) * factor);
    }
    ws->max[r] = max;
    ws->sum[r] += exp_row (s, keys, max);
  }
}

static void
forward_block (const attention_job *job, int worker, int head, int64_t query)
{
  const fx_attn *a = job->a;
  int64_t rows = fx_smaller (job->queries, job->q.rows - query), n = a->head_dim,
          d = fx_whole_vectors (n), last = a->causal ? query + rows : job->k.rows;
  fx_cpu_note *note = &job->cpu->notes[worker];
  workspace ws;
  const float *q = fx_attn_head (job->q, query, head, n),
              *k = fx_attn_head (job->k, 0, head, n),
              *v = fx_attn_head (job->v, 0, head, n);

  lay_out (&ws, job->cpu->scratch[worker], n);
  memset (ws.sum, 0, (size_t)rows * sizeof (float));
  for (int64_t key = 0; key < last; key += FX_KEYS) {
    int64_t keys = fx_smaller (FX_KEYS, last - key);
    fx_product qk = {q, job->q.ld, 1, ws.kt, FX_KEYS, ws.s, FX_KEYS},
               pv = {ws.s, FX_KEYS, 1, v + key * job->v.ld, job->v.ld, ws.o, d};
    if (note->block != head || note->depth != key || a->causal) {
      fx_pack_transposed (ws.kt, FX_KEYS, k + key * job->k.ld, job->k.ld, keys, n);
      if (d != n)
        fx_attn_pad (ws.v, d, v + key * job->v.ld, job->v.ld, keys, n);
      *note = (fx_cpu_note){head, key};
    }
    if (d != n) {
      pv.b = ws.v;
      pv.b_ld = d;
    }
    fx_gemm_product (&qk, rows, keys, n, false);
    softmax_block (job, &ws, head, query, rows, key, keys);
    fx_gemm_product (&pv, rows, d, keys, key > 0);
  }
  for (int64_t r = 0; r < rows; r++) {
    float *o = fx_attn_head (job->o, query + r, head, n), sum = ws.sum[r];
    for (int64_t i = 0; i < n; i += FX_VL)
      VF_STORE (o + i, vf_load (ws.o + r * d + i) / sum, fx_smaller (FX_VL, n - i));
    if (job->lse != NULL)
      job->lse[head * job->q.rows + query + r] = ws.max[r] + logf (sum);
  }
}

static void
forward_blocks (void *arg, int worker, int64_t begin, int64_t end)
{
  const attention_job *job = arg;

  for (int64_t i = begin; i < end; i++)
    forward_block (job, worker, (int)(i / job->blocks), i % job->blocks * job->queries);
}

int
fx_cpu_attention (
    fx_backend *b, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  fx_cpu *cpu = fx_cpu_of (b);
  attention_job job = {.cpu = cpu, .o = o, .q = q, .k = k, .v = v, .lse = lse, .a = a};
  workspace ws;

  job.blocks = fx_attn_blocks (q.rows, &job.queries);
  FX_TRY (fx_cpu_scratch (
      cpu, "attention", lay_out (&ws, NULL, a->head_dim) * sizeof (float)));
  for (int i = 0; i < cpu->threads; i++)
    cpu->notes[i] = (fx_cpu_note){-1, -1};
  fx_pool_run_indexed (cpu->pool, a->heads * job.blocks, 1, forward_blocks, &job);
  return FX_OK;
}
