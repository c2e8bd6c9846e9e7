/* kernels/cuda/adamw.cu: AdamW with 32-bit and 8-bit state. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * bitsandbytes csrc/kernels.cu:915-1147 (facts: block 256, requantise to the new absmax
 * by nearest code, the sign of m is kept, an element whose gradient is no number skips
 * its update). */
#include "kernels/cuda/common.cuh"

#define THREADS 256

typedef struct {
  fx_adamw o;
  float decay;  /* 1 - lr weight_decay */
  float c1, c2; /* torch's: 1 - beta1^t, sqrt (1 - beta2^t), from exact powers */
} terms;

static terms
terms_of (const fx_adamw *o)
{
  terms t = {*o, (float)(1 - (double)o->lr * o->weight_decay),
      (float)(1 - pow (o->beta1, o->step)), (float)sqrt (1 - pow (o->beta2, o->step))};

  return t;
}

/* bitsandbytes compiles its powers with --use_fast_math. */
static __device__ __forceinline__ void
fast_terms (terms *t)
{
  t->c1 = 1 - __powf (t->o.beta1, (float)t->o.step);
  t->c2 = sqrtf (1 - __powf (t->o.beta2, (float)t->o.step));
}

static __device__ __forceinline__ float
torch_order (const terms &t, float p, float m, float v)
{
  return p * t.decay - t.o.lr / t.c1 * (m / (sqrtf (v) / t.c2 + t.o.eps));
}

/* before and after: the decay, or 1. */
static __device__ __forceinline__ float
bitsandbytes_order (const terms &t, float p, float m, float v, float before, float after)
{
  return (p * before - t.o.lr * t.c2 / t.c1 * (m / (sqrtf (v) + t.c2 * t.o.eps))) * after;
}

static __global__ void
adamw (float *p, const float *g, float *m, float *v, int64_t n, terms t)
{
  const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;

  if (i >= n)
    return;
  const float d = g[i] * t.o.grad_scale;

  m[i] = t.o.beta1 * m[i] + (1 - t.o.beta1) * d;
  v[i] = t.o.beta2 * v[i] + (1 - t.o.beta2) * d * d;
  if (t.o.decay_first) {
    p[i] = torch_order (t, p[i], m[i], v[i]);
  } else {
    fast_terms (&t);
    p[i] = bitsandbytes_order (t, p[i], m[i], v[i], 1, t.decay);
  }
}

/* Index of the value of an ascending map nearest to x, the even one of two; middle:
 * between neighbours. 0 for the NaN of a block whose states are all zero. */
static __device__ __forceinline__ uint8_t
nearest (const float *middle, float x)
{
  int low = 0;

#pragma unroll
  for (int half = 128; half > 0; half /= 2) {
    const int at = low + half - 1;

    if (x > middle[at] || (x == middle[at] && (at & 1) == 1))
      low += half;
  }
  return (uint8_t)low;
}

static __global__ void
adamw8 (float *p, const float *g, fx_adam8_state s, int64_t n, terms t)
{
  __shared__ float map_m[256], map_v[256], middle_m[256], middle_v[256];
  __shared__ float shared[THREADS / 32];
  const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;
  const int next = min ((int)threadIdx.x + 1, 255);
  float m = 0, v = 0;

  map_m[threadIdx.x] = s.map_m[threadIdx.x];
  map_v[threadIdx.x] = s.map_v[threadIdx.x];
  __syncthreads ();
  middle_m[threadIdx.x] = 0.5f * (map_m[threadIdx.x] + map_m[next]);
  middle_v[threadIdx.x] = 0.5f * (map_v[threadIdx.x] + map_v[next]);
  fast_terms (&t);
  const float d = i < n ? g[i] * t.o.grad_scale : 0;

  if (i < n && isfinite (d)) {
    v = map_v[s.v[i]] * s.absmax_v[blockIdx.x] * t.o.beta2 + (1 - t.o.beta2) * d * d;
    m = map_m[s.m[i]] * s.absmax_m[blockIdx.x] * t.o.beta1 + (1 - t.o.beta1) * d;
    p[i] = bitsandbytes_order (
        t, p[i], m, v, t.o.decay_first ? t.decay : 1, t.o.decay_first ? 1 : t.decay);
  }
  /* Each ends with a barrier after the states have been read. */
  const float top_m = block_max (fabsf (m), shared);
  const float top_v = block_max (v, shared);

  if (threadIdx.x == 0) {
    s.absmax_m[blockIdx.x] = top_m;
    s.absmax_v[blockIdx.x] = top_v;
  }
  if (i >= n)
    return;
  uint8_t code = nearest (middle_m, m / top_m);

  /* The sign of a state survives rounding (csrc/kernels.cu:1118-1125). */
  if (signbit (map_m[code]) != signbit (m))
    code = (uint8_t)(m > 0 ? code + 1 : code - 1);
  s.m[i] = code;
  s.v[i] = nearest (middle_v, v / top_v);
}

int
fxc_adamw (fx_backend *b, float *p, const float *g, float *m, float *v, int64_t n,
    const fx_adamw *o)
{
  fx_cuda *c = fxc (b);

  adamw<<<fxc_blocks (n, THREADS), THREADS, 0, c->queue.stream>>> (
      p, g, m, v, n, terms_of (o));
  FXC_LAUNCHED (c, "adamw");
}

int
fxc_adamw8 (fx_backend *b, float *p, const float *g, const fx_adam8_state *s, int64_t n,
    const fx_adamw *o)
{
  fx_cuda *c = fxc (b);

  adamw8<<<fxc_blocks (n, THREADS), THREADS, 0, c->queue.stream>>> (
      p, g, *s, n, terms_of (o));
  FXC_LAUNCHED (c, "adamw8");
}
