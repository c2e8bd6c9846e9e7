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
  float c1, c2; /* 1 - beta1^t, sqrt (1 - beta2^t) */
} terms;

static terms
terms_of (const fx_adamw *o)
{
  terms t = {*o, (float)(1 - pow (o->beta1, o->step)),
      (float)sqrt (1 - pow (o->beta2, o->step))};

  return t;
}

static __device__ __forceinline__ float
updated (const terms &t, float p, float m, float v)
{
  const float decay = 1 - t.o.lr * t.o.weight_decay;

  if (t.o.decay_first) {
    p *= decay;
    return p - t.o.lr / t.c1 * (m / (sqrtf (v) / t.c2 + t.o.eps));
  }
  return (p - t.o.lr * t.c2 / t.c1 * (m / (sqrtf (v) + t.c2 * t.o.eps))) * decay;
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
  p[i] = updated (t, p[i], m[i], v[i]);
}

/* Index of the value of an ascending map nearest to x; the lower one in a tie. */
static __device__ __forceinline__ int
nearest (const float *map, float x)
{
  int lo = 0, hi = 255;

  while (hi - lo > 1) {
    const int mid = (lo + hi) >> 1;

    if (map[mid] <= x)
      lo = mid;
    else
      hi = mid;
  }
  return x - map[lo] <= map[hi] - x ? lo : hi;
}

static __device__ __forceinline__ float
block_max (float v, float *shared)
{
  v = warp_max (v);
  __syncthreads ();
  if ((threadIdx.x & 31) == 0)
    shared[threadIdx.x >> 5] = v;
  __syncthreads ();
  for (int i = 0; i < THREADS / 32; i++)
    v = fmaxf (v, shared[i]);
  return v;
}

static __global__ void
adamw8 (float *p, const float *g, fx_adam8_state s, int64_t n, terms t)
{
  __shared__ float map_m[256], map_v[256], shared[THREADS / 32];
  const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;
  float m = 0, v = 0;

  map_m[threadIdx.x] = s.map_m[threadIdx.x];
  map_v[threadIdx.x] = s.map_v[threadIdx.x];
  __syncthreads ();
  const float d = i < n ? g[i] * t.o.grad_scale : 0;
  const bool number = isfinite (d);

  if (i < n && number) {
    m = t.o.beta1 * (map_m[s.m[i]] * s.absmax_m[blockIdx.x]) + (1 - t.o.beta1) * d;
    v = t.o.beta2 * (map_v[s.v[i]] * s.absmax_v[blockIdx.x]) + (1 - t.o.beta2) * d * d;
    p[i] = updated (t, p[i], m, v);
  }
  const float top_m = block_max (fabsf (m), shared),
              top_v = block_max (fabsf (v), shared);

  if (threadIdx.x == 0) {
    s.absmax_m[blockIdx.x] = top_m;
    s.absmax_v[blockIdx.x] = top_v;
  }
  if (i >= n)
    return;
  int code = nearest (map_m, top_m > 0 ? m / top_m : 0);

  if (signbit (map_m[code]) != signbit (m))
    code += m > 0 ? 1 : -1;
  s.m[i] = (uint8_t)min (max (code, 0), 255);
  s.v[i] = (uint8_t)nearest (map_v, top_v > 0 ? v / top_v : 0);
}

int
fxc_adamw (fx_backend *b, float *p, const float *g, float *m, float *v, int64_t n,
    const fx_adamw *o)
{
  fx_cuda *c = fxc (b);

  adamw<<<fxc_blocks (n, THREADS), THREADS, 0, c->stream>>> (p, g, m, v, n, terms_of (o));
  FXC_LAUNCHED (c, "adamw");
}

int
fxc_adamw8 (fx_backend *b, float *p, const float *g, const fx_adam8_state *s, int64_t n,
    const fx_adamw *o)
{
  fx_cuda *c = fxc (b);

  adamw8<<<fxc_blocks (n, THREADS), THREADS, 0, c->stream>>> (p, g, *s, n, terms_of (o));
  FXC_LAUNCHED (c, "adamw8");
}
