/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The 8-bit dynamic maps of bitsandbytes and what is quantised with them: the absmax of
 * double quantisation (functional.py: create_dynamic_map, quantize_4bit with
 * compress_statistics; csrc/kernels.cu: dQuantize). */
#include "kernels/core/mean.h"
#include "kernels/fx.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { BLOCK = FX_ABSMAX_BLOCK };

static float maps[2][256]; /* unsigned, signed; constant once made */
static pthread_once_t made = PTHREAD_ONCE_INIT;

static int
ascending (const void *a, const void *b)
{
  float x = *(const float *)a, y = *(const float *)b;

  return (x > y) - (x < y);
}

/* torch.linspace (0.1, 1, steps): from either end towards the middle, in fp32. */
static float
linspace (int i, int steps)
{
  float start = 0.1f, end = 1.0f, step = (end - start) / (float)(steps - 1);

  return i < steps / 2 ? fmaf (step, (float)i, start)
                       : fmaf (-step, (float)(steps - i - 1), end);
}

/* For each decimal exponent -6..0, the means of neighbours in a linspace that is twice as
 * fine as that of the exponent before; then 0 and 1. */
static void
make_map (float *map, bool signed_)
{
  int n = 0;

  for (int i = 0; i < 7; i++) {
    int steps = (1 << (signed_ ? i : i + 1)) + 1;
    float scale = (float)pow (10.0, i - 6);
    for (int j = 0; j + 1 < steps; j++) {
      float mean = (linspace (j, steps) + linspace (j + 1, steps)) / 2.0f;
      map[n++] = scale * mean;
      if (signed_)
        map[n++] = -scale * mean;
    }
  }
  map[n++] = 0.0f;
  map[n++] = 1.0f;
  qsort (map, (size_t)n, sizeof *map, ascending);
}

static void
make_maps (void)
{
  make_map (maps[0], false);
  make_map (maps[1], true);
}

const float *
fx_dynamic_map (bool signed_)
{
  pthread_once (&made, make_maps);
  return maps[signed_ ? 1 : 0];
}

/* The nearest value's index; bitsandbytes' search ends on an even index, which wins ties.
 * NaN ends at 0. */
static uint8_t
nearest (const float *map, float x)
{
  int low = 0;

  for (int half = 128; half > 0; half /= 2) {
    int i = low + half - 1;
    float middle = (map[i] + map[i + 1]) * 0.5f;
    if (x > middle || (x == middle && i % 2 == 1))
      low += half;
  }
  return (uint8_t)low;
}

void
fx_absmax_quantize (
    const float *absmax, size_t n, uint8_t *codes, float *absmax2, float *offset)
{
  const float *map = fx_dynamic_map (true);

  *offset = fx_torch_mean (absmax, n);
  for (size_t first = 0; first < n; first += BLOCK) {
    size_t end = n - first < BLOCK ? n : first + BLOCK;
    float largest = 0, inverse;
    for (size_t i = first; i < end; i++) {
      float v = fabsf (absmax[i] - *offset);
      largest = v > largest ? v : largest;
    }
    absmax2[first / BLOCK] = largest;
    inverse = 1.0f / largest;
    for (size_t i = first; i < end; i++)
      codes[i] = nearest (map, (absmax[i] - *offset) * inverse);
  }
}

void
fx_absmax_dequantize (const uint8_t *codes, const float *absmax2, const float *offset2,
    size_t n, float *absmax)
{
  const float *map = fx_dynamic_map (true);

  for (size_t i = 0; i < n; i++)
    absmax[i] = map[codes[i]] * absmax2[i / BLOCK] + offset2[i / BLOCK];
}
