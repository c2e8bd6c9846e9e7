/* flux/sample/sampler.c: text to picture. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/sample/sampler.h"

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/sample/prompts.h"

enum { MAX_SIDE = 16384, MAX_STEPS = 1000, MAX_TEXT = 4096, DEFAULT_TEXT = 512 };

struct _FluxSampler {
  FluxModel *model;
  fx_backend *backend;
  const FluxConfig *config;
  char *dir;
  FluxScheduler scheduler;
  FluxVaeInfo vae_info;
  gboolean keep_models;
  FluxPrompts *prompts;
  FluxVae *vae;
  FluxProgressFunc progress; /* or NULL */
  gpointer progress_data;

  GPtrArray *loras; /* FluxLora, not owned */
  FluxRun *run;     /* NULL until it is needed, or after the adapters changed */
  int max_text_tokens, max_image_tokens;
  gboolean loras_changed;
};

static gboolean
check_parts (FluxSampler *self, GError **error)
{
  FluxTextInfo text;

  if (!flux_scheduler_read (self->dir, &self->scheduler, error) ||
      !flux_vae_read_info (self->dir, &self->vae_info, error) ||
      !flux_text_read_info (self->dir, &text, error))
    return FALSE;
  if (self->vae_info.latent_channels * 4 == self->config->in_channels &&
      text.joint_dim == self->config->joint_attention_dim &&
      text.pooled_dim == self->config->pooled_projection_dim)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "The parts of the model '%s' do not fit together: the transformer takes %d latent "
      "channels and text of %d and %d features, the VAE has %d and the text encoders "
      "give "
      "%d and %d.",
      self->dir, self->config->in_channels / 4, self->config->joint_attention_dim,
      self->config->pooled_projection_dim, self->vae_info.latent_channels, text.joint_dim,
      text.pooled_dim);
  return FALSE;
}

FluxSampler *
flux_sampler_new (FluxModel *model, const char *dir, fx_qtype text_qtype, GError **error)
{
  FluxSampler *self = g_new0 (FluxSampler, 1);

  self->model = flux_model_ref (model);
  self->backend = flux_model_get_backend (model);
  self->config = flux_model_get_config (model);
  self->dir = g_strdup (dir);
  flux_sampler_set_keep_models (self, strcmp (self->backend->name, "cpu") == 0);
  self->loras = g_ptr_array_new ();
  self->prompts = flux_prompts_new (dir, self->backend, text_qtype);
  if (!check_parts (self, error)) {
    flux_sampler_free (self);
    return NULL;
  }
  return self;
}

void
flux_sampler_free (FluxSampler *self)
{
  if (self == NULL)
    return;
  flux_model_lock (self->model);
  g_clear_pointer (&self->run, flux_run_free);
  g_clear_pointer (&self->vae, flux_vae_free);
  g_clear_pointer (&self->prompts, flux_prompts_free);
  flux_model_unlock (self->model);
  g_ptr_array_unref (self->loras);
  flux_model_unref (self->model);
  g_free (self->dir);
  g_free (self);
}

void
flux_sampler_set_keep_models (FluxSampler *self, gboolean keep)
{
  self->keep_models = keep && flux_model_get_offload (self->model) == FLUX_OFFLOAD_NONE;
}

void
flux_sampler_set_cache (FluxSampler *self, FluxWeightsCache *cache)
{
  flux_prompts_set_cache (self->prompts, cache);
}

void
flux_sampler_set_progress (FluxSampler *self, FluxProgressFunc progress, gpointer data)
{
  self->progress = progress;
  self->progress_data = data;
  flux_prompts_set_progress (self->prompts, progress, data);
}

gboolean
flux_sampler_set_loras (
    FluxSampler *self, FluxLora *const *loras, guint n_loras, GError **error)
{
  g_ptr_array_set_size (self->loras, 0);
  for (guint i = 0; i < n_loras; i++)
    g_ptr_array_add (self->loras, loras[i]);
  self->loras_changed = TRUE;
  return TRUE;
}

/* What takes turns with the others leaves. */
static void
make_room (FluxSampler *self)
{
  if (flux_model_get_offload (self->model) == FLUX_OFFLOAD_MODEL) {
    g_clear_pointer (&self->run, flux_run_free);
    flux_model_close_weights (self->model);
  }
}

