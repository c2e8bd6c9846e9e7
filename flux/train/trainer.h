/* flux/train/trainer.h: the QLoRA training loop, without pipelines.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One optimiser step = accumulate micro-batches of one sample each: draw sigma, noise and
 * the posterior (all keyed by (seed, step, position in the window)), forward, backward,
 * clip, AdamW. Not thread-safe; the caller holds the model's lock around
 * flux_trainer_step*() and flux_trainer_evaluate(); the other functions that use the
 * backend (new, free, save, resume) take it themselves. */
#pragma once

#include "flux/model.h"
#include "flux/train/schedule.h"

G_BEGIN_DECLS

typedef enum { FLUX_OPTIMIZER_ADAMW8BIT, FLUX_OPTIMIZER_ADAMW } FluxOptimizer;

typedef struct {
  int rank;
  float alpha;         /* 0 = rank */
  const char *targets; /* flux_lora_new() */
  guint64 seed;
  FluxOptimizer optimizer;
  double learning_rate, beta1, beta2, epsilon, weight_decay;
  FluxLrScheduler lr_scheduler;
  guint64 warmup_steps, max_steps;
  double lr_num_cycles, lr_power;
  guint accumulate;     /* micro-batches a step */
  double max_grad_norm; /* 0 = no clipping */
  double guidance;
  double caption_dropout; /* probability of the empty prompt's embedding */
  FluxWeightingScheme weighting;
  double logit_mean, logit_std, mode_scale;
  FluxTimestepPrecision timestep_precision;
  gboolean recompute; /* FALSE: activations are stored */
  gboolean layer_major;
  guint64 budget; /* bytes for base, adapter and buffers together, on a GPU with what CUDA
                   * itself takes; 0: what the device has */
  float vae_scaling, vae_shift;
  double
      loss_scale; /* of the start, a power of two; 0: 65536 computing in fp16, else none
                   */
  guint64 loss_scale_interval; /* steps without overflow before it doubles */
} FluxTrainConfig;

/* The reference's defaults: rank 4, alpha 4, "attention", AdamW8bit 1e-4, betas .9 .999,
 * eps 1e-8, decay 1e-4, constant, accumulate 4, clip 1, guidance 1, none, recompute,
 * layer_major, no budget, loss scale as the compute dtype needs, interval 2000. */
void flux_train_config_init (FluxTrainConfig *c);
gboolean flux_train_config_check (const FluxTrainConfig *c, GError **error);

/* One picture with its caption's embeddings. Reference counted; the arrays are owned by
 * bytes. */
typedef struct {
  gatomicrefcount ref_count;
  char *key;                   /* content hash */
  char *caption;               /* for messages; may be NULL */
  GBytes *moments;             /* float [2 * channels, height, width], unscaled */
  int channels, height, width; /* latent cells */
  GBytes *prompt_embeds;       /* float [text_tokens, joint_dim] */
  int text_tokens, joint_dim;
  GBytes *pooled; /* float [pooled_dim] */
} FluxSample;

FluxSample *flux_sample_ref (FluxSample *s);
void flux_sample_unref (FluxSample *s);

typedef struct _FluxTrainer FluxTrainer;

typedef struct {
  guint64 step;     /* steps done, this one included: 1.. */
  double loss;      /* mean over the window */
  double grad_norm; /* before clipping */
  double learning_rate;
  double loss_scale; /* the loss was multiplied by it for the backward pass */
  guint overflows;   /* times the window went again, as its gradients were not finite */
} FluxStepResult;

/* max_text_tokens, max_image_tokens: the largest sample that will come; a larger one
 * grows the buffers between steps. With layer_major a window goes through the blocks
 * together as far as the budget allows, else in parts: the same bits, more slowly.
 * FLUX_ERROR_NO_SPACE when not even a single sample fits. */
FluxTrainer *flux_trainer_new (FluxModel *model, const FluxTrainConfig *config,
    int max_text_tokens, int max_image_tokens, GError **error);
/* Whether such a trainer fits on b beside what is there, with the base that key will
 * load, its blocks streamed or not: planned, nothing is read but headers. FALSE with
 * FLUX_ERROR_NO_SPACE and its bytes (flux_error_get_room()) when even a sample at a time
 * is too much. */
