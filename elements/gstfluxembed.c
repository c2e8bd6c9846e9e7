/* gstfluxembed.c: captions to text embeddings. SPDX-License-Identifier: LGPL-2.1-or-later
 */
/**
 * SECTION:element-fluxembed
 * @title: fluxembed
 *
 * Adds the embeddings of its caption to each posterior. They are looked up in the table
 * `location` (the reference's parquet, or safetensors) by the key of the image; with
 * `text-model` set, missing rows are computed from the caption, and written to the table,
 * atomically, at EOS and when the element stops.
 *
 * A row is known by its image alone, as in the reference: when captions have changed,
 * delete the table. An image that comes with two captions in one run gets the embeddings
 * of the first, and a warning.
 *
 * The embeddings of the empty prompt (the row with the empty key) are sent once, before
 * the first sample, as the sticky event `flux-empty-prompt`: for caption dropout. They
 * are computed when `text-model` is set.
 *
 * The text encoders are loaded at the first missing row (and downloaded, when text-model
 * is hf://user/name: not before one is missing), and freed at EOS before EOS is
 * forwarded. EOS that is sent to the pipeline meanwhile, as on Ctrl-C, ends loading and
 * encoding: the rows that are complete are written.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 fluxdatasetsrc location=mucha ! fluximagedec ! fluximagecrop width=512
 * height=768 ! fluxvaeenc model=FLUX.1-dev ! fluxembed location=mucha.parquet
 * text-model=FLUX.1-dev max-sequence-length=77 ! fakesink
 * ]| Computes a table that the reference's trainer can read.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxembed-private.h"
#include "elements/gstfluxsamplemeta.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_embed_debug);
#define GST_CAT_DEFAULT gst_flux_embed_debug

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE (
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_LATENT_CAPS));
static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE (
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_SAMPLE_CAPS));

#define gst_flux_embed_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxEmbed, gst_flux_embed, GST_TYPE_ELEMENT,
    GST_DEBUG_CATEGORY_INIT (gst_flux_embed_debug, "fluxembed", 0, "FLUX embeddings"))
GST_ELEMENT_REGISTER_DEFINE (fluxembed, "fluxembed", GST_RANK_NONE, GST_TYPE_FLUX_EMBED);

/* ---- work, with the stream lock ---- */

/* Posts error, unless it is that we are stopping. */
static GstFlowReturn
fail (GstFluxEmbed *self, GError *error)
{
  GstFlowReturn ret = gst_flux_hub_flow (&self->hub, error);

  gst_flux_post_error (self, error);
  return ret;
}

static void
push_pending (GstFluxEmbed *self)
{
  while (self->pending != NULL) {
    gst_pad_push_event (self->srcpad, self->pending->data);
    self->pending = g_list_delete_link (self->pending, self->pending);
  }
}

static gboolean
send_empty_prompt (GstFluxEmbed *self, GError **error)
{
  FluxEmbedding e;
  GError *failure = NULL;

  if (self->sent_empty)
    return TRUE;
  self->sent_empty = TRUE;
  if (gst_flux_caption_get (self->captions, "", "", &e, &failure)) {
    gst_pad_push_event (self->srcpad, gst_flux_empty_prompt_event_new (&e));
    flux_embedding_clear (&e);
  }
  if (failure == NULL)
    return TRUE;
  self->sent_empty = FALSE;
  g_propagate_error (error, failure);
  return FALSE;
}

/* Caps must come before the other sticky events, and depend on the row. */
static gboolean
send_caps (GstFluxEmbed *self, const FluxEmbedding *e)
{
  GstFluxTensorInfo out = self->in;
  GstCaps *caps;
  gboolean ok = TRUE;

  out.text_length = e->text_tokens;
  out.text_dim = e->joint_dim;
  out.pooled_dim = e->pooled_dim;
  if (!self->have_out || memcmp (&out, &self->out, sizeof out) != 0) {
    caps = gst_flux_tensor_info_to_caps (&out);
    ok = gst_pad_push_event (self->srcpad, gst_event_new_caps (caps));
    gst_caps_unref (caps);
    self->out = out;
    self->have_out = TRUE;
  }
  push_pending (self);
  return ok;
}