gboolean
flux_sampler_encode (FluxSampler *self, const char *const *prompts, guint n,
    int max_sequence_length, GError **error)
{
  int text = max_sequence_length > 0 ? max_sequence_length : DEFAULT_TEXT;
  gboolean ok = TRUE;

  flux_prompts_set_room (self->prompts, n);
  flux_model_lock (self->model);
  make_room (self);
  for (guint i = 0; i < n && ok; i++)
    ok = flux_prompts_get (self->prompts, prompts[i], text, error) != NULL;
  if (!self->keep_models)
    flux_prompts_free_encoder (self->prompts);
  flux_model_unlock (self->model);
  return ok;
}

static gboolean
check_request (FluxSampler *self, const FluxSampleRequest *r, GError **error)
{
  int grid = 2 * self->vae_info.downscale;

  if (r->width < grid || r->height < grid || r->width > MAX_SIDE ||
      r->height > MAX_SIDE || r->width % grid != 0 || r->height % grid != 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "A picture of %dx%d cannot be made: both sides must be multiples of %d, up to "
        "%d.",
        r->width, r->height, grid, MAX_SIDE);
    return FALSE;
  }
  if (r->steps < 1 || r->steps > MAX_STEPS || !isfinite (r->guidance) ||
      r->max_sequence_length < 0 || r->max_sequence_length > MAX_TEXT ||
      (r->noise_dtype != FX_F32 && r->noise_dtype != FX_BF16 &&
          r->noise_dtype != FX_F16)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "A picture needs 1..%d steps, a guidance that is a number, at most %d text "
        "tokens, and float32, bfloat16 or float16 noise.",
        MAX_STEPS, MAX_TEXT);
    return FALSE;
  }
  return TRUE;
}

static gboolean
ensure_run (FluxSampler *self, int text_tokens, int image_tokens, GError **error)
{
  if (self->run != NULL && !self->loras_changed && text_tokens <= self->max_text_tokens &&
      image_tokens <= self->max_image_tokens)
    return TRUE;
  g_clear_pointer (&self->run, flux_run_free); /* never two at once */
  if (!flux_model_open_weights (self->model, self->progress, self->progress_data, error))
    return FALSE;
  self->max_text_tokens = MAX (self->max_text_tokens, text_tokens);
  self->max_image_tokens = MAX (self->max_image_tokens, image_tokens);
  self->run = flux_run_new (flux_model_get_transformer (self->model), FLUX_RUN_FORWARD,
      self->max_text_tokens, self->max_image_tokens, 1,
      (FluxLora *const *)self->loras->pdata, self->loras->len, error);
  self->loras_changed = self->run == NULL;
  return self->run != NULL;
}

static int
text_tokens_of (const FluxSampleRequest *r)
{
  return r->max_sequence_length > 0 ? r->max_sequence_length : DEFAULT_TEXT;
}

/* hand_over: whoever waits for the model runs between two steps. */
static gboolean
denoise (FluxSampler *self, const FluxSampleRequest *r, const float *prompt_embeds,
    const float *pooled, float *packed, gboolean hand_over, FluxSampleFunc func,
    gpointer data, GError **error)
{
  int grid = 2 * self->vae_info.downscale;
  int rows = r->height / grid, cols = r->width / grid;
  gsize n = (gsize)rows * (gsize)cols * (gsize)self->config->in_channels;
  g_autofree float *sigmas = g_new (float, (gsize)r->steps + 1);
  g_autofree float *timesteps = g_new (float, (gsize)r->steps);
  g_autofree float *velocity = g_new (float, n);
  FluxInput in = {.latents = packed,
      .grid_height = rows,
      .grid_width = cols,
      .prompt_embeds = prompt_embeds,
      .text_tokens = text_tokens_of (r),
      .pooled = pooled,
      .guidance = (float)r->guidance};

  flux_scheduler_sigmas (&self->scheduler, r->steps, rows * cols, sigmas, timesteps);
  if (!ensure_run (self, in.text_tokens, rows * cols, error))
    return FALSE;
  flux_run_set_progress (self->run, self->progress, self->progress_data);
  for (int i = 0; i < r->steps; i++) {
    float dt = sigmas[i + 1] - sigmas[i];

    in.timestep = timesteps[i] / 1000.0f;
    if (!flux_run_forward (self->run, &in, velocity, error))
      return FALSE;
    for (gsize j = 0; j < n; j++)
      packed[j] += dt * velocity[j];
    if (func != NULL && !func (i + 1, r->steps, data)) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED,
          "The picture was cancelled after step %d of %d.", i + 1, r->steps);
      return FALSE;
    }
    if (hand_over) {
      flux_model_unlock (self->model);
      flux_model_lock (self->model);
    }
  }
  for (gsize j = 0; j < n; j++)
    if (!isfinite (packed[j])) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC,
          "The picture became NaN or infinite: an adapter or its scale is too strong, or "
          "the model is damaged.");
      return FALSE;
    }
  return TRUE;
}

