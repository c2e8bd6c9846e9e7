/* flux/train/meter.h: a loss that can be compared. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The training loss is mostly the luck of the sigma and the noise drawn. The meter
 * measures the loss over a fixed set of (image, noise, sigma) triples instead, so that
 * two readings differ only by what was learnt in between. */
#pragma once

#include "flux/train/trainer.h"

G_BEGIN_DECLS

typedef struct _FluxMeter FluxMeter;

/* Triple i takes sample i % n_samples, its posterior's mean, noise of its own, and sigma
 * (i + 1/2) / n_triples, so that all noise levels count alike. Samples are referenced. */
FluxMeter *flux_meter_new (const FluxTrainConfig *config, FluxSample *const *samples,
    guint n_samples, guint n_triples);
void flux_meter_free (FluxMeter *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxMeter, flux_meter_free)
guint flux_meter_get_n_triples (FluxMeter *self);
/* The mean loss with the adapter as it is now. The caller holds the model's lock. */
gboolean
flux_meter_read (FluxMeter *self, FluxTrainer *trainer, double *loss, GError **error);

G_END_DECLS