static GstBuffer *
make_sample (GstBuffer *in, const FluxEmbedding *e)
{
  GstBuffer *out = gst_buffer_new ();

  gst_buffer_copy_into (out, in, GST_BUFFER_COPY_METADATA, 0, -1);
  gst_buffer_append_memory (out, gst_buffer_get_memory (in, 0));
  gst_buffer_append_memory (out, gst_flux_memory_new (e->prompt_embeds));
  gst_buffer_append_memory (out, gst_flux_memory_new (e->pooled));
  return out;
}

static GstFlowReturn
push_sample (GstFluxEmbed *self, GstBuffer *in, const FluxEmbedding *e)
{
  GError *error = NULL;

  if (!send_caps (self, e))
    return GST_PAD_IS_FLUSHING (self->srcpad) ? GST_FLOW_FLUSHING
                                              : GST_FLOW_NOT_NEGOTIATED;
  if (!send_empty_prompt (self, &error))
    return fail (self, error);
  return gst_pad_push (self->srcpad, make_sample (in, e));
}

/* What lookup found: TRUE, and e; FALSE, and the flow return to give. */
static gboolean
find_embedding (
    GstFluxEmbed *self, const GstFluxSample *sample, FluxEmbedding *e, GstFlowReturn *ret)
{
  const gchar *name = sample->filename != NULL ? sample->filename : sample->key;
  GError *error = NULL;

  if (!gst_flux_caption_is_first (self->captions, sample->key, sample->caption) &&
      !self->warned_captions) {
    self->warned_captions = TRUE;
    GST_ELEMENT_WARNING (self, STREAM, FAILED,
        ("The picture '%s' came with another caption before ('%s' now): a table has one "
         "row a picture, so the first is used for both.",
            name, sample->caption),
        (NULL));
  }
  if (gst_flux_caption_get (self->captions, sample->key, sample->caption, e, &error))
    return TRUE;
  *ret = GST_FLOW_OK;
  if (error != NULL) {
    g_prefix_error (&error, "'%s': ", name);
    *ret = fail (self, error);
  } else if (self->missing == MISSING_ERROR) {
    *ret = fail (self, g_error_new (FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
                           "The table '%s' has no row for '%s' (%s): compute it by "
                           "setting text-model, or leave such pictures out by "
                           "missing=skip.",
                           self->location, name, sample->key));
  } else {
    GST_INFO_OBJECT (self, "no row for '%s' (%s): skipped", name, sample->key);
  }
  return FALSE;
}

static GstFlowReturn
gst_flux_embed_chain (GstPad *pad, GstObject *parent, GstBuffer *in)
{
  GstFluxEmbed *self = GST_FLUX_EMBED (parent);
  GstFluxSample sample;
  FluxEmbedding e;
  GstFlowReturn ret;
  GBytes *moments = NULL;
  GError *error = NULL;

  gst_flux_sample_meta_get (in, &sample);
  if (!self->have_in)
    ret = GST_FLOW_NOT_NEGOTIATED;
  else if (sample.key == NULL)
    ret = fail (self, g_error_new (FLUX_ERROR, FLUX_ERROR_SETTINGS,
                          "A posterior came without the key of its image: put "
                          "fluxvaeenc before fluxembed."));
  else if ((moments = gst_flux_buffer_get_bytes (in, 0, &self->in, &error)) == NULL)
    ret = fail (self, error);
  else if (find_embedding (self, &sample, &e, &ret)) {
    ret = push_sample (self, in, &e);
    flux_embedding_clear (&e);
  }
  g_clear_pointer (&moments, g_bytes_unref);
  gst_buffer_unref (in);
  return ret;
}

/* What could not be saved at EOS is tried again at the end, when there may be room; but
 * that is said once. */
static void
save (GstFluxEmbed *self)
{
  GError *error = NULL;

  if (gst_flux_caption_save (self->captions, &error))
    return;
  if (self->save_failed) {
    GST_INFO_OBJECT (self, "not saved either: %s", error->message);
    g_error_free (error);
  } else {
    gst_flux_post_error (self, error);
  }
  self->save_failed = TRUE;
}

static void
drop_pending (GstFluxEmbed *self)
{
  g_list_free_full (self->pending, (GDestroyNotify)gst_event_unref);
  self->pending = NULL;
}

