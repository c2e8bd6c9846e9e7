/* kernels/core/torch-rng.c: PyTorch's CPU generator. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * mt19937 (aten/src/ATen/core/MT19937RNGEngine.h), uniform bits (TransformationHelper.h),
 * and the normal transform of native/cpu/DistributionTemplates.h: from 16 values on,
 * Box-Muller over blocks of 16, fp32 with the polynomials of Cephes (the AVX2 path, which
 * AVX-512 machines take too), the 16-bit types rounded after every operation; below 16,
 * pairs in fp64. */
#include "kernels/core/cephes.h"
#include "kernels/fx.h"

#include <math.h>

#define N 624
#define M 397
#define BLOCK 16

void
fx_torch_seed (fx_torch_rng *r, uint64_t seed)
{
  r->state[0] = (uint32_t)seed;
  for (uint32_t i = 1; i < N; i++)
    r->state[i] = 1812433253u * (r->state[i - 1] ^ (r->state[i - 1] >> 30)) + i;
  r->index = N;
  r->has_next_normal = false;
  r->next_normal = 0;
}

static void
refill (fx_torch_rng *r)
{
  for (int i = 0; i < N; i++) {
    uint32_t y = (r->state[i] & 0x80000000u) | (r->state[(i + 1) % N] & 0x7fffffffu);

    r->state[i] = r->state[(i + M) % N] ^ (y >> 1) ^ ((y & 1) ? 0x9908b0dfu : 0);
  }
  r->index = 0;
}

uint32_t
fx_torch_u32 (fx_torch_rng *r)
{
  uint32_t y;

  if (r->index >= N)
    refill (r);
  y = r->state[r->index++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

/* [0, 1) with as many bits as the type has digits. */
static float
uniform (fx_torch_rng *r, int digits)
{
  return (float)(fx_torch_u32 (r) & ((1u << digits) - 1)) / (float)(1u << digits);
}

static double
uniform_f64 (fx_torch_rng *r)
{
  uint64_t high = fx_torch_u32 (r), low = fx_torch_u32 (r);

  return (double)(((high << 32) | low) & ((UINT64_C (1) << 53) - 1)) * 0x1p-53;
}

void
fx_torch_rand (fx_torch_rng *r, float *out, size_t n)
{
  for (size_t i = 0; i < n; i++)
    out[i] = uniform (r, 24);
}

static void
box_muller_f32 (float *v)
{
  for (int j = 0; j < BLOCK / 2; j++) {
    float radius = sqrtf (-2.0f * fx_cephes_log (1.0f - v[j])), sine, cosine;

    fx_cephes_sincos ((float)(2 * M_PI) * v[j + BLOCK / 2], &sine, &cosine);
    v[j] = radius * cosine + 0.0f; /* the mean: no negative zero */
    v[j + BLOCK / 2] = radius * sine + 0.0f;
  }
}

static float
rounded (float v, fx_dtype dtype)
{
  return dtype == FX_BF16 ? fx_bf16_to_f32 (fx_f32_to_bf16 (v))
                          : fx_f16_to_f32 (fx_f32_to_f16 (v));
}

static void
box_muller_16bit (float *v, fx_dtype d)
{
  for (int j = 0; j < BLOCK / 2; j++) {
    float u1 = rounded (1 - v[j], d), u2 = v[j + BLOCK / 2];
    float radius = rounded (sqrtf (rounded (-2 * rounded (logf (u1), d), d)), d);
    float theta = rounded ((float)(2.0f * M_PI * u2), d);

    v[j] = rounded (radius * rounded (cosf (theta), d), d) + 0.0f;
    v[j + BLOCK / 2] = rounded (radius * rounded (sinf (theta), d), d) + 0.0f;
  }
}

static void
put (void *out, fx_dtype dtype, size_t at, float v)
{
  if (dtype == FX_F32)
    ((float *)out)[at] = v;
  else
    ((uint16_t *)out)[at] = dtype == FX_BF16 ? fx_f32_to_bf16 (v) : fx_f32_to_f16 (v);
}

/* One block drawn anew and transformed. */
static void
fill_block (fx_torch_rng *r, fx_dtype dtype, void *out, size_t at)
{
  float v[BLOCK];

  for (int i = 0; i < BLOCK; i++)
    v[i] = uniform (r, dtype == FX_F32 ? 24 : dtype == FX_BF16 ? 8 : 11);
  if (dtype == FX_F32)
    box_muller_f32 (v);
  else
    box_muller_16bit (v, dtype);
  for (int i = 0; i < BLOCK; i++)
    put (out, dtype, at + i, v[i]);
}

/* at::normal_distribution<double>: one of a pair is kept for the next call. */
static double
normal_f64 (fx_torch_rng *r)
{
  double u1, u2, radius;

  if (r->has_next_normal) {
    r->has_next_normal = false;
    return r->next_normal;
  }
  u1 = uniform_f64 (r);
  u2 = uniform_f64 (r);
  radius = sqrt (-2 * log1p (-u2));
  r->next_normal = radius * sin (2 * M_PI * u1);
  r->has_next_normal = true;
  return radius * cos (2 * M_PI * u1);
}

void
fx_torch_randn (fx_torch_rng *r, void *out, fx_dtype dtype, size_t n)
{
  size_t i;

  if (n < BLOCK) {
    for (i = 0; i < n; i++)
      put (out, dtype, i, (float)normal_f64 (r));
    return;
  }
  for (i = 0; i + BLOCK <= n; i += BLOCK)
    fill_block (r, dtype, out, i);
  if (i == n)
    return;
  /* The rest's uniforms are drawn and dropped: the last 16 values are drawn again. */
  for (; i < n; i++)
    fx_torch_u32 (r);
  fill_block (r, dtype, out, n - BLOCK);
}

void
fx_torch_randperm (fx_torch_rng *r, int32_t *out, size_t n)
{
  for (size_t i = 0; i < n; i++)
    out[i] = (int32_t)i;
  for (size_t i = 0; i + 1 < n; i++) {
    size_t j = i + fx_torch_u32 (r) % (n - i);
    int32_t t = out[i];

    out[i] = out[j];
    out[j] = t;
  }
}
