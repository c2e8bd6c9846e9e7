/* tests/flux/test-stream.c: blocks whose weights stay on the host give the same bits.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transformer-common.h"

enum { SAMPLES = 3, MAX_TEXT = 9, MAX_IMAGE = 24 };

/* Three blocks in three slots, which is transformer-small's, and nine. */
static char *(*const dirs[]) (void) = {test_small_dir, test_tiny_dir};
static const fx_qtype qtypes[] = {
    FX_Q_NONE, FX_Q_NF4, FX_Q_NF4_DOUBLE, FX_Q_INT8, FX_Q_FP8};

/* One model twice: all on the device, and its blocks on the host. */
typedef struct {
  fx_backend *b;
  FluxTransformer *t[2];
  TestMicro micros[SAMPLES];
} Pair;

static gboolean
pair_init (Pair *p, guint dir, fx_qtype qtype)
{
  static const int sizes[SAMPLES][3] = {{4, 4, 5}, {2, 3, 9}, {6, 4, 5}};
  static const fx_home homes[2] = {FX_HOME_DEVICE, FX_HOME_HOST};
  g_autofree char *path = dirs[dir]();
  g_autoptr (GError) error = NULL;

  p->b = test_backend ();
  if (qtype == FX_Q_FP8 && !p->b->has_fp8) {
    fx_backend_free (p->b);
    return FALSE;
  }
  for (int i = 0; i < 2; i++) {
    p->t[i] =
        flux_transformer_load (path, p->b, qtype, homes[i], NULL, NULL, NULL, &error);
    g_assert_no_error (error);
  }
  for (int i = 0; i < SAMPLES; i++)
    test_micro_init (&p->micros[i], flux_transformer_get_config (p->t[0]), (guint32)i,
        sizes[i][0], sizes[i][1], sizes[i][2]);
  return TRUE;
}

static void
pair_clear (Pair *p)
{
  for (int i = 0; i < SAMPLES; i++)
    test_micro_clear (&p->micros[i]);
  for (int i = 0; i < 2; i++)
    flux_transformer_unref (p->t[i]);
  fx_backend_free (p->b);
}

/* Passes that follow each other, with an adapter. g_free() it. */
static float *
forward (Pair *p, int which, gsize *n)
{
  const FluxConfig *c = flux_transformer_get_config (p->t[which]);
  g_autoptr (FluxLora) lora = test_adapter (p->t[which], 1, 2, "all-linear", FALSE);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxRun) run = flux_run_new (
      p->t[which], FLUX_RUN_FORWARD, MAX_TEXT, MAX_IMAGE, 1, &lora, 1, &error);
  const gsize one = (gsize)(MAX_IMAGE * c->out_channels);
  float *out = g_new0 (float, 2 * SAMPLES * one);

  g_assert_no_error (error);
  for (int i = 0; i < 2 * SAMPLES; i++) {
    flux_run_forward (run, &p->micros[i % SAMPLES].micro.in, out + i * one, &error);
    g_assert_no_error (error);
  }
  *n = 2 * SAMPLES * one;
  return out;
}

static void
test_forward (void)
{
  for (guint d = 0; d < G_N_ELEMENTS (dirs); d++) {
    for (guint q = 0; q < G_N_ELEMENTS (qtypes); q++) {
      g_autofree float *resident = NULL, *streamed = NULL;
      gsize n;
      Pair p;

      if (!pair_init (&p, d, qtypes[q]))
        continue;
      resident = forward (&p, 0, &n);
      streamed = forward (&p, 1, &n);
      g_assert_cmpmem (streamed, n * sizeof (float), resident, n * sizeof (float));
      pair_clear (&p);
    }
  }
}

/* Gradients, and the losses behind them. g_free() it. */
static float *
gradients (Pair *p, int which, FluxRunMode mode, gboolean layer_major,
    const char *targets, gsize *n)
{
  g_autoptr (FluxLora) lora = test_adapter (p->t[which], 1, 3, targets, TRUE);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxRun) run =
      flux_run_new (p->t[which], mode, MAX_TEXT, MAX_IMAGE, SAMPLES, &lora, 1, &error);
  FluxMicro micros[SAMPLES];
  double losses[SAMPLES];
  float *values;

  g_assert_no_error (error);
  for (int i = 0; i < SAMPLES; i++)
    micros[i] = p->micros[i].micro;
  for (int i = 0; i < 2; i++) { /* the second begins with what the first left */
    flux_run_gradients (run, micros, SAMPLES, 0.25f, layer_major, losses, &error);
    g_assert_no_error (error);
  }
  *n = flux_lora_n_flat (lora);
  values = test_download (p->t[which], flux_lora_gradients (lora), *n);
  values = g_renew (float, values, *n + SAMPLES);
  for (int i = 0; i < SAMPLES; i++)
    values[(*n)++] = (float)losses[i];
  return values;
}

