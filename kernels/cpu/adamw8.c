/* SPDX-License-Identifier: LGPL-2.1-or-later
 * AdamW with 8-bit state, in blocks of 256: bitsandbytes csrc/kernels.cu,
 * kOptimizerStatic8bit2StateBlockwise. The update uses the states before they are
 * quantised again; decay comes after it. */
#include "cpu.h"
#include "fast-power.h"

#include <math.h>

enum { BLOCK = FX_ADAM8_BLOCK };

typedef struct {
  float *p;
  const float *g;
  const fx_adam8_state *s;
  int64_t n;
  const fx_adamw *o;
  float step, root, decay, first_decay; /* lr c2 / c1, c2, 1 - lr wd or 1 */
  float middle_m[255], middle_v[255];   /* between neighbours of the maps */
} adamw8_job;

/* Index of the value nearest to x; the even one of two. 0 for the NaN of a block whose
 * states are all zero. */
static uint8_t
nearest (const float middle[255], float x)
{
  int low = 0;

  for (int half = 128; half > 0; half /= 2)
    if (x > middle[low + half - 1] ||
        (x == middle[low + half - 1] && (low + half - 1) % 2 == 1))
      low += half;
  return (uint8_t)low;
}

/* The sign of a state survives rounding (csrc/kernels.cu:1118-1125). */
static uint8_t
keep_sign (const float *map, uint8_t code, float x)
{
  if (signbit (map[code]) != signbit (x))
    code = (uint8_t)(x > 0.0f ? code + 1 : code - 1);
  return code;
}

static void
update_block (const adamw8_job *job, int64_t block)
{
  const fx_adamw *o = job->o;
  const fx_adam8_state *s = job->s;
  int64_t first = block * BLOCK, n = job->n - first < BLOCK ? job->n - first : BLOCK;
  float m[BLOCK], v[BLOCK], max_m = 0, max_v = 0;
  float scale_m = s->absmax_m[block], scale_v = s->absmax_v[block];

  for (int64_t i = 0; i < n; i++) {
    float g = job->g[first + i] * o->grad_scale;
    if (!isfinite (g)) {
      m[i] = v[i] = 0;
      continue;
    }
    v[i] = s->map_v[s->v[first + i]] * scale_v * o->beta2 + (1.0f - o->beta2) * g * g;
    m[i] = s->map_m[s->m[first + i]] * scale_m * o->beta1 + (1.0f - o->beta1) * g;
    max_m = fmaxf (max_m, fabsf (m[i]));
    max_v = fmaxf (max_v, v[i]);
  }
  s->absmax_m[block] = max_m;
  s->absmax_v[block] = max_v;
  for (int64_t i = 0; i < n; i++) {
    float *p = job->p + first + i;
    if (isfinite (job->g[first + i] * o->grad_scale))
      *p = (*p * job->first_decay -
               job->step * (m[i] / (sqrtf (v[i]) + job->root * o->eps))) *
           job->decay;
    s->m[first + i] = keep_sign (s->map_m, nearest (job->middle_m, m[i] / max_m), m[i]);
    s->v[first + i] = nearest (job->middle_v, v[i] / max_v);
  }
}

static void
update_blocks (void *arg, int64_t begin, int64_t end)
{
  for (int64_t i = begin; i < end; i++)
    update_block (arg, i);
}

int
fx_cpu_adamw8 (fx_backend *b, float *p, const float *g, const fx_adam8_state *s,
    int64_t n, const fx_adamw *o)
{
  float c1 = 1.0f - fx_fast_power (o->beta1, o->step);
  float c2 = sqrtf (1.0f - fx_fast_power (o->beta2, o->step));
  float decay = (float)(1.0 - (double)o->lr * o->weight_decay);
  adamw8_job job = {.p = p, .g = g, .s = s, .n = n, .o = o};

  job.step = o->lr * c2 / c1;
  job.root = c2;
  job.decay = o->decay_first ? 1.0f : decay;
  job.first_decay = o->decay_first ? decay : 1.0f;
  for (int i = 0; i < 255; i++) {
    job.middle_m[i] = 0.5f * (s->map_m[i] + s->map_m[i + 1]);
    job.middle_v[i] = 0.5f * (s->map_v[i] + s->map_v[i + 1]);
  }
  fx_pool_run (fx_cpu_of (b)->pool, (n + BLOCK - 1) / BLOCK, 16, update_blocks, &job);
  return FX_OK;
}
