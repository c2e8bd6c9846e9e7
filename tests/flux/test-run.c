/* tests/flux/test-run.c: the ways of running a transformer give the same bits; inputs
 * that do not fit are refused. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transformer-common.h"

enum { SAMPLES = 4, MAX_TEXT = 9, MAX_IMAGE = 24 };

typedef struct {
  fx_backend *b;
  FluxTransformer *t;
  TestMicro micros[SAMPLES];
} Fixture;

/* Samples of several sizes, two of them alike. */
static void
set_up (Fixture *f, gconstpointer data)
{
  static const int sizes[SAMPLES][3] = {{4, 4, 5}, {2, 3, 9}, {6, 4, 5}, {4, 4, 5}};
  g_autofree char *dir = test_tiny_dir ();

  f->b = test_backend ();
  f->t = test_load (dir, f->b, FX_Q_NF4);
  for (int i = 0; i < SAMPLES; i++)
    test_micro_init (&f->micros[i], flux_transformer_get_config (f->t), (guint32)i,
        sizes[i][0], sizes[i][1], sizes[i][2]);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  for (int i = 0; i < SAMPLES; i++)
    test_micro_clear (&f->micros[i]);
  flux_transformer_unref (f->t);
  fx_backend_free (f->b);
}

/* Losses and gradients of all samples in one way of running them. */
typedef struct {
  double losses[SAMPLES];
  float *gradients;
  gsize n;
} Result;

static void
run (Fixture *f, FluxRunMode mode, gboolean layer_major, const char *targets, Result *r)
{
  g_autoptr (FluxLora) lora = test_adapter (f->t, 1, 3, targets, TRUE);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxRun) flux_run =
      flux_run_new (f->t, mode, MAX_TEXT, MAX_IMAGE, SAMPLES, &lora, 1, &error);
  FluxMicro micros[SAMPLES];

  g_assert_no_error (error);
  for (int i = 0; i < SAMPLES; i++)
    micros[i] = f->micros[i].micro;
  flux_run_gradients (flux_run, micros, SAMPLES, 0.25f, layer_major, r->losses, &error);
  g_assert_no_error (error);
  r->n = flux_lora_n_flat (lora);
  r->gradients = test_download (f->t, flux_lora_gradients (lora), r->n);
}

static void
assert_same (const Result *a, const Result *b)
{
  g_assert_cmpmem (a->losses, sizeof a->losses, b->losses, sizeof b->losses);
  g_assert_cmpmem (
      a->gradients, a->n * sizeof (float), b->gradients, b->n * sizeof (float));
}

static const char *const all_targets[] = {"attention", "attention-all", "all-linear"};

static void
test_recomputed_equals_stored (Fixture *f, gconstpointer data)
{
  for (guint i = 0; i < G_N_ELEMENTS (all_targets); i++) {
    Result recomputed, stored;
    run (f, FLUX_RUN_RECOMPUTE, TRUE, all_targets[i], &recomputed);
    run (f, FLUX_RUN_STORE, TRUE, all_targets[i], &stored);
    assert_same (&recomputed, &stored);
    g_free (recomputed.gradients);
    g_free (stored.gradients);
  }
}

static void
test_layer_by_layer_equals_sequential (Fixture *f, gconstpointer data)
{
  static const FluxRunMode modes[] = {FLUX_RUN_RECOMPUTE, FLUX_RUN_STORE};

  for (guint i = 0; i < 2 * G_N_ELEMENTS (all_targets); i++) {
    Result layer_major, sequential;
    run (f, modes[i % 2], TRUE, all_targets[i / 2], &layer_major);
    run (f, modes[i % 2], FALSE, all_targets[i / 2], &sequential);
    assert_same (&layer_major, &sequential);
    g_free (layer_major.gradients);
    g_free (sequential.gradients);
  }
}

/* A window of several sizes: what its samples give one at a time, in runs of their own
 * size, added in the order of the window. */
