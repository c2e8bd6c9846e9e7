/* tests/flux/test-trainer.c: one training step and what must not change it.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/error.h"
#include "tests/flux/trainer-common.h"

enum { N_SAMPLES = 6 };

typedef struct {
  FluxModel *model;
  FluxSample *samples[N_SAMPLES];
  GBytes *noise[N_SAMPLES];
  FluxTrial trials[N_SAMPLES];
  FluxTrainConfig c;
} Fixture;

/* Three sizes, square and oblong, and texts of two lengths. */
static void
setup (Fixture *f, gconstpointer data)
{
  static const int sizes[][3] = {{8, 8, 8}, {4, 12, 8}, {8, 4, 5}};

  f->model = test_model ();
  test_config_init (&f->c);
  for (guint i = 0; i < N_SAMPLES; i++) {
    const int *z = sizes[i % 3];
    gsize n = (gsize)test_config (f->model)->in_channels / 4 * (gsize)z[0] * (gsize)z[1];

    f->samples[i] = test_sample (f->model, i, z[0], z[1], z[2]);
    f->noise[i] = test_normals (10, i, n, 1);
    f->trials[i] = test_trial (
        f->samples[i], g_bytes_get_data (f->noise[i], NULL), 0.2f + 0.1f * (float)i);
  }
}

static void
teardown (Fixture *f, gconstpointer data)
{
  for (guint i = 0; i < N_SAMPLES; i++) {
    flux_sample_unref (f->samples[i]);
    g_bytes_unref (f->noise[i]);
  }
  flux_model_unref (f->model);
}

static FluxTrainer *
run (Fixture *f, const FluxTrainConfig *c, guint steps)
{
  FluxTrainer *t = test_trainer (f->model, c);

  for (guint i = 0; i < steps; i++)
    test_step (f->model, t, f->samples + 2 * (i % 3), 2);
  return t;
}

static void
test_learns (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = test_trainer (f->model, &f->c);
  double before, after;
  g_autoptr (GError) error = NULL;
  FluxStepResult r;

  flux_model_lock (f->model);
  g_assert_true (flux_trainer_evaluate (t, f->trials, 1, &before, &error));
  flux_model_unlock (f->model);
  for (guint i = 0; i < 30; i++) {
    r = test_step_trials (f->model, t, f->trials, 2);
    g_assert_cmpuint (r.step, ==, i + 1);
    g_assert_cmpfloat (r.learning_rate, ==, 1e-3);
  }
  flux_model_lock (f->model);
  g_assert_true (flux_trainer_evaluate (t, f->trials, 1, &after, &error));
  flux_model_unlock (f->model);
  g_assert_cmpfloat (after, <, 0.9 * before);
  g_assert_cmpuint (flux_trainer_get_step (t), ==, 30);
}

/* What evaluate() says is what the step then reports. */
static void
test_evaluate_is_the_loss (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = test_trainer (f->model, &f->c);
  double given[2], losses[2];
  FluxStepResult r;

  f->trials[1].weight = 3;
  flux_model_lock (f->model);
  g_assert_true (flux_trainer_evaluate (t, f->trials, 2, given, NULL));
  g_assert_true (flux_trainer_step_trials (t, f->trials, 2, losses, &r, NULL));
  flux_model_unlock (f->model);
  for (int i = 0; i < 2; i++)
    g_assert_cmpfloat_with_epsilon (given[i] / losses[i], 1, 1e-6);
  g_assert_cmpfloat_with_epsilon (r.loss, (losses[0] + losses[1]) / 2, 1e-12);
}

static void
test_deterministic (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) a = run (f, &f->c, 4);
  g_autoptr (FluxTrainer) b = run (f, &f->c, 4);
  g_autoptr (FluxTrainer) other = NULL;

  g_assert_true (test_same_parameters (f->model, a, b));
  f->c.seed++;
  other = run (f, &f->c, 4);
  g_assert_false (test_same_parameters (f->model, a, other));
}

static void
test_modes_agree (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) first = NULL;

  for (int mode = 0; mode < 4; mode++) {
    g_autoptr (FluxTrainer) t = NULL;

    f->c.recompute = mode & 1;
    f->c.layer_major = (mode & 2) != 0;
    t = run (f, &f->c, 4);
    if (first == NULL)
      first = g_steal_pointer (&t);
    else
      g_assert_true (test_same_parameters (f->model, first, t));
  }
}

/* One byte too few for the whole window: in parts, the same bits. Far too few: an error.
 */
