/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Sum of squares in fp64, for the norm of the gradients. */
#include "cpu.h"

enum { PIECE = 1 << 14 };

typedef struct {
  const float *x;
  int64_t n;
  double *sums; /* one a piece */
} sum_job;

static void
sum_pieces (void *arg, int64_t begin, int64_t end)
{
  const sum_job *job = arg;

  for (int64_t p = begin; p < end; p++) {
    const float *x = job->x + p * PIECE;
    int64_t n = job->n - p * PIECE < PIECE ? job->n - p * PIECE : PIECE, i = 0;
    double lanes[8] = {0}, sum = 0;
    for (; i + 8 <= n; i += 8)
      for (int j = 0; j < 8; j++)
        lanes[j] += (double)x[i + j] * x[i + j];
    for (; i < n; i++)
      lanes[0] += (double)x[i] * x[i];
    for (int j = 0; j < 8; j++)
      sum += lanes[j];
    job->sums[p] = sum;
  }
}

int
fx_cpu_sum_squares (fx_backend *b, double *sum, const float *x, int64_t n)
{
  fx_cpu *cpu = fx_cpu_of (b);
  int64_t pieces = (n + PIECE - 1) / PIECE;
  sum_job job = {x, n, NULL};
  double total = 0;

  FX_TRY (fx_cpu_shared (cpu, "sum_squares", (size_t)pieces * sizeof (double)));
  job.sums = cpu->shared;
  fx_pool_run (cpu->pool, pieces, 1, sum_pieces, &job);
  for (int64_t p = 0; p < pieces; p++)
    total += job.sums[p];
  *sum += total;
  return FX_OK;
}
