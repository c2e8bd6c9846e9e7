/* SPDX-License-Identifier: LGPL-2.1-or-later
 * AdamW with fp32 state: torch's arithmetic (decay first), or bitsandbytes'. */
#include "cpu.h"
#include "fast-power.h"

#include <math.h>

enum { PIECE = 1 << 13 };

typedef struct {
  float *p, *m, *v;
  const float *g;
  float beta1, beta2, eps, grad_scale, decay;
  float step, root; /* torch: lr / c1, c2; bitsandbytes: lr c2 / c1, c2 */
} adamw_job;

/* torch/optim/adamw.py, _single_tensor_adamw: p -= lr / c1 m / (sqrt (v) / c2 + eps). */
static void
torch_order (void *arg, int64_t begin, int64_t end)
{
  const adamw_job *o = arg;

  for (int64_t i = begin; i < end; i++) {
    float g = o->g[i] * o->grad_scale;
    float m = o->m[i] + (1.0f - o->beta1) * (g - o->m[i]);
    float v = o->v[i] * o->beta2 + (1.0f - o->beta2) * g * g;
    o->m[i] = m;
    o->v[i] = v;
    o->p[i] = o->p[i] * o->decay - o->step * (m / (sqrtf (v) / o->root + o->eps));
  }
}

/* bitsandbytes csrc/kernels.cu, kOptimizer32bit2State: p -= lr c2 / c1 m / (sqrt (v) +
 * c2 eps), then the decay. */
static void
bitsandbytes_order (void *arg, int64_t begin, int64_t end)
{
  const adamw_job *o = arg;

  for (int64_t i = begin; i < end; i++) {
    float g = o->g[i] * o->grad_scale;
    float m = o->m[i] * o->beta1 + (1.0f - o->beta1) * g;
    float v = o->v[i] * o->beta2 + (1.0f - o->beta2) * g * g;
    o->m[i] = m;
    o->v[i] = v;
    o->p[i] = (o->p[i] - o->step * (m / (sqrtf (v) + o->eps * o->root))) * o->decay;
  }
}

int
fx_cpu_adamw (fx_backend *b, float *p, const float *g, float *m, float *v, int64_t n,
    const fx_adamw *o)
{
  double c1 = 1.0 - pow (o->beta1, o->step), c2 = sqrt (1.0 - pow (o->beta2, o->step));
  adamw_job job = {.p = p,
      .m = m,
      .v = v,
      .g = g,
      .beta1 = o->beta1,
      .beta2 = o->beta2,
      .eps = o->eps,
      .grad_scale = o->grad_scale,
      .decay = (float)(1.0 - (double)o->lr * o->weight_decay),
      .root = (float)c2};

  if (!o->decay_first) {
    c1 = 1.0f - fx_fast_power (o->beta1, o->step);
    c2 = sqrtf (1.0f - fx_fast_power (o->beta2, o->step));
    job.root = (float)c2;
  }
  job.step = (float)(o->decay_first ? o->lr / c1 : o->lr * c2 / c1);
  fx_pool_run (fx_cpu_of (b)->pool, n, PIECE,
      o->decay_first ? torch_order : bitsandbytes_order, &job);
  return FX_OK;
}
