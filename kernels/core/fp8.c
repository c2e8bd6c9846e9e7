/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Rows of e4m3 with a scale each.
 *
 * A scale is the smallest power of two that brings the row's largest value to 448 or
 * below (torchao's rowwise recipe rounds its scales to powers of two as well,
 * torchao/float8/float8_utils.py): multiplying by it is exact in every float type, so it
 * does not matter where in a product it is applied. */
#include "kernels/fx.h"

#include <math.h>
#include <string.h>

float
fx_fp8_scale (float absmax)
{
  float q = absmax / 448.0f;
  uint32_t u;

  memcpy (&u, &q, sizeof u);
  if (!(absmax > 0))
    return 1.0f;
  if (u >= 0x7f000000) /* 2^127 and beyond: what is not finite stays so */
    return INFINITY;
  u = (u & 0x7fffff) != 0 ? (u & 0x7f800000) + 0x800000 : u;
  u = u < 0x00800000 ? 0x00800000 : u; /* its inverse must be finite */
  memcpy (&q, &u, sizeof q);
  return q;
}

void
fx_fp8_quantize (const float *x, size_t rows, size_t cols, uint8_t *q, float *scale)
{
  for (size_t r = 0; r < rows; r++) {
    const float *row = x + r * cols;
    float largest = 0, inverse;

    for (size_t i = 0; i < cols; i++)
      largest = fabsf (row[i]) > largest ? fabsf (row[i]) : largest;
    scale[r] = fx_fp8_scale (largest);
    inverse = 1.0f / scale[r];
    for (size_t i = 0; i < cols; i++) {
      float v = row[i] * inverse;

      fx_convert (q + r * cols + i, FX_E4M3, &v, FX_F32, 1);
    }
  }
}
