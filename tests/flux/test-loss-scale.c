/* tests/flux/test-loss-scale.c: dynamic scaling of the loss.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>

#include "flux/train/loss-scale.h"
#include "tests/flux/trainer-common.h"

typedef struct {
  FluxModel *model;
  FluxSample *samples[2];
  GBytes *noise[2];
  FluxTrial trials[2];
  FluxTrainConfig c;
} Fixture;

static void
setup (Fixture *f, gconstpointer data)
{
  f->model = test_model ();
  test_config_init (&f->c);
  for (guint i = 0; i < 2; i++) {
    f->samples[i] = test_sample (f->model, i, 8, 8, 8);
    f->noise[i] =
        test_normals (10, i, (gsize)test_config (f->model)->in_channels / 4 * 64, 1);
    f->trials[i] = test_trial (
        f->samples[i], g_bytes_get_data (f->noise[i], NULL), 0.3f + 0.2f * (float)i);
  }
}

static void
teardown (Fixture *f, gconstpointer data)
{
  for (guint i = 0; i < 2; i++) {
    flux_sample_unref (f->samples[i]);
    g_bytes_unref (f->noise[i]);
  }
  flux_model_unref (f->model);
}

/* In fp32 a power of two changes exponents only. */
static void
test_same_bits (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) plain = test_trainer (f->model, &f->c);
  g_autoptr (FluxTrainer) scaled = NULL;

  f->c.loss_scale = FLUX_LOSS_SCALE_START;
  scaled = test_trainer (f->model, &f->c);
  for (guint i = 0; i < 4; i++) {
    FluxStepResult a = test_step_trials (f->model, plain, f->trials, 2);
    FluxStepResult b = test_step_trials (f->model, scaled, f->trials, 2);

    g_assert_cmpfloat (a.loss_scale, ==, 1);
    g_assert_cmpfloat (b.loss_scale, ==, 65536);
    g_assert_cmpfloat (a.loss, ==, b.loss);
    g_assert_cmpfloat (a.grad_norm, ==, b.grad_norm);
    g_assert_cmpuint (a.overflows + b.overflows, ==, 0);
  }
  g_assert_true (test_same_parameters (f->model, plain, scaled));
}

/* A weight that makes the gradients infinite at the scale of the start, though not
 * without: no update at that scale, then the update of a run without scaling. */
static void
test_overflow (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) plain = NULL;
  g_autoptr (FluxTrainer) scaled = NULL;
  FluxStepResult a, b;

  f->c.max_grad_norm = 0x1p40; /* factors stay normal numbers */
  plain = test_trainer (f->model, &f->c);
  f->c.loss_scale = 0x1p64;
  scaled = test_trainer (f->model, &f->c);
  f->trials[1].weight = 0x1p72f;
  a = test_step_trials (f->model, plain, f->trials, 2);
  b = test_step_trials (f->model, scaled, f->trials, 2);
  g_assert_cmpuint (a.overflows, ==, 0);
  g_assert_cmpuint (b.overflows, >, 0);
  g_assert_cmpuint (b.step, ==, 1);
  g_assert_cmpfloat (b.loss_scale, ==, ldexp (1, 64 - (int)b.overflows));
  g_assert_cmpfloat (a.grad_norm, ==, b.grad_norm);
  g_assert_true (test_same_parameters (f->model, plain, scaled));
}

static void
test_growth (Fixture *f, gconstpointer data)
{
  static const double scales[] = {8, 8, 8, 16, 16, 16, 32};
  g_autoptr (FluxTrainer) t = NULL;

  f->c.loss_scale = 8;
  f->c.loss_scale_interval = 3;
  t = test_trainer (f->model, &f->c);
  for (guint i = 0; i < G_N_ELEMENTS (scales); i++)
    g_assert_cmpfloat (
        test_step_trials (f->model, t, f->trials, 2).loss_scale, ==, scales[i]);
}

/* Backing off starts the count of good steps anew. */
static void
test_states (void)
{
  FluxLossScale s;

  flux_loss_scale_init (&s, 0, 3, FX_F16);
  g_assert_cmpfloat (s.scale, ==, 65536);
  flux_loss_scale_succeed (&s);
  flux_loss_scale_succeed (&s);
  g_assert_true (flux_loss_scale_back_off (&s));
  g_assert_cmpfloat (s.scale, ==, 32768);
  flux_loss_scale_succeed (&s);
  flux_loss_scale_succeed (&s);
  g_assert_cmpfloat (s.scale, ==, 32768);
  flux_loss_scale_succeed (&s);
  g_assert_cmpfloat (s.scale, ==, 65536);
  for (guint i = 0; i < 16; i++)
    g_assert_true (flux_loss_scale_back_off (&s));
  g_assert_cmpfloat (s.scale, ==, 1);
  g_assert_false (flux_loss_scale_back_off (&s));

  for (guint i = 0; i < 2; i++) {
    flux_loss_scale_init (&s, 0, 1, i == 0 ? FX_F32 : FX_BF16);
    flux_loss_scale_succeed (&s);
    g_assert_cmpfloat (s.scale, ==, 1);
    g_assert_false (flux_loss_scale_back_off (&s));
  }
}

