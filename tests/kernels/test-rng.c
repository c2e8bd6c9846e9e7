/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Random numbers: bit-equal with PyTorch's, Philox as published. */
#include "golden.h"

static const guint64 seeds[] = {0, 42, G_GUINT64_CONSTANT (1099511627818)};

static void
check_randn (const golden *g)
{
  static const int sizes[] = {1, 5, 15, 16, 17, 33, 4096};
  static const struct {
    const char *name;
    fx_dtype dtype;
  } halves[] = {{"randn_bf16", FX_BF16}, {"randn_f16", FX_F16}};
  fx_torch_rng r;
  int found = 0;

  for (guint s = 0; s < G_N_ELEMENTS (seeds); s++) {
    for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
      size_t bytes = 0;
      const void *want =
          golden_getf (g, &bytes, "randn.%" G_GUINT64_FORMAT ".%d", seeds[s], sizes[i]);
      float *got = g_new (float, sizes[i]);
      fx_torch_seed (&r, seeds[s]);
      fx_torch_randn (&r, got, FX_F32, (size_t)sizes[i]);
      if (want != NULL) {
        g_assert_cmpmem (got, (size_t)sizes[i] * 4, want, bytes);
        found++;
      }
      g_free (got);
    }
    for (guint i = 0; i < G_N_ELEMENTS (halves); i++) {
      uint16_t got[40];
      size_t bytes = 0;
      const void *want = golden_getf (
          g, &bytes, "%s.%" G_GUINT64_FORMAT ".40", halves[i].name, seeds[s]);
      if (want == NULL)
        continue;
      fx_torch_seed (&r, seeds[s]);
      fx_torch_randn (&r, got, halves[i].dtype, 40);
      g_assert_cmpmem (got, sizeof got, want, bytes);
      found++;
    }
  }
  g_assert_cmpint (found, >=, 16);
}

static void
check_others (const golden *g)
{
  fx_torch_rng r;
  float uniform[9];
  int32_t perm[13];
  size_t bytes = 0;
  const void *want;

  for (guint s = 1; s < G_N_ELEMENTS (seeds); s++) {
    want = golden_getf (g, &bytes, "rand.%" G_GUINT64_FORMAT ".9", seeds[s]);
    fx_torch_seed (&r, seeds[s]);
    fx_torch_rand (&r, uniform, 9);
    g_assert_cmpmem (uniform, sizeof uniform, want, bytes);
    want = golden_getf (g, &bytes, "randperm.%" G_GUINT64_FORMAT ".13", seeds[s]);
    fx_torch_seed (&r, seeds[s]);
    fx_torch_randperm (&r, perm, 13);
    g_assert_cmpmem (perm, sizeof perm, want, bytes);
  }
}

static void
check_all (const golden *g)
{
  check_randn (g);
  check_others (g);
}

static void
test_torch (void)
{
  golden_checked_in (check_all);
}

static void
test_torch_shared (void)
{
  golden_shared (check_all);
}

/* One normal at a time is the same as several: the second of a pair waits. */
static void
test_pairs (void)
{
  fx_torch_rng a, b;
  float all[5], one;

  fx_torch_seed (&a, 7);
  fx_torch_seed (&b, 7);
  fx_torch_randn (&a, all, FX_F32, 5);
  for (int i = 0; i < 5; i++) {
    fx_torch_randn (&b, &one, FX_F32, 1);
    g_assert_cmpfloat (one, ==, all[i]);
  }
}

/* Known answers of Random123's kat_vectors for philox4x32-10. */
static void
test_philox (void)
{
  uint32_t out[4];

  fx_philox (0, 0, 0, 0, 0, out);
  g_assert_cmphex (out[0], ==, 0x6627e8d5);
  g_assert_cmphex (out[1], ==, 0xe169c58d);
  g_assert_cmphex (out[2], ==, 0xbc57ac4c);
  g_assert_cmphex (out[3], ==, 0x9b00dbd8);
  /* counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0 */
  fx_philox (G_GUINT64_CONSTANT (0x299f31d0a4093822), 0x85a308d3, 0x13198a2e, 0x03707344,
      0x243f6a88, out);
  g_assert_cmphex (out[0], ==, 0xd16cfe09);
  g_assert_cmphex (out[1], ==, 0x94fdcceb);
  g_assert_cmphex (out[2], ==, 0x5001e420);
  g_assert_cmphex (out[3], ==, 0x24126ea1);
}

static void
test_philox_draws (void)
{
  enum { N = 100000 };
  float *x = g_new (float, N), *u = g_new (float, N), again[7];
  double sum = 0, square = 0, fourth = 0;

  fx_philox_normal (1, 2, 3, 4, x, N);
  fx_philox_uniform (1, 2, 3, 4, u, N);
  for (int i = 0; i < N; i++) {
    sum += x[i];
    square += (double)x[i] * x[i];
    fourth += pow (x[i], 4);
    g_assert_true (u[i] >= 0 && u[i] < 1);
  }
  /* 5 standard deviations of each mean */
  g_assert_cmpfloat (fabs (sum / N), <, 5 / sqrt (N));
  g_assert_cmpfloat (fabs (square / N - 1), <, 5 * sqrt (2.0 / N));
  g_assert_cmpfloat (fabs (fourth / N - 3), <, 5 * sqrt (96.0 / N));
  fx_philox_normal (1, 2, 3, 4, again, 7); /* a prefix, whatever its length */
  g_assert_cmpmem (again, sizeof again, x, sizeof again);
  fx_philox_normal (1, 2, 3, 5, again, 7);
  g_assert_true (memcmp (again, x, sizeof again) != 0);
  fx_philox_normal (1, 2, 4, 4, again, 7);
  g_assert_true (memcmp (again, x, sizeof again) != 0);
  g_free (x);
  g_free (u);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/rng/torch", test_torch);
  g_test_add_func ("/rng/torch/golden", test_torch_shared);
  g_test_add_func ("/rng/torch/pairs", test_pairs);
  g_test_add_func ("/rng/philox/known-answers", test_philox);
  g_test_add_func ("/rng/philox/draws", test_philox_draws);
  return g_test_run ();
}
