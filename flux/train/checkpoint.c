/* flux/train/checkpoint.c: saving and resuming a trainer. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/error.h"
#include "flux/train/checkpoint-private.h"

static gboolean
fill (FluxTrainer *self, const char *folder, GError **error)
{
  g_autofree char *lora = g_build_filename (folder, FLUX_LORA_FILE, NULL);
  g_autofree char *state = g_build_filename (folder, FLUX_CHECKPOINT_STATE, NULL);
  gboolean ok;

  flux_model_lock (self->model);
  ok = flux_lora_save (self->lora, lora, error) && flux_state_save (self, state, error);
  flux_model_unlock (self->model);
  return ok;
}

/* The oldest go, but never the one that was just made: an earlier run may have left
 * higher numbers. */
static void
enforce_limit (const char *folder, guint limit, guint64 newest)
{
  g_autoptr (GArray) steps = flux_checkpoint_list (folder);
  guint left = steps->len;

  for (guint i = 0; i < steps->len && left > limit; i++) {
    guint64 step = g_array_index (steps, guint64, i);
    g_autofree char *path = flux_checkpoint_path (folder, step);

    if (step == newest)
      continue;
    flux_checkpoint_remove (path);
    left--;
  }
}

gboolean
flux_trainer_save_checkpoint (
    FluxTrainer *self, const char *folder, guint limit, char **path, GError **error)
{
  g_autofree char *temporary = flux_checkpoint_begin (folder, self->step, error);
  g_autofree char *made = NULL;

  if (temporary == NULL)
    return FALSE;
  if (fill (self, temporary, error))
    made = flux_checkpoint_commit (folder, temporary, self->step, error);
  if (made == NULL) {
    flux_checkpoint_remove (temporary);
    return FALSE;
  }
  if (limit > 0)
    enforce_limit (folder, limit, self->step);
  if (path != NULL)
    *path = g_steal_pointer (&made);
  return TRUE;
}

gboolean
flux_trainer_resume (FluxTrainer *self, const char *path, GError **error)
{
  g_autofree char *folder = flux_checkpoint_find (path, error);
  g_autofree char *lora = NULL;
  g_autofree char *state = NULL;
  FluxLora *adapter;
  gboolean ok;

  if (folder == NULL)
    return FALSE;
  lora = g_build_filename (folder, FLUX_LORA_FILE, NULL);
  state = g_build_filename (folder, FLUX_CHECKPOINT_STATE, NULL);
  flux_model_lock (self->model);
  adapter = flux_lora_load (self->config, self->backend, lora, FALSE, error);
  ok = adapter != NULL && flux_state_load (self, state, adapter, error);
  g_clear_pointer (&adapter, flux_lora_free);
  flux_model_unlock (self->model);
  return ok;
}

gboolean
flux_trainer_save_lora (
    FluxTrainer *self, const char *path, FluxLoraFormat format, GError **error)
{
  gboolean ok;

  flux_model_lock (self->model);
  ok = flux_lora_write (self->lora, path, format, error);
  flux_model_unlock (self->model);
  return ok;
}
