/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The CPU backend's threads: one job at a time, pieces claimed from a counter.
 *
 * A worker that wakes too late finds the job closed and goes back to waiting, so that the
 * caller never waits for a thread that has not started. */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

enum { SPIN_NS = 50000, SPIN_CHECK = 64 };

typedef void (*indexed_fn) (void *arg, int worker, int64_t begin, int64_t end);

typedef struct {
  fx_pool *pool;
  pthread_t thread;
  int index;
} worker;

struct fx_pool {
  int threads, started;
  worker *workers; /* threads - 1 of them */

  /* The job; written while `open` is false and nobody is inside. */
  indexed_fn fn;
  void *arg;
  int64_t n, grain;
  _Alignas(64) atomic_llong next; /* first item nobody has claimed */
  _Alignas(64) atomic_uint epoch; /* counts jobs */
  atomic_bool open, quit;
  _Alignas(64) atomic_int inside; /* workers that look at the job */

  pthread_mutex_t lock;
  pthread_cond_t wake, left;
  atomic_int sleepers;
  atomic_bool caller_sleeps;
};

static inline void
relax (void)
{
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause ();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t
now_ns (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
work (fx_pool *pool, int index)
{
  int64_t n = pool->n, grain = pool->grain;

  for (;;) {
    int64_t begin = atomic_fetch_add_explicit (&pool->next, grain, memory_order_relaxed);
    if (begin >= n)
      return;
    pool->fn (pool->arg, index, begin, n - begin < grain ? n : begin + grain);
  }
}

/* Waits until the epoch is no longer `seen`, first spinning. */
static void
wait_for_job (fx_pool *pool, unsigned seen)
{
  int64_t until = now_ns () + SPIN_NS;

  do {
    for (int i = 0; i < SPIN_CHECK; i++) {
      if (atomic_load (&pool->epoch) != seen)
        return;
      relax ();
    }
  } while (now_ns () < until);

  pthread_mutex_lock (&pool->lock);
  atomic_fetch_add (&pool->sleepers, 1);
  while (atomic_load (&pool->epoch) == seen)
    pthread_cond_wait (&pool->wake, &pool->lock);
  atomic_fetch_sub (&pool->sleepers, 1);
  pthread_mutex_unlock (&pool->lock);
}

static void *
worker_main (void *data)
{
  worker *self = data;
  fx_pool *pool = self->pool;
  unsigned seen = 0;

  for (;;) {
    wait_for_job (pool, seen);
    seen = atomic_load (&pool->epoch);
    if (atomic_load (&pool->quit))
      return NULL;
    atomic_fetch_add (&pool->inside, 1);
    if (atomic_load (&pool->open))
      work (pool, self->index);
    if (atomic_fetch_sub (&pool->inside, 1) == 1 && atomic_load (&pool->caller_sleeps)) {
      pthread_mutex_lock (&pool->lock);
      pthread_cond_signal (&pool->left);
      pthread_mutex_unlock (&pool->lock);
    }
  }
}

static void
announce (fx_pool *pool)
{
  atomic_fetch_add (&pool->epoch, 1);
  if (atomic_load (&pool->sleepers) > 0) {
    pthread_mutex_lock (&pool->lock);
    pthread_cond_broadcast (&pool->wake);
    pthread_mutex_unlock (&pool->lock);
  }
}

static void
wait_until_left (fx_pool *pool)
{
  int64_t until = 0;

  while (atomic_load (&pool->inside) != 0) {
    for (int i = 0; i < SPIN_CHECK; i++)
      relax ();
    if (until == 0)
      until = now_ns () + SPIN_NS;
    if (now_ns () < until)
      continue;
    pthread_mutex_lock (&pool->lock);
    atomic_store (&pool->caller_sleeps, true);
    while (atomic_load (&pool->inside) != 0)
      pthread_cond_wait (&pool->left, &pool->lock);
    atomic_store (&pool->caller_sleeps, false);
    pthread_mutex_unlock (&pool->lock);
  }
}

void
fx_pool_run_indexed (fx_pool *pool, int64_t n, int64_t grain, indexed_fn fn, void *arg)
{
  if (n <= 0)
    return;
  if (grain < 1)
    grain = 1;
  if (pool->started == 0 || n <= grain) {
    fn (arg, 0, 0, n);
    return;
  }
  pool->fn = fn;
  pool->arg = arg;
  pool->n = n;
  pool->grain = grain;
  atomic_store (&pool->next, 0);
  atomic_store (&pool->open, true);
  announce (pool);
  work (pool, 0);
  atomic_store (&pool->open, false);
  wait_until_left (pool);
}

typedef struct {
  void (*fn) (void *arg, int64_t begin, int64_t end);
  void *arg;
} plain_job;

static void
call_plain (void *arg, int index, int64_t begin, int64_t end)
{
  const plain_job *job = arg;

  job->fn (job->arg, begin, end);
}

void
fx_pool_run (fx_pool *pool, int64_t n, int64_t grain,
    void (*fn) (void *arg, int64_t begin, int64_t end), void *arg)
{
  plain_job job = {fn, arg};

  fx_pool_run_indexed (pool, n, grain, call_plain, &job);
}

/* Workers get no signals: those are for the program's own threads. */
static void
start_workers (fx_pool *pool)
{
  sigset_t all, before;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &before);
  for (int i = 0; i < pool->threads - 1; i++) {
    worker *w = &pool->workers[i];
    w->pool = pool;
    w->index = i + 1;
    if (pthread_create (&w->thread, NULL, worker_main, w) != 0)
      break; /* fewer threads give the same results */
    pthread_setname_np (w->thread, "fx-worker");
    pool->started++;
  }
  pthread_sigmask (SIG_SETMASK, &before, NULL);
}

fx_pool *
fx_pool_new (int threads)
{
  fx_pool *pool = aligned_alloc (64, (sizeof *pool + 63) / 64 * 64);

  if (pool == NULL)
    return NULL;
  *pool = (fx_pool){.threads = threads < 1 ? 1 : threads};
  pool->workers = calloc ((size_t)pool->threads, sizeof *pool->workers);
  if (pool->workers == NULL) {
    free (pool);
    return NULL;
  }
  pthread_mutex_init (&pool->lock, NULL);
  pthread_cond_init (&pool->wake, NULL);
  pthread_cond_init (&pool->left, NULL);
  start_workers (pool);
  return pool;
}

void
fx_pool_free (fx_pool *pool)
{
  if (pool == NULL)
    return;
  atomic_store (&pool->quit, true);
  announce (pool);
  for (int i = 0; i < pool->started; i++)
    pthread_join (pool->workers[i].thread, NULL);
  pthread_mutex_destroy (&pool->lock);
  pthread_cond_destroy (&pool->wake);
  pthread_cond_destroy (&pool->left);
  free (pool->workers);
  free (pool);
}

int
fx_pool_threads (const fx_pool *pool)
{
  return pool->threads;
}
