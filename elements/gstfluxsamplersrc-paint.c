/* gstfluxsamplersrc-paint.c: one picture: which prompt and seed, from which model.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <stdlib.h>

#include "elements/gstfluxsamplersrc-private.h"

#define GST_CAT_DEFAULT gst_flux_sampler_src_debug

/* ---- before anything is loaded ---- */

static gboolean
read_prompts (GstFluxSamplerSrc *self, GError **error)
{
  g_autofree gchar *text = NULL;
  g_autoptr (GError) failure = NULL;
  gsize length;
  gchar **lines;
  guint n = 0;

  if (!g_file_get_contents (self->prompt_location, &text, &length, &failure)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "The prompts cannot be read: %s. "
        "Set prompt-location to a text file with a prompt a line.",
        failure->message);
    return FALSE;
  }
  if (!g_utf8_validate (text, (gssize)length, NULL)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is not UTF-8: save the prompts as UTF-8.", self->prompt_location);
    return FALSE;
  }
  lines = g_strsplit (text, "\n", -1);
  for (guint i = 0; lines[i] != NULL; i++) {
    if (g_strstrip (lines[i])[0] != '\0')
      lines[n++] = lines[i];
    else
      g_free (lines[i]);
  }
  lines[n] = NULL;
  if (n == 0) {
    g_strfreev (lines);
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' holds no prompt: write one a line.", self->prompt_location);
    return FALSE;
  }
  self->prompts = lines;
  self->n_prompts = n;
  return TRUE;
}

/* A damaged VAE is found now, not when it is needed: after the last step. */
static gboolean
read_model (GstFluxSamplerSrc *self, const gchar *path, GError **error)
{
  FluxConfig config;

  if (!flux_config_read (path, &config, error) ||
      !flux_vae_read_info (path, &self->vae, error) || !flux_vae_check (path, error))
    return FALSE;
  self->path = g_strdup (path);
  return TRUE;
}

GstFlowReturn
gst_flux_sampler_src_fetch (GstFluxSamplerSrc *self)
{
  g_autofree gchar *path = NULL, *loras = NULL;
  GstFlowReturn ret;
  GError *error = NULL;

  if (self->refused)
    return GST_FLOW_ERROR;
  if (self->model != NULL && self->path == NULL) {
    path = gst_flux_hub_resolve (&self->hub, self->model, FLUX_HUB_MODEL, &error);
    if (path != NULL)
      read_model (self, path, &error);
  }
  GST_OBJECT_LOCK (self);
  loras = g_strdup (self->loras);
  GST_OBJECT_UNLOCK (self);
  if (error == NULL)
    gst_flux_adapters_fetch (loras, &self->hub, self->adapters, &error);
  ret = gst_flux_hub_flow (&self->hub, error);
  self->refused = ret == GST_FLOW_ERROR;
  if (error != NULL)
    gst_flux_post_error (self, error);
  return ret;
}

gboolean
gst_flux_sampler_src_prepare (GstFluxSamplerSrc *self, GError **error)
{
  int device;

  if (self->model == NULL && self->every_steps == 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxsamplersrc has no model: set model to the folder of one.");
    return FALSE;
  }
  if (self->prompt == NULL && self->prompt_location == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxsamplersrc has no prompt: set prompt, or prompt-location to a file with a "
        "prompt a line.");
    return FALSE;
  }
  if (self->model != NULL && !flux_hub_is_uri (self->model) &&
      !read_model (self, self->model, error))
    return FALSE;
  if (self->merge && (self->every_steps > 0 || self->quantization != FX_Q_NONE)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS, "%s",
        self->every_steps > 0
            ? "A preview shows the trainer's weights, into which nothing can be merged: "
              "leave merge away."
            : "Adapters cannot be merged into quantised weights: set quantization=none, "
              "or leave merge away, then they work beside them.");
    return FALSE;
  }
  if (self->offload != FLUX_OFFLOAD_NONE && (self->every_steps > 0 || self->merge)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS, "%s",
        self->every_steps > 0
            ? "A preview draws with the trainer's weights, which stay where they are: "
              "leave offload away."
            : "Adapters are merged into weights that stay on the device: leave merge "
              "away, or offload.");
    return FALSE;
  }
  return flux_device_parse (self->device, &device, error) &&
         gst_flux_adapters_check (self->loras, error) &&
         (self->prompt_location == NULL || read_prompts (self, error));
}

/* ---- the model ---- */

static gboolean
may_go_on (gpointer data)
{
  GstFluxSamplerSrc *self = data;

  return !g_atomic_int_get (&self->unlocked) &&
         (self->preview == NULL || gst_flux_preview_may_go_on (self->preview));
}

static gboolean
same_folder (const gchar *a, const gchar *b)
{
  gchar *x = realpath (a, NULL), *y = realpath (b, NULL);
  gboolean same = g_strcmp0 (x, y) == 0;

  free (x);
  free (y);
  return same;
}

