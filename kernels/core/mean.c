/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The mean of a vector with the rounding of PyTorch's CUDA reduction.
 *
 * Double quantisation subtracts the mean of the absmax values, and all that follows
 * depends on its last bit. PyTorch sums in fp32 with one thread block (ATen
 * native/cuda/Reduce.cuh, setReduceConfig and block_x_reduce): as many threads as the
 * power of two below the number of their items (at most 512), an item being four floats
 * when there are more than 128; each thread adds its items lane by lane, then its lanes;
 * then threads are added in halves. Checked against bitsandbytes' offsets on an H100. */
#include "mean.h"

#include <string.h>

enum {
  MAX_THREADS = 512,
  LANES = 4,
  VECTOR_FROM = 129, /* values */
  /* From here on the work is split over thread blocks, as many as the GPU has room for:
   * there is no one order any more. */
  MAX_VALUES = 256 * MAX_THREADS
};

static float
block_sum (const float *x, size_t n)
{
  float lane[MAX_THREADS][LANES];
  size_t vectors = n >= VECTOR_FROM ? n / LANES : 0;
  size_t items = vectors > 0 ? vectors : n, threads = 1;

  while (threads * 2 <= items && threads * 2 <= MAX_THREADS)
    threads *= 2;
  memset (lane, 0, sizeof lane);
  for (size_t i = 0; i < vectors; i++)
    for (size_t c = 0; c < LANES; c++)
      lane[i % threads][c] += x[i * LANES + c];
  for (size_t i = vectors * LANES; i < n; i++) {
    size_t at = i - vectors * LANES;
    lane[at % threads][vectors > 0 ? 0 : at / threads % LANES] += x[i];
  }
  for (size_t t = 0; t < threads; t++)
    for (size_t c = 1; c < LANES; c++)
      lane[t][0] += lane[t][c];
  for (size_t half = threads / 2; half > 0; half /= 2)
    for (size_t t = 0; t < half; t++)
      lane[t][0] += lane[t + half][0];
  return lane[0][0];
}

float
fx_torch_mean (const float *x, size_t n)
{
  double sum = 0;

  if (n == 0)
    return 0;
  if (n < MAX_VALUES)
    return block_sum (x, n) * (1.0f / (float)n);
  for (size_t i = 0; i < n; i++)
    sum += x[i];
  return (float)(sum / (double)n);
}
