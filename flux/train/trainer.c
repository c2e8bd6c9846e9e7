/* flux/train/trainer.c: a trainer and one training step of drawn samples.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "flux/error.h"
#include "flux/train/trainer-private.h"

static void
clear_place (gpointer data)
{
  FluxPlace *place = data;

  g_free (place->latent);
  g_free (place->noise);
  g_free (place->packed);
  g_free (place->target);
}

static gboolean
make_adapter (FluxTrainer *self, GError **error)
{
  float alpha = self->c.alpha > 0 ? self->c.alpha : (float)self->c.rank;

  self->lora = flux_lora_new (
      self->config, self->backend, self->c.rank, alpha, self->c.targets, TRUE, error);
  if (self->lora == NULL || !flux_lora_init_gaussian (self->lora, self->c.seed, error))
    return FALSE;
  self->adam = flux_adam_new (self->lora, self->backend, self->c.optimizer, error);
  return self->adam != NULL;
}

FluxTrainer *
flux_trainer_new (FluxModel *model, const FluxTrainConfig *config, int max_text_tokens,
    int max_image_tokens, GError **error)
{
  FluxTrainer *self;
  guint samples;
  gboolean ok;

  if (!flux_train_config_check (config, error))
    return NULL;
  self = g_new0 (FluxTrainer, 1);
  self->model = flux_model_ref (model);
  self->backend = flux_model_get_backend (model);
  self->config = flux_model_get_config (model);
  self->c = *config;
  self->c.targets = self->targets = g_strdup (config->targets);
  self->position = g_strdup ("");
  flux_loss_scale_init (&self->loss_scale, config->loss_scale,
      config->loss_scale_interval, self->backend->compute);
  self->places = g_array_new (FALSE, TRUE, sizeof (FluxPlace));
  g_array_set_clear_func (self->places, clear_place);

  samples = self->c.layer_major ? self->c.accumulate : 1;
  flux_model_lock (model);
  ok = make_adapter (self, error) &&
       flux_trainer_ensure_run (self, max_text_tokens, max_image_tokens, samples, error);
  flux_model_unlock (model);
  if (!ok) {
    flux_trainer_free (self);
    return NULL;
  }
  return self;
}

void
flux_trainer_free (FluxTrainer *self)
{
  if (self == NULL)
    return;
  flux_model_lock (self->model);
  g_clear_pointer (&self->run, flux_run_free);
  g_clear_pointer (&self->adam, flux_adam_free);
  g_clear_pointer (&self->lora, flux_lora_free);
  flux_model_unlock (self->model);
  g_clear_pointer (&self->empty_prompt, flux_sample_unref);
  g_array_unref (self->places);
  g_free (self->targets);
  g_free (self->position);
  g_free (self->quantization);
  flux_model_unref (self->model);
  g_free (self);
}

/* What CUDA takes by itself: its context, cuBLASLt's workspaces and the kernels' scratch.
 * 607 MiB on an H100 at 512x768, so a little more is counted, and 28 more where cuBLAS
 * has loaded its integer kernels; a lean run expands its weights in scratch, the largest
 * of which has 5 dim^2 elements, where another has a second queue's workspace. */
gsize
flux_trainer_context_bytes (const fx_backend *b, gboolean int8)
{
  return strcmp (b->name, "cuda") == 0 ? (gsize)(int8 ? 672 : 640) << 20 : 0;
}

static gsize
own_bytes (FluxTrainer *self)
{
  const gsize dim = (gsize)flux_config_dim (self->config);
  const char *quantization =
      flux_transformer_get_quantization (flux_model_get_transformer (self->model));

  return flux_trainer_context_bytes (self->backend, strcmp (quantization, "int8") == 0) +
         (self->lean && strcmp (self->backend->name, "cpu") != 0
                 ? 5 * dim * dim * fx_dtype_size (self->backend->compute)
                 : 0);
}

/* What is there beside the run. */
static gsize
fixed_bytes (FluxTrainer *self)
{
  return own_bytes (self) +
         flux_transformer_get_bytes (flux_model_get_transformer (self->model)) +
         2 * sizeof (float) * flux_lora_n_flat (self->lora) +
         flux_adam_get_bytes (self->adam);
}

void
flux_trainer_no_room (const FluxTrainConfig *c, gsize needed, gsize available,
    gboolean is_budget, GError **error)
{
  g_autofree char *hint = g_strdup_printf (
      "%s, or use smaller pictures, fewer text tokens%s or quantization=nf4-double",
      is_budget ? "raise vram-budget" : "end what else uses it",
      c->recompute ? "" : ", gradient-checkpointing");

  flux_error_no_room (
      error, "Training", needed, available, is_budget ? "its budget" : "free", hint);
}