static void
test_budget (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxTrainer) free_one = run (f, &f->c, 4);
  g_autoptr (FluxTrainer) bound = NULL;

  g_assert_cmpuint (flux_trainer_get_at_once (free_one), ==, f->c.accumulate);
  f->c.budget = flux_trainer_get_bytes (free_one);
  bound = run (f, &f->c, 4);
  g_assert_cmpuint (flux_trainer_get_at_once (bound), ==, f->c.accumulate);
  g_clear_pointer (&bound, flux_trainer_free);

  f->c.budget--;
  bound = run (f, &f->c, 4);
  g_assert_cmpuint (flux_trainer_get_at_once (bound), <, f->c.accumulate);
  g_assert_cmpuint (flux_trainer_get_bytes (bound), <=, f->c.budget);
  g_assert_true (test_same_parameters (f->model, free_one, bound));

  f->c.budget = 1 << 20;
  g_assert_null (flux_trainer_new (f->model, &f->c, 64, 256, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE);
  g_assert_nonnull (strstr (error->message, "vram-budget"));
}

/* Buffers that grow between steps give the bits of buffers that were large at once. */
static void
test_growing (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxTrainer) small = flux_trainer_new (f->model, &f->c, 1, 1, &error);
  g_autoptr (FluxTrainer) large = flux_trainer_new (f->model, &f->c, 64, 256, &error);

  g_assert_no_error (error);
  for (guint i = 0; i < 3; i++) {
    test_step (f->model, small, f->samples + 2 * i, 2);
    test_step (f->model, large, f->samples + 2 * i, 2);
  }
  g_assert_true (test_same_parameters (f->model, small, large));
}

static void
test_two_trainers (Fixture *f, gconstpointer data)
{
  FluxTrainConfig other = f->c;
  g_autoptr (FluxTrainer) a = NULL;
  g_autoptr (FluxTrainer) b = NULL;
  g_autoptr (FluxTrainer) alone_a = run (f, &f->c, 3);
  g_autoptr (FluxTrainer) alone_b = NULL;

  other.rank = 2;
  other.seed = 77;
  other.targets = "all-linear";
  other.optimizer = FLUX_OPTIMIZER_ADAMW;
  alone_b = run (f, &other, 3);
  a = test_trainer (f->model, &f->c);
  b = test_trainer (f->model, &other);
  for (guint i = 0; i < 3; i++) {
    test_step (f->model, a, f->samples + 2 * i, 2);
    test_step (f->model, b, f->samples + 2 * i, 2);
  }
  g_assert_true (test_same_parameters (f->model, a, alone_a));
  g_assert_true (test_same_parameters (f->model, b, alone_b));
}

/* A large epsilon makes the update depend on the size of the gradient. */
static void
test_clipping (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) free_ = NULL;
  g_autoptr (FluxTrainer) loose = NULL;
  g_autoptr (FluxTrainer) clipped = NULL;
  g_autoptr (FluxTrainer) halved = NULL;
  g_autofree float *start = NULL;
  FluxStepResult r;
  double norm;
  gsize n;

  f->c.epsilon = 0.1;
  f->c.weight_decay = 0;
  f->c.max_grad_norm = 0;
  free_ = test_trainer (f->model, &f->c);
  start = test_parameters (f->model, free_, &n);
  norm = test_step_trials (f->model, free_, f->trials, 2).grad_norm;
  g_assert_cmpfloat (norm, >, 0);

  f->c.max_grad_norm = norm * 1.01;
  loose = test_trainer (f->model, &f->c);
  test_step_trials (f->model, loose, f->trials, 2);
  g_assert_true (test_same_parameters (f->model, free_, loose));

  f->c.max_grad_norm = norm / 2;
  clipped = test_trainer (f->model, &f->c);
  r = test_step_trials (f->model, clipped, f->trials, 2);
  g_assert_cmpfloat (r.grad_norm, ==, norm); /* before clipping */
  g_assert_false (test_same_parameters (f->model, free_, clipped));

  f->c.max_grad_norm = 0;
  f->trials[0].weight = f->trials[1].weight = 0.5f;
  halved = test_trainer (f->model, &f->c);
  r = test_step_trials (f->model, halved, f->trials, 2);
  g_assert_cmpfloat_with_epsilon (r.grad_norm / norm, 0.5, 1e-6);
  g_assert_cmpfloat (test_distance (f->model, halved, clipped, start), <, 1e-4);
  g_assert_cmpfloat (test_distance (f->model, halved, free_, start), >, 1e-2);
}

/* Divided by accumulate whatever the window holds, as the reference does: two of four are
 * two of two at half the weight. */
