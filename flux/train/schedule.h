/* flux/train/schedule.h: learning-rate schedules, timestep densities, loss weights.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers optimization.py and training_utils.py:360-407. */
#pragma once

#include <glib.h>

#include "kernels/fx.h"

G_BEGIN_DECLS

typedef enum {
  FLUX_LR_CONSTANT,
  FLUX_LR_CONSTANT_WITH_WARMUP,
  FLUX_LR_LINEAR,
  FLUX_LR_COSINE,
  FLUX_LR_COSINE_WITH_RESTARTS,
  FLUX_LR_POLYNOMIAL
} FluxLrScheduler;

typedef struct {
  FluxLrScheduler kind;
  guint64 warmup_steps, total_steps;
  double num_cycles; /* cosine: 0.5; with restarts: whole cycles, 1 */
  double power;      /* polynomial: 1 */
} FluxLrSchedule;

/* Factor on the learning rate before optimiser step `step` (0 = first). lr is needed by
 * polynomial, which ends at 1e-7. */
double flux_lr_factor (const FluxLrSchedule *s, guint64 step, double lr);

typedef enum {
  FLUX_WEIGHTING_NONE,
  FLUX_WEIGHTING_LOGIT_NORMAL,
  FLUX_WEIGHTING_MODE,
  FLUX_WEIGHTING_SIGMA_SQRT,
  FLUX_WEIGHTING_COSMAP
} FluxWeightingScheme;

/* Density transform: u in [0,1) (or a standard normal draw for logit-normal) to u. */
double flux_density (FluxWeightingScheme scheme, double draw, double logit_mean,
    double logit_std, double mode_scale);
/* Weight of the loss at sigma. */
double flux_loss_weight (FluxWeightingScheme scheme, double sigma);

typedef enum {
  FLUX_TIMESTEP_EXACT, /* sigma and timestep as they are */
  FLUX_TIMESTEP_PARITY /* both rounded as the bf16 reference does: facts.md section 2 */
} FluxTimestepPrecision;

G_END_DECLS
