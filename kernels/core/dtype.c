/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Element types: sizes, names, and conversion between the float types. */
#include "kernels/fx.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const struct {
  const char *name;
  size_t size;
} dtypes[FX_N_DTYPES] = {
    [FX_F32] = {"F32", 4},
    [FX_BF16] = {"BF16", 2},
    [FX_F16] = {"F16", 2},
    [FX_F64] = {"F64", 8},
    [FX_U8] = {"U8", 1},
    [FX_I8] = {"I8", 1},
    [FX_I32] = {"I32", 4},
    [FX_I64] = {"I64", 8},
    [FX_E4M3] = {"F8_E4M3", 1},
    [FX_E5M2] = {"F8_E5M2", 1},
    [FX_BOOL] = {"BOOL", 1},
    [FX_I16] = {"I16", 2},
    [FX_U16] = {"U16", 2},
};

size_t
fx_dtype_size (fx_dtype d)
{
  return (unsigned)d < FX_N_DTYPES ? dtypes[d].size : 0;
}

const char *
fx_dtype_name (fx_dtype d)
{
  return (unsigned)d < FX_N_DTYPES ? dtypes[d].name : "?";
}

const char *
fx_qtype_name (fx_qtype q)
{
  static const char *const names[] = {[FX_Q_NONE] = "none",
      [FX_Q_NF4] = "nf4",
      [FX_Q_NF4_DOUBLE] = "nf4-double",
      [FX_Q_INT8] = "int8",
      [FX_Q_FP8] = "fp8"};

  return (unsigned)q < sizeof names / sizeof *names ? names[q] : "?";
}

static inline float
as_float (uint32_t u)
{
  float f;
  memcpy (&f, &u, sizeof f);
  return f;
}

static inline uint32_t
as_bits (float f)
{
  uint32_t u;
  memcpy (&u, &f, sizeof u);
  return u;
}

float
fx_bf16_to_f32 (uint16_t v)
{
  return as_float ((uint32_t)v << 16);
}

