/* tests/bench/bench-cpu.c: seconds of a micro-step and of a sampling step on the CPU.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *     bench-cpu MODEL_DIR nf4|nf4-double|int8|none RECOMPUTE
 *
 * Prints what pytorch_cpu.py prints, measured in the same way: "NAME SECONDS", best of
 * three rounds after a warm-up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flux/train/trainer.h"

enum { SIDE = 16, TEXT = 32, ACCUMULATE = 4, ROUNDS = 3, WINDOWS = 2, FORWARDS = 16 };

typedef struct {
  FluxModel *model;
  FluxTrainer *trainer;
  FluxRun *run;
  FluxTrial trials[ACCUMULATE];
  FluxInput in;
  float *out;
} Bench;

static void
check (gboolean ok, GError *error)
{
  if (ok)
    return;
  fprintf (stderr, "bench-cpu: %s\n", error != NULL ? error->message : "failed");
  exit (1);
}

static float *
normals (guint32 which, gsize n)
{
  float *x = g_new (float, n);

  fx_philox_normal (0, which, 0, 0, x, n);
  return x;
}

static void
train (Bench *b)
{
  double losses[ACCUMULATE];
  GError *error = NULL;

  for (int i = 0; i < WINDOWS; i++)
    check (flux_trainer_step_trials (
               b->trainer, b->trials, ACCUMULATE, losses, NULL, &error),
        error);
}

static void
forward (Bench *b)
{
  GError *error = NULL;

  for (int i = 0; i < FORWARDS; i++)
    check (flux_run_forward (b->run, &b->in, b->out, &error), error);
}

static void
measure (Bench *b, const char *name, void (*work) (Bench *), int count)
{
  double best = 1e30;

  work (b);
  for (int i = 0; i < ROUNDS; i++) {
    gint64 start = g_get_monotonic_time ();

    work (b);
    best = MIN (best, (double)(g_get_monotonic_time () - start) * 1e-6 / count);
  }
  printf ("%s %.6f\n", name, best);
  fflush (stdout);
}

static void
set_up (Bench *b, const char *dir, fx_qtype qtype, gboolean recompute)
{
  FluxModelKey key = {dir, qtype, FX_F32, FLUX_DEVICE_CPU};
  FluxTrainConfig c;
  const FluxConfig *f;
  GError *error = NULL;
  gsize n;

  b->model = flux_model_acquire (&key, NULL, NULL, &error);
  check (b->model != NULL, error);
  f = flux_transformer_get_config (flux_model_get_transformer (b->model));
  flux_train_config_init (&c);
  c.optimizer = FLUX_OPTIMIZER_ADAMW;
  c.accumulate = ACCUMULATE;
  c.recompute = recompute;
  b->trainer = flux_trainer_new (b->model, &c, TEXT, SIDE * SIDE / 4, &error);
  check (b->trainer != NULL, error);
  b->run = flux_run_new (flux_model_get_transformer (b->model), FLUX_RUN_FORWARD, TEXT,
      SIDE * SIDE / 4, 1, NULL, 0, &error);
  check (b->run != NULL, error);
  n = (gsize)f->in_channels / 4 * SIDE * SIDE;
  for (int i = 0; i < ACCUMULATE; i++)
    b->trials[i] = (FluxTrial){.latent = normals (1, n),
        .noise = normals (2, n),
        .channels = f->in_channels / 4,
        .height = SIDE,
        .width = SIDE,
        .prompt_embeds = normals (3, (gsize)TEXT * (gsize)f->joint_attention_dim),
        .pooled = normals (4, (gsize)f->pooled_projection_dim),
        .text_tokens = TEXT,
        .sigma = 0.5f,
        .timestep = 0.5f,
        .guidance = 1,
        .weight = 1};
  b->out = g_new (float, n);
  b->in = (FluxInput){.latents = normals (5, n),
      .grid_height = SIDE / 2,
      .grid_width = SIDE / 2,
      .prompt_embeds = b->trials[0].prompt_embeds,
      .text_tokens = TEXT,
      .pooled = b->trials[0].pooled,
      .timestep = 0.5f,
      .guidance = 1};
}

int
main (int argc, char **argv)
{
  Bench b = {0};
  int q = FX_Q_NONE;

  if (argc == 4)
    while (q <= FX_Q_INT8 && strcmp (fx_qtype_name ((fx_qtype)q), argv[2]) != 0)
      q++;
  if (argc != 4 || q > FX_Q_INT8) {
    fprintf (stderr, "usage: bench-cpu MODEL_DIR none|nf4|nf4-double|int8 RECOMPUTE\n");
    return 2;
  }
  set_up (&b, argv[1], (fx_qtype)q, atoi (argv[3]) != 0);
  measure (&b, "forward", forward, FORWARDS);
  measure (&b, atoi (argv[3]) != 0 ? "recompute" : "stored", train, WINDOWS * ACCUMULATE);
  return 0; /* the process ends here: nothing is freed one by one */
}