/* Infinite whatever the scale: an error that names the sample, and nothing has changed.
 */
static void
test_hopeless (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = NULL;
  g_autoptr (FluxTrainer) untouched = NULL;
  g_autoptr (GError) error = NULL;
  const gsize n = (gsize)f->trials[1].channels * 64;
  g_autofree float *large = g_memdup2 (f->trials[1].latent, n * sizeof (float));
  double losses[2];
  gboolean ok;

  for (gsize i = 0; i < n; i++)
    large[i] *= 1e6f;
  f->trials[1].latent = large;
  f->c.loss_scale = 16;
  t = test_trainer (f->model, &f->c);
  untouched = test_trainer (f->model, &f->c);
  f->trials[1].weight = 3e38f;
  flux_model_lock (f->model);
  ok = flux_trainer_step_trials (t, f->trials, 2, losses, NULL, &error);
  flux_model_unlock (f->model);
  g_assert_false (ok);
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC);
  g_assert_nonnull (strstr (error->message, "gradient of sample 'trial 1'"));
  g_assert_cmpuint (flux_trainer_get_step (t), ==, 0);
  g_assert_true (test_same_parameters (f->model, t, untouched));
}

static void
remove_tree (const char *dir)
{
  g_autoptr (GDir) d = g_dir_open (dir, 0, NULL);
  const char *name;

  while (d != NULL && (name = g_dir_read_name (d)) != NULL) {
    g_autofree char *path = g_build_filename (dir, name, NULL);

    if (g_file_test (path, G_FILE_TEST_IS_DIR))
      remove_tree (path);
    else
      g_remove (path);
  }
  g_rmdir (dir);
}

/* Scale and count go on where they were, through an overflow and a doubling. */
static void
test_resume (Fixture *f, gconstpointer data)
{
  g_autofree char *dir = g_dir_make_tmp ("flux-loss-scale-XXXXXX", NULL);
  g_autoptr (FluxTrainer) whole = NULL;
  g_autoptr (FluxTrainer) resumed = NULL;
  g_autoptr (GError) error = NULL;

  f->c.loss_scale = 0x1p64;
  f->c.loss_scale_interval = 3;
  f->trials[1].weight = 0x1p72f;
  whole = test_trainer (f->model, &f->c);
  g_assert_cmpuint (test_step_trials (f->model, whole, f->trials, 2).overflows, >, 0);
  f->trials[1].weight = 1;
  test_step_trials (f->model, whole, f->trials, 2);
  flux_trainer_save_checkpoint (whole, dir, 0, NULL, &error);
  g_assert_no_error (error);
  f->c.loss_scale = 4;
  resumed = test_trainer (f->model, &f->c);
  flux_trainer_resume (resumed, dir, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < 3; i++) {
    FluxStepResult a = test_step_trials (f->model, whole, f->trials, 2);
    FluxStepResult b = test_step_trials (f->model, resumed, f->trials, 2);

    g_assert_cmpfloat (a.loss_scale, ==, b.loss_scale);
    g_assert_cmpfloat (a.grad_norm, ==, b.grad_norm);
  }
  g_assert_true (test_same_parameters (f->model, whole, resumed));
  remove_tree (dir);
}

static void
test_settings (Fixture *f, gconstpointer data)
{
  static const double bad[] = {-1, 0.5, 3, 0x1p65, INFINITY, NAN};

  for (guint i = 0; i <= G_N_ELEMENTS (bad); i++) {
    g_autoptr (GError) error = NULL;

    f->c.loss_scale = i < G_N_ELEMENTS (bad) ? bad[i] : 2;
    f->c.loss_scale_interval = i < G_N_ELEMENTS (bad) ? 1 : 0;
    g_assert_null (flux_trainer_new (f->model, &f->c, 8, 16, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define ADD(name, func)                                                                  \
  g_test_add ("/loss-scale/" name, Fixture, NULL, setup, func, teardown)
  g_test_add_func ("/loss-scale/states", test_states);
  ADD ("a-power-of-two-changes-no-bit", test_same_bits);
  ADD ("overflow-skips-the-update-and-halves", test_overflow);
  ADD ("grows-after-good-steps", test_growth);
  ADD ("infinite-at-any-scale-is-an-error", test_hopeless);
  ADD ("resumed-is-the-same-run", test_resume);
  ADD ("settings", test_settings);
  return g_test_run ();
}
