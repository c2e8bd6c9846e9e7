/* flux/convert/workers.c: threads that go through the rows of a tensor.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/convert/workers.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "flux/error.h"
#include "kernels/cpu/pool.h"

enum {
  PIECE = 1 << 18, /* elements; a multiple of 64 */
  HUGE_PAGE = 2 << 20
};
G_STATIC_ASSERT (PIECE % FX_NF4_BLOCK == 0);

typedef struct {
  fx_backend *cpu;
  float *values;
  gsize n_values;
} Worker;

struct _FluxWorkers {
  fx_pool *pool;
  guint n;
  Worker *workers;
};

typedef struct {
  FluxWorkers *self;
  gint64 n_elements, piece;
  FluxPieceFunc func;
  gpointer data;
  gint status; /* atomic; the first that failed */
} Job;

FluxWorkers *
flux_workers_new (GError **error)
{
  g_autoptr (FluxWorkers) self = g_new0 (FluxWorkers, 1);

  self->n = g_get_num_processors ();
  self->workers = g_new0 (Worker, self->n);
  self->pool = fx_pool_new ((int)self->n);
  for (guint i = 0; i < self->n; i++) {
    self->workers[i].cpu = fx_cpu_new (1);
    if (self->pool != NULL && self->workers[i].cpu != NULL)
      continue;
    g_set_error (
        error, FLUX_ERROR, FLUX_ERROR_NO_SPACE, "There is no memory for threads.");
    return NULL;
  }
  return g_steal_pointer (&self);
}

void
flux_workers_free (FluxWorkers *self)
{
  for (guint i = 0; i < self->n; i++) {
    if (self->workers[i].cpu != NULL)
      fx_backend_free (self->workers[i].cpu);
    g_free (self->workers[i].values);
  }
  if (self->pool != NULL)
    fx_pool_free (self->pool);
  g_free (self->workers);
  g_free (self);
}

static void
run_pieces (void *arg, int worker, int64_t begin, int64_t end)
{
  Job *job = arg;
  const Worker *w = &job->self->workers[worker];

  for (gint64 i = begin; i < end; i++) {
    const gint64 first = i * job->piece;
    const FluxPiece piece = {.first = first,
        .count = MIN (job->piece, job->n_elements - first),
        .cpu = w->cpu,
        .values = w->values};
    int status = FX_OK;

    if (g_atomic_int_get (&job->status) == FX_OK)
      status = job->func (&piece, job->data);
    if (status != FX_OK)
      g_atomic_int_compare_and_exchange (&job->status, FX_OK, status);
  }
}

static gint64
piece_of (const FluxTensorInfo *info)
{
  const gint64 row = info->n_dims == 2 ? MAX (1, info->dims[1]) : FX_NF4_BLOCK;

  return MAX (1, PIECE / row) * row;
}

static gboolean
reserve (FluxWorkers *self, gsize n, const char *name, GError **error)
{
  for (guint i = 0; i < self->n; i++) {
    Worker *w = &self->workers[i];

    if (w->n_values >= n)
      continue;
    g_free (w->values);
    w->values = g_try_new (float, n);
    w->n_values = w->values != NULL ? n : 0;
    if (w->values != NULL)
      continue;
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "There is no memory for rows of the tensor '%s'.", name);
    return FALSE;
  }
  return TRUE;
}

gboolean
flux_workers_run (FluxWorkers *self, const FluxTensorInfo *info, FluxPieceFunc func,
    gpointer data, GError **error)
{
  Job job = {.self = self,
      .n_elements = (gint64)info->n_elements,
      .piece = MIN (piece_of (info), (gint64)info->n_elements),
      .func = func,
      .data = data,
      .status = FX_OK};

  if (job.n_elements == 0)
    return TRUE;
  if (!reserve (self, (gsize)job.piece, info->name, error))
    return FALSE;
  fx_pool_run_indexed (
      self->pool, (job.n_elements + job.piece - 1) / job.piece, 1, run_pieces, &job);
  if (job.status == FX_OK)
    return TRUE;
  if (job.status == FLUX_PIECE_NOT_FINITE)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC,
        "The tensor '%s' has NaN or Inf: the model is broken, or a scale too large.",
        info->name);
  else if (job.status == FLUX_PIECE_TOO_LARGE)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC,
        "The tensor '%s' has values that the new type cannot hold.", info->name);
  else
    g_set_error (error, FLUX_ERROR,
        job.status == FX_ERR_MEMORY ? FLUX_ERROR_NO_SPACE : FLUX_ERROR_DEVICE,
        "Could not calculate with the tensor '%s' (error %d).", info->name, job.status);
  return FALSE;
}

gpointer
flux_workers_alloc (const char *name, gsize n_bytes, GError **error)
{
  const gboolean is_large = n_bytes >= HUGE_PAGE;
  void *p = NULL;

  if (posix_memalign (&p, is_large ? HUGE_PAGE : 64, MAX (n_bytes, 1)) == 0) {
    if (is_large)
      madvise (p, n_bytes, MADV_HUGEPAGE); /* only a hint */
    return p;
  }
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
      "There is no memory for the tensor '%s'.", name);
  return NULL;
}
