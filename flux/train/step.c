/* flux/train/step.c: forward, backward, clipping and update over one window.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>

#include "flux/error.h"
#include "flux/train/trainer-private.h"

static gboolean
check_trial (FluxTrainer *self, const FluxTrial *t, const char *name, GError **error)
{
  if (t->channels * 4 == self->config->in_channels && t->height >= 2 && t->width >= 2 &&
      t->height % 2 == 0 && t->width % 2 == 0 && t->height <= 1 << 14 &&
      t->width <= 1 << 14 && t->text_tokens >= 1)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "Sample '%s' has %d channels of %dx%d cells and %d text tokens, which the model "
      "cannot take.",
      name, t->channels, t->width, t->height, t->text_tokens);
  return FALSE;
}

/* x = (1 - sigma) latent + sigma noise, target = noise - latent, both packed. */
static void
fill_micro (FluxTrainer *self, const FluxTrial *t, guint i, FluxMicro *micro)
{
  gsize n = (gsize)t->channels * (gsize)t->height * (gsize)t->width;
  FluxPlace *place = flux_trainer_place (self, i, n);
  g_autofree float *x = g_new (float, n);
  float keep = 1.0f - t->sigma;

  for (gsize j = 0; j < n; j++)
    x[j] = keep * t->latent[j] + t->sigma * t->noise[j];
  flux_pack_latents (x, t->channels, t->height, t->width, place->packed);
  for (gsize j = 0; j < n; j++)
    x[j] = t->noise[j] - t->latent[j];
  flux_pack_latents (x, t->channels, t->height, t->width, place->target);
  *micro = (FluxMicro){.in = {.latents = place->packed,
                           .grid_height = t->height / 2,
                           .grid_width = t->width / 2,
                           .prompt_embeds = t->prompt_embeds,
                           .text_tokens = t->text_tokens,
                           .pooled = t->pooled,
                           .timestep = t->timestep,
                           .guidance = t->guidance},
      .target = place->target,
      .weight = t->weight};
}

/* Checks all trials, makes room for them and fills micros. */
static gboolean
prepare (FluxTrainer *self, const FluxTrial *trials, const char *const *names, guint n,
    guint at_once, FluxMicro *micros, GError **error)
{
  int text_tokens = 0, image_tokens = 0;

  for (guint i = 0; i < n; i++) {
    if (!check_trial (self, &trials[i], names != NULL ? names[i] : "(trial)", error))
      return FALSE;
    text_tokens = MAX (text_tokens, trials[i].text_tokens);
    image_tokens = MAX (image_tokens, trials[i].height / 2 * (trials[i].width / 2));
  }
  if (!flux_trainer_ensure_run (self, text_tokens, image_tokens, at_once, error))
    return FALSE;
  for (guint i = 0; i < n; i++)
    fill_micro (self, &trials[i], i, &micros[i]);
  return TRUE;
}

static gboolean
zero_gradients (FluxTrainer *self, GError **error)
{
  int status = fx_zero (self->backend, flux_lora_gradients (self->lora),
      flux_lora_n_flat (self->lora) * sizeof (float));

  if (status == FX_OK)
    return TRUE;
  flux_error_from_fx (error, status, "Could not clear the gradients");
  return FALSE;
}

/* Nothing has been touched but the gradients, which every step clears first. */
static gboolean
fail_numeric (
    FluxTrainer *self, const char *what, double value, const char *name, GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC,
      "The %s of sample '%s' is %s in step %" G_GUINT64_FORMAT
      ": the adapter is as it was before that step; lower the learning rate, or look at "
      "that sample.",
      what, name != NULL ? name : "(several)", isnan (value) ? "NaN" : "infinite",
      self->step + 1);
  return FALSE;
}

/* Divided by accumulate even in a short last window, as the reference does. norm: of the
 * gradients of all, before the loss scale came in. */
static gboolean
gradients (FluxTrainer *self, const FluxMicro *micros, guint n, const char *const *names,
    double *losses, double *norm, GError **error)
{
  float scale = (float)(self->loss_scale.scale / self->c.accumulate);

  if (!zero_gradients (self, error))
    return FALSE;
  for (guint i = 0; i < n; i += self->at_once)
    if (!flux_run_gradients (self->run, &micros[i], MIN (self->at_once, n - i), scale,
            self->c.layer_major, &losses[i], error))
      return FALSE;
  for (guint i = 0; i < n; i++)
    if (!isfinite (losses[i]))
      return fail_numeric (self, "loss", losses[i], names[i], error);
  if (!flux_adam_grad_norm (self->adam, norm, error))
    return FALSE;
  *norm /= self->loss_scale.scale;
  return TRUE;
}

