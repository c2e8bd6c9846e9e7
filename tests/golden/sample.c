/* tests/golden/sample.c: whole pictures. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sample.TAG.{latents,image,image_u8,sigmas,timesteps} at metadata sample.TAG {prompt,
 * seed, steps, guidance, width, height}. "nf4" in a tag: the NF4 base; "lora": with the
 * adapter after the training run on the same base. */
#include "flux/sample/sampler.h"

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "tests/golden/parity.h"

/* The latents have gone through all the steps; the picture has the stated bound. */
static const double LATENTS = 1e-3, SIGMAS = 1e-6, PSNR = 50, PSNR_BF16 = 35;

typedef struct {
  Parity *p;
  const char *tag, *prompt;
  JsonObject *settings;
  FluxModel *model;
  FluxSampler *sampler;
  FluxTextEncoder *text;
  FluxLora *lora;
  FluxSampleRequest request;
  int channels, downscale;
} Sample;

static void
sample_clear (Sample *s)
{
  g_clear_pointer (&s->sampler, flux_sampler_free);
  g_clear_pointer (&s->text, flux_text_encoder_free);
  g_clear_pointer (&s->lora, flux_lora_free);
  g_clear_pointer (&s->model, flux_model_unref);
  g_clear_pointer (&s->settings, json_object_unref);
}

static gboolean
sample_read (Sample *s, GError **error)
{
  const char *length = parity_metadata (s->p, "max_sequence_length");
  FluxSampleRequest *r = &s->request;

  s->settings = parity_settings (s->p, "sample.%s", s->tag);
  if (s->settings == NULL || !json_object_has_member (s->settings, "prompt")) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "the metadata do not describe it (no prompt)");
    return FALSE;
  }
  r->prompt = json_object_get_string_member (s->settings, "prompt");
  r->width = (int)parity_number (s->settings, "width", 0);
  r->height = (int)parity_number (s->settings, "height", 0);
  r->steps = (int)parity_number (s->settings, "steps", 0);
  r->guidance = parity_number (s->settings, "guidance", 3.5);
  r->seed = (guint64)parity_number (s->settings, "seed", 0);
  r->noise_dtype = FX_F32;
  r->max_sequence_length = length != NULL ? (int)g_ascii_strtoll (length, NULL, 10) : 512;
  if (r->width > 0 && r->height > 0 && r->steps > 0 && r->max_sequence_length > 0)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH, "its metadata make no sense");
  return FALSE;
}

/* The adapter that the tag speaks of. */
static gboolean
attach_adapter (Sample *s, ParityBase base, GError **error)
{
  const char *run = base == PARITY_BASE_FLOAT ? "train_fp32" : "train_nf4_adamw";
  g_autofree char *prefix = g_strdup_printf ("%s.final", run);
  g_autoptr (JsonObject) train = parity_settings (s->p, "train");
  float rank = (float)parity_rank (s->p, prefix);

  if (strstr (s->tag, "lora") == NULL)
    return TRUE;
  s->lora = parity_new_adapter (s->p, flux_model_get_transformer (s->model), prefix,
      train != NULL ? (float)parity_number (train, "alpha", (double)rank) : rank, FALSE,
      error);
  return s->lora != NULL && flux_sampler_set_loras (s->sampler, &s->lora, 1, error);
}

static gboolean
sample_open (Sample *s, GError **error)
{
  ParityBase base = parity_base_of (s->settings, s->tag);
  FluxVaeInfo vae;

  s->model = parity_model (s->p, base, error);
  if (s->model == NULL || !flux_vae_read_info (s->p->model_dir, &vae, error))
    return FALSE;
  s->channels = vae.latent_channels;
  s->downscale = vae.downscale;
  s->sampler = flux_sampler_new (s->model, s->p->model_dir, FX_Q_NONE, error);
  s->text = flux_text_encoder_load (s->p->model_dir, flux_model_get_backend (s->model),
      FX_Q_NONE, NULL, NULL, NULL, error);
  return s->sampler != NULL && s->text != NULL && attach_adapter (s, base, error);
}

/* ---- comparisons ---- */

static void
compare_part (Sample *s, const char *name, const float *got, gsize n, double bound)
{
  g_autofree char *group = g_strdup_printf ("sample.%s.%s", s->tag, name);
  gsize n_want = 0;
  g_autofree float *want = parity_floats (s->p, &n_want, "%s", group);

  if (want == NULL)
    return;
  if (n_want != n)
    parity_skip (s->p, group, "it is of another size than the metadata say");
  else
    parity_compare (s->p, group, got, want, n, bound);
}