static void
test_sizes_mix_in_one_window (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxLora) lora = test_adapter (f->t, 1, 3, "attention", TRUE);
  Result together, alone = {0};

  run (f, FLUX_RUN_RECOMPUTE, TRUE, "attention", &together);
  for (int i = 0; i < SAMPLES; i++) {
    const FluxMicro *m = &f->micros[i].micro;
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxRun) one = flux_run_new (f->t, FLUX_RUN_RECOMPUTE, m->in.text_tokens,
        m->in.grid_height * m->in.grid_width, 1, &lora, 1, &error);
    g_assert_no_error (error);
    flux_run_gradients (one, m, 1, 0.25f, FALSE, &alone.losses[i], &error);
    g_assert_no_error (error);
  }
  alone.n = flux_lora_n_flat (lora);
  alone.gradients = test_download (f->t, flux_lora_gradients (lora), alone.n);
  assert_same (&together, &alone);
  g_free (together.gradients);
  g_free (alone.gradients);
}

static void
test_gradients_add_to_what_is_there (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxLora) lora = test_adapter (f->t, 1, 3, "attention", TRUE);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxRun) flux_run =
      flux_run_new (f->t, FLUX_RUN_RECOMPUTE, MAX_TEXT, MAX_IMAGE, 1, &lora, 1, &error);
  gsize n = flux_lora_n_flat (lora);
  g_autofree float *once = NULL, *twice = NULL;
  double loss;

  g_assert_no_error (error);
  g_assert_true (
      flux_run_gradients (flux_run, &f->micros[0].micro, 1, 1, TRUE, &loss, &error));
  once = test_download (f->t, flux_lora_gradients (lora), n);
  g_assert_true (
      flux_run_gradients (flux_run, &f->micros[0].micro, 1, 1, TRUE, &loss, &error));
  twice = test_download (f->t, flux_lora_gradients (lora), n);
  for (gsize i = 0; i < n; i++)
    once[i] *= 2;
  g_assert_cmpfloat (test_relative (twice, once, n), <=, 1e-5);
}

/* q, k and v go to the kernels as one group, q and k alone one by one: the same when v
 * has no effect. */
static void
test_group_equals_its_modules (Fixture *f, gconstpointer data)
{
  FluxLora *loras[2] = {test_adapter (f->t, 1, 3, "to_q,to_k,to_v", TRUE),
      test_adapter (f->t, 2, 3, "to_q,to_k", TRUE)};
  const FluxLoraTensor *tensors[2];
  float *gradients[2];
  guint n[2], shared = 0;

  for (int i = 0; i < 2; i++)
    tensors[i] = flux_lora_get_tensors (loras[i], &n[i]);
  g_assert_cmpuint (n[0] * 2, ==, n[1] * 3);
  for (guint i = 0; i < n[0]; i++) {
    const FluxLoraTensor *t = &tensors[0][i];
    float *p = flux_lora_parameters (loras[0]) + t->offset;
    g_autofree float *values = test_download (f->t, p, t->n_elements);

    if (!g_str_has_suffix (flux_lora_get_slot (loras[0], t->slot)->name, "to_v"))
      g_assert_cmpint (
          fx_upload (f->b, flux_lora_parameters (loras[1]) + tensors[1][shared++].offset,
              values, t->n_elements * sizeof (float)),
          ==, FX_OK);
    else if (t->is_b)
      g_assert_cmpint (fx_zero (f->b, p, t->n_elements * sizeof (float)), ==, FX_OK);
  }
  for (int i = 0; i < 2; i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxRun) flux_run = flux_run_new (
        f->t, FLUX_RUN_RECOMPUTE, MAX_TEXT, MAX_IMAGE, 1, &loras[i], 1, &error);
    double loss;

    g_assert_no_error (error);
    flux_run_gradients (flux_run, &f->micros[0].micro, 1, 1, TRUE, &loss, &error);
    g_assert_no_error (error);
    gradients[i] =
        test_download (f->t, flux_lora_gradients (loras[i]), flux_lora_n_flat (loras[i]));
  }
  shared = 0;
  for (guint i = 0; i < n[0]; i++) {
    const FluxLoraTensor *t = &tensors[0][i];
    const gsize bytes = t->n_elements * sizeof (float);

    if (!g_str_has_suffix (flux_lora_get_slot (loras[0], t->slot)->name, "to_v"))
      g_assert_cmpmem (gradients[0] + t->offset, bytes,
          gradients[1] + tensors[1][shared++].offset, bytes);
  }
  g_assert_cmpuint (shared, ==, n[1]);
  for (int i = 0; i < 2; i++) {
    flux_lora_free (loras[i]);
    g_free (gradients[i]);
  }
}

/* A module high up: the blocks below get no backward, and its gradients are those that it
 * has in company. */
