/* tests/bench/bench-gpu.c: FLUX.1-dev at its full size on a GPU.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *     bench-gpu [--profile] CASE...
 *
 * Each case is best run in a process of its own, as tests/bench/gpu does: the memory it
 * prints is all that the device holds. The weights are random and made on the device. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flux/files/gemm-plans.h"
#include "flux/text/encoders.h"
#include "flux/train/trainer.h"
#include "flux/vae/vae.h"
#include "tests/bench/floor.h"
#include "tests/bench/profile.h"
#include "tests/bench/random-model.h"

enum { ACCUMULATE = 4, MAX_TIMES = 64 };

typedef enum { TRAIN, FORWARD, LEARN, FLOOR, VAE_DECODE, VAE_ENCODE, T5, EQUAL } Kind;

typedef struct {
  const char *name;
  Kind kind;
  fx_qtype qtype;
  gboolean recompute;
  int width, height, text;
  int repeats; /* optimiser steps, or forward passes */
  int budget;  /* MiB, 0: none */
  gboolean tiny;
  fx_home home;
} Case;

static const Case cases[] = {
    {"nf4-recompute-512x768", TRAIN, FX_Q_NF4, TRUE, 512, 768, 77, 5},
    {"nf4-recompute-512x768-8000", TRAIN, FX_Q_NF4, TRUE, 512, 768, 77, 5, 8000},
    {"nf4-stored-512x768-16000", TRAIN, FX_Q_NF4, FALSE, 512, 768, 77, 5, 16000},
    {"nf4-stored-512x768", TRAIN, FX_Q_NF4, FALSE, 512, 768, 77, 5},
    {"nf4-double-recompute-512x768", TRAIN, FX_Q_NF4_DOUBLE, TRUE, 512, 768, 77, 5},
    {"nf4-recompute-1024x1024", TRAIN, FX_Q_NF4, TRUE, 1024, 1024, 512, 3},
    {"nf4-recompute-stream-512x768", TRAIN, FX_Q_NF4, TRUE, 512, 768, 77, 5, 0, FALSE,
        FX_HOME_HOST},
    {"nf4-recompute-stream-512x768-2500", TRAIN, FX_Q_NF4, TRUE, 512, 768, 77, 5, 2500,
        FALSE, FX_HOME_HOST},
    {"nf4-forward-512x768", FORWARD, FX_Q_NF4, FALSE, 512, 768, 512, 15},
    {"nf4-forward-1024x1024", FORWARD, FX_Q_NF4, FALSE, 1024, 1024, 512, 15},
    {"nf4-forward-stream-512x768", FORWARD, FX_Q_NF4, FALSE, 512, 768, 512, 15, 0, FALSE,
        FX_HOME_HOST},
    {"nf4-forward-stream-1024x1024", FORWARD, FX_Q_NF4, FALSE, 1024, 1024, 512, 15, 0,
        FALSE, FX_HOME_HOST},
    {"bf16-forward-1024x1024", FORWARD, FX_Q_NONE, FALSE, 1024, 1024, 512, 15},
    {"fp8-stored-512x768-24000", TRAIN, FX_Q_FP8, FALSE, 512, 768, 77, 5, 24000},
    {"fp8-recompute-512x768", TRAIN, FX_Q_FP8, TRUE, 512, 768, 77, 5},
    {"fp8-forward-1024x1024", FORWARD, FX_Q_FP8, FALSE, 1024, 1024, 512, 15},
    {"int8-stored-512x768-24000", TRAIN, FX_Q_INT8, FALSE, 512, 768, 77, 5, 24000},
    {"vae-decode-1024x1024", VAE_DECODE, FX_Q_NONE, FALSE, 1024, 1024, 0, 10},
    {"vae-encode-1024x1024", VAE_ENCODE, FX_Q_NONE, FALSE, 1024, 1024, 0, 10},
    {"t5-int8-77", T5, FX_Q_INT8, FALSE, 0, 0, 77, 10},
    {"t5-bf16-512", T5, FX_Q_NONE, FALSE, 0, 0, 512, 10},
    {"tiny-recompute-128x128", TRAIN, FX_Q_NF4, TRUE, 128, 128, 32, 50, 0, TRUE},
    {"tiny-forward-128x128", FORWARD, FX_Q_NF4, FALSE, 128, 128, 32, 50, 0, TRUE},
    {"learn", LEARN, FX_Q_NF4, TRUE, 512, 768, 77, 50},
    {"learn-stream", LEARN, FX_Q_NF4, TRUE, 512, 768, 77, 50, 0, FALSE, FX_HOME_HOST},
    {"equal-512x768", EQUAL, FX_Q_NF4, TRUE, 512, 768, 77, 1},
    {"floor-512x768", FLOOR, FX_Q_NONE, FALSE, 512, 768, 77, 10},
    {"floor-1024x1024", FLOOR, FX_Q_NONE, FALSE, 1024, 1024, 512, 5},
};

