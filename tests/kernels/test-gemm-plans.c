/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The table of GEMM plans: what is found again, and bytes that are not taken. */
#include "kernels/core/gemm-plans.h"

#include <glib.h>
#include <string.h>

static fx_gemm_plan
plan_of (int64_t m, uint8_t algorithm)
{
  fx_gemm_plan p = {{m, 64, 32, 32, 32, 64, FX_BF16, 0, 1, 0, 1, 0}, {0}};

  memset (p.algorithm, algorithm, sizeof p.algorithm);
  return p;
}

static void
open_with (fx_gemm_plans *t, const char *key, int n, uint8_t algorithm)
{
  *t = (fx_gemm_plans){0};
  g_strlcpy (t->key, key, sizeof t->key);
  for (int i = 0; i < n; i++) {
    fx_gemm_plan p = plan_of (i + 1, algorithm);
    g_assert_true (fx_gemm_plans_add (t, &p, false));
  }
}

static guint8 *
bytes_of (const fx_gemm_plans *t, size_t *n)
{
  guint8 *bytes;

  g_assert_cmpint (fx_gemm_plans_save (t, NULL, n), ==, FX_OK);
  bytes = g_malloc (*n);
  g_assert_cmpint (fx_gemm_plans_save (t, bytes, n), ==, FX_OK);
  return bytes;
}

static int
algorithm_of (const fx_gemm_plans *t, int64_t m)
{
  fx_gemm_plan wanted = plan_of (m, 0);
  const fx_gemm_plan *p = fx_gemm_plans_find (t, &wanted.shape);

  return p != NULL ? p->algorithm[FX_GEMM_ALGORITHM - 1] : -1;
}

static void
test_round_trip (void)
{
  fx_gemm_plans a, b;
  size_t n, again;
  g_autofree guint8 *bytes = NULL, *same = NULL;

  open_with (&a, "gpu 1", 200, 7);
  open_with (&b, "gpu 1", 0, 0);
  bytes = bytes_of (&a, &n);
  g_assert_cmpint (fx_gemm_plans_load (&b, bytes, n, false), ==, FX_OK);
  g_assert_cmpint (algorithm_of (&b, 200), ==, 7);
  g_assert_cmpint (algorithm_of (&b, 201), ==, -1);
  same = bytes_of (&b, &again);
  g_assert_cmpmem (bytes, n, same, again);
  again = n - 1;
  g_assert_cmpint (fx_gemm_plans_save (&b, same, &again), ==, FX_ERR_SHAPE);
  fx_gemm_plans_clear (&a);
  fx_gemm_plans_clear (&b);
}

static void
test_replaces_only_when_told (void)
{
  fx_gemm_plans ours, theirs;
  size_t n;
  g_autofree guint8 *bytes = NULL;

  open_with (&ours, "gpu 1", 2, 1);
  open_with (&theirs, "gpu 1", 3, 2);
  bytes = bytes_of (&theirs, &n);
  g_assert_cmpint (fx_gemm_plans_load (&ours, bytes, n, false), ==, FX_OK);
  g_assert_cmpint (algorithm_of (&ours, 2), ==, 1);
  g_assert_cmpint (algorithm_of (&ours, 3), ==, 2);
  g_assert_cmpint (fx_gemm_plans_load (&ours, bytes, n, true), ==, FX_OK);
  g_assert_cmpint (algorithm_of (&ours, 2), ==, 2);
  g_assert_cmpuint (ours.n, ==, 3);
  fx_gemm_plans_clear (&ours);
  fx_gemm_plans_clear (&theirs);
}

static void
test_empty_is_no_bytes (void)
{
  fx_gemm_plans t;
  size_t n = 1;

  open_with (&t, "gpu 1", 0, 0);
  g_assert_cmpint (fx_gemm_plans_save (&t, NULL, &n), ==, FX_OK);
  g_assert_cmpuint (n, ==, 0);
}

static void
test_foreign_key (void)
{
  fx_gemm_plans a, b;
  size_t n;
  g_autofree guint8 *bytes = NULL;

  open_with (&a, "gpu 1", 3, 7);
  open_with (&b, "gpu 2", 0, 0);
  bytes = bytes_of (&a, &n);
  g_assert_cmpint (fx_gemm_plans_load (&b, bytes, n, true), ==, FX_ERR_UNSUPPORTED);
  g_assert_cmpuint (b.n, ==, 0);
  bytes[7]++; /* of a later version */
  g_assert_cmpint (fx_gemm_plans_load (&a, bytes, n, true), ==, FX_ERR_UNSUPPORTED);
  fx_gemm_plans_clear (&a);
}

/* From a buffer of that length, so that a reader beyond its end is found out. */
static void
test_damaged (void)
{
  fx_gemm_plans a, b;
  size_t n;
  g_autofree guint8 *bytes = NULL;

  open_with (&a, "gpu 1", 3, 7);
  open_with (&b, "gpu 1", 0, 0);
  bytes = bytes_of (&a, &n);
  for (size_t cut = 0; cut < n; cut++) {
    g_autofree guint8 *part = g_memdup2 (bytes, cut);
    g_assert_cmpint (fx_gemm_plans_load (&b, part, cut, true), ==, FX_ERR_SHAPE);
  }
  for (size_t i = 0; i < n; i++) {
    bytes[i] ^= 0x80;
    g_assert_cmpint (fx_gemm_plans_load (&b, bytes, n, true), <, FX_OK);
    bytes[i] ^= 0x80;
  }
  g_assert_cmpuint (b.n, ==, 0);
  g_assert_cmpint (fx_gemm_plans_load (&b, bytes, n, true), ==, FX_OK);
  fx_gemm_plans_clear (&a);
  fx_gemm_plans_clear (&b);
}

static void
test_full (void)
{
  fx_gemm_plans t;
  fx_gemm_plan more = plan_of (FX_GEMM_PLANS_MAX + 1, 1), last = plan_of (1, 9);

  open_with (&t, "gpu 1", FX_GEMM_PLANS_MAX, 7);
  g_assert_false (fx_gemm_plans_add (&t, &more, true));
  g_assert_true (fx_gemm_plans_add (&t, &last, true));
  g_assert_cmpint (algorithm_of (&t, 1), ==, 9);
  fx_gemm_plans_clear (&t);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/gemm-plans/round-trip", test_round_trip);
  g_test_add_func ("/gemm-plans/replaces-only-when-told", test_replaces_only_when_told);
  g_test_add_func ("/gemm-plans/empty-is-no-bytes", test_empty_is_no_bytes);
  g_test_add_func ("/gemm-plans/foreign-key", test_foreign_key);
  g_test_add_func ("/gemm-plans/damaged", test_damaged);
  g_test_add_func ("/gemm-plans/full", test_full);
  return g_test_run ();
}
