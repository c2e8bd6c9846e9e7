/* flux/convert/workers.h: threads that go through the rows of a tensor (internal).
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/convert/tensor-info.h"

G_BEGIN_DECLS

typedef struct _FluxWorkers FluxWorkers;

/* Some elements of a tensor: whole rows of a matrix, or a multiple of 64 of others. */
typedef struct {
  gint64 first, count; /* elements */
  fx_backend *cpu;     /* of this thread alone */
  float *values;       /* [count] of this thread's scratch */
} FluxPiece;

/* Returns an fx_status, or one of these. */
enum { FLUX_PIECE_NOT_FINITE = -100, FLUX_PIECE_TOO_LARGE = -101 };
typedef int (*FluxPieceFunc) (const FluxPiece *piece, gpointer data);

/* A thread a core. */
FluxWorkers *flux_workers_new (GError **error);
void flux_workers_free (FluxWorkers *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxWorkers, flux_workers_free)
/* Calls func for pieces that cover the tensor, several at the same time; an error names
 * it. Pieces are small enough for the caches: some 256 Ki elements. */
gboolean flux_workers_run (FluxWorkers *self, const FluxTensorInfo *info,
    FluxPieceFunc func, gpointer data, GError **error);

/* Room for the data of a tensor, in huge pages where there are some: gigabytes pass
 * through it. NULL after an error that names it. free() it. */
gpointer flux_workers_alloc (const char *name, gsize n_bytes, GError **error);

G_END_DECLS
