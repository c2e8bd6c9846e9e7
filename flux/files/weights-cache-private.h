/* flux/files/weights-cache-private.h: what weights.c does with a cache of weights
 * (internal). SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/files/weights.h"

G_BEGIN_DECLS

/* One entry while its model is loaded. The measuring pass notes each buffer and what it
 * is for; then the buffers come from the file, or go into it. */
typedef struct _FluxCacheEntry FluxCacheEntry;

FluxCacheEntry *flux_cache_entry_new (void);
void flux_cache_entry_free (FluxCacheEntry *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxCacheEntry, flux_cache_entry_free)

/* While measuring: what the next buffers are for, and each buffer. */
void flux_cache_entry_note (
    FluxCacheEntry *self, const char *name, gint64 n, gint64 k, int qtype, int dtype);
void flux_cache_entry_add (FluxCacheEntry *self, gsize bytes);

/* Names the entry of loader's model and opens it; FALSE when it is not there, or when it
 * is of no use: then the cache's warning says why. */
gboolean flux_cache_entry_open (FluxCacheEntry *self, FluxLoader *loader);
/* The next buffer, to dst on the backend. */
gboolean flux_cache_entry_read (
    FluxCacheEntry *self, fx_backend *b, void *dst, gsize bytes, GError **error);
/* After the last buffer: was all of it what was written? */
gboolean flux_cache_entry_check (FluxCacheEntry *self, FluxLoader *loader);

/* Tells where the next buffer is that will be written. */
void flux_cache_entry_place (FluxCacheEntry *self, fx_backend *b, void *p);
/* Writes the entry from the buffers that were placed, with progress of its own. FALSE
 * when that cancels; any other failure is the cache's warning. */
gboolean
flux_cache_entry_write (FluxCacheEntry *self, FluxLoader *loader, GError **error);

/* Tells progress; FALSE when that cancels (weights.c). */
gboolean
flux_loader_report (FluxLoader *self, const char *what, gint percent, GError **error);

G_END_DECLS
