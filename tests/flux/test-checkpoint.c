/* tests/flux/test-checkpoint.c: a resumed run is the same run, and what is on disk is
 * whole. SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "flux/files/safetensors.h"
#include "tests/flux/chooser.h"
#include "tests/flux/trainer-common.h"

enum { N_SAMPLES = 4 };

typedef struct {
  FluxModel *model;
  FluxSample *samples[N_SAMPLES];
  FluxTrainConfig c;
  char *dir;
} Fixture;

static void
remove_tree (const char *path)
{
  GDir *dir = g_dir_open (path, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *child = g_build_filename (path, name, NULL);

    remove_tree (child);
  }
  if (dir != NULL)
    g_dir_close (dir);
  g_remove (path);
}

static void
setup (Fixture *f, gconstpointer data)
{
  f->model = test_model ();
  f->dir = g_dir_make_tmp ("flux-checkpoint-XXXXXX", NULL);
  test_config_init (&f->c);
  f->c.caption_dropout = 0.3;
  f->c.lr_scheduler = FLUX_LR_COSINE;
  f->c.max_steps = 40;
  for (guint i = 0; i < N_SAMPLES; i++)
    f->samples[i] = test_sample (f->model, i, 4, i % 2 ? 4 : 8, 4);
}

static void
teardown (Fixture *f, gconstpointer data)
{
  for (guint i = 0; i < N_SAMPLES; i++)
    flux_sample_unref (f->samples[i]);
  flux_model_unref (f->model);
  remove_tree (f->dir);
  g_free (f->dir);
}

static FluxTrainer *
new_trainer (Fixture *f)
{
  FluxTrainer *t = test_trainer (f->model, &f->c);

  flux_trainer_set_empty_prompt (t, f->samples[0]);
  return t;
}

/* Windows follow the step, as they would with a permutation. */
static double
train (Fixture *f, FluxTrainer *t, guint steps)
{
  double sum = 0;

  for (guint i = 0; i < steps; i++) {
    guint32 order[N_SAMPLES];
    FluxSample *window[2];

    flux_train_permutation (1, flux_trainer_get_step (t), N_SAMPLES, order);
    window[0] = f->samples[order[0]];
    window[1] = f->samples[order[1]];
    sum += test_step (f->model, t, window, 2).loss;
  }
  return sum;
}

static char *
save (Fixture *f, FluxTrainer *t, guint limit)
{
  g_autoptr (GError) error = NULL;
  char *path = NULL;

  g_assert_true (flux_trainer_save_checkpoint (t, f->dir, limit, &path, &error));
  g_assert_no_error (error);
  return path;
}

static gboolean
exists (Fixture *f, const char *name)
{
  g_autofree char *path = g_build_filename (f->dir, name, NULL);

  return g_file_test (path, G_FILE_TEST_EXISTS);
}

static guint
count_entries (const char *path)
{
  GDir *dir = g_dir_open (path, 0, NULL);
  guint n = 0;

  while (g_dir_read_name (dir) != NULL)
    n++;
  g_dir_close (dir);
  return n;
}

