/* gstfluxvaeenc.c: pictures to the VAE's posterior. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
/**
 * SECTION:element-fluxvaeenc
 * @title: fluxvaeenc
 *
 * Encodes pictures with a model's AutoencoderKL. What it sends is the posterior (means
 * and log variances, unscaled), so that a trainer can draw a latent anew each time.
 *
 * Posteriors are kept in the folder `cache-location` by content: the key of the decoded
 * image, the part of it that was cut out, the pixels themselves and the VAE. When a
 * picture is found there the VAE is not needed; its weights are read at the first one
 * that is not, and freed at EOS before EOS is forwarded (or, in a looping stream, after
 * an epoch in which everything was found).
 *
 * A model of the Hugging Face Hub, model=hf://user/name, is downloaded (its VAE only)
 * when the first caps come.
 *
 * A buffer without a key (say, from videotestsrc) gets the SHA-256 of its RGB pixels.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 fluxdatasetsrc location=mucha ! fluximagedec ! fluximagecrop width=512
 * height=768 ! fluxvaeenc model=FLUX.1-dev cache-location=mucha.latents ! fakesink
 * ]| Fills the cache.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxtensor.h"
#include "elements/gstfluxvaeenc-private.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_vae_enc_debug);
#define GST_CAT_DEFAULT gst_flux_vae_enc_debug

/* Pixels a side: the VAE's 8 times the 2 x 2 cells of a token. */
#define PIXELS_STEP 16

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE (
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_VIDEO_CAPS_MAKE ("RGB")));
static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE (
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_LATENT_CAPS));

#define gst_flux_vae_enc_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxVaeEnc, gst_flux_vae_enc, GST_TYPE_BASE_TRANSFORM,
    GST_DEBUG_CATEGORY_INIT (gst_flux_vae_enc_debug, "fluxvaeenc", 0, "FLUX VAE encoder"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxvaeenc, "fluxvaeenc", GST_RANK_NONE, GST_TYPE_FLUX_VAE_ENC);

/* ---- negotiation ---- */

/* Sets field `to` of a structure from `from`'s integer times mul over div; any other
 * value becomes any size. */
static void
scale_field (
    GstStructure *to, const GstStructure *from, const gchar *field, gint mul, gint div)
{
  gint value;

  if (gst_structure_get_int (from, field, &value))
    gst_structure_set (to, field, G_TYPE_INT, value * mul / div, NULL);
  else
    gst_structure_set (to, field, GST_TYPE_INT_RANGE, 1, 65536, NULL);
}

static GstCaps *
gst_flux_vae_enc_transform_caps (
    GstBaseTransform *base, GstPadDirection direction, GstCaps *caps, GstCaps *filter)
{
  GstFluxVaeEnc *self = GST_FLUX_VAE_ENC (base);
  gint cell = self->fingerprint != NULL ? self->info.downscale : 8;
  GstCaps *result = gst_caps_new_empty ();

  for (guint i = 0; i < gst_caps_get_size (caps); i++) {
    const GstStructure *from = gst_caps_get_structure (caps, i);
    GstCaps *one = gst_static_pad_template_get_caps (
        direction == GST_PAD_SINK ? &src_template : &sink_template);
    GstStructure *to;

    one = gst_caps_make_writable (one);
    to = gst_caps_get_structure (one, 0);
    if (direction == GST_PAD_SINK) {
      scale_field (to, from, "width", 1, cell);
      scale_field (to, from, "height", 1, cell);
      if (self->fingerprint != NULL)
        gst_structure_set (to, "channels", G_TYPE_INT, self->info.latent_channels,
            "model", G_TYPE_STRING, self->fingerprint, NULL);
    } else {
      scale_field (to, from, "width", cell, 1);
      scale_field (to, from, "height", cell, 1);
    }
    result = gst_caps_merge (result, one);
  }
  if (filter != NULL) {
    GstCaps *both = gst_caps_intersect_full (filter, result, GST_CAPS_INTERSECT_FIRST);

    gst_caps_unref (result);
    result = both;
  }
  return result;
}