static void
test_backward_stops_at_the_lowest_module (Fixture *f, gconstpointer data)
{
  const char *high = "single_transformer_blocks.4.attn.to_k";
  g_autoptr (FluxLora) all = test_adapter (f->t, 1, 3, "to_k", TRUE);
  g_autoptr (FluxLora) one = NULL;
  g_autoptr (GError) error = NULL;
  const FluxMicro *m = &f->micros[0].micro;
  const FluxLoraTensor *tensors;
  g_autofree float *want = NULL, *got = NULL;
  double loss;
  guint n;

  /* Zero where the other has nothing: with B = 0 a module has no effect. */
  one =
      flux_lora_new (flux_transformer_get_config (f->t), f->b, 3, 6, high, TRUE, &error);
  g_assert_no_error (error);
  tensors = flux_lora_get_tensors (all, &n);
  for (guint i = 0; i < n; i++) {
    const FluxLoraTensor *t = &tensors[i];
    float *p = flux_lora_parameters (all) + t->offset;
    gsize bytes = t->n_elements * sizeof (float);
    guint n_one;
    const FluxLoraTensor *mine = flux_lora_get_tensors (one, &n_one);
    g_autofree float *values = test_floats (50 + t->is_b, t->n_elements, 0.1f);
    g_assert_cmpuint (n_one, ==, 2);
    if (strcmp (flux_lora_get_slot (all, t->slot)->name, high) != 0) {
      if (t->is_b)
        g_assert_cmpint (fx_zero (f->b, p, bytes), ==, FX_OK);
      continue;
    }
    g_assert_cmpint (fx_upload (f->b, p, values, bytes), ==, FX_OK);
    g_assert_cmpint (fx_upload (f->b, flux_lora_parameters (one) + mine[t->is_b].offset,
                         values, bytes),
        ==, FX_OK);
  }
  for (int which = 0; which < 2; which++) {
    FluxLora *lora = which == 0 ? all : one;
    g_autoptr (FluxRun) flux_run =
        flux_run_new (f->t, FLUX_RUN_RECOMPUTE, MAX_TEXT, MAX_IMAGE, 1, &lora, 1, &error);
    g_assert_no_error (error);
    g_assert_true (flux_run_gradients (flux_run, m, 1, 1, TRUE, &loss, &error));
  }
  want = test_download (f->t, flux_lora_gradients (all), flux_lora_n_flat (all));
  got = test_download (f->t, flux_lora_gradients (one), flux_lora_n_flat (one));
  for (guint i = 0, j = 0; i < n; i++) {
    if (strcmp (flux_lora_get_slot (all, tensors[i].slot)->name, high) == 0) {
      guint n_one;
      gsize at = flux_lora_get_tensors (one, &n_one)[j++].offset;
      g_assert_cmpmem (got + at, tensors[i].n_elements * sizeof (float),
          want + tensors[i].offset, tensors[i].n_elements * sizeof (float));
    }
  }
}

static void
test_forward_is_that_of_training (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxLora) lora = test_adapter (f->t, 1, 3, "all-linear", TRUE);
  g_autoptr (GError) error = NULL;
  const FluxMicro *m = &f->micros[2].micro;
  gsize n = (gsize)(m->in.grid_height * m->in.grid_width) *
            (gsize)flux_transformer_get_config (f->t)->out_channels;
  g_autofree float *a = g_new (float, n), *b = g_new (float, n);
  double loss, sum = 0;
  g_autoptr (FluxRun) forward =
      flux_run_new (f->t, FLUX_RUN_FORWARD, MAX_TEXT, MAX_IMAGE, 1, &lora, 1, &error);
  g_autoptr (FluxRun) training =
      flux_run_new (f->t, FLUX_RUN_RECOMPUTE, MAX_TEXT, MAX_IMAGE, 1, &lora, 1, &error);

  g_assert_no_error (error);
  g_assert_true (flux_run_forward (forward, &m->in, a, &error));
  g_assert_true (flux_run_forward (training, &m->in, b, &error));
  g_assert_cmpmem (a, n * sizeof (float), b, n * sizeof (float));
  g_assert_true (flux_run_gradients (training, m, 1, 1, TRUE, &loss, &error));
  for (gsize i = 0; i < n; i++)
    sum += ((double)a[i] - (double)m->target[i]) * ((double)a[i] - (double)m->target[i]);
  g_assert_cmpfloat (fabs (loss / ((double)m->weight * sum / (double)n) - 1), <=, 1e-6);
}