uint16_t
fx_f32_to_bf16 (float v)
{
  uint32_t u = as_bits (v);

  if ((u & 0x7fffffff) > 0x7f800000)
    return (uint16_t)((u >> 16) | 0x40);
  return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

float
fx_f16_to_f32 (uint16_t v)
{
  uint32_t sign = (uint32_t)(v & 0x8000) << 16, rest = v & 0x7fff;

  if (rest >= 0x7c00)
    return as_float (sign | 0x7f800000 | (rest & 0x3ff) << 13);
  if (rest < 0x400) /* zero and subnormals: rest * 2^-24 is exact */
    return as_float (sign | as_bits ((float)rest * 0x1p-24f));
  return as_float (sign | ((rest << 13) + 0x38000000));
}

uint16_t
fx_f32_to_f16 (float v)
{
  uint32_t u = as_bits (v), sign = (u >> 16) & 0x8000, rest = u & 0x7fffffff;

  if (rest > 0x7f800000)
    return (uint16_t)(sign | 0x7e00 | ((rest >> 13) & 0x3ff));
  if (rest >= 0x477ff000) /* rounds to 65536 or above */
    return (uint16_t)(sign | 0x7c00);
  if (rest < 0x38800000) /* below 2^-14: adding 0.5 puts the result into the low bits */
    return (uint16_t)(sign | (as_bits (as_float (rest) + 0.5f) - 0x3f000000));
  rest += 0xfff + ((rest >> 13) & 1);
  return (uint16_t)(sign | ((rest - 0x38000000) >> 13));
}

/* 8-bit floats (OCP OFP8): e4m3 has no infinity and 0x7f is NaN, e5m2 is a short f16. */
static float
e4m3_to_f32 (uint8_t v)
{
  /* The exponent's bias is 7 instead of 127; a subnormal stays one on the way. */
  float f = as_float ((uint32_t)(v & 0x7f) << 20) * 0x1p120f;

  if ((v & 0x7f) == 0x7f)
    return as_float (0x7fc00000 | (uint32_t)(v & 0x80) << 24);
  return v & 0x80 ? -f : f;
}

/* Without branches, so that a loop of it becomes vectors. */
static inline uint8_t
f32_to_e4m3 (float v)
{
  uint32_t u = as_bits (v), rest = u & 0x7fffffff;
  /* The exponent's bias is 7 instead of 127. */
  uint32_t code = ((rest + 0x7ffff + ((rest >> 20) & 1)) >> 20) - (120 << 3);
  /* Below 2^-6 steps are 2^-9, as those of floats from 2^14 on. */
  uint32_t small = as_bits (as_float (rest) + 0x1p14f) - 0x46800000;

  code = rest < 0x3c800000 ? small : code;
  code = rest < 0x43e80000 ? code : 0x7f; /* from 464 on NaN, as in OCP */
  return (uint8_t)(code | (u >> 24 & 0x80));
}

static uint8_t
f32_to_e5m2 (float v)
{
  uint16_t h;
  uint32_t u = as_bits (v);

  if ((u & 0x7fffffff) > 0x7f800000)
    return (uint8_t)(u >> 24 & 0x80) | 0x7e;
  /* Round once, from fp32: what f16 would have dropped is kept as a sticky bit. */
  h = fx_f32_to_f16 (v);
  if (fx_f16_to_f32 (h) != v && (h & 0xff) == 0x80) {
    bool h_is_larger = fabsf (fx_f16_to_f32 (h)) > fabsf (v);
    return (uint8_t)((h >> 8) + (h_is_larger ? 0 : 1));
  }
  return (uint8_t)((h + 0x7f + ((h >> 8) & 1)) >> 8);
}

static double
load (const void *src, fx_dtype type, size_t i)
{
  switch (type) {
    case FX_F32:
      return ((const float *)src)[i];
    case FX_F64:
      return ((const double *)src)[i];
    case FX_BF16:
      return fx_bf16_to_f32 (((const uint16_t *)src)[i]);
    case FX_F16:
      return fx_f16_to_f32 (((const uint16_t *)src)[i]);
    case FX_E4M3:
      return e4m3_to_f32 (((const uint8_t *)src)[i]);
    default:
      return fx_f16_to_f32 ((uint16_t)(((const uint8_t *)src)[i] << 8));
  }
}

static void
store (void *dst, fx_dtype type, size_t i, double v)
{
  switch (type) {
    case FX_F32:
      ((float *)dst)[i] = (float)v;
      break;
    case FX_F64:
      ((double *)dst)[i] = v;
      break;
    case FX_BF16:
      ((uint16_t *)dst)[i] = fx_f32_to_bf16 ((float)v);
      break;
    case FX_F16:
      ((uint16_t *)dst)[i] = fx_f32_to_f16 ((float)v);
      break;
    case FX_E4M3:
      ((uint8_t *)dst)[i] = f32_to_e4m3 ((float)v);
      break;
    default:
      ((uint8_t *)dst)[i] = f32_to_e5m2 ((float)v);
      break;
  }
}

static bool
is_float (fx_dtype d)
{
  return d == FX_F32 || d == FX_BF16 || d == FX_F16 || d == FX_F64 || d == FX_E4M3 ||
         d == FX_E5M2;
}

int
fx_convert (void *dst, fx_dtype dst_type, const void *src, fx_dtype src_type, size_t n)
{
  if (!is_float (dst_type) || !is_float (src_type))
    return fx_error (FX_ERR_SHAPE, "convert: %s to %s is not a conversion of floats",
        fx_dtype_name (src_type), fx_dtype_name (dst_type));
  if (n == 0)
    return FX_OK;
  if (dst == NULL || src == NULL)
    return fx_error (FX_ERR_SHAPE, "convert: no buffer");

  if (dst_type == src_type) {
    memmove (dst, src, n * fx_dtype_size (src_type));
  } else if (src_type == FX_BF16 && dst_type == FX_F32) {
    for (size_t i = 0; i < n; i++)
      ((float *)dst)[i] = fx_bf16_to_f32 (((const uint16_t *)src)[i]);
  } else if (src_type == FX_F32 && dst_type == FX_BF16) {
    for (size_t i = 0; i < n; i++)
      ((uint16_t *)dst)[i] = fx_f32_to_bf16 (((const float *)src)[i]);
  } else if (src_type == FX_E4M3 && dst_type == FX_F32) {
    for (size_t i = 0; i < n; i++)
      ((float *)dst)[i] = e4m3_to_f32 (((const uint8_t *)src)[i]);
  } else if (src_type == FX_F32 && dst_type == FX_E4M3) {
    for (size_t i = 0; i < n; i++)
      ((uint8_t *)dst)[i] = f32_to_e4m3 (((const float *)src)[i]);
  } else {
    for (size_t i = 0; i < n; i++)
      store (dst, dst_type, i, load (src, src_type, i));
  }
  return FX_OK;
}

bool
fx_all_finite (const float *x, size_t n)
{
  int32_t largest = 0;

  for (size_t i = 0; i < n; i++) {
    int32_t u;
    memcpy (&u, x + i, sizeof u);
    u &= 0x7fffffff;
    largest = u > largest ? u : largest;
  }
  return largest < 0x7f800000;
}