static gboolean
gst_flux_vae_enc_set_caps (GstBaseTransform *base, GstCaps *in, GstCaps *out)
{
  GstFluxVaeEnc *self = GST_FLUX_VAE_ENC (base);

  if (!gst_video_info_from_caps (&self->video, in))
    return FALSE;
  if (self->video.width % PIXELS_STEP == 0 && self->video.height % PIXELS_STEP == 0)
    return TRUE;
  /* The base class tries again with each buffer; say it once. */
  if (!self->refused)
    gst_flux_post_error (
        self, g_error_new (FLUX_ERROR, FLUX_ERROR_SETTINGS,
                  "Pictures of %dx%d pixels cannot be encoded: put fluximagecrop before "
                  "fluxvaeenc, with a width and a height that are multiples of %d.",
                  self->video.width, self->video.height, PIXELS_STEP));
  self->refused = TRUE;
  return FALSE;
}

/* ---- work ---- */

static gchar *
hash_pixels (const GstVideoFrame *frame)
{
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  const guint8 *row = GST_VIDEO_FRAME_PLANE_DATA (frame, 0);
  gchar *hex;

  for (gint y = 0; y < GST_VIDEO_FRAME_HEIGHT (frame); y++) {
    g_checksum_update (sum, row, 3 * GST_VIDEO_FRAME_WIDTH (frame));
    row += GST_VIDEO_FRAME_PLANE_STRIDE (frame, 0);
  }
  hex = g_strdup (g_checksum_get_string (sum));
  g_checksum_free (sum);
  return hex;
}

/* Encoding spans many buffers, so it reports only from PLAYING on (gstfluxcommon.h). */
static void
report_progress (GstFluxVaeEnc *self, GstBuffer *buffer)
{
  gint64 duration;

  if (!gst_flux_posterior_is_loaded (self->posterior) ||
      GST_STATE (self) != GST_STATE_PLAYING || !GST_BUFFER_PTS_IS_VALID (buffer) ||
      !gst_pad_peer_query_duration (
          GST_BASE_TRANSFORM_SINK_PAD (self), GST_FORMAT_TIME, &duration) ||
      duration <= 0)
    return;
  gst_flux_progress_update ("pictures",
      (gint)MIN (100, gst_util_uint64_scale (GST_BUFFER_PTS (buffer), 100, duration)),
      &self->progress);
}

static GstFlowReturn
gst_flux_vae_enc_generate_output (GstBaseTransform *base, GstBuffer **out)
{
  GstFluxVaeEnc *self = GST_FLUX_VAE_ENC (base);
  GstBuffer *in = base->queued_buf;
  GstVideoFrame frame;
  GstFluxSample sample;
  GBytes *moments;
  gchar *hash;
  GError *error = NULL;

  *out = NULL;
  if (in == NULL)
    return GST_FLOW_OK;
  base->queued_buf = NULL;
  if (!gst_video_frame_map (&frame, &self->video, in, GST_MAP_READ)) {
    GST_ELEMENT_ERROR (self, STREAM, DECODE, ("A picture cannot be read."), (NULL));
    gst_buffer_unref (in);
    return GST_FLOW_ERROR;
  }
  gst_flux_sample_meta_get (in, &sample);
  hash = hash_pixels (&frame);
  if (sample.key == NULL)
    sample.key = hash;
  moments = gst_flux_posterior_get (self->posterior, &frame, &sample, hash, &error);
  gst_video_frame_unmap (&frame);
  if (moments != NULL) {
    *out = gst_buffer_new ();
    gst_buffer_append_memory (*out, gst_flux_memory_new (moments));
    gst_buffer_copy_into (
        *out, in, GST_BUFFER_COPY_FLAGS | GST_BUFFER_COPY_TIMESTAMPS, 0, -1);
    gst_flux_sample_meta_set (*out, &sample);
    g_bytes_unref (moments);
    report_progress (self, in);
  }
  g_free (hash);
  gst_buffer_unref (in);
  if (error == NULL)
    return GST_FLOW_OK;
  if (g_error_matches (error, FLUX_ERROR, FLUX_ERROR_CANCELLED)) {
    g_error_free (error);
    return GST_FLOW_FLUSHING;
  }
  gst_flux_post_error (self, error);
  return GST_FLOW_ERROR;
}

