/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Statistics of rows: what the norms share. */
#pragma once

#include "simd.h"

#include <math.h>

/* Sums run in 2 FX_VL lanes, and in runs of 1024 elements: rounding errors stay small. */
FX_INLINE float
fx_norm_sum (const float *x, int64_t n, float minus, int square)
{
  double total = 0;

  for (int64_t begin = 0; begin < n; begin += 1024) {
    int64_t end = n < begin + 1024 ? n : begin + 1024, i = begin;
    vf even = {0}, odd = {0};
    for (; i + 2 * FX_VL <= end; i += 2 * FX_VL) {
      vf a = vf_load (x + i) - minus, b = vf_load (x + i + FX_VL) - minus;
      even += square ? a * a : a;
      odd += square ? b * b : b;
    }
    for (; i < end; i += FX_VL) {
      int64_t count = end - i < FX_VL ? end - i : FX_VL;
      vf a =
          (count == FX_VL ? vf_load (x + i) : vf_load_part (x + i, count, minus)) - minus;
      even += square ? a * a : a;
    }
    total += vf_sum (even + odd);
  }
  return (float)total;
}

FX_INLINE void
fx_norm_stats (const float *x, int64_t n, float eps, float *mean, float *rstd)
{
  *mean = fx_norm_sum (x, n, 0.0f, 0) / (float)n;
  *rstd = 1.0f / sqrtf (fx_norm_sum (x, n, *mean, 1) / (float)n + eps);
}