/* A run for n samples at once. Without room it is FLUX_ERROR_NO_SPACE. */
static FluxRun *
make_run (FluxTrainer *self, guint n, GError **error)
{
  FluxTransformer *base = flux_model_get_transformer (self->model);
  FluxRunMode mode = (self->c.recompute ? FLUX_RUN_RECOMPUTE : FLUX_RUN_STORE) |
                     (self->lean ? FLUX_RUN_LEAN : 0);
  gsize bytes = 0;

  if (self->c.budget > 0) {
    bytes = flux_run_measure (base, mode, self->max_text_tokens, self->max_image_tokens,
        (int)n, &self->lora, 1, error);
    if (bytes == 0)
      return NULL;
    bytes += fixed_bytes (self);
  }
  if (bytes > self->c.budget) {
    flux_trainer_no_room (&self->c, bytes, self->c.budget, TRUE, error);
    return NULL;
  }
  return flux_run_new (base, mode, self->max_text_tokens, self->max_image_tokens, (int)n,
      &self->lora, 1, error);
}

/* What is left of a budget keeps weights expanded. */
static gboolean
spend_the_rest (FluxTrainer *self, GError **error)
{
  const gsize block = flux_run_expanded_bytes (self->run);
  const guint64 taken = flux_trainer_get_bytes (self);

  if (block == 0 || self->c.budget <= taken)
    return TRUE;
  return flux_run_keep_expanded (
      self->run, (guint)((self->c.budget - taken) / block), error);
}

static guint64
needed_by (const GError *error)
{
  guint64 needed, available;
  const char *hint;

  return error != NULL && flux_error_get_room (error, &needed, &available, &hint)
             ? needed
             : G_MAXUINT64;
}

/* The one of two refusals that asks for less, b where both say nothing; frees the other.
 */
static GError *
less_of (GError *a, GError *b)
{
  GError *more = needed_by (a) < needed_by (b) ? b : a;

  if (more != NULL)
    g_error_free (more);
  return more == a ? b : a;
}

gboolean
flux_trainer_ensure_run (
    FluxTrainer *self, int text_tokens, int image_tokens, guint n, GError **error)
{
  GError *failure = NULL, *least = NULL;

  if (self->run != NULL && text_tokens <= self->max_text_tokens &&
      image_tokens <= self->max_image_tokens && n <= self->wanted_samples)
    return TRUE;
  self->max_text_tokens = MAX (self->max_text_tokens, MAX (text_tokens, 1));
  self->max_image_tokens = MAX (self->max_image_tokens, MAX (image_tokens, 1));
  self->wanted_samples = MAX (self->wanted_samples, MAX (n, 1));
  g_clear_pointer (&self->run, flux_run_free); /* never two at once */
  self->at_once = self->wanted_samples;
  self->lean = FALSE;
  while ((self->run = make_run (self, self->at_once, &failure)) == NULL &&
         !(self->at_once == 1 && self->lean) &&
         g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_NO_SPACE)) {
    least = less_of (least, g_steal_pointer (&failure));
    if (self->at_once == 1)
      self->lean = TRUE;
    self->at_once = (self->at_once + 1) / 2;
  }
  if (g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_NO_SPACE))
    failure = less_of (g_steal_pointer (&least), failure);
  g_clear_error (&least);
  if (failure != NULL)
    g_propagate_error (error, failure);
  return self->run != NULL && spend_the_rest (self, error);
}

guint
flux_trainer_get_at_once (FluxTrainer *self)
{
  return self->at_once;
}

gsize
flux_trainer_get_bytes (FluxTrainer *self)
{
  return fixed_bytes (self) + (self->run != NULL ? flux_run_get_bytes (self->run) : 0);
}

FluxPlace *
flux_trainer_place (FluxTrainer *self, guint i, gsize n)
{
  FluxPlace *place;

  if (i >= self->places->len)
    g_array_set_size (self->places, i + 1);
  place = &g_array_index (self->places, FluxPlace, i);
  if (place->capacity < n) {
    clear_place (place);
    place->latent = g_new0 (float, n);
    place->noise = g_new0 (float, n);
    place->packed = g_new0 (float, n);
    place->target = g_new0 (float, n);
    place->capacity = n;
  }
  return place;
}

FluxLora *
flux_trainer_get_lora (FluxTrainer *self)
{
  return self->lora;
}

guint64
flux_trainer_get_step (FluxTrainer *self)
{
  return self->step;
}

guint64
flux_trainer_get_seed (FluxTrainer *self)
{
  return self->c.seed;
}

const char *
flux_trainer_get_quantization (FluxTrainer *self)
{
  return self->quantization;
}

void
flux_trainer_set_learning_rate (FluxTrainer *self, double learning_rate)
{
  self->c.learning_rate = learning_rate;
}