typedef struct {
  const Case *c;
  FluxModel *model;
  FluxTrainer *trainer;
  FluxLora *lora;
  FluxRun *run;
  FluxVae *vae;
  FluxT5 *t5;
  fx_backend *backend;
  FluxTrial trials[ACCUMULATE];
  FluxInput in;
  float *out;
  gint64 started;
  double weights; /* seconds that making random ones took */
} Bench;

static void
check (gboolean ok, GError *error)
{
  if (ok)
    return;
  fprintf (
      stderr, "bench-gpu: %s\n", error != NULL ? error->message : fx_error_message ());
  exit (1);
}

/* MiB in use on the device by everyone, as nvidia-smi says it. */
static double
smi_mib (void)
{
  char line[64] = "";
  FILE *f =
      popen ("nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits", "r");

  if (f == NULL)
    return NAN;
  if (fgets (line, sizeof line, f) == NULL)
    line[0] = '\0';
  pclose (f);
  return line[0] != '\0' ? atof (line) : NAN;
}

static double
mib (gsize bytes)
{
  return (double)bytes / 1048576;
}

static double
seconds_since (gint64 start)
{
  return (double)(g_get_monotonic_time () - start) * 1e-6;
}

static int
compare (const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

/* ---- inputs ---- */

static void
make_inputs (Bench *b)
{
  const Case *c = b->c;
  const FluxConfig *f =
      flux_transformer_get_config (flux_model_get_transformer (b->model));
  const int h = c->height / 8, w = c->width / 8;
  const gsize n = (gsize)f->in_channels / 4 * (gsize)h * (gsize)w;

  for (int i = 0; i < ACCUMULATE; i++)
    b->trials[i] = (FluxTrial){.latent = random_normals (10 + i, n),
        .noise = random_normals (20 + i, n),
        .channels = f->in_channels / 4,
        .height = h,
        .width = w,
        .prompt_embeds =
            random_normals (30 + i, (gsize)c->text * (gsize)f->joint_attention_dim),
        .pooled = random_normals (40 + i, (gsize)f->pooled_projection_dim),
        .text_tokens = c->text,
        .sigma = 0.2f + 0.2f * (float)i,
        .timestep = 0.2f + 0.2f * (float)i,
        .guidance = 1,
        .weight = 1};
  b->out = g_new (float, n);
  b->in = (FluxInput){.latents = b->trials[0].noise,
      .grid_height = h / 2,
      .grid_width = w / 2,
      .prompt_embeds = b->trials[0].prompt_embeds,
      .text_tokens = c->text,
      .pooled = b->trials[0].pooled,
      .timestep = 0.5f,
      .guidance = 3.5f};
}

static void
open_backend (Bench *b)
{
  GError *error = NULL;

  b->backend = flux_backend_new (0, FX_N_DTYPES, &error);
  check (b->backend != NULL, error);
}

static void
open_model (Bench *b)
{
  GError *error = NULL;
  FluxTransformer *t;
  gint64 start;

  open_backend (b);
  start = g_get_monotonic_time ();
  t = random_transformer (b->backend, b->c->qtype, b->c->home, b->c->tiny, &error);
  check (t != NULL, error);
  b->model = flux_model_new_for (t);
  make_inputs (b);
  b->weights = seconds_since (start);
}

/* ---- one round of each kind ---- */

static double
train_step (Bench *b)
{
  double losses[ACCUMULATE], sum = 0;
  GError *error = NULL;

  check (
      flux_trainer_step_trials (b->trainer, b->trials, ACCUMULATE, losses, NULL, &error),
      error);
  check (fx_sync (flux_model_get_backend (b->model)) == FX_OK, NULL);
  for (int i = 0; i < ACCUMULATE; i++)
    sum += losses[i];
  return sum / ACCUMULATE;
}

/* A word for the bits of the output, which streamed and resident weights share. */
static guint32
hash_output (Bench *b)
{
  const gsize n = (gsize)b->in.grid_height * (gsize)b->in.grid_width * 64;
  guint32 words = 2166136261u;

  for (gsize i = 0; i < n; i++) {
    guint32 bits;

    memcpy (&bits, &b->out[i], sizeof bits);
    words = (words ^ bits) * 16777619u;
  }
  return words;
}

static double
forward (Bench *b)
{
  GError *error = NULL;

  check (flux_run_forward (b->run, &b->in, b->out, &error), error);
  return b->out[0];
}

static void
open_trainer (Bench *b, double learning_rate)
{
  const Case *c = b->c;
  FluxTrainConfig config;
  GError *error = NULL;

  flux_train_config_init (&config);
  config.accumulate = ACCUMULATE;
  config.recompute = c->recompute;
  config.learning_rate = learning_rate;
  config.budget = (guint64)c->budget << 20;
  b->trainer = flux_trainer_new (
      b->model, &config, c->text, c->width / 16 * c->height / 16, &error);
  check (b->trainer != NULL, error);
}

static void
open_run (Bench *b)
{
  const Case *c = b->c;
  GError *error = NULL;

  b->run = flux_run_new (flux_model_get_transformer (b->model), FLUX_RUN_FORWARD, c->text,
      c->width / 16 * c->height / 16, 1, NULL, 0, &error);
  check (b->run != NULL, error);
}

static gsize
planned (Bench *b)
{
  gsize bytes;

  if (b->vae != NULL)
    return flux_vae_get_bytes (b->vae);
  if (b->t5 != NULL)
    return flux_t5_get_bytes (b->t5);
  bytes = flux_transformer_get_bytes (flux_model_get_transformer (b->model));

  if (b->run != NULL)
    bytes += flux_run_get_bytes (b->run);
  return b->trainer != NULL ? flux_trainer_get_bytes (b->trainer) : bytes;
}

/* ---- the frozen models beside it ---- */

static double
vae_pass (Bench *b)
{
  const int w = b->c->width, h = b->c->height;
  GError *error = NULL;

  if (b->c->kind == VAE_ENCODE)
    check (flux_vae_encode (
               b->vae, (const guint8 *)b->in.latents, w, h, 3 * w, b->out, &error),
        error);
  else
    check (flux_vae_decode (b->vae, b->in.latents, w / 8, h / 8, b->out, &error), error);
  return b->out[0];
}

static void
open_vae (Bench *b)
{
  const gsize pixels = 3 * (gsize)b->c->width * (gsize)b->c->height;
  GError *error = NULL;
  gint64 start;

  open_backend (b);
  start = g_get_monotonic_time ();
  b->vae = flux_vae_new_planned (
      b->backend, b->c->kind == VAE_ENCODE ? FLUX_VAE_ENCODER : FLUX_VAE_DECODER, &error);
  check (
      b->vae != NULL && random_arena (b->backend, flux_vae_get_weights (b->vae), &error),
      error);
  b->in.latents = random_normals (50, pixels);
  b->out = g_new (float, pixels);
  b->weights = seconds_since (start);
}

static double
t5_pass (Bench *b)
{
  g_autofree gint32 *ids = g_new (gint32, (gsize)b->c->text);
  GError *error = NULL;

  for (int i = 0; i < b->c->text; i++)
    ids[i] = 7 * i % 32128;
  check (flux_t5_encode (b->t5, ids, b->c->text, b->out, NULL, NULL, &error), error);
  return b->out[0];
}

static void
open_t5 (Bench *b)
{
  GError *error = NULL;
  gint64 start;

  open_backend (b);
  start = g_get_monotonic_time ();
  b->t5 = flux_t5_new_planned (b->backend, b->c->qtype, &error);
  check (b->t5 != NULL && random_arena (b->backend, flux_t5_get_weights (b->t5), &error),
      error);
  b->out = g_new (float, (gsize)b->c->text *(gsize)flux_t5_get_config (b->t5)->d_model);
  b->weights = seconds_since (start);
}

/* ---- what is printed ---- */

/* What of a round the host is busy with itself, not waiting for the device. */
static double
host_seconds (Bench *b, double (*round) (Bench *))
{
  gint64 start = g_get_monotonic_time ();
  double all;

  profile_waits_start (b->backend);
  round (b);
  all = seconds_since (start);
  return all - profile_waits_stop (b->backend);
}

static void
measure (Bench *b, double (*round) (Bench *), double parts, gboolean profile)
{
  double times[MAX_TIMES], start_up, host;
  int n = MIN (b->c->repeats, MAX_TIMES);

  round (b);
  start_up = seconds_since (b->started) - b->weights;
  flux_gemm_plans_write (b->backend);
  round (b);
  for (int i = 0; i < n; i++) {
    gint64 start = g_get_monotonic_time ();

    round (b);
    times[i] = seconds_since (start) * 1e3 / parts;
  }
  host = host_seconds (b, round) * 1e3 / parts;
  qsort (times, (size_t)n, sizeof *times, compare);
  printf ("%-30s ms median %8.2f  best %8.2f  host %6.2f  planned %8.0f MiB  nvidia-smi "
          "%8.0f MiB  first result after %.1f s without the %.1f s for random weights\n",
      b->c->name, times[n / 2], times[0], host, mib (planned (b)), smi_mib (), start_up,
      b->weights);
  fflush (stdout);
  if (!profile)
    return;
  profile_start (b->backend);
  round (b);
  profile_stop (b->backend, b->c->name, parts);
}

/* The same four triples again and again: the loss has to fall at every tenth step. */
static gboolean
learn (Bench *b)
{
  double before = INFINITY;
  gboolean falls = TRUE;

  printf ("%s:", b->c->name);
  for (int i = 0; i < b->c->repeats; i++) {
    double loss = train_step (b);

    if (i % 10 != 0 && i != b->c->repeats - 1)
      continue;
    printf (" %.6f", loss);
    falls = falls && loss < before;
    before = loss;
  }
  printf ("  %s; planned %.0f MiB, nvidia-smi %.0f MiB\n",
      falls ? "falls every time" : "DOES NOT FALL", mib (planned (b)), smi_mib ());
  return falls;
}

/* Gradients of two micro-batches in one way of running them. */
static float *
gradients (Bench *b, FluxRunMode mode, gboolean layer_major, gsize *n)
{
  const Case *c = b->c;
  FluxTransformer *t = flux_model_get_transformer (b->model);
  g_autoptr (FluxLora) lora = NULL;
  g_autoptr (FluxRun) run = NULL;
  FluxMicro micros[2];
  double losses[2];
  float *host;
  GError *error = NULL;

  lora = flux_lora_new (
      flux_transformer_get_config (t), b->backend, 4, 4, "attention", TRUE, &error);
  check (lora != NULL && flux_lora_init_gaussian (lora, 1, &error), error);
  *n = flux_lora_n_flat (lora);
  check (fx_zero (b->backend, flux_lora_gradients (lora), *n * sizeof (float)) == FX_OK,
      NULL);
  run = flux_run_new (
      t, mode, c->text, c->width / 16 * c->height / 16, 2, &lora, 1, &error);
  check (run != NULL, error);
  for (int i = 0; i < 2; i++) {
    micros[i] = (FluxMicro){.in = b->in, .target = b->trials[2 + i].noise, .weight = 1};
    micros[i].in.latents = b->trials[i].noise;
    micros[i].in.timestep = b->trials[i].sigma;
  }
  check (flux_run_gradients (run, micros, 2, 0.5f, layer_major, losses, &error), error);
  host = g_new (float, *n);
  check (fx_download (
             b->backend, host, flux_lora_gradients (lora), *n * sizeof (float)) == FX_OK,
      NULL);
  return host;
}

/* Block by block equals one after the other, and stored equals recomputed, bit for bit.
 */
static gboolean
equal (Bench *b)
{
  gsize n, i = 0;
  g_autofree float *first = gradients (b, FLUX_RUN_RECOMPUTE, TRUE, &n);
  g_autofree float *sequential = gradients (b, FLUX_RUN_RECOMPUTE, FALSE, &n);
  g_autofree float *stored = gradients (b, FLUX_RUN_STORE, TRUE, &n);
  gboolean same[] = {memcmp (first, sequential, n * sizeof (float)) == 0,
      memcmp (first, stored, n * sizeof (float)) == 0};

  while (i < n && first[i] == 0)
    i++;
  printf ("%s: gradients of two micro-batches, %s; block by block and one after the "
          "other %s, recomputed and stored %s\n",
      b->c->name, i < n ? "not zero" : "ALL ZERO", same[0] ? "the same bits" : "DIFFER",
      same[1] ? "the same bits" : "DIFFER");
  return i < n && same[0] && same[1];
}

static gboolean
run_case (const Case *c, gint64 started, gboolean profile)
{
  Bench b = {.c = c, .started = started};

  if (c->kind == FLOOR)
    return floor_measure (c->name, c->width / 16 * c->height / 16, c->text, c->repeats);
  if (c->kind == T5) {
    open_t5 (&b);
    measure (&b, t5_pass, 1, profile);
    return TRUE;
  }
  if (c->kind == VAE_DECODE || c->kind == VAE_ENCODE) {
    open_vae (&b);
    measure (&b, vae_pass, 1, profile);
    return TRUE;
  }
  open_model (&b);
  if (c->kind == FORWARD) {
    open_run (&b);
    measure (&b, forward, 1, profile);
    printf ("%-30s output %08x\n", c->name, hash_output (&b));
    return TRUE;
  }
  if (c->kind == EQUAL)
    return equal (&b);
  open_trainer (&b, c->kind == LEARN ? 1e-3 : 1e-4);
  if (c->kind == LEARN)
    return learn (&b);
  measure (&b, train_step, ACCUMULATE, profile);
  return TRUE;
}

int
main (int argc, char **argv)
{
  gboolean profile = argc > 1 && strcmp (argv[1], "--profile") == 0, ok = TRUE;
  gint64 started = g_get_monotonic_time ();

  for (int i = 1 + profile; i < argc; i++) {
    const Case *c = NULL;

    for (guint j = 0; j < G_N_ELEMENTS (cases); j++)
      if (strcmp (cases[j].name, argv[i]) == 0)
        c = &cases[j];
    if (c == NULL) {
      fprintf (stderr, "bench-gpu: there is no case '%s'\n", argv[i]);
      return 2;
    }
    ok = run_case (c, started, profile) && ok;
    started = g_get_monotonic_time ();
  }
  if (argc > 1 + profile)
    return ok ? 0 : 1;
  printf ("usage: bench-gpu [--profile] CASE...\ncases:");
  for (guint j = 0; j < G_N_ELEMENTS (cases); j++)
    printf (" %s", cases[j].name);
  printf ("\n");
  return 2;
}
