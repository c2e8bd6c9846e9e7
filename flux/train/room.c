/* flux/train/room.c: whether a run fits, before its weights are read.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A trainer on the plan backend, with what is free for its budget. */
#include "flux/error.h"
#include "flux/train/trainer-private.h"

/* As a trainer on b would be. */
static FluxTrainer *
plan (const fx_backend *b, const FluxModelKey *key, const FluxTrainConfig *c,
    int text_tokens, int image_tokens, GError **error)
{
  g_autoptr (FluxModel) model = flux_model_new_planned (b, key, error);

  return model != NULL ? flux_trainer_new (model, c, text_tokens, image_tokens, error)
                       : NULL;
}

gboolean
flux_trainer_check_room (fx_backend *b, const FluxModelKey *key,
    const FluxTrainConfig *config, int max_text_tokens, int max_image_tokens,
    GError **error)
{
  const gsize context = flux_trainer_context_bytes (b, key->qtype == FX_Q_INT8);
  gsize available, budget = config->budget > 0 ? (gsize)config->budget : G_MAXSIZE;
  g_autoptr (FluxTrainer) trainer = NULL;
  g_autoptr (GError) failure = NULL;
  FluxTrainConfig c = *config;
  guint64 needed, limit;
  const char *hint;

  if (fx_free_memory (b, &available) != FX_OK || MIN (available, budget) == G_MAXSIZE)
    return TRUE;
  /* The budget counts CUDA's own, most of which has been taken by now. 0 is none. */
  available = MAX (available, 1);
  c.budget = MIN (available, budget > context ? budget - context : 1);
  trainer = plan (b, key, &c, max_text_tokens, max_image_tokens, &failure);
  if (trainer != NULL)
    return TRUE;
  if (!flux_error_get_room (failure, &needed, &limit, &hint))
    g_propagate_error (error, g_steal_pointer (&failure));
  else if (c.budget == available)
    flux_trainer_no_room (config, (gsize)needed, available, FALSE, error);
  else
    flux_trainer_no_room (config, (gsize)needed + context, budget, TRUE, error);
  return FALSE;
}