gboolean
flux_sampler_denoise (FluxSampler *self, const FluxSampleRequest *request,
    const float *prompt_embeds, const float *pooled, float *packed, FluxSampleFunc func,
    gpointer data, GError **error)
{
  return check_request (self, request, error) &&
         denoise (self, request, prompt_embeds, pooled, packed, FALSE, func, data, error);
}

gboolean
flux_sampler_decode (FluxSampler *self, const float *packed, int width, int height,
    float *image, GError **error)
{
  int channels = self->vae_info.latent_channels;
  int w = width / self->vae_info.downscale, h = height / self->vae_info.downscale;
  gsize n = (gsize)channels * (gsize)h * (gsize)w;
  g_autofree float *latents = g_new (float, n);
  gboolean ok;

  make_room (self);
  flux_unpack_latents (packed, channels, h, w, latents);
  for (gsize i = 0; i < n; i++)
    latents[i] = latents[i] / self->vae_info.scaling_factor + self->vae_info.shift_factor;
  if (self->vae == NULL)
    self->vae =
        flux_vae_load (self->dir, self->backend, FLUX_VAE_DECODER, NULL, NULL, error);
  ok = self->vae != NULL && flux_vae_decode (self->vae, latents, w, h, image, error);
  if (!self->keep_models)
    g_clear_pointer (&self->vae, flux_vae_free);
  return ok;
}

static gboolean
run_locked (FluxSampler *self, const FluxSampleRequest *r, float *image,
    gboolean keep_lock, FluxSampleFunc func, gpointer data, GError **error)
{
  int channels = self->vae_info.latent_channels, scale = self->vae_info.downscale;
  int w = r->width / scale, h = r->height / scale;
  const char *prompt = r->prompt != NULL ? r->prompt : "";
  g_autofree float *packed = NULL;
  const FluxPromptEmbedding *text;

  if (!flux_prompts_has (self->prompts, prompt, text_tokens_of (r)))
    make_room (self);
  text = flux_prompts_get (self->prompts, prompt, text_tokens_of (r), error);
  if (!self->keep_models)
    flux_prompts_free_encoder (self->prompts);
  if (text == NULL)
    return FALSE;
  packed = g_new (float, (gsize)channels *(gsize)h *(gsize)w);
  flux_sampler_noise (r->seed, r->noise_dtype, channels, h, w, packed);
  return denoise (self, r, text->prompt_embeds, text->pooled, packed, !keep_lock, func,
             data, error) &&
         flux_sampler_decode (self, packed, r->width, r->height, image, error);
}

gboolean
flux_sampler_run (FluxSampler *self, const FluxSampleRequest *request, guint8 *rgb,
    int stride, gboolean keep_lock, FluxSampleFunc func, gpointer data, GError **error)
{
  g_autofree float *image = NULL;
  gboolean ok;

  if (!check_request (self, request, error))
    return FALSE;
  image = g_new (float, 3 * (gsize)request->width * (gsize)request->height);
  flux_model_lock (self->model);
  ok = run_locked (self, request, image, keep_lock, func, data, error);
  flux_model_unlock (self->model);
  if (ok)
    flux_vae_image_to_rgb (image, request->width, request->height, rgb, stride);
  return ok;
}