static gboolean
gst_flux_vae_enc_sink_event (GstBaseTransform *base, GstEvent *event)
{
  GstFluxVaeEnc *self = GST_FLUX_VAE_ENC (base);

  if (GST_EVENT_TYPE (event) == GST_EVENT_EOS) {
    gst_flux_progress_end (&self->progress, "pictures", NULL);
    /* Before EOS goes on: the trainer behind it needs the memory. */
    if (self->posterior != NULL)
      gst_flux_posterior_free_weights (self->posterior);
  }
  return GST_BASE_TRANSFORM_CLASS (parent_class)->sink_event (base, event);
}

/* ---- states ---- */

/* What can be known without the weights. */
static gboolean
open_model (GstFluxVaeEnc *self, GError **error)
{
  if (self->model == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxvaeenc has no model: set model to a folder with a vae in it.");
    return FALSE;
  }
  if (self->path == NULL && flux_hub_is_uri (self->model))
    return TRUE;
  if (self->path == NULL)
    self->path = g_strdup (self->model);
  if (!flux_vae_read_info (self->path, &self->info, error))
    return FALSE;
  self->fingerprint = flux_vae_fingerprint (self->path, error);
  return self->fingerprint != NULL;
}

static gboolean
open_cache (GstFluxVaeEnc *self, GError **error)
{
  GstFluxPosterior *posterior = gst_flux_posterior_new (GST_ELEMENT (self), self->path,
      self->cache_location, self->device, self->compute_dtype, error);

  GST_OBJECT_LOCK (self);
  self->posterior = posterior;
  GST_OBJECT_UNLOCK (self);
  return posterior != NULL;
}

/* The model is on the Hub: caps say which VAE it is, so it is needed before they go on.
 */
static GstFlowReturn
open_remote (GstFluxVaeEnc *self)
{
  GError *error = NULL;
  GstFlowReturn ret;

  if (self->refused)
    return GST_FLOW_ERROR;
  if (self->path == NULL)
    self->path = gst_flux_hub_resolve (&self->hub, self->model, FLUX_HUB_VAE, &error);
  if (self->path != NULL && (self->fingerprint != NULL || open_model (self, &error)) &&
      open_cache (self, &error))
    return GST_FLOW_OK;
  ret = gst_flux_hub_flow (&self->hub, error);
  self->refused = ret == GST_FLOW_ERROR;
  g_clear_pointer (&self->path, g_free);
  gst_flux_post_error (self, error);
  return ret;
}

/* Of the sink pad: with the flow return that is due when caps cannot be taken. */
static GstFlowReturn
gst_flux_vae_enc_pad_event (GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstFluxVaeEnc *self = GST_FLUX_VAE_ENC (parent);
  GstEventType type = GST_EVENT_TYPE (event);
  GstFlowReturn ret = GST_FLOW_OK;

  if (type == GST_EVENT_FLUSH_START || type == GST_EVENT_FLUSH_STOP)
    gst_flux_hub_set_cancelled (&self->hub, type == GST_EVENT_FLUSH_START);
  if (type == GST_EVENT_CAPS && self->posterior == NULL)
    ret = open_remote (self);
  if (ret != GST_FLOW_OK)
    gst_event_unref (event);
  else if (!self->base_event (pad, parent, event))
    ret = type == GST_EVENT_CAPS ? GST_FLOW_NOT_NEGOTIATED : GST_FLOW_ERROR;
  return ret;
}

static gboolean
start (GstFluxVaeEnc *self)
{
  GError *error = NULL;

  gst_flux_progress_init (&self->progress, GST_ELEMENT (self), "encode", NULL);
  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
  self->refused = FALSE;
  if (self->path == NULL || open_cache (self, &error))
    return TRUE;
  gst_flux_post_error (self, error);
  return FALSE;
}

