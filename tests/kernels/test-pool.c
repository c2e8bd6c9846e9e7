/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The CPU backend's threads. */
#include "common.h"

typedef struct {
  int count[1000];
  int busy[8]; /* a worker's index is never in use twice at a time */
  int64_t grain;
} job;

static void
visit (void *arg, int worker, int64_t begin, int64_t end)
{
  job *j = arg;

  g_assert_cmpint (g_atomic_int_add (&j->busy[worker], 1), ==, 0);
  g_assert_cmpint (begin % j->grain, ==, 0);
  for (int64_t i = begin; i < end; i++)
    j->count[i]++;
  g_atomic_int_add (&j->busy[worker], -1);
}

static void
test_covers (void)
{
  static const int64_t sizes[][2] = {
      {0, 1}, {1, 1}, {1000, 1}, {1000, 7}, {999, 1000}, {100, 0}, {3, 2}};

  for (int threads = 1; threads <= 4; threads++) {
    fx_pool *pool = fx_pool_new (threads);
    g_assert_cmpint (fx_pool_threads (pool), ==, threads);
    for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
      for (int round = 0; round < 50; round++) {
        job j = {.grain = MAX (sizes[i][1], 1)};
        fx_pool_run_indexed (pool, sizes[i][0], sizes[i][1], visit, &j);
        for (int64_t k = 0; k < 1000; k++)
          g_assert_cmpint (j.count[k], ==, k < sizes[i][0]);
      }
    fx_pool_free (pool);
  }
}

/* Workers that have gone to sleep wake up, and quitting while they sleep works. */
static void
test_sleep (void)
{
  for (int round = 0; round < 5; round++) {
    fx_pool *pool = fx_pool_new (3);
    job j = {.grain = 1};
    g_usleep (round * 1000);
    for (int i = 0; i < 20; i++) {
      fx_pool_run_indexed (pool, 50, 1, visit, &j);
      g_usleep (300);
    }
    for (int k = 0; k < 50; k++)
      g_assert_cmpint (j.count[k], ==, 20);
    fx_pool_free (pool);
  }
  fx_pool_free (NULL);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/pool/covers-every-item-once", test_covers);
  g_test_add_func ("/pool/sleeping-workers", test_sleep);
  return g_test_run ();
}