/* Which of the micro-batches has gradients that are not finite: only asked after the sum
 * of all was not. Leaves the gradients useless. */
static const char *
blame (FluxTrainer *self, const FluxMicro *micros, const char *const *names, guint n)
{
  for (guint i = 0; i < n; i++) {
    double loss, norm;

    if (!zero_gradients (self, NULL) ||
        !flux_run_gradients (self->run, &micros[i], 1, 1, FALSE, &loss, NULL) ||
        !flux_adam_grad_norm (self->adam, &norm, NULL))
      break;
    if (!isfinite (norm))
      return names[i];
  }
  return NULL;
}

static double
clip_factor (const FluxTrainConfig *c, double norm)
{
  /* torch.nn.utils.clip_grad_norm_ */
  return c->max_grad_norm > 0 ? MIN (1.0, c->max_grad_norm / (norm + 1e-6)) : 1.0;
}

static double
current_rate (const FluxTrainConfig *c, guint64 step)
{
  FluxLrSchedule s = {.kind = c->lr_scheduler,
      .warmup_steps = c->warmup_steps,
      .total_steps = c->max_steps,
      .num_cycles = c->lr_num_cycles,
      .power = c->lr_power};

  /* diffusers' get_scheduler() hands the cycles to the schedule with restarts only. */
  if (s.kind == FLUX_LR_COSINE)
    s.num_cycles = 0.5;
  return c->learning_rate * flux_lr_factor (&s, step, c->learning_rate);
}

static gboolean
check_window (FluxTrainer *self, guint n, GError **error)
{
  if (n >= 1 && n <= self->c.accumulate)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "A window of %u samples does not fit an accumulation of %u.", n,
      self->c.accumulate);
  return FALSE;
}

gboolean
flux_trainer_window (FluxTrainer *self, const FluxTrial *trials, const char *const *names,
    guint n, double *losses, FluxStepResult *result, GError **error)
{
  g_autofree FluxMicro *micros = g_new0 (FluxMicro, MAX (n, 1));
  double norm, used, sum = 0, rate = current_rate (&self->c, self->step);
  guint overflows = 0;

  if (!check_window (self, n, error) ||
      !prepare (self, trials, names, n, self->c.layer_major ? n : 1, micros, error) ||
      !gradients (self, micros, n, names, losses, &norm, error))
    return FALSE;
  for (; !isfinite (norm); overflows++) {
    if (!flux_loss_scale_back_off (&self->loss_scale))
      return fail_numeric (self, "gradient", norm, blame (self, micros, names, n), error);
    if (!gradients (self, micros, n, names, losses, &norm, error))
      return FALSE;
  }
  for (guint i = 0; i < n; i++)
    sum += losses[i];
  used = self->loss_scale.scale;
  if (!flux_adam_step (self->adam, &self->c, rate, clip_factor (&self->c, norm) / used,
          self->step + 1, error))
    return FALSE;
  flux_loss_scale_succeed (&self->loss_scale);
  self->step++;
  if (result != NULL)
    *result = (FluxStepResult){.step = self->step,
        .loss = sum / n,
        .grad_norm = norm,
        .learning_rate = rate,
        .loss_scale = used,
        .overflows = overflows};
  return TRUE;
}

gboolean
flux_trainer_step_trials (FluxTrainer *self, const FluxTrial *trials, guint n,
    double *losses, FluxStepResult *result, GError **error)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);

  for (guint i = 0; i < n; i++)
    g_ptr_array_add (names, g_strdup_printf ("trial %u", i));
  return flux_trainer_window (
      self, trials, (const char *const *)names->pdata, n, losses, result, error);
}

/* The loss on the host, in the precision of fx_mse(). */
static double
host_loss (const float *out, const float *target, float weight, gsize n)
{
  double sum = 0;

  for (gsize i = 0; i < n; i++) {
    double d = (double)out[i] - target[i];

    sum += d * d;
  }
  return weight * sum / (double)n;
}

gboolean
flux_trainer_evaluate (
    FluxTrainer *self, const FluxTrial *trials, guint n, double *losses, GError **error)
{
  for (guint i = 0; i < n; i++) {
    gsize size =
        (gsize)trials[i].channels * (gsize)trials[i].height * (gsize)trials[i].width;
    g_autofree float *out = NULL;
    FluxMicro micro;

    if (!prepare (self, &trials[i], NULL, 1, 1, &micro, error))
      return FALSE;
    out = g_new (float, size);
    if (!flux_run_forward (self->run, &micro.in, out, error))
      return FALSE;
    losses[i] = host_loss (out, micro.target, micro.weight, size);
  }
  return TRUE;
}
