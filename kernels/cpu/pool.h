/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The CPU backend's threads.
 *
 * A run cuts [0, n) into pieces of `grain` items that the calling thread and the workers
 * take as they come. A callee must give the same result however the range is cut: it
 * writes its own items only, and never sums across items of one call. Idle workers spin
 * for some tens of microseconds, the gap between two ops of a step, and then sleep.
 */
#pragma once

#include <stdint.h>

typedef struct fx_pool fx_pool;

/* threads: all of them, the caller's included; at least 1. NULL when out of memory. */
fx_pool *fx_pool_new (int threads);
void fx_pool_free (fx_pool *pool);
int fx_pool_threads (const fx_pool *pool);

/* Calls fn (arg, begin, end) for pieces that cover [0, n), and returns when all are done.
 * begin is a multiple of grain. Not to be called from within fn. */
void fx_pool_run (fx_pool *pool, int64_t n, int64_t grain,
    void (*fn) (void *arg, int64_t begin, int64_t end), void *arg);

/* The same; `worker`, in [0, threads), is not in use by another call at the same time:
 * the index of scratch memory. */
void fx_pool_run_indexed (fx_pool *pool, int64_t n, int64_t grain,
    void (*fn) (void *arg, int worker, int64_t begin, int64_t end), void *arg);
