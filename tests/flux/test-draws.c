/* tests/flux/test-draws.c: everything random in training. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <math.h>
#include <string.h>

#include "flux/train/draws.h"

enum { DRAWS = 40000 };

static FluxDraw
draw (const FluxTrainConfig *c, guint64 step, guint position)
{
  FluxDraw d;

  flux_draw_scalars (c, 3, step, position, &d);
  return d;
}

static void
test_keyed (void)
{
  FluxTrainConfig c;
  FluxDraw a, b;

  flux_train_config_init (&c);
  a = draw (&c, 17, 2);
  draw (&c, 18, 3); /* what else is drawn does not matter */
  b = draw (&c, 17, 2);
  g_assert_cmpfloat (a.sigma, ==, b.sigma);
  b = draw (&c, 18, 2);
  g_assert_cmpfloat (a.sigma, !=, b.sigma);
  b = draw (&c, 17, 3);
  g_assert_cmpfloat (a.sigma, !=, b.sigma);
}

/* Uniform: every one of 1000 .. 1 comes, about equally often. */
static void
test_grid (void)
{
  FluxTrainConfig c;
  int count[1001] = {0};

  flux_train_config_init (&c);
  for (int i = 0; i < DRAWS; i++) {
    FluxDraw d = draw (&c, (guint64)i / 4, (guint)i % 4);
    int t = (int)lrintf (d.timestep * 1000);

    g_assert_cmpint (t, >=, 1);
    g_assert_cmpint (t, <=, 1000);
    g_assert_cmpfloat (d.timestep, ==, (float)t / 1000.0f);
    g_assert_cmpfloat (d.sigma, ==, d.timestep);
    g_assert_cmpfloat (d.weight, ==, 1);
    count[t]++;
  }
  for (int t = 1; t <= 1000; t++) {
    g_assert_cmpint (count[t], >, DRAWS / 1000 / 4);
    g_assert_cmpint (count[t], <, DRAWS / 1000 * 3);
  }
}

/* facts.md section 2: 500 distinct timesteps with an error of up to 3, 506 sigmas. */
static void
test_parity_rounding (void)
{
  FluxTrainConfig exact, parity;
  g_autoptr (GHashTable) sigmas = g_hash_table_new (NULL, NULL);
  g_autoptr (GHashTable) timesteps = g_hash_table_new (NULL, NULL);
  double worst = 0;
  int hits = 0;

  flux_train_config_init (&exact);
  exact.guidance = 3.5;
  parity = exact;
  parity.timestep_precision = FLUX_TIMESTEP_PARITY;
  for (int i = 0; i < DRAWS; i++) {
    FluxDraw a = draw (&exact, (guint64)i, 0), b = draw (&parity, (guint64)i, 0);
    int t = (int)lrint (a.timestep * 1000.0);
    guint32 bits;

    worst = MAX (worst, fabs (b.timestep * 1000.0 - t));
    if (t == 737 || t == 750 || t == 999) {
      hits++;
      g_assert_cmpint (lrint (b.timestep * 1000.0), ==,
          t == 737   ? 740
          : t == 750 ? 752
                     : 1000);
    }
    memcpy (&bits, &b.timestep, sizeof bits);
    g_hash_table_add (timesteps, GUINT_TO_POINTER (bits));
    memcpy (&bits, &b.sigma, sizeof bits);
    g_hash_table_add (sigmas, GUINT_TO_POINTER (bits));
    g_assert_cmpint (bits & 0xffff, ==, 0); /* a bf16 value */
    g_assert_cmpfloat_with_epsilon (b.guidance * 1000, 3504, 1e-2);
    g_assert_cmpfloat (a.guidance, ==, 3.5f);
  }
  g_assert_cmpint (hits, >, 0);
  g_assert_cmpfloat_with_epsilon (worst, 3.0, 1e-3);
  g_assert_cmpuint (g_hash_table_size (timesteps), ==, 500);
  g_assert_cmpuint (g_hash_table_size (sigmas), ==, 506);
}

static void
test_weighting (void)
{
  FluxTrainConfig c;
  double sum[5] = {0};

  flux_train_config_init (&c);
  c.mode_scale = 1.29;
  for (int scheme = 0; scheme < 5; scheme++) {
    c.weighting = scheme;
    for (int i = 0; i < DRAWS; i++) {
      FluxDraw d = draw (&c, (guint64)i, 0);

      sum[scheme] += fabs (d.sigma - 0.5);
      g_assert_cmpfloat_with_epsilon (
          d.weight / flux_loss_weight (scheme, d.sigma), 1, 1e-6);
    }
  }
  /* Logit-normal and mode gather in the middle: E |sigma - 1/2| is 1/4 when uniform. */
  g_assert_cmpfloat_with_epsilon (sum[0] / DRAWS, 0.25, 0.003);
  g_assert_cmpfloat (sum[FLUX_WEIGHTING_LOGIT_NORMAL] / DRAWS, <, 0.2);
  g_assert_cmpfloat (sum[FLUX_WEIGHTING_MODE] / DRAWS, <, 0.24);
  g_assert_cmpfloat (sum[FLUX_WEIGHTING_COSMAP], ==, sum[0]);
}