void
flux_trainer_set_max_steps (FluxTrainer *self, guint64 max_steps)
{
  self->c.max_steps = max_steps;
}

void
flux_trainer_set_empty_prompt (FluxTrainer *self, FluxSample *sample)
{
  if (sample != NULL)
    flux_sample_ref (sample);
  g_clear_pointer (&self->empty_prompt, flux_sample_unref);
  self->empty_prompt = sample;
}

void
flux_trainer_set_position (FluxTrainer *self, const char *position)
{
  g_free (self->position);
  self->position = g_strdup (position != NULL ? position : "");
}

const char *
flux_trainer_get_position (FluxTrainer *self)
{
  return self->position;
}

static gsize
size_of (GBytes *bytes)
{
  return bytes != NULL ? g_bytes_get_size (bytes) / sizeof (float) : 0;
}

/* prompt: the sample whose embeddings are used, which is the empty prompt's after
 * dropout. */
static gboolean
check_prompt (FluxTrainer *self, const FluxSample *prompt, GError **error)
{
  const FluxConfig *f = self->config;

  if (prompt->text_tokens >= 1 && prompt->joint_dim == f->joint_attention_dim &&
      size_of (prompt->prompt_embeds) ==
          (gsize)prompt->text_tokens * (gsize)prompt->joint_dim &&
      size_of (prompt->pooled) == (gsize)f->pooled_projection_dim)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "Sample '%s' has text embeddings of %d x %d and %zu pooled values where the model "
      "needs %d and %d features: they were made for another model.",
      prompt->key != NULL ? prompt->key : "", prompt->text_tokens, prompt->joint_dim,
      size_of (prompt->pooled), f->joint_attention_dim, f->pooled_projection_dim);
  return FALSE;
}

static gboolean
check_moments (FluxTrainer *self, const FluxSample *s, GError **error)
{
  int channels = self->config->in_channels / 4;

  if (s->channels == channels && s->height >= 2 && s->width >= 2 && s->height % 2 == 0 &&
      s->width % 2 == 0 && s->height <= 1 << 14 && s->width <= 1 << 14 &&
      size_of (s->moments) == 2 * (gsize)s->channels * (gsize)s->height * (gsize)s->width)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "Sample '%s' has latents of %d channels and %dx%d cells where the model needs %d "
      "channels and even sizes: it was encoded for another model.",
      s->key != NULL ? s->key : "", s->channels, s->width, s->height, channels);
  return FALSE;
}

/* Draws everything of place i and points trial at it. */
static gboolean
draw_trial (
    FluxTrainer *self, const FluxSample *s, guint i, FluxTrial *trial, GError **error)
{
  gsize n = (gsize)self->config->in_channels / 4 * (gsize)s->height * (gsize)s->width;
  const FluxSample *prompt = s;
  FluxPlace *place;
  FluxDraw draw;

  if (!check_moments (self, s, error))
    return FALSE;
  flux_draw_scalars (&self->c, self->c.seed, self->step, i, &draw);
  if (draw.drop_caption) {
    prompt = self->empty_prompt;
    if (prompt == NULL) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "Caption dropout needs the embeddings of the empty prompt, which were not "
          "given: compute them with a text model, or set caption dropout to 0.");
      return FALSE;
    }
  }
  if (!check_prompt (self, prompt, error))
    return FALSE;
  place = flux_trainer_place (self, i, n);
  flux_draw_latent (&self->c, self->c.seed, self->step, i,
      g_bytes_get_data (s->moments, NULL), n, place->latent);
  flux_draw_noise (self->c.seed, self->step, i, place->noise, n);
  *trial = (FluxTrial){.latent = place->latent,
      .noise = place->noise,
      .channels = s->channels,
      .height = s->height,
      .width = s->width,
      .prompt_embeds = g_bytes_get_data (prompt->prompt_embeds, NULL),
      .pooled = g_bytes_get_data (prompt->pooled, NULL),
      .text_tokens = prompt->text_tokens,
      .sigma = draw.sigma,
      .timestep = draw.timestep,
      .guidance = draw.guidance,
      .weight = draw.weight};
  return TRUE;
}

gboolean
flux_trainer_step (FluxTrainer *self, FluxSample *const *samples, guint n,
    FluxStepResult *result, GError **error)
{
  g_autofree FluxTrial *trials = g_new0 (FluxTrial, MAX (n, 1));
  g_autofree const char **names = g_new0 (const char *, MAX (n, 1));
  g_autofree double *losses = g_new0 (double, MAX (n, 1));

  for (guint i = 0; i < n; i++) {
    names[i] = samples[i]->key != NULL ? samples[i]->key : "";
    if (!draw_trial (self, samples[i], i, &trials[i], error))
      return FALSE;
  }
  return flux_trainer_window (self, trials, names, n, losses, result, error);
}