static void
stop (GstFluxVaeEnc *self)
{
  GstFluxPosterior *posterior;
  guint64 hits, misses;

  gst_flux_posterior_get_counts (self->posterior, &hits, &misses);
  GST_OBJECT_LOCK (self);
  self->hits = hits;
  self->misses = misses;
  posterior = self->posterior;
  self->posterior = NULL;
  GST_OBJECT_UNLOCK (self);
  gst_flux_posterior_free (posterior);
}

static GstStateChangeReturn
gst_flux_vae_enc_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxVaeEnc *self = GST_FLUX_VAE_ENC (element);
  GstStateChangeReturn ret;
  GError *error = NULL;

  if (transition == GST_STATE_CHANGE_NULL_TO_READY && !open_model (self, &error)) {
    g_clear_pointer (&self->path, g_free);
    gst_flux_post_error (self, error);
    return GST_STATE_CHANGE_FAILURE;
  }
  /* Not in the base class's start(), which would add an error of its own. */
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) {
    gst_flux_hub_set_cancelled (&self->hub, TRUE);
    if (self->posterior != NULL)
      gst_flux_posterior_cancel (self->posterior);
  }
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (self->posterior != NULL && (transition == GST_STATE_CHANGE_PAUSED_TO_READY ||
                                     (transition == GST_STATE_CHANGE_READY_TO_PAUSED &&
                                         ret == GST_STATE_CHANGE_FAILURE)))
    stop (self);
  if (transition == GST_STATE_CHANGE_READY_TO_NULL) {
    g_clear_pointer (&self->fingerprint, g_free);
    g_clear_pointer (&self->path, g_free);
  }
  return ret;
}

static gboolean
gst_flux_vae_enc_send_event (GstElement *element, GstEvent *event)
{
  return gst_flux_hub_take_eos (&GST_FLUX_VAE_ENC (element)->hub, event) ||
         GST_ELEMENT_CLASS (parent_class)->send_event (element, event);
}

static void
gst_flux_vae_enc_finalize (GObject *object)
{
  GstFluxVaeEnc *self = GST_FLUX_VAE_ENC (object);

  gst_flux_vae_enc_free_properties (self);
  g_free (self->fingerprint);
  g_free (self->path);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_vae_enc_class_init (GstFluxVaeEncClass *klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseTransformClass *transform_class = GST_BASE_TRANSFORM_CLASS (klass);

  G_OBJECT_CLASS (klass)->finalize = gst_flux_vae_enc_finalize;
  gst_flux_vae_enc_install_properties (klass);

  gst_element_class_set_static_metadata (element_class, "FLUX VAE encoder",
      "Converter/Video/Tensor", "Encodes pictures to the posterior of a FLUX model's VAE",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &sink_template);
  gst_element_class_add_static_pad_template (element_class, &src_template);

  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_vae_enc_change_state);
  element_class->send_event = GST_DEBUG_FUNCPTR (gst_flux_vae_enc_send_event);
  transform_class->transform_caps = GST_DEBUG_FUNCPTR (gst_flux_vae_enc_transform_caps);
  transform_class->set_caps = GST_DEBUG_FUNCPTR (gst_flux_vae_enc_set_caps);
  transform_class->sink_event = GST_DEBUG_FUNCPTR (gst_flux_vae_enc_sink_event);
  transform_class->generate_output = GST_DEBUG_FUNCPTR (gst_flux_vae_enc_generate_output);
}

static void
gst_flux_vae_enc_init (GstFluxVaeEnc *self)
{
  GstPad *sinkpad = GST_BASE_TRANSFORM_SINK_PAD (self);

  gst_flux_vae_enc_init_properties (self);
  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
  self->base_event = GST_PAD_EVENTFUNC (sinkpad);
  gst_pad_set_event_full_function (
      sinkpad, GST_DEBUG_FUNCPTR (gst_flux_vae_enc_pad_event));
}