static void
test_short_window (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) shorter = NULL;
  g_autoptr (FluxTrainer) half = NULL;
  FluxStepResult a, b;

  f->c.epsilon = 0.1;
  f->c.accumulate = 4;
  shorter = test_trainer (f->model, &f->c);
  a = test_step_trials (f->model, shorter, f->trials, 2);
  f->c.accumulate = 2;
  f->trials[0].weight = f->trials[1].weight = 0.5f;
  half = test_trainer (f->model, &f->c);
  b = test_step_trials (f->model, half, f->trials, 2);
  g_assert_cmpfloat (a.grad_norm, ==, b.grad_norm);
  g_assert_cmpfloat_with_epsilon (a.loss, 2 * b.loss, 1e-12);
  g_assert_true (test_same_parameters (f->model, shorter, half));
}

static void
test_window_sizes (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = test_trainer (f->model, &f->c);
  FluxStepResult r;
  g_autoptr (GError) error = NULL;

  g_assert_false (flux_trainer_step (t, f->samples, 3, &r, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_clear_error (&error);
  g_assert_false (flux_trainer_step (t, f->samples, 0, &r, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_assert_cmpuint (flux_trainer_get_step (t), ==, 0);
}

/* With probability 1 it is training on the empty prompt's embeddings, draws unchanged. */
static void
test_caption_dropout (Fixture *f, gconstpointer data)
{
  FluxSample *empty = test_sample (f->model, 50, 8, 8, 8);
  FluxSample *replaced = test_sample (f->model, 0, 8, 8, 8);
  g_autoptr (FluxTrainer) dropped = NULL;
  g_autoptr (FluxTrainer) plain = test_trainer (f->model, &f->c);
  g_autoptr (FluxTrainer) never = test_trainer (f->model, &f->c);
  g_autoptr (FluxTrainer) with_captions = test_trainer (f->model, &f->c);
  g_autoptr (GError) error = NULL;
  FluxStepResult r;

  g_bytes_unref (replaced->prompt_embeds);
  g_bytes_unref (replaced->pooled);
  replaced->prompt_embeds = g_bytes_ref (empty->prompt_embeds);
  replaced->pooled = g_bytes_ref (empty->pooled);
  test_step (f->model, plain, &replaced, 1);
  flux_trainer_set_empty_prompt (never, empty);
  test_step (f->model, never, f->samples, 1);
  test_step (f->model, with_captions, f->samples, 1);

  f->c.caption_dropout = 1;
  dropped = test_trainer (f->model, &f->c);
  g_assert_false (flux_trainer_step (dropped, f->samples, 1, &r, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  flux_trainer_set_empty_prompt (dropped, empty);
  test_step (f->model, dropped, f->samples, 1);

  g_assert_true (test_same_parameters (f->model, dropped, plain));
  g_assert_true (test_same_parameters (f->model, never, with_captions));
  g_assert_false (test_same_parameters (f->model, dropped, never));
  flux_sample_unref (empty);
  flux_sample_unref (replaced);
}

static void
expect_numeric (Fixture *f, FluxTrainer *t, FluxSample *const *samples, guint n,
    const char *key, const char *step)
{
  g_autoptr (GError) error = NULL;
  FluxStepResult r;

  flux_model_lock (f->model);
  g_assert_false (flux_trainer_step (t, samples, n, &r, &error));
  flux_model_unlock (f->model);
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC);
  g_assert_nonnull (strstr (error->message, key));
  g_assert_nonnull (strstr (error->message, step));
}

/* Two good steps, one bad one, one good one: as if the bad one had not been. */
static void
test_nan (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) clean = NULL;
  g_autoptr (FluxTrainer) hurt = NULL;
  FluxSample *bad = test_sample (f->model, 9, 8, 8, 8);
  FluxSample *window[2] = {f->samples[0], bad};
  float *moments = (float *)g_bytes_get_data (bad->moments, NULL);

  f->c.optimizer = FLUX_OPTIMIZER_ADAMW8BIT;
  f->c.rank = 16; /* 8-bit states */
  clean = run (f, &f->c, 2);
  hurt = run (f, &f->c, 2);
  moments[3] = NAN;
  expect_numeric (f, hurt, window, 2, "sample-9", "step 3");
  moments[3] = INFINITY;
  expect_numeric (f, hurt, window, 2, "sample-9", "step 3");
  g_assert_cmpuint (flux_trainer_get_step (hurt), ==, 2);
  test_step (f->model, clean, f->samples + 4, 2);
  test_step (f->model, hurt, f->samples + 4, 2);
  g_assert_true (test_same_parameters (f->model, clean, hurt));
  flux_sample_unref (bad);
}

/* A finite loss whose gradients overflow: the sample is found and named. */
static void
test_infinite_gradient (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) clean = test_trainer (f->model, &f->c);
  g_autoptr (FluxTrainer) hurt = test_trainer (f->model, &f->c);
  g_autoptr (GError) error = NULL;
  FluxStepResult r;
  double losses[2];
  const float *latent = f->trials[1].latent;
  g_autofree float *large = g_memdup2 (latent, 16 * 4 * 12 * sizeof (float));

  for (int i = 0; i < 16 * 4 * 12; i++)
    large[i] *= 1e6f;
  f->trials[1].latent = large;
  f->trials[1].weight = 3e38f;
  flux_model_lock (f->model);
  g_assert_false (flux_trainer_step_trials (hurt, f->trials, 2, losses, &r, &error));
  flux_model_unlock (f->model);
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC);
  g_assert_nonnull (strstr (error->message, "trial 1"));
  f->trials[1].latent = latent;
  f->trials[1].weight = 1;
  test_step_trials (f->model, clean, f->trials, 2);
  test_step_trials (f->model, hurt, f->trials, 2);
  g_assert_true (test_same_parameters (f->model, clean, hurt));
}

static void
test_wrong_samples (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = test_trainer (f->model, &f->c);

  for (int kind = 0; kind < 6; kind++) {
    FluxSample *s = test_sample (f->model, 20, 8, 8, 8);
    g_autoptr (GError) error = NULL;
    FluxStepResult r;

    if (kind == 0)
      s->channels = 4;
    else if (kind == 1)
      s->height = 7;
    else if (kind == 2)
      s->width = 10; /* more than the bytes hold */
    else if (kind == 3)
      s->joint_dim /= 2;
    else if (kind == 4)
      s->text_tokens++;
    else {
      g_bytes_unref (s->pooled);
      s->pooled = g_bytes_new (NULL, 0);
    }
    g_assert_false (flux_trainer_step (t, &s, 1, &r, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
    g_assert_nonnull (strstr (error->message, "sample-20"));
    flux_sample_unref (s);
  }
  g_assert_cmpuint (flux_trainer_get_step (t), ==, 0);
}

static void
test_learning_rate (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = NULL;

  f->c.lr_scheduler = FLUX_LR_LINEAR;
  f->c.warmup_steps = 2;
  f->c.max_steps = 6;
  t = test_trainer (f->model, &f->c);
  g_assert_cmpfloat (test_step (f->model, t, f->samples, 1).learning_rate, ==, 0);
  g_assert_cmpfloat (test_step (f->model, t, f->samples, 1).learning_rate, ==, 0.5e-3);
  g_assert_cmpfloat (test_step (f->model, t, f->samples, 1).learning_rate, ==, 1e-3);
  flux_trainer_set_learning_rate (t, 2e-3);
  g_assert_cmpfloat (test_step (f->model, t, f->samples, 1).learning_rate, ==, 1.5e-3);
  flux_trainer_set_max_steps (t, 10); /* step 4 of 2..10: 6 / 8 are left */
  g_assert_cmpfloat (test_step (f->model, t, f->samples, 1).learning_rate, ==, 1.5e-3);
}

static void
test_settings (Fixture *f, gconstpointer data)
{
  for (int kind = 0; kind < 7; kind++) {
    g_autoptr (GError) error = NULL;
    FluxTrainConfig c = f->c;

    if (kind == 0)
      c.rank = 0;
    else if (kind == 1)
      c.learning_rate = NAN;
    else if (kind == 2)
      c.accumulate = 0;
    else if (kind == 3)
      c.epsilon = 0;
    else if (kind == 4)
      c.caption_dropout = 1.5;
    else if (kind == 5)
      c.targets = "";
    else
      c.targets = "no_such_layer";
    g_assert_null (flux_trainer_new (f->model, &c, 8, 16, &error));
    g_assert_nonnull (error);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define ADD(name, func)                                                                  \
  g_test_add ("/trainer/" name, Fixture, NULL, setup, func, teardown)
  ADD ("learns", test_learns);
  ADD ("evaluate-is-the-loss", test_evaluate_is_the_loss);
  ADD ("deterministic-by-seed", test_deterministic);
  ADD ("recomputed-stored-layer-major-and-sequential-agree", test_modes_agree);
  ADD ("a-budget-changes-no-bit", test_budget);
  ADD ("growing-buffers", test_growing);
  ADD ("two-trainers-share-a-model", test_two_trainers);
  ADD ("clipping", test_clipping);
  ADD ("short-window", test_short_window);
  ADD ("window-sizes", test_window_sizes);
  ADD ("caption-dropout", test_caption_dropout);
  ADD ("nan-changes-nothing", test_nan);
  ADD ("infinite-gradient-is-named", test_infinite_gradient);
  ADD ("wrong-samples-are-named", test_wrong_samples);
  ADD ("learning-rate", test_learning_rate);
  ADD ("settings", test_settings);
  return g_test_run ();
}
