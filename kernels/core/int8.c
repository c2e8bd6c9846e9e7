/* SPDX-License-Identifier: LGPL-2.1-or-later
 * LLM.int8 rows: bitsandbytes csrc/kernels.cu, kInt8VectorQuant. */
#include "kernels/fx.h"

#include <math.h>

void
fx_int8_quantize (const float *x, size_t rows, size_t cols, int8_t *q, float *absmax)
{
  for (size_t r = 0; r < rows; r++) {
    const float *row = x + r * cols;
    float largest = 0, scale;
    for (size_t i = 0; i < cols; i++)
      largest = fabsf (row[i]) > largest ? fabsf (row[i]) : largest;
    absmax[r] = largest;
    scale = largest > 0 ? 127.0f / largest : 0.0f;
    for (size_t i = 0; i < cols; i++)
      q[r * cols + i] = (int8_t)rintf (row[i] * scale);
  }
}