/* ---- what is refused ---- */

static void
test_sample_too_large (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxRun) small =
      flux_run_new (f->t, FLUX_RUN_FORWARD, MAX_TEXT, 15, 1, NULL, 0, &error);
  FluxInput in = f->micros[0].micro.in; /* 16 image tokens */
  float out[16 * 64];

  g_assert_no_error (error);
  g_assert_cmpint (flux_transformer_get_config (f->t)->out_channels, ==, 64);
  g_assert_false (flux_run_forward (small, &in, out, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_clear_error (&error);
  in.grid_height = 3;
  g_assert_true (flux_run_forward (small, &in, out, &error));
  in.grid_height = G_MAXINT;
  in.grid_width = G_MAXINT;
  g_assert_false (flux_run_forward (small, &in, out, &error));
}

static void
test_more_samples_than_reserved (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxLora) lora = test_adapter (f->t, 1, 2, "attention", TRUE);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxRun) two =
      flux_run_new (f->t, FLUX_RUN_RECOMPUTE, MAX_TEXT, MAX_IMAGE, 2, &lora, 1, &error);
  FluxMicro micros[3] = {f->micros[0].micro, f->micros[1].micro, f->micros[2].micro};
  double losses[3];

  g_assert_no_error (error);
  g_assert_false (flux_run_gradients (two, micros, 3, 1, TRUE, losses, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_clear_error (&error);
  g_assert_true (flux_run_gradients (two, micros, 2, 1, TRUE, losses, &error));
}

static void
test_gradients_of_a_forward_run (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxLora) lora = test_adapter (f->t, 1, 2, "attention", TRUE);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxRun) forward =
      flux_run_new (f->t, FLUX_RUN_FORWARD, MAX_TEXT, MAX_IMAGE, 1, &lora, 1, &error);
  double loss;

  g_assert_no_error (error);
  g_assert_false (
      flux_run_gradients (forward, &f->micros[0].micro, 1, 1, TRUE, &loss, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
}

static void
test_two_trained_adapters (Fixture *f, gconstpointer data)
{
  FluxLora *loras[2] = {test_adapter (f->t, 1, 2, "attention", TRUE),
      test_adapter (f->t, 2, 2, "attention", TRUE)};
  g_autoptr (GError) error = NULL;

  g_assert_null (
      flux_run_new (f->t, FLUX_RUN_RECOMPUTE, MAX_TEXT, MAX_IMAGE, 1, loras, 2, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  flux_lora_free (loras[0]);
  flux_lora_free (loras[1]);
}

static void
test_adapter_of_another_model (Fixture *f, gconstpointer data)
{
  FluxConfig other = *flux_transformer_get_config (f->t);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora = NULL;

  other.num_single_layers++;
  lora = flux_lora_new (&other, f->b, 2, 2, "attention", FALSE, &error);
  g_assert_no_error (error);
  g_assert_null (
      flux_run_new (f->t, FLUX_RUN_FORWARD, MAX_TEXT, MAX_IMAGE, 1, &lora, 1, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
}

int
main (int argc, char **argv)
{
  static const struct {
    const char *name;
    void (*func) (Fixture *, gconstpointer);
  } tests[] = {{"recomputed-equals-stored", test_recomputed_equals_stored},
      {"layer-by-layer-equals-sequential", test_layer_by_layer_equals_sequential},
      {"sizes-mix-in-one-window", test_sizes_mix_in_one_window},
      {"gradients-add-to-what-is-there", test_gradients_add_to_what_is_there},
      {"group-equals-its-modules", test_group_equals_its_modules},
      {"backward-stops-at-the-lowest-module", test_backward_stops_at_the_lowest_module},
      {"forward-is-that-of-training", test_forward_is_that_of_training},
      {"sample-too-large", test_sample_too_large},
      {"more-samples-than-reserved", test_more_samples_than_reserved},
      {"gradients-of-a-forward-run", test_gradients_of_a_forward_run},
      {"two-trained-adapters", test_two_trained_adapters},
      {"adapter-of-another-model", test_adapter_of_another_model}};

  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (tests); i++) {
    g_autofree char *path = g_strconcat ("/run/", tests[i].name, NULL);
    g_test_add (path, Fixture, NULL, set_up, tests[i].func, tear_down);
  }
  return g_test_run ();
}