/* Another form of the trainer's model would be a second load. */
static gboolean
check_offer (GstFluxSamplerSrc *self, const GstFluxOffer *offer, GError **error)
{
  if (self->model != NULL && !same_folder (self->path, offer->model_path)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The preview's model is '%s' and the trainer's '%s': a preview shows the "
        "trainer's, leave model away.",
        self->model, offer->model_path);
    return FALSE;
  }
  if (self->has_quantization && self->quantization != offer->qtype) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The preview's quantization is not the trainer's: a preview shows the trainer's "
        "model, leave quantization away.");
    return FALSE;
  }
  if (self->compute_dtype != FX_N_DTYPES &&
      self->compute_dtype != flux_model_get_backend (offer->model)->compute) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The preview's compute-dtype is not the trainer's: a preview shows the trainer's "
        "model, leave compute-dtype away.");
    return FALSE;
  }
  return TRUE;
}

static FluxModelKey
model_key (GstFluxSamplerSrc *self)
{
  return (FluxModelKey){.path = self->path,
      .qtype = self->quantization,
      .compute = self->compute_dtype,
      .cache = self->cache,
      .offload = self->offload};
}

static gboolean
has_room (fx_backend *b, gpointer data, GError **error)
{
  GstFluxSamplerSrc *self = data;
  const FluxModelKey key = model_key (self);

  return flux_sampler_check_room (b, &key, GST_VIDEO_INFO_WIDTH (&self->video),
      GST_VIDEO_INFO_HEIGHT (&self->video), (int)self->max_sequence_length, error);
}

static gboolean
open_painter (GstFluxSamplerSrc *self, const GstFluxOffer *offer, GError **error)
{
  FluxModelKey key;

  if (self->painter != NULL)
    return TRUE;
  if (self->cache == NULL)
    self->cache = flux_weights_cache_new (self->weights_cache);
  key = model_key (self);
  key.room = has_room;
  key.room_data = self;
  if (offer != NULL) {
    if (check_offer (self, offer, error))
      self->painter = gst_flux_painter_new_shared (GST_ELEMENT (self), offer->model,
          offer->model_path, self->text_quantization, self->cache, offer->lora, may_go_on,
          self, error);
  } else if (flux_device_parse (self->device, &key.device, error)) {
    self->painter = gst_flux_painter_new (GST_ELEMENT (self), &key,
        self->text_quantization, self->merge, may_go_on, self, error);
  }
  if (self->painter != NULL)
    gst_flux_painter_set_files (self->painter, self->adapters);
  return self->painter != NULL;
}

/* ---- a picture ---- */

static void
announce (GstFluxSamplerSrc *self, const FluxSampleRequest *r, const gchar *loras,
    gdouble scale, const GstFluxOffer *offer)
{
  GstStructure *s = gst_structure_new ("flux-sample", "prompt", G_TYPE_STRING, r->prompt,
      "seed", G_TYPE_UINT64, r->seed, "frame", G_TYPE_UINT64, self->frame, "width",
      G_TYPE_INT, r->width, "height", G_TYPE_INT, r->height, "steps", G_TYPE_INT,
      r->steps, "guidance", G_TYPE_DOUBLE, r->guidance, "lora-scale", G_TYPE_DOUBLE,
      scale, NULL);
  gchar *comment = g_strdup_printf (
      "seed=%" G_GUINT64_FORMAT " steps=%d guidance=%g", r->seed, r->steps, r->guidance);
  gchar *step = NULL;

  if (offer != NULL) {
    gst_structure_set (s, "step", G_TYPE_UINT64, offer->step, NULL);
    step = g_strdup_printf ("%s training-step=%" G_GUINT64_FORMAT, comment, offer->step);
  } else if (loras != NULL) {
    step = g_strdup_printf ("%s loras=%s", comment, loras);
  }
  gst_pad_push_event (GST_BASE_SRC_PAD (self),
      gst_event_new_tag (
          gst_tag_list_new (GST_TAG_DESCRIPTION, r->prompt[0] != '\0' ? r->prompt : " ",
              GST_TAG_COMMENT, step != NULL ? step : comment, NULL)));
  gst_element_post_message (
      GST_ELEMENT (self), gst_message_new_element (GST_OBJECT (self), s));
  g_free (step);
  g_free (comment);
}

/* A copy of what may change while PLAYING; prompt is the caller's to free. */
static void
fill_request (GstFluxSamplerSrc *self, FluxSampleRequest *r, gchar **prompt)
{
  memset (r, 0, sizeof *r);
  GST_OBJECT_LOCK (self);
  *prompt = g_strdup (self->prompts != NULL ? self->prompts[self->frame % self->n_prompts]
                                            : self->prompt);
  r->seed = self->every_steps > 0 ? self->seed : self->seed + self->frame;
  r->steps = self->steps;
  r->guidance = self->guidance;
  r->noise_dtype = self->noise_dtype;
  r->max_sequence_length = (int)self->max_sequence_length;
  GST_OBJECT_UNLOCK (self);
  if (*prompt == NULL)
    *prompt = g_strdup ("");
  r->prompt = *prompt;
  r->width = GST_VIDEO_INFO_WIDTH (&self->video);
  r->height = GST_VIDEO_INFO_HEIGHT (&self->video);
}

