/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Vectors of FX_VL floats, the width of the instruction set being compiled, on GCC's
 * vector extensions. Intrinsics appear only where the extensions have no word for it. */
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>
#define FX_VL 16
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define FX_VL 8
#else
#define FX_VL 4
#endif

/* Before a loop of a small constant count, which is then written out. */
#if defined(__clang__)
#define FX_UNROLL _Pragma ("clang loop unroll(full)")
#else
#define FX_UNROLL _Pragma ("GCC unroll 16")
#endif

#define FX_INLINE static inline __attribute__ ((always_inline, unused))

typedef float vf __attribute__ ((vector_size (FX_VL * 4)));
typedef int32_t vi __attribute__ ((vector_size (FX_VL * 4)));
typedef float vf_memory __attribute__ ((vector_size (FX_VL * 4), aligned (4), may_alias));
typedef int32_t vi_memory
    __attribute__ ((vector_size (FX_VL * 4), aligned (4), may_alias));

FX_INLINE vf
vf_load (const float *p)
{
  return *(const vf_memory *)p;
}

FX_INLINE void
vf_store (float *p, vf v)
{
  *(vf_memory *)p = v;
}

FX_INLINE vi
vi_load (const int32_t *p)
{
  return *(const vi_memory *)p;
}

FX_INLINE vf
vf_splat (float x)
{
  return x - (vf){0};
}

FX_INLINE vi
vi_splat (int32_t x)
{
  return x - (vi){0};
}

/* The first n < FX_VL elements; the others are `rest`. */
FX_INLINE vf
vf_load_part (const float *p, int64_t n, float rest)
{
#if FX_VL == 16
  return (vf)_mm512_mask_loadu_ps (_mm512_set1_ps (rest), (__mmask16)((1u << n) - 1), p);
#else
  vf v = vf_splat (rest);
  for (int64_t i = 0; i < n; i++)
    v[i] = p[i];
  return v;
#endif
}

FX_INLINE void
vf_store_part (float *p, vf v, int64_t n)
{
#if FX_VL == 16
  _mm512_mask_storeu_ps (p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
  for (int64_t i = 0; i < n; i++)
    p[i] = v[i];
#endif
}

/* Bits of a where mask is all ones, of b where it is zero. */
FX_INLINE vf
vf_select (vi mask, vf a, vf b)
{
  return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

/* The larger; b when either is NaN. */
FX_INLINE vf
vf_max (vf a, vf b)
{
#if FX_VL == 16
  return (vf)_mm512_max_ps ((__m512)a, (__m512)b);
#elif FX_VL == 8
  return (vf)_mm256_max_ps ((__m256)a, (__m256)b);
#else
  return vf_select ((vi)(a > b), a, b);
#endif
}

FX_INLINE vf
vf_min (vf a, vf b)
{
#if FX_VL == 16
  return (vf)_mm512_min_ps ((__m512)a, (__m512)b);
#elif FX_VL == 8
  return (vf)_mm256_min_ps ((__m256)a, (__m256)b);
#else
  return vf_select ((vi)(a < b), a, b);
#endif
}

/* a[0] b[0] a[1] b[1] ..., lower and upper half. */
#if defined(__clang__)
#define VF_SHUFFLE(a, b, ...) __builtin_shufflevector (a, b, __VA_ARGS__)
#else
#define VF_SHUFFLE(a, b, ...) __builtin_shuffle (a, b, (vi){__VA_ARGS__})
#endif
#if FX_VL == 16
#define VF_ZIP_LOW(a, b)                                                                 \
  VF_SHUFFLE (a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define VF_ZIP_HIGH(a, b)                                                                \
  VF_SHUFFLE (a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif FX_VL == 8
#define VF_ZIP_LOW(a, b) VF_SHUFFLE (a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define VF_ZIP_HIGH(a, b) VF_SHUFFLE (a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define VF_ZIP_LOW(a, b) VF_SHUFFLE (a, b, 0, 4, 1, 5)
#define VF_ZIP_HIGH(a, b) VF_SHUFFLE (a, b, 2, 6, 3, 7)
#endif

/* Transposes FX_VL x FX_VL in place: log2 (FX_VL) perfect shuffles of the rows. */
FX_INLINE void
vf_transpose (vf r[FX_VL])
{
  vf t[FX_VL];

  FX_UNROLL
  for (int step = 1; step < FX_VL; step *= 2) {
    FX_UNROLL
    for (int i = 0; i < FX_VL / 2; i++) {
      t[2 * i] = VF_ZIP_LOW (r[i], r[i + FX_VL / 2]);
      t[2 * i + 1] = VF_ZIP_HIGH (r[i], r[i + FX_VL / 2]);
    }
    FX_UNROLL
    for (int i = 0; i < FX_VL; i++)
      r[i] = t[i];
  }
}

/* Sum of the elements, always in the same order. */
FX_INLINE float
vf_sum (vf v)
{
  float x[FX_VL];

  vf_store (x, v);
  FX_UNROLL
  for (int n = FX_VL / 2; n > 0; n /= 2) {
    FX_UNROLL
    for (int i = 0; i < n; i++)
      x[i] += x[i + n];
  }
  return x[0];
}

FX_INLINE float
vf_largest (vf v)
{
  float x[FX_VL];

  vf_store (x, v);
  FX_UNROLL
  for (int n = FX_VL / 2; n > 0; n /= 2) {
    FX_UNROLL
    for (int i = 0; i < n; i++)
      x[i] = x[i] > x[i + n] ? x[i] : x[i + n];
  }
  return x[0];
}

/* v * 2^n for whole n in [-252, 254]. */
FX_INLINE vf
vf_scale2 (vf v, vf n)
{
#if FX_VL == 16
  return (vf)_mm512_scalef_ps ((__m512)v, (__m512)n);
#else
  vi whole = __builtin_convertvector(n, vi), half = whole >> 1;
  return v * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
#endif
}

/* e^x to 1.01 ulp (measured over [-87, 88]); 0 below -104, infinite above 88.73, NaN for
 * NaN. Splitting of ln 2 and polynomial are those of expf in the Cephes library. */
FX_INLINE vf
vf_exp (vf x)
{
  const vf round = vf_splat (12582912.0f); /* 1.5 * 2^23 */
  vf n, r, p;

  x = vf_min (vf_splat (89.0f), vf_max (vf_splat (-104.0f), x));
  n = (x * 1.44269504088896341f + round) - round;
  r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  p = vf_splat (1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return vf_scale2 (p, n);
}

/* 1 / (1 + e^-x). */
FX_INLINE vf
vf_sigmoid (vf x)
{
  return 1.0f / (1.0f + vf_exp (-x));
}

/* A loop over n floats: `body` sees i and `count`, FX_VL or what is left at the end. */
#define VF_LOAD(p, count) ((count) == FX_VL ? vf_load (p) : vf_load_part (p, count, 0.0f))
#define VF_STORE(p, v, count)                                                            \
  do {                                                                                   \
    if ((count) == FX_VL)                                                                \
      vf_store (p, v);                                                                   \
    else                                                                                 \
      vf_store_part (p, v, count);                                                       \
  } while (0)
