/* flux/transformer/lora-private.h: the inside of FluxLora, for the files beside it.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/transformer/slots.h"

G_BEGIN_DECLS

struct _FluxLora {
  const FluxLora *of; /* whose parameters a view shares, or NULL */
  FluxConfig config;
  fx_backend *backend;
  FluxLoraSlot *slots;
  guint n_slots;
  fx_lora *modules; /* [n_slots]; rank 0 where there is none */
  float *alphas;    /* [n_slots] */
  FluxLoraTensor *tensors;
  guint n_tensors;
  fx_arena parameters, gradients;
  gsize n_parameters, n_flat;
  int rank; /* the largest */
  float alpha, multiplier;
};

/* An adapter with these ranks and alphas, [slots] each, rank 0 for no module; all its
 * parameters are 0. */
FluxLora *flux_lora_build (const FluxConfig *c, fx_backend *b, const int *ranks,
    const float *alphas, gboolean with_gradients, GError **error);

G_END_DECLS
