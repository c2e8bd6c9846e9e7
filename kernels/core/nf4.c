/* SPDX-License-Identifier: LGPL-2.1-or-later
 * NF4: bitsandbytes csrc/kernels.cu (dQuantizeNF4, kQuantizeBlockwise), bit by bit. */
#include "kernels/fx.h"

#include <math.h>

enum { BLOCK = FX_NF4_BLOCK };

const float fx_nf4_code[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

/* The stored midpoints; a value above threshold i has a code above i. */
static const float thresholds[15] = {
    -0.8480964004993439f,
    -0.6106329262256622f,
    -0.4599952697753906f,
    -0.33967943489551544f,
    -0.23460740596055984f,
    -0.13791173323988914f,
    -0.045525018125772476f,
    0.03979014977812767f,
    0.1202552504837513f,
    0.2035212516784668f,
    0.2920137718319893f,
    0.3893125355243683f,
    0.5016634166240692f,
    0.6427869200706482f,
    0.8614784181118011f,
};

/* A block of zeros divides by zero: its NaNs are above no threshold, so its codes are 0,
 * as they are in bitsandbytes. */
static void
quantize_block (const float *x, size_t n, uint8_t *packed, float *absmax)
{
  int32_t code[BLOCK] = {0};
  float largest = 0, inverse;

  for (size_t i = 0; i < n; i++)
    largest = fabsf (x[i]) > largest ? fabsf (x[i]) : largest;
  *absmax = largest;
  inverse = 1.0f / largest;
  for (size_t i = 0; i < n; i++) {
    float v = x[i] * inverse;
    int32_t c = 0;
    for (int t = 0; t < 15; t++)
      c += v > thresholds[t];
    code[i] = c;
  }
  for (size_t i = 0; i < n; i += 2)
    packed[i / 2] = (uint8_t)(code[i] << 4 | code[i + 1]);
}

void
fx_nf4_quantize (const float *x, size_t n, uint8_t *packed, float *absmax)
{
  for (size_t i = 0; i < n; i += BLOCK)
    quantize_block (
        x + i, n - i < BLOCK ? n - i : BLOCK, packed + i / 2, absmax + i / BLOCK);
}

void
fx_nf4_dequantize (const uint8_t *packed, const float *absmax, size_t n, float *out)
{
  for (size_t i = 0; i < n; i++) {
    uint8_t both = packed[i / 2];
    out[i] = fx_nf4_code[i % 2 == 0 ? both >> 4 : both & 15] * absmax[i / BLOCK];
  }
}