gboolean flux_trainer_check_room (fx_backend *b, const FluxModelKey *key,
    const FluxTrainConfig *config, int max_text_tokens, int max_image_tokens,
    GError **error);
void flux_trainer_free (FluxTrainer *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxTrainer, flux_trainer_free)

/* Samples that go through the blocks together. */
guint flux_trainer_get_at_once (FluxTrainer *self);
/* What base, adapter, optimiser and buffers take on the device. */
gsize flux_trainer_get_bytes (FluxTrainer *self);
FluxLora *flux_trainer_get_lora (FluxTrainer *self);
guint64 flux_trainer_get_step (FluxTrainer *self);
/* The configuration's, or after resuming the checkpoint's. */
guint64 flux_trainer_get_seed (FluxTrainer *self);
/* How the base was kept that the checkpoint was trained with, in
 * flux_transformer_get_quantization()'s words; NULL before resuming, and where it does
 * not say. The caller decides whether another one is what it means to go on with. */
const char *flux_trainer_get_quantization (FluxTrainer *self);
/* Any text of the caller's, kept in checkpoints and found again after resuming: where it
 * is in its data (epoch, place, order). "" at first. */
void flux_trainer_set_position (FluxTrainer *self, const char *position);
const char *flux_trainer_get_position (FluxTrainer *self);
/* May change between steps. */
void flux_trainer_set_learning_rate (FluxTrainer *self, double learning_rate);
void flux_trainer_set_max_steps (FluxTrainer *self, guint64 max_steps);
/* The empty prompt's embeddings for caption dropout (fluxembed sends them once). */
void flux_trainer_set_empty_prompt (FluxTrainer *self, FluxSample *sample);

/* One optimiser step over n samples (a last, short window is still divided by accumulate,
 * as the reference does). NaN or Inf in loss or gradients: FLUX_ERROR_NUMERIC, naming
 * step and sample; parameters and state are then as before the step. With loss scaling
 * (loss-scale.h) gradients that are not finite skip the update and halve the scale, and
 * the window goes again; it is an error when that does not help down to a scale of 1. */
gboolean flux_trainer_step (FluxTrainer *self, FluxSample *const *samples, guint n,
    FluxStepResult *result, GError **error);

/* The same with everything drawn given: for tests and evaluations. x = (1 - sigma) latent
 * + sigma noise; latent and noise are host [channels, height, width], scaled. */
typedef struct {
  const float *latent, *noise;
  int channels, height, width;
  const float *prompt_embeds, *pooled;
  int text_tokens;
  float sigma, timestep, guidance, weight;
} FluxTrial;
gboolean flux_trainer_step_trials (FluxTrainer *self, const FluxTrial *trials, guint n,
    double *losses, FluxStepResult *result, GError **error);
/* Losses only, no gradients, no change: the paired meter. */
gboolean flux_trainer_evaluate (
    FluxTrainer *self, const FluxTrial *trials, guint n, double *losses, GError **error);

/* Which sample of an epoch of n comes at position i: a permutation keyed by (seed,
 * epoch). */
void flux_train_permutation (guint64 seed, guint64 epoch, guint n, guint32 *order);

/* Checkpoint: a folder checkpoint-N with pytorch_lora_weights.safetensors and
 * state.safetensors (optimiser state, step, configuration, RNG key, order of the
 * samples), made under another name and renamed when whole. limit > 0 removes the oldest
 * beyond it. */
gboolean flux_trainer_save_checkpoint (
    FluxTrainer *self, const char *folder, guint limit, char **path, GError **error);
/* path: a checkpoint folder, or a folder of them ("latest" is taken). A checkpoint of
 * other rank, targets, base or optimiser is an error that says which. */
gboolean flux_trainer_resume (FluxTrainer *self, const char *path, GError **error);
/* Only the adapter, as diffusers loads it. */
gboolean flux_trainer_save_lora (
    FluxTrainer *self, const char *path, FluxLoraFormat format, GError **error);

G_END_DECLS
