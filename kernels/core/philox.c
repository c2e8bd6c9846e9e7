/* kernels/core/philox.c: counter-based random numbers. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Philox 4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 */
#include "kernels/fx.h"

#include <math.h>

#define ROUNDS 10

void
fx_philox (uint64_t seed, uint32_t step, uint32_t sample, uint32_t stream, uint32_t index,
    uint32_t out[4])
{
  uint32_t c[4] = {index, step, sample, stream};
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

  for (int i = 0; i < ROUNDS; i++) {
    uint64_t p0 = UINT64_C (0xd2511f53) * c[0], p1 = UINT64_C (0xcd9e8d57) * c[2];
    uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1,
        (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};

    for (int j = 0; j < 4; j++)
      c[j] = next[j];
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  for (int j = 0; j < 4; j++)
    out[j] = c[j];
}

void
fx_philox_uniform (
    uint64_t seed, uint32_t step, uint32_t sample, uint32_t stream, float *out, size_t n)
{
  uint32_t bits[4];

  for (size_t i = 0; i < n; i++) {
    if (i % 4 == 0)
      fx_philox (seed, step, sample, stream, (uint32_t)(i / 4), bits);
    out[i] = (float)(bits[i % 4] >> 8) * 0x1p-24f;
  }
}

/* Box-Muller in fp64, so that the bits hang on no platform's single-precision functions.
 */
void
fx_philox_normal (
    uint64_t seed, uint32_t step, uint32_t sample, uint32_t stream, float *out, size_t n)
{
  for (size_t i = 0; i < n; i += 4) {
    uint32_t bits[4];

    fx_philox (seed, step, sample, stream, (uint32_t)(i / 4), bits);
    for (size_t j = 0; j < 4 && i + j < n; j++) {
      const uint32_t *pair = bits + (j & 2);
      double radius = sqrt (-2 * log (((double)pair[0] + 1) * 0x1p-32));
      double angle = 2 * M_PI * ((double)pair[1] * 0x1p-32);

      out[i + j] = (float)(radius * (j & 1 ? sin (angle) : cos (angle)));
    }
  }
}