static void
compare_sigmas (Sample *s)
{
  int token = 2 * s->downscale, steps = s->request.steps;
  g_autofree float *sigmas = g_new (float, steps + 1), *timesteps = g_new (float, steps);
  g_autoptr (GError) error = NULL;
  FluxScheduler scheduler;

  if (!flux_scheduler_read (s->p->model_dir, &scheduler, &error)) {
    parity_fail (s->p, "sample.sigmas", &error);
    return;
  }
  flux_scheduler_sigmas (&scheduler, steps,
      (s->request.height / token) * (s->request.width / token), sigmas, timesteps);
  compare_part (s, "sigmas", sigmas, (gsize)steps + 1, SIGMAS);
  compare_part (s, "timesteps", timesteps, (gsize)steps, SIGMAS);
}

static double
psnr (const guint8 *a, const guint8 *b, gsize n)
{
  double sum = 0;

  for (gsize i = 0; i < n; i++)
    sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
  return sum == 0 ? INFINITY : 10 * log10 (255.0 * 255.0 * (double)n / sum);
}

/* From the prompt to the bytes, as the element does it. */
static void
compare_picture (Sample *s)
{
  g_autofree char *group = g_strdup_printf ("sample.%s.image_u8", s->tag);
  const FluxTensor *want = parity_find (s->p, "%s", group);
  const FluxSampleRequest *r = &s->request;
  gsize n = 3 * (gsize)r->width * (gsize)r->height;
  g_autofree guint8 *rgb = g_new (guint8, n);
  g_autoptr (GError) error = NULL;

  if (want == NULL)
    return;
  if (want->dtype != FX_U8 || want->n_elements != n)
    parity_skip (s->p, group, "it is of another size than the metadata say");
  else if (!flux_sampler_run (s->sampler, r, rgb, 3 * r->width, TRUE, NULL, NULL, &error))
    parity_fail (s->p, group, &error);
  else
    parity_value (s->p, group, "PSNR dB", psnr (rgb, want->data, n),
        s->p->compute == FX_F32 ? PSNR : PSNR_BF16, TRUE);
}

static gboolean
denoise (Sample *s, float *packed, float *image, GError **error)
{
  const FluxTextInfo *info = flux_text_encoder_get_info (s->text);
  const FluxSampleRequest *r = &s->request;
  g_autofree float *embeds =
      g_new (float, (gsize)r->max_sequence_length *(gsize)info->joint_dim);
  g_autofree float *pooled = g_new (float, info->pooled_dim);

  flux_sampler_noise (r->seed, r->noise_dtype, s->channels, r->height / s->downscale,
      r->width / s->downscale, packed);
  return flux_text_encode (s->text, r->prompt, r->max_sequence_length, embeds, pooled,
             NULL, NULL, error) &&
         flux_sampler_denoise (
             s->sampler, r, embeds, pooled, packed, NULL, NULL, error) &&
         flux_sampler_decode (s->sampler, packed, r->width, r->height, image, error);
}

static void
compare_floats (Sample *s)
{
  g_autofree char *group = g_strdup_printf ("sample.%s.latents", s->tag);
  const FluxSampleRequest *r = &s->request;
  gsize n = (gsize)s->channels * (gsize)(r->height / s->downscale) *
            (gsize)(r->width / s->downscale);
  gsize pixels = 3 * (gsize)r->width * (gsize)r->height;
  g_autofree float *packed = g_new (float, n), *image = g_new (float, pixels);
  g_autoptr (GError) error = NULL;
  gboolean ok;

  flux_model_lock (s->model);
  ok = denoise (s, packed, image, &error);
  flux_model_unlock (s->model);
  if (!ok) {
    parity_fail (s->p, group, &error);
    return;
  }
  compare_part (s, "latents", packed, n, LATENTS);
  compare_part (s, "image", image, pixels, LATENTS);
}

void
parity_sample (Parity *p)
{
  g_auto (GStrv) tags = parity_indices (p, "sample.");

  for (guint i = 0; tags[i] != NULL; i++) {
    g_autofree char *group = g_strdup_printf ("sample.%s", tags[i]);
    g_autoptr (GError) error = NULL;
    Sample s = {.p = p, .tag = tags[i]};
    if (sample_read (&s, &error) && sample_open (&s, &error)) {
      compare_sigmas (&s);
      compare_floats (&s);
      compare_picture (&s);
    } else {
      g_autofree char *all = g_strdup_printf ("%s.", group);
      parity_mark (p, all);
      parity_fail (p, group, &error);
    }
    sample_clear (&s);
  }
}
