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
 * The text encoders are loaded at the first missing row, and freed at EOS before EOS is
 * forwarded.
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

#include "elements/gstfluxembed.h"

#include "elements/gstfluxcaption.h"
#include "elements/gstfluxcommon.h"
#include "elements/gstfluxsamplemeta.h"
#include "elements/gstfluxtensor.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_embed_debug);
#define GST_CAT_DEFAULT gst_flux_embed_debug

typedef enum { MISSING_ERROR, MISSING_SKIP } GstFluxEmbedMissing;

#define DEFAULT_MISSING MISSING_ERROR

enum {
  PROP_0,
  PROP_LOCATION,
  PROP_TEXT_MODEL,
  PROP_TEXT_QUANTIZATION,
  PROP_MAX_SEQUENCE_LENGTH,
  PROP_MISSING,
  PROP_DEVICE,
  PROP_COMPUTE_DTYPE,
};

struct _GstFluxEmbed {
  GstElement parent;
  GstPad *sinkpad, *srcpad;

  gchar *location, *text_model, *device; /* properties */
  fx_qtype text_quantization;
  fx_dtype compute_dtype; /* FX_N_DTYPES: auto */
  guint max_sequence_length;
  GstFluxEmbedMissing missing;

  GstFluxCaption *captions;   /* PAUSED and above */
  GstFluxTensorInfo in, out;  /* of the caps that came and were sent last */
  gboolean have_in, have_out; /* stream lock */
  GList *pending;             /* sticky events that came before the first sample */
  gboolean sent_empty;
  gboolean warned_captions;
  gboolean save_failed; /* and posted */
};

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE (
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_LATENT_CAPS));
static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE (
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_SAMPLE_CAPS));

static GType
gst_flux_embed_missing_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {MISSING_ERROR, "Stop with an error", "error"},
      {MISSING_SKIP, "Drop the picture", "skip"},
      {0, NULL, NULL},
  };

  return gst_flux_enum_register (&type, "GstFluxEmbedMissing", values);
}

#define gst_flux_embed_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxEmbed, gst_flux_embed, GST_TYPE_ELEMENT,
    GST_DEBUG_CATEGORY_INIT (gst_flux_embed_debug, "fluxembed", 0, "FLUX embeddings"))
GST_ELEMENT_REGISTER_DEFINE (fluxembed, "fluxembed", GST_RANK_NONE, GST_TYPE_FLUX_EMBED);

static void
gst_flux_embed_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxEmbed *self = GST_FLUX_EMBED (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LOCATION:
      g_free (self->location);
      self->location = g_value_dup_string (value);
      break;
    case PROP_TEXT_MODEL:
      g_free (self->text_model);
      self->text_model = g_value_dup_string (value);
      break;
    case PROP_TEXT_QUANTIZATION:
      self->text_quantization = g_value_get_enum (value);
      break;
    case PROP_MAX_SEQUENCE_LENGTH:
      self->max_sequence_length = g_value_get_uint (value);
      break;
    case PROP_MISSING:
      self->missing = g_value_get_enum (value);
      break;
    case PROP_DEVICE:
      g_free (self->device);
      self->device = g_value_dup_string (value);
      break;
    case PROP_COMPUTE_DTYPE:
      self->compute_dtype = (fx_dtype)g_value_get_enum (value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
gst_flux_embed_get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxEmbed *self = GST_FLUX_EMBED (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LOCATION:
      g_value_set_string (value, self->location);
      break;
    case PROP_TEXT_MODEL:
      g_value_set_string (value, self->text_model);
      break;
    case PROP_TEXT_QUANTIZATION:
      g_value_set_enum (value, self->text_quantization);
      break;
    case PROP_MAX_SEQUENCE_LENGTH:
      g_value_set_uint (value, self->max_sequence_length);
      break;
    case PROP_MISSING:
      g_value_set_enum (value, self->missing);
      break;
    case PROP_DEVICE:
      g_value_set_string (value, self->device);
      break;
    case PROP_COMPUTE_DTYPE:
      g_value_set_enum (value, (gint)self->compute_dtype);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

/* ---- work, with the stream lock ---- */

/* Posts error, unless it is that we are stopping. */
static GstFlowReturn
fail (GstFluxEmbed *self, GError *error)
{
  GstFlowReturn ret = g_error_matches (error, FLUX_ERROR, FLUX_ERROR_CANCELLED)
                          ? GST_FLOW_FLUSHING
                          : GST_FLOW_ERROR;

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
    case GST_EVENT_FLUSH_STOP:
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
  GstFluxCaptionSettings settings = {self->location, self->text_model, self->device,
      self->compute_dtype, self->text_quantization, (gint)self->max_sequence_length};
  GError *error = NULL;

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
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY && self->captions != NULL)
    gst_flux_caption_cancel (self->captions);
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (self->captions != NULL && (transition == GST_STATE_CHANGE_PAUSED_TO_READY ||
                                    (transition == GST_STATE_CHANGE_READY_TO_PAUSED &&
                                        ret == GST_STATE_CHANGE_FAILURE)))
    stop (self);
  return ret;
}

static void
gst_flux_embed_finalize (GObject *object)
{
  GstFluxEmbed *self = GST_FLUX_EMBED (object);

  g_free (self->location);
  g_free (self->text_model);
  g_free (self->device);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
install_properties (GObjectClass *klass)
{
  g_object_class_install_property (klass, PROP_LOCATION,
      g_param_spec_string ("location", "Location",
          "Table of embeddings, .parquet or .safetensors; NULL: rows are computed and "
          "not "
          "kept",
          NULL, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_TEXT_MODEL,
      g_param_spec_string ("text-model", "Text Model",
          "Folder of the model whose text encoders compute missing rows; NULL: look-up "
          "only",
          NULL, GST_FLUX_PARAM_READY));
  g_object_class_install_property (
      klass, PROP_TEXT_QUANTIZATION, gst_flux_param_spec_text_quantization ());
  g_object_class_install_property (
      klass, PROP_MAX_SEQUENCE_LENGTH, gst_flux_param_spec_max_sequence_length ());
  g_object_class_install_property (klass, PROP_MISSING,
      g_param_spec_enum ("missing", "Missing",
          "What to do with a picture that has no row when there is no text model",
          gst_flux_embed_missing_get_type (), DEFAULT_MISSING, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_DEVICE, gst_flux_param_spec_device ());
  g_object_class_install_property (
      klass, PROP_COMPUTE_DTYPE, gst_flux_param_spec_compute_dtype ());
}

static void
gst_flux_embed_class_init (GstFluxEmbedClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);

  gobject_class->set_property = gst_flux_embed_set_property;
  gobject_class->get_property = gst_flux_embed_get_property;
  gobject_class->finalize = gst_flux_embed_finalize;
  install_properties (gobject_class);

  gst_element_class_set_static_metadata (element_class, "FLUX embeddings",
      "Filter/Tensor", "Adds the text embeddings of its caption to each posterior",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &sink_template);
  gst_element_class_add_static_pad_template (element_class, &src_template);
  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_embed_change_state);
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

  self->text_quantization = FX_Q_INT8;
  self->max_sequence_length = 512;
  self->device = g_strdup ("auto");
  self->compute_dtype = FX_N_DTYPES;
}
