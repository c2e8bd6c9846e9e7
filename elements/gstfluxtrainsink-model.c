/* gstfluxtrainsink-model.c: what is known of the model without its weights: of a folder,
 * or of the Hub. SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxtrainsink-private.h"

#define GST_CAT_DEFAULT gst_flux_train_sink_debug

gboolean
gst_flux_train_sink_read_model (GstFluxTrainSink *self, GError **error)
{
  if (self->path == NULL && flux_hub_is_uri (self->model))
    return TRUE;
  if (self->path == NULL)
    self->path = g_strdup (self->model);
  if (flux_config_read (self->path, &self->shape, error) &&
      flux_vae_read_info (self->path, &self->vae, error) &&
      (self->vae_fingerprint = flux_vae_fingerprint (self->path, error)) != NULL)
    return TRUE;
  gst_flux_train_sink_forget_model (self);
  return FALSE;
}

void
gst_flux_train_sink_forget_model (GstFluxTrainSink *self)
{
  g_clear_pointer (&self->vae_fingerprint, g_free);
  g_clear_pointer (&self->path, g_free);
}

gboolean
gst_flux_train_sink_check_caps (
    GstFluxTrainSink *self, const GstFluxTensorInfo *info, GError **error)
{
  const FluxConfig *c = &self->shape;

  if (info->model[0] != '\0' && strcmp (info->model, self->vae_fingerprint) != 0)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "The samples were encoded with another VAE (%s) than that of '%s' (%s): encode "
        "them again with this model's.",
        info->model, self->model, self->vae_fingerprint);
  else if (info->channels * 4 != c->in_channels)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "The samples have %d latent channels, and '%s' takes %d.", info->channels,
        self->model, c->in_channels / 4);
  else if (info->width % 2 != 0 || info->height % 2 != 0)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "Latents of %dx%d cells cannot be packed: the pictures' width and height must be "
        "multiples of 16.",
        info->width, info->height);
  else if (info->text_dim != c->joint_attention_dim ||
           info->pooled_dim != c->pooled_projection_dim)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "The embeddings have %d and %d features, and '%s' takes %d and %d: compute them "
        "with this model's text encoders.",
        info->text_dim, info->pooled_dim, self->model, c->joint_attention_dim,
        c->pooled_projection_dim);
  else
    return TRUE;
  return FALSE;
}

/* A preview draws with what the trainer has downloaded. */
static GstFlowReturn
open_remote (GstFluxTrainSink *self)
{
  FluxHubWant want = gst_flux_training_has_preview (self->training)
                         ? FLUX_HUB_MODEL
                         : FLUX_HUB_TRANSFORMER | FLUX_HUB_VAE;
  GError *error = NULL;
  GstFlowReturn ret;

  if (self->state == STATE_FAILED)
    return GST_FLOW_ERROR;
  self->path = gst_flux_hub_resolve (&self->hub, self->model, want, &error);
  if (self->path != NULL && gst_flux_train_sink_read_model (self, &error)) {
    gst_flux_training_set_vae (self->training, &self->vae);
    return GST_FLOW_OK;
  }
  ret = gst_flux_hub_flow (&self->hub, error);
  if (ret == GST_FLOW_ERROR)
    gst_flux_train_sink_fail (self, error);
  else
    g_error_free (error);
  return ret;
}

/* Of the sink pad. Caps say which VAE the samples are of, so the model is needed to look
 * at them; and downloading here keeps it out of the PREROLL_LOCK, for which a change of
 * state would wait. */
static GstFlowReturn
pad_event (GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (parent);
  GstEventType type = GST_EVENT_TYPE (event);
  GstFlowReturn ret = GST_FLOW_OK;

  if (type == GST_EVENT_FLUSH_START || type == GST_EVENT_FLUSH_STOP)
    gst_flux_hub_set_cancelled (&self->hub, type == GST_EVENT_FLUSH_START);
  if (type == GST_EVENT_CAPS && self->vae_fingerprint == NULL)
    ret = open_remote (self);
  if (ret != GST_FLOW_OK)
    gst_event_unref (event);
  else if (!self->base_event (pad, parent, event))
    ret = type == GST_EVENT_CAPS ? GST_FLOW_NOT_NEGOTIATED : GST_FLOW_ERROR;
  return ret;
}

void
gst_flux_train_sink_watch_caps (GstFluxTrainSink *self)
{
  GstPad *pad = GST_BASE_SINK_PAD (self);

  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
  self->base_event = GST_PAD_EVENTFUNC (pad);
  gst_pad_set_event_full_function (pad, GST_DEBUG_FUNCPTR (pad_event));
}