static void
test_gradients (void)
{
  static const struct {
    FluxRunMode mode;
    gboolean layer_major;
    const char *targets;
  } cases[] = {{FLUX_RUN_RECOMPUTE, TRUE, "attention"},
      {FLUX_RUN_RECOMPUTE, FALSE, "all-linear"}, {FLUX_RUN_STORE, TRUE, "all-linear"},
      {FLUX_RUN_RECOMPUTE, TRUE, "single_transformer_blocks.1.attn.to_q"},
      {FLUX_RUN_RECOMPUTE | FLUX_RUN_LEAN, FALSE, "attention"}};

  for (guint i = 0; i < G_N_ELEMENTS (dirs) * G_N_ELEMENTS (cases); i++) {
    const guint k = i / G_N_ELEMENTS (dirs);
    g_autofree float *resident = NULL, *streamed = NULL;
    gsize n;
    Pair p;

    g_assert_true (pair_init (&p, i % G_N_ELEMENTS (dirs), FX_Q_NF4));
    resident =
        gradients (&p, 0, cases[k].mode, cases[k].layer_major, cases[k].targets, &n);
    streamed =
        gradients (&p, 1, cases[k].mode, cases[k].layer_major, cases[k].targets, &n);
    g_assert_cmpmem (streamed, n * sizeof (float), resident, n * sizeof (float));
    pair_clear (&p);
  }
}

/* The device holds the rest and three blocks; the plan says so before. */
static void
test_memory (void)
{
  Pair p;

  g_assert_true (pair_init (&p, 1, FX_Q_NF4));
  {
    fx_backend *plan = fx_plan_new (FX_F32);
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxTransformer) planned = flux_transformer_new_planned (
        flux_transformer_get_config (p.t[0]), plan, FX_Q_NF4, FX_HOME_HOST, &error);
    gsize all = flux_transformer_get_bytes (p.t[0]);
    gsize rest = flux_transformer_get_bytes (p.t[1]);
    gsize host = flux_transformer_get_host_bytes (p.t[1]), slots;

    g_assert_no_error (error);
    g_assert_cmpuint (flux_transformer_get_host_bytes (p.t[0]), ==, 0);
    g_assert_cmpuint (rest + host, ==, all);
    g_assert_cmpuint (rest, <, all / 3);
    slots = flux_run_measure (
                p.t[1], FLUX_RUN_FORWARD, MAX_TEXT, MAX_IMAGE, 1, NULL, 0, &error) -
            flux_run_measure (
                p.t[0], FLUX_RUN_FORWARD, MAX_TEXT, MAX_IMAGE, 1, NULL, 0, &error);
    g_assert_cmpuint (slots, >=, host / 9 * 3);
    g_assert_cmpuint (slots, <, host);
    g_assert_cmpuint (flux_transformer_get_bytes (planned), ==, rest);
    g_assert_cmpuint (flux_transformer_get_host_bytes (planned), ==, host);
    g_clear_pointer (&planned, flux_transformer_unref);
    fx_backend_free (plan);
  }
  pair_clear (&p);
}

static void
test_merging_is_refused (void)
{
  g_autoptr (GError) error = NULL;
  FluxLora *lora;
  Pair p;

  g_assert_true (pair_init (&p, 0, FX_Q_NONE));
  lora = test_adapter (p.t[1], 1, 2, "attention", FALSE);
  g_assert_false (flux_transformer_merge (p.t[1], &lora, 1, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  flux_lora_free (lora);
  pair_clear (&p);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream/forward", test_forward);
  g_test_add_func ("/stream/gradients", test_gradients);
  g_test_add_func ("/stream/memory", test_memory);
  g_test_add_func ("/stream/merging-is-refused", test_merging_is_refused);
  return g_test_run ();
}
