/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copies with conversion, and rows looked up in a table. */
#include "cpu.h"

#include <string.h>

enum { WORK = 1 << 14 };

typedef struct {
  fx_mat y, x;
  const int32_t *ids; /* NULL: row i of x for row i of y */
} copy_job;

static void
copy_rows (void *arg, int64_t begin, int64_t end)
{
  const copy_job *job = arg;

  for (int64_t r = begin; r < end; r++)
    fx_convert (fx_rows (job->y, r, 1).p, job->y.dtype,
        fx_rows (job->x, job->ids == NULL ? r : job->ids[r], 1).p, job->x.dtype,
        (size_t)job->y.cols);
}

int
fx_cpu_copy (fx_backend *b, fx_mat y, fx_mat x)
{
  copy_job job = {y, x, NULL};

  fx_pool_run (fx_cpu_of (b)->pool, y.rows, fx_cpu_grain (y.cols, WORK), copy_rows, &job);
  return FX_OK;
}

int
fx_cpu_gather (fx_backend *b, fx_mat y, fx_mat table, const int32_t *ids)
{
  copy_job job = {y, table, ids};

  fx_pool_run (fx_cpu_of (b)->pool, y.rows, fx_cpu_grain (y.cols, WORK), copy_rows, &job);
  return FX_OK;
}