static gboolean
gst_flux_embed_sink_event (GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstFluxEmbed *self = GST_FLUX_EMBED (parent);
  GstCaps *caps;

  switch (GST_EVENT_TYPE (event)) {
    case GST_EVENT_CAPS:
      gst_event_parse_caps (event, &caps);
      self->have_in = gst_flux_tensor_info_from_caps (&self->in, caps);
      gst_event_unref (event);
      return self->have_in;
    case GST_EVENT_EOS:
      save (self);
      /* Before EOS goes on: the trainer behind it needs the memory. */
      gst_flux_caption_free_weights (self->captions);
      push_pending (self);
      break;
    case GST_EVENT_FLUSH_START:
      gst_flux_hub_set_cancelled (&self->hub, TRUE);
      break;
    case GST_EVENT_FLUSH_STOP:
      gst_flux_hub_set_cancelled (&self->hub, FALSE);
      drop_pending (self);
      break;
    default:
      if (GST_EVENT_IS_STICKY (event) && GST_EVENT_TYPE (event) > GST_EVENT_CAPS &&
          !self->have_out) {
        self->pending = g_list_append (self->pending, event);
        return TRUE;
      }
      break;
  }
  return gst_pad_event_default (pad, parent, event);
}

/* ---- states ---- */

static gboolean
start (GstFluxEmbed *self)
{
  GstFluxCaptionSettings settings = {self->location, self->text_model, &self->hub,
      self->device, self->compute_dtype, self->text_quantization,
      (gint)self->max_sequence_length, self->weights_cache};
  GError *error = NULL;

  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));

  if (self->location == NULL && self->text_model == NULL)
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxembed has nothing to take embeddings from: set location to a table, or "
        "text-model to a model's folder.");
  else
    self->captions = gst_flux_caption_new (GST_ELEMENT (self), &settings, &error);
  if (self->captions == NULL) {
    gst_flux_post_error (self, error);
    return FALSE;
  }
  self->have_in = self->have_out = FALSE;
  self->sent_empty = self->warned_captions = self->save_failed = FALSE;
  return TRUE;
}

static void
stop (GstFluxEmbed *self)
{
  /* What was computed before an interruption is kept too. */
  save (self);
  g_clear_pointer (&self->captions, gst_flux_caption_free);
  drop_pending (self);
}

static GstStateChangeReturn
gst_flux_embed_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxEmbed *self = GST_FLUX_EMBED (element);
  GstStateChangeReturn ret;

  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY)
    gst_flux_hub_set_cancelled (&self->hub, TRUE);
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (self->captions != NULL && (transition == GST_STATE_CHANGE_PAUSED_TO_READY ||
                                    (transition == GST_STATE_CHANGE_READY_TO_PAUSED &&
                                        ret == GST_STATE_CHANGE_FAILURE)))
    stop (self);
  return ret;
}

static gboolean
gst_flux_embed_send_event (GstElement *element, GstEvent *event)
{
  return gst_flux_hub_take_eos (&GST_FLUX_EMBED (element)->hub, event) ||
         GST_ELEMENT_CLASS (parent_class)->send_event (element, event);
}

static void
gst_flux_embed_finalize (GObject *object)
{
  GstFluxEmbed *self = GST_FLUX_EMBED (object);

  gst_flux_embed_free_properties (self);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_embed_class_init (GstFluxEmbedClass *klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);

  G_OBJECT_CLASS (klass)->finalize = gst_flux_embed_finalize;
  gst_flux_embed_install_properties (klass);

  gst_element_class_set_static_metadata (element_class, "FLUX embeddings",
      "Filter/Tensor", "Adds the text embeddings of its caption to each posterior",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &sink_template);
  gst_element_class_add_static_pad_template (element_class, &src_template);
  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_embed_change_state);
  element_class->send_event = GST_DEBUG_FUNCPTR (gst_flux_embed_send_event);
}

static void
gst_flux_embed_init (GstFluxEmbed *self)
{
  self->sinkpad = gst_pad_new_from_static_template (&sink_template, "sink");
  gst_pad_set_chain_function (self->sinkpad, GST_DEBUG_FUNCPTR (gst_flux_embed_chain));
  gst_pad_set_event_function (
      self->sinkpad, GST_DEBUG_FUNCPTR (gst_flux_embed_sink_event));
  gst_element_add_pad (GST_ELEMENT (self), self->sinkpad);
  self->srcpad = gst_pad_new_from_static_template (&src_template, "src");
  gst_pad_use_fixed_caps (self->srcpad);
  gst_element_add_pad (GST_ELEMENT (self), self->srcpad);

  gst_flux_embed_init_properties (self);
  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
}