static void
test_dropout (void)
{
  FluxTrainConfig c;
  int dropped[3] = {0};
  static const double rates[] = {0, 0.25, 1};

  flux_train_config_init (&c);
  for (int k = 0; k < 3; k++) {
    c.caption_dropout = rates[k];
    for (int i = 0; i < DRAWS; i++)
      dropped[k] += draw (&c, (guint64)i, 1).drop_caption;
  }
  g_assert_cmpint (dropped[0], ==, 0);
  g_assert_cmpfloat_with_epsilon ((double)dropped[1] / DRAWS, 0.25, 0.01);
  g_assert_cmpint (dropped[2], ==, DRAWS);
}

static void
test_latent (void)
{
  enum { N = 20000 };
  g_autofree float *moments = g_new (float, 2 * N);
  g_autofree float *latent = g_new (float, N);
  g_autofree float *again = g_new (float, N);
  FluxTrainConfig c;
  double sum = 0, squares = 0;

  flux_train_config_init (&c);
  c.vae_scaling = 0.5f;
  c.vae_shift = 1;
  for (int i = 0; i < N; i++) {
    moments[i] = 3; /* (3 - 1) / 2 = 1 */
    moments[N + i] = 2 * logf (4);
  }
  flux_draw_latent (&c, 1, 2, 3, moments, N, latent);
  for (int i = 0; i < N; i++) {
    sum += latent[i] - 1;
    squares += (latent[i] - 1) * (latent[i] - 1);
  }
  g_assert_cmpfloat_with_epsilon (sum / N, 0, 0.05);
  g_assert_cmpfloat_with_epsilon (sqrt (squares / N), 2, 0.05);
  flux_draw_latent (&c, 1, 3, 3, moments, N, again); /* drawn anew in the next step */
  g_assert_true (memcmp (latent, again, N * sizeof (float)) != 0);
  flux_draw_latent (&c, 1, 2, 3, moments, N, again);
  g_assert_true (memcmp (latent, again, N * sizeof (float)) == 0);
  flux_draw_noise (1, 2, 3, again, N);
  g_assert_true (memcmp (latent, again, N * sizeof (float)) != 0);
  /* logvar is clamped to -30: the mean alone */
  for (int i = 0; i < N; i++)
    moments[N + i] = -1e9f;
  flux_draw_latent (&c, 1, 2, 3, moments, N, latent);
  for (int i = 0; i < N; i++)
    g_assert_cmpfloat_with_epsilon (latent[i], 1, 1e-5);
}

static void
test_permutation (void)
{
  enum { N = 97, EPOCHS = 2000 };
  guint32 order[N], again[N];
  int at[N] = {0};

  for (guint64 epoch = 0; epoch < EPOCHS; epoch++) {
    gboolean seen[N] = {FALSE};

    flux_train_permutation (9, epoch, N, order);
    for (int i = 0; i < N; i++) {
      g_assert_cmpuint (order[i], <, N);
      g_assert_false (seen[order[i]]);
      seen[order[i]] = TRUE;
    }
    at[order[0]]++;
  }
  /* Every sample comes first about equally often (20.6 times, 6 sigma). */
  for (int i = 0; i < N; i++) {
    g_assert_cmpint (at[i], >, 0);
    g_assert_cmpint (at[i], <, 50);
  }
  flux_train_permutation (9, 5, N, order);
  flux_train_permutation (9, 5, N, again);
  g_assert_cmpmem (order, sizeof order, again, sizeof again);
  flux_train_permutation (9, 6, N, again);
  g_assert_true (memcmp (order, again, sizeof order) != 0);
  flux_train_permutation (10, 5, N, again);
  g_assert_true (memcmp (order, again, sizeof order) != 0);
  flux_train_permutation (1, 1, 0, NULL);
  flux_train_permutation (1, 1, 1, order);
  g_assert_cmpuint (order[0], ==, 0);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/draws/keyed-by-step-and-place", test_keyed);
  g_test_add_func ("/draws/the-references-grid", test_grid);
  g_test_add_func ("/draws/parity-rounds-as-bf16", test_parity_rounding);
  g_test_add_func ("/draws/weighting-schemes", test_weighting);
  g_test_add_func ("/draws/caption-dropout", test_dropout);
  g_test_add_func ("/draws/posterior", test_latent);
  g_test_add_func ("/draws/permutation", test_permutation);
  return g_test_run ();
}