/* The model with other adapters than those in its weights is loaded again. */
static gboolean
merge_loras (GstFluxSamplerSrc *self, const gchar *loras, gdouble scale, GError **error)
{
  gchar *wanted = g_strdup_printf ("%s * %.17g", loras != NULL ? loras : "", scale);

  if (g_strcmp0 (wanted, self->merged) == 0) {
    g_free (wanted);
    return TRUE;
  }
  if (self->merged != NULL)
    g_clear_pointer (&self->painter, gst_flux_painter_free);
  g_free (self->merged);
  self->merged = NULL;
  if (open_painter (self, NULL, error) &&
      gst_flux_painter_merge_loras (self->painter, loras, scale, self->strict, error))
    self->merged = g_steal_pointer (&wanted);
  g_free (wanted);
  return self->merged != NULL;
}

/* Adapters and scales as they are set now. */
static gboolean
update_loras (GstFluxSamplerSrc *self, gchar **loras, gdouble *scale, GError **error)
{
  GST_OBJECT_LOCK (self);
  *loras = g_strdup (self->loras);
  *scale = self->lora_scale;
  GST_OBJECT_UNLOCK (self);
  if (self->merge)
    return merge_loras (self, *loras, *scale, error);
  return gst_flux_painter_set_loras (self->painter, *loras, *scale, self->strict, error);
}

static GstBuffer *
paint (GstFluxSamplerSrc *self, const GstFluxOffer *offer, GError **error)
{
  GstBuffer *buffer = NULL;
  GstMapInfo map;
  FluxSampleRequest request;
  g_autofree gchar *loras = NULL;
  gchar *prompt;
  gdouble scale;

  if (!open_painter (self, offer, error) || !update_loras (self, &loras, &scale, error))
    return NULL;
  fill_request (self, &request, &prompt);
  buffer = gst_buffer_new_allocate (NULL, GST_VIDEO_INFO_SIZE (&self->video), NULL);
  if (buffer == NULL || !gst_buffer_map (buffer, &map, GST_MAP_WRITE)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "Out of memory for a picture of %dx%d pixels.", request.width, request.height);
    gst_clear_buffer (&buffer);
  } else {
    gboolean ok = gst_flux_painter_paint (self->painter, &request, map.data,
        GST_VIDEO_INFO_PLANE_STRIDE (&self->video, 0), offer != NULL, error);

    if (ok && offer != NULL)
      gst_flux_preview_show (self->preview, request.prompt, map.data,
          (guint)request.width, (guint)request.height,
          (guint)GST_VIDEO_INFO_PLANE_STRIDE (&self->video, 0));
    gst_buffer_unmap (buffer, &map);
    if (ok)
      announce (self, &request, loras, scale, offer);
    else
      gst_clear_buffer (&buffer);
  }
  g_free (prompt);
  return buffer;
}

/* Cancelled by flushing, a pause (the base class asks again), or the training's end. */
static GstFlowReturn
flow_of (GstFluxSamplerSrc *self, GError *error)
{
  gst_flux_post_cache_warning (self, self->cache);
  if (error == NULL)
    return GST_FLOW_OK;
  if (g_error_matches (error, FLUX_ERROR, FLUX_ERROR_CANCELLED)) {
    GST_DEBUG_OBJECT (self, "stopped: %s", error->message);
    g_error_free (error);
    return g_atomic_int_get (&self->unlocked) ? GST_FLOW_FLUSHING : GST_FLOW_EOS;
  }
  gst_flux_post_error (self, error);
  return GST_FLOW_ERROR;
}

GstFlowReturn
gst_flux_sampler_src_paint (GstFluxSamplerSrc *self, GstBuffer **buffer)
{
  GstFluxOffer offer;
  GstFlowReturn ret;
  GError *error = NULL;

  if (self->preview == NULL) {
    *buffer = paint (self, NULL, &error);
    return flow_of (self, error);
  }
  ret = gst_flux_preview_wait (self->preview, &offer);
  if (ret == GST_FLOW_OK) {
    *buffer = paint (self, &offer, &error);
    ret = flow_of (self, error);
    gst_flux_preview_done (self->preview, ret == GST_FLOW_OK);
  }
  if (ret == GST_FLOW_ERROR)
    gst_flux_preview_retire (self->preview);
  /* It has the trainer's adapter, and keeps the model. */
  if (ret == GST_FLOW_EOS || ret == GST_FLOW_ERROR)
    g_clear_pointer (&self->painter, gst_flux_painter_free);
  return ret;
}
