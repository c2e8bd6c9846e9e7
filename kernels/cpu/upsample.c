/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Nearest-neighbour enlargement, twice as large each way. */
#include <string.h>

#include "cpu.h"

typedef struct {
  fx_mat y, x;
  int width;
} upsample_job;

/* Rows of the small image. */
static void
upsample_rows (void *arg, int64_t begin, int64_t end)
{
  const upsample_job *job = arg;
  size_t bytes = (size_t)job->x.cols * sizeof (float);

  for (int64_t row = begin; row < end; row++)
    for (int64_t col = 0; col < job->width; col++) {
      const float *src = (const float *)job->x.p + (row * job->width + col) * job->x.ld;
      float *above = (float *)job->y.p + (4 * row * job->width + 2 * col) * job->y.ld;
      float *below = above + 2 * job->width * job->y.ld;
      memcpy (above, src, bytes);
      memcpy (above + job->y.ld, src, bytes);
      memcpy (below, src, bytes);
      memcpy (below + job->y.ld, src, bytes);
    }
}

int
fx_cpu_upsample2 (fx_backend *b, fx_mat y, fx_mat x, int height, int width)
{
  upsample_job job = {y, x, width};

  fx_pool_run (fx_cpu_of (b)->pool, height, fx_cpu_grain ((int64_t)width * x.cols, 16384),
      upsample_rows, &job);
  return FX_OK;
}