static void
check_resume (Fixture *f, guint half)
{
  g_autoptr (FluxTrainer) whole = new_trainer (f);
  g_autoptr (FluxTrainer) first = new_trainer (f);
  g_autoptr (FluxTrainer) second = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree char *path = NULL;
  double a, b;

  train (f, whole, half);
  a = train (f, whole, half);
  train (f, first, half);
  flux_trainer_set_position (first, "epoch 3, sample 1");
  path = save (f, first, 0);
  g_clear_pointer (&first, flux_trainer_free);

  f->c.seed += 100; /* the checkpoint's counts */
  second = new_trainer (f);
  f->c.seed -= 100;
  flux_trainer_resume (second, path, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (flux_trainer_get_step (second), ==, half);
  g_assert_cmpuint (flux_trainer_get_seed (second), ==, f->c.seed);
  g_assert_cmpstr (flux_trainer_get_position (second), ==, "epoch 3, sample 1");
  b = train (f, second, half);
  g_assert_cmpfloat (a, ==, b);
  g_assert_true (test_same_parameters (f->model, whole, second));
}

static void
test_resume_adamw (Fixture *f, gconstpointer data)
{
  f->c.optimizer = FLUX_OPTIMIZER_ADAMW;
  check_resume (f, 20);
}

/* Rank 4: fp32 states under 4,096 elements; all-linear mixes both kinds. */
static void
test_resume_adamw8bit (Fixture *f, gconstpointer data)
{
  check_resume (f, 20);
}

static void
test_resume_8bit_states (Fixture *f, gconstpointer data)
{
  f->c.rank = 5; /* 1,280 to 7,680 elements */
  f->c.targets = "all-linear";
  check_resume (f, 5);
}

static void
test_latest (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = new_trainer (f);
  g_autoptr (FluxTrainer) other = new_trainer (f);
  g_autofree char *half = g_build_filename (f->dir, "checkpoint-99", NULL);
  g_autofree char *lora =
      g_build_filename (half, "pytorch_lora_weights.safetensors", NULL);
  g_autofree char *hidden = g_build_filename (f->dir, ".checkpoint-50-abcdef", NULL);
  g_autoptr (GError) error = NULL;

  g_assert_false (flux_trainer_resume (other, f->dir, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
  g_clear_error (&error);
  for (int i = 0; i < 10; i++) { /* 10 is after 9 */
    train (f, t, 1);
    if (i >= 8)
      g_free (save (f, t, 0));
  }
  g_mkdir (half, 0700); /* not whole: no state */
  g_assert_true (g_file_set_contents (lora, "x", 1, NULL));
  g_mkdir (hidden, 0700);
  g_assert_true (flux_trainer_resume (other, f->dir, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (flux_trainer_get_step (other), ==, 10);
  g_assert_true (test_same_parameters (f->model, t, other));
}

static void
test_limit (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = new_trainer (f);
  static const char *const foreign[] = {
      "checkpoint-1", "checkpoint-0x1", "checkpoint-", "checkpoint-01", "others"};

  for (guint i = 0; i < G_N_ELEMENTS (foreign); i++) {
    g_autofree char *path = g_build_filename (f->dir, foreign[i], NULL);

    g_mkdir (path, 0700);
  }
  train (f, t, 1);
  for (int i = 0; i < 3; i++) {
    train (f, t, 1);
    g_free (save (f, t, 2));
  }
  g_assert_false (exists (f, "checkpoint-2"));
  g_assert_true (exists (f, "checkpoint-3"));
  g_assert_true (exists (f, "checkpoint-4"));
  for (guint i = 0; i < G_N_ELEMENTS (foreign); i++)
    g_assert_true (exists (f, foreign[i]));
  g_assert_cmpuint (count_entries (f->dir), ==, G_N_ELEMENTS (foreign) + 2);
}

/* A run from nothing in the folder of a longer one keeps what it has just saved. */
static void
test_limit_keeps_the_newest (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) old = new_trainer (f);
  g_autoptr (FluxTrainer) t = new_trainer (f);

  train (f, old, 3);
  g_free (save (f, old, 1));
  train (f, t, 1);
  g_free (save (f, t, 1));
  g_assert_true (exists (f, "checkpoint-1"));
  g_assert_false (exists (f, "checkpoint-3"));
}

static void
test_same_step_again (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) a = new_trainer (f);
  g_autoptr (FluxTrainer) b = NULL;
  g_autoptr (FluxTrainer) c = NULL;
  g_autoptr (GError) error = NULL;

  train (f, a, 1);
  g_free (save (f, a, 0));
  f->c.seed = 9;
  b = new_trainer (f);
  train (f, b, 1);
  g_free (save (f, b, 0));
  g_assert_cmpuint (count_entries (f->dir), ==, 1);
  c = new_trainer (f);
  g_assert_true (flux_trainer_resume (c, f->dir, &error));
  g_assert_true (test_same_parameters (f->model, b, c));
  g_assert_false (test_same_parameters (f->model, a, c));
}

/* No room: an error, nothing half-made, and the previous checkpoint as it was. */
static void
test_full_disk (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = new_trainer (f);
  g_autoptr (FluxTrainer) other = new_trainer (f);
  g_autoptr (GError) error = NULL;
  struct rlimit old, small;
  int sizes[] = {100, 20000, 280000}; /* in the adapter's file, or in the state */

  train (f, t, 1);
  g_free (save (f, t, 1));
  train (f, t, 1);
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &old);
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    gboolean ok;

    small = old;
    small.rlim_cur = (rlim_t)sizes[i];
    setrlimit (RLIMIT_FSIZE, &small);
    ok = flux_trainer_save_checkpoint (t, f->dir, 1, NULL, &error);
    setrlimit (RLIMIT_FSIZE, &old);
    g_assert_false (ok);
    g_assert_nonnull (error);
    g_assert_nonnull (strstr (error->message, f->dir));
    g_clear_error (&error);
    g_assert_cmpuint (count_entries (f->dir), ==, 1);
  }
  g_assert_true (flux_trainer_resume (other, f->dir, &error));
  g_assert_cmpuint (flux_trainer_get_step (other), ==, 1);
  g_free (save (f, t, 1)); /* room again */
  g_assert_true (exists (f, "checkpoint-2"));
}

static void
test_mismatch (Fixture *f, gconstpointer data)
{
  static const char *const words[] = {"rank", "target", "optimizer", "alpha"};
  g_autofree char *path = NULL;

  {
    g_autoptr (FluxTrainer) t = new_trainer (f);

    train (f, t, 1);
    path = save (f, t, 0);
  }
  for (guint kind = 0; kind < G_N_ELEMENTS (words); kind++) {
    FluxTrainConfig c = f->c;
    g_autoptr (FluxTrainer) t = NULL;
    g_autoptr (FluxTrainer) same = NULL;
    g_autoptr (GError) error = NULL;

    if (kind == 0)
      c.rank = 8;
    else if (kind == 1)
      c.targets = "to_q";
    else if (kind == 2)
      c.optimizer = FLUX_OPTIMIZER_ADAMW;
    else
      c.alpha = 7;
    t = test_trainer (f->model, &c);
    same = test_trainer (f->model, &c);
    g_assert_false (flux_trainer_resume (t, path, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
    g_assert_nonnull (strstr (error->message, words[kind]));
    g_assert_nonnull (strstr (error->message, path));
    g_assert_cmpuint (flux_trainer_get_step (t), ==, 0);
    g_assert_true (test_same_parameters (f->model, t, same));
  }
}

/* Rewrites the state file with one thing changed. */
static void
tamper (const char *file, int kind)
{
  g_autoptr (FluxSafetensors) s = flux_safetensors_open (file, NULL);
  guint n = flux_safetensors_get_n_tensors (s);
  g_autofree FluxTensorSource *sources = g_new0 (FluxTensorSource, n);
  static const char *const keys[] = {
      "format", "step", "seed", "base", "position", "config"};
  const char *metadata[13] = {NULL};
  g_autofree float *bad = NULL;

  for (guint i = 0; i < n; i++) {
    const FluxTensor *t = flux_safetensors_get_nth (s, i);

    sources[i] =
        (FluxTensorSource){.name = t->name, .dtype = t->dtype, .n_dims = t->n_dims};
    memcpy (sources[i].dims, t->dims, sizeof t->dims);
    sources[i].data = t->data;
  }
  for (guint i = 0; i < G_N_ELEMENTS (keys); i++) {
    metadata[2 * i] = keys[i];
    metadata[2 * i + 1] = flux_safetensors_get_metadata (s, keys[i]);
  }
  if (kind < 6)
    metadata[2 * kind + 1] = "rubbish";
  bad = g_memdup2 (sources[0].data, (gsize)sources[0].dims[0] * sizeof (float));
  bad[1] = NAN;
  if (kind == 6)
    n--;
  else if (kind == 7)
    sources[0].dims[0]--;
  else if (kind == 8)
    sources[0].dtype = FX_I32;
  else if (kind == 9)
    sources[0].data = bad;
  g_assert_true (flux_safetensors_write (file, sources, n, metadata, NULL));
}

static void
test_lying_state (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = new_trainer (f);
  g_autoptr (FluxTrainer) other = new_trainer (f);
  g_autoptr (FluxTrainer) same = new_trainer (f);
  g_autofree char *path = NULL;
  g_autofree char *file = NULL;
  g_autofree char *whole = NULL;
  gsize length;
  g_autoptr (GError) error = NULL;

  train (f, t, 1);
  path = save (f, t, 0);
  file = g_build_filename (path, "state.safetensors", NULL);
  g_assert_true (g_file_get_contents (file, &whole, &length, NULL));
  for (int kind = 0; kind <= 10; kind++) {
    if (kind == 4) /* position is any text */
      continue;
    if (kind < 10)
      tamper (file, kind);
    else
      g_assert_true (g_file_set_contents (file, whole, (gssize)length / 2, NULL));
    g_assert_false (flux_trainer_resume (other, path, &error));
    g_assert_nonnull (error);
    g_assert_nonnull (strstr (error->message, path));
    g_clear_error (&error);
    g_assert_cmpuint (flux_trainer_get_step (other), ==, 0);
    g_assert_true (test_same_parameters (f->model, other, same));
    g_assert_true (g_file_set_contents (file, whole, (gssize)length, NULL));
  }
  train (f, other, 1);
  train (f, same, 1);
  g_assert_true (test_same_parameters (f->model, other, same));
  g_assert_true (flux_trainer_resume (other, path, &error));
  g_assert_no_error (error);
}

/* A checkpoint of a run whose product of 5 rows is computed in way 3. */
static char *
save_with_plans (Fixture *f)
{
  fx_backend *b = flux_model_get_backend (f->model);
  g_autoptr (FluxTrainer) t = new_trainer (f);
  char *path;

  chooser_open (b, "gpu 1");
  chooser_choose (5, 3);
  train (f, t, 1);
  path = save (f, t, 0);
  chooser_close (b);
  return path;
}

static void
resume (Fixture *f, const char *path)
{
  g_autoptr (FluxTrainer) t = new_trainer (f);
  g_autoptr (GError) error = NULL;

  flux_trainer_resume (t, path, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (flux_trainer_get_step (t), ==, 1);
}

static void
test_gemm_plans (Fixture *f, gconstpointer data)
{
  fx_backend *b = flux_model_get_backend (f->model);
  g_autofree char *path = save_with_plans (f);

  chooser_open (b, "gpu 1");
  chooser_choose (5, 8); /* as timing chose it here */
  resume (f, path);
  g_assert_cmpint (chooser_chosen (5), ==, 3);
  chooser_close (b);

  chooser_open (b, "gpu 2");
  chooser_choose (5, 8);
  resume (f, path);
  g_assert_cmpint (chooser_chosen (5), ==, 8);
  chooser_close (b);

  resume (f, path); /* on a backend that chooses nothing */
}

static void
test_without_gemm_plans (Fixture *f, gconstpointer data)
{
  fx_backend *b = flux_model_get_backend (f->model);
  g_autoptr (FluxTrainer) t = new_trainer (f);
  g_autofree char *path = NULL;

  train (f, t, 1);
  path = save (f, t, 0);
  chooser_open (b, "gpu 1");
  chooser_choose (5, 8);
  resume (f, path);
  g_assert_cmpint (chooser_chosen (5), ==, 8);
  chooser_close (b);
}

/* Bytes of the plans changed in turn: none of them is taken, and the run goes on. */
static void
test_bad_gemm_plans (Fixture *f, gconstpointer data)
{
  fx_backend *b = flux_model_get_backend (f->model);
  g_autofree char *path = save_with_plans (f);
  g_autofree char *state = g_build_filename (path, "state.safetensors", NULL);
  g_autoptr (FluxSafetensors) file = flux_safetensors_open (state, NULL);
  const FluxTensor *plans = flux_safetensors_lookup (file, "gemm_plans");
  g_autofree char *bytes = NULL;
  gsize n, at, step;

  g_assert_nonnull (plans);
  g_assert_true (g_file_get_contents (state, &bytes, &n, NULL));
  at = (gsize)((char *)memmem (bytes, n, plans->data, plans->n_bytes) - bytes);
  step = plans->n_bytes / 7;
  chooser_open (b, "gpu 1");
  chooser_choose (5, 8);
  for (gsize i = 0; i < plans->n_bytes; i += step) {
    bytes[at + i] ^= 1;
    g_assert_true (g_file_set_contents (state, bytes, (gssize)n, NULL));
    resume (f, path);
    g_assert_cmpint (chooser_chosen (5), ==, 8);
    bytes[at + i] ^= 1;
  }
  chooser_close (b);
}

static void
test_save_lora (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxTrainer) t = new_trainer (f);
  g_autofree char *path = g_build_filename (f->dir, "a.safetensors", NULL);
  g_autofree char *nowhere = g_build_filename (f->dir, "no", "a.safetensors", NULL);
  g_autoptr (FluxSafetensors) file = NULL;
  g_autoptr (GError) error = NULL;

  g_assert_true (flux_trainer_save_lora (t, path, FLUX_LORA_DIFFUSERS, &error));
  file = flux_safetensors_open (path, &error);
  g_assert_no_error (error);
  g_assert_nonnull (flux_safetensors_lookup (
      file, "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"));
  g_assert_false (flux_trainer_save_lora (t, nowhere, FLUX_LORA_DIFFUSERS, &error));
  g_assert_nonnull (error);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define ADD(name, func)                                                                  \
  g_test_add ("/checkpoint/" name, Fixture, NULL, setup, func, teardown)
  ADD ("resumed-is-the-same-run-adamw", test_resume_adamw);
  ADD ("resumed-is-the-same-run-adamw8bit", test_resume_adamw8bit);
  ADD ("resumed-is-the-same-run-8-bit-states", test_resume_8bit_states);
  ADD ("latest-whole-one", test_latest);
  ADD ("limit-removes-the-oldest-of-ours", test_limit);
  ADD ("limit-keeps-the-newest", test_limit_keeps_the_newest);
  ADD ("same-step-again", test_same_step_again);
  ADD ("full-disk", test_full_disk);
  ADD ("mismatch-says-which", test_mismatch);
  ADD ("lying-state-changes-nothing", test_lying_state);
  ADD ("gemm-plans", test_gemm_plans);
  ADD ("without-gemm-plans", test_without_gemm_plans);
  ADD ("bad-gemm-plans", test_bad_gemm_plans);
  ADD ("save-lora", test_save_lora);
  return g_test_run ();
}
