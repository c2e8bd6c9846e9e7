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
  fx_home home = key->offload == FLUX_OFFLOAD_STREAM ? FX_HOME_HOST : FX_HOME_DEVICE;
  fx_backend *p = fx_plan_new (b->compute);
  FluxTransformer *t;
  FluxTrainer *trainer;
  FluxModel *model;

  if (p == NULL) {
    flux_error_from_fx (error, FX_ERR_MEMORY, "Could not plan");
    return NULL;
  }
  p->has_fp8 = b->has_fp8;
  t = flux_transformer_load_planned (key->path, p, key->qtype, home, error);
  if (t == NULL) {
    fx_backend_free (p);
    return NULL;
  }
  model = flux_model_new_for (t);
  trainer = flux_trainer_new (model, c, text_tokens, image_tokens, error);
  flux_model_unref (model);
  return trainer;
}

gboolean
flux_trainer_check_room (fx_backend *b, const FluxModelKey *key,
    const FluxTrainConfig *config, int max_text_tokens, int max_image_tokens,
    GError **error)
{
  const gsize context = flux_trainer_context_bytes (b);
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
