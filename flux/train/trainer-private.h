/* flux/train/trainer-private.h: the trainer's insides, for its own files.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/train/draws.h"
#include "flux/train/loss-scale.h"
#include "flux/train/optimiser.h"
#include "flux/train/trainer.h"

G_BEGIN_DECLS

/* Host buffers of one place in the window. */
typedef struct {
  float *latent, *noise; /* [channels, height, width], when they are drawn here */
  float *packed, *target;
  gsize capacity; /* elements of each */
} FluxPlace;

struct _FluxTrainer {
  FluxModel *model;
  fx_backend *backend;
  const FluxConfig *config; /* the transformer's */
  FluxTrainConfig c;
  char *targets;
  char *position;     /* the caller's, kept in checkpoints */
  char *quantization; /* of the base of the checkpoint it came from, or NULL */
  guint64 step;       /* optimiser steps done */
  FluxLora *lora;
  FluxAdam *adam;
  FluxLossScale loss_scale;
  FluxSample *empty_prompt;

  FluxRun *run; /* NULL after it could not be made */
  int max_text_tokens, max_image_tokens;
  guint wanted_samples, at_once; /* at_once of the wanted had room */
  gboolean lean;                 /* and weights are expanded at each use */
  GArray *places;                /* FluxPlace */
};

/* Makes the run large enough for samples of these sizes, n of them at once if they fit.
 */
gboolean flux_trainer_ensure_run (
    FluxTrainer *self, int text_tokens, int image_tokens, guint n, GError **error);
/* What CUDA takes by itself with a base in 8-bit integers or another, 0 elsewhere. */
gsize flux_trainer_context_bytes (const fx_backend *b, gboolean int8);
/* FLUX_ERROR_NO_SPACE: a run needs more than the budget, or than is free. */
void flux_trainer_no_room (const FluxTrainConfig *c, gsize needed, gsize available,
    gboolean is_budget, GError **error);
/* Buffers of place i for n elements; zero-filled when they are new. */
FluxPlace *flux_trainer_place (FluxTrainer *self, guint i, gsize n);
/* Gradients, clipping and update over n trials; names[i] is what errors call the i-th. */
gboolean
flux_trainer_window (FluxTrainer *self, const FluxTrial *trials, const char *const *names,
    guint n, double *losses, FluxStepResult *result, GError **error);

G_END_DECLS
