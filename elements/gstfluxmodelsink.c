/* gstfluxmodelsink.c: writes a model folder. SPDX-License-Identifier: LGPL-2.1-or-later
 */
/**
 * SECTION:element-fluxmodelsink
 * @title: fluxmodelsink
 *
 * Writes a stream of weights as diffusers' save_pretrained() would: config.json and
 * diffusion_pytorch_model.safetensors, or shards of at most `max-shard-size` bytes and
 * their index. By default `location` is the transformer's folder; with parts=link or
 * parts=copy it is a whole model's, whose other parts (VAE, text encoders, tokenizers)
 * come from where the transformer came from, and fluxsamplersrc, fluxtrainsink and
 * diffusers can open it.
 *
 * The folder appears under its name only when it is complete and on disk; a stream that
 * ends early is an error and leaves nothing. A tensor is written when it comes, and
 * forgotten.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 -e fluxmodelsrc location=FLUX.1-dev ! fluxmodelsink
 * location=FLUX.1-dev-small-files max-shard-size=2000000000 parts=link
 * ]| The same model in smaller files.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxmodelsink.h"

#include "elements/gstfluxcommon.h"
#include "elements/gstfluxweights.h"
#include "flux/convert/folder.h"
#include "flux/hub/hub.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_model_sink_debug);
#define GST_CAT_DEFAULT gst_flux_model_sink_debug

#define DEFAULT_MAX_SHARD_SIZE G_GUINT64_CONSTANT (10000000000)
#define DEFAULT_PARTS FLUX_PARTS_NONE

enum {
  PROP_0,
  PROP_LOCATION,
  PROP_MAX_SHARD_SIZE,
  PROP_PARTS,
};

struct _GstFluxModelSink {
  GstBaseSink parent;

  gchar *location; /* properties */
  guint64 max_shard_size;
  FluxParts parts;

  FluxFolder *folder; /* since the tensors have been announced */
  gchar *config;
  guint64 bytes_done, bytes_total;
  gboolean failed; /* an error has been posted */
  GstFluxProgress progress;
};

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE (
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_WEIGHTS_CAPS_ANY));

#define gst_flux_model_sink_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxModelSink, gst_flux_model_sink, GST_TYPE_BASE_SINK,
    GST_DEBUG_CATEGORY_INIT (
        gst_flux_model_sink_debug, "fluxmodelsink", 0, "FLUX model writer"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxmodelsink, "fluxmodelsink", GST_RANK_NONE, GST_TYPE_FLUX_MODEL_SINK);

#define GST_TYPE_FLUX_PARTS (gst_flux_parts_get_type ())
static GType
gst_flux_parts_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_PARTS_NONE, "The transformer alone", "none"},
      {FLUX_PARTS_LINK, "Links to the source's other parts", "link"},
      {FLUX_PARTS_COPY, "Copies of the source's other parts", "copy"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxParts", values);
}

static void
gst_flux_model_sink_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxModelSink *self = GST_FLUX_MODEL_SINK (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LOCATION:
      g_free (self->location);
      self->location = g_value_dup_string (value);
      break;
    case PROP_MAX_SHARD_SIZE:
      self->max_shard_size = g_value_get_uint64 (value);
      break;
    case PROP_PARTS:
      self->parts = g_value_get_enum (value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
gst_flux_model_sink_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxModelSink *self = GST_FLUX_MODEL_SINK (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LOCATION:
      g_value_set_string (value, self->location);
      break;
    case PROP_MAX_SHARD_SIZE:
      g_value_set_uint64 (value, self->max_shard_size);
      break;
    case PROP_PARTS:
      g_value_set_enum (value, self->parts);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
post_once (GstFluxModelSink *self, GError *error)
{
  if (self->failed) {
    g_error_free (error);
    return;
  }
  self->failed = TRUE;
  gst_flux_progress_end (&self->progress, "not written", error);
  gst_flux_post_error (self, error);
}

static void
drop_folder (GstFluxModelSink *self)
{
  g_clear_pointer (&self->folder, flux_folder_abort);
  g_clear_pointer (&self->config, g_free);
}

static gboolean
start (GstFluxModelSink *self)
{
  GError *error = NULL;

  self->failed = FALSE;
  gst_flux_progress_init (&self->progress, GST_ELEMENT (self), "save", NULL);
  if (self->location == NULL)
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxmodelsink has nowhere to write to: set location to a folder.");
  else if (flux_hub_is_uri (self->location))
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxmodelsink writes to a folder of this computer, not to '%s': set location to "
        "one.",
        self->location);
  else if (flux_folder_check (self->location, &error))
    return TRUE;
  gst_flux_post_error (self, error);
  return FALSE;
}

static GstStateChangeReturn
gst_flux_model_sink_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxModelSink *self = GST_FLUX_MODEL_SINK (element);
  GstStateChangeReturn ret;

  /* Not in the base class's start(), to whose failure others would add an error. */
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY || ret == GST_STATE_CHANGE_FAILURE)
    drop_folder (self);
  return ret;
}

static gboolean
open_folder (GstFluxModelSink *self, GstFluxWeights *weights, GError **error)
{
  const FluxFolderOptions options = {.location = self->location,
      .max_shard_size = self->max_shard_size,
      .parts = self->parts,
      .source = weights->location};

  if (self->folder != NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The tensors of two models came in one stream; '%s' can hold one.",
        self->location);
    return FALSE;
  }
  self->bytes_done = self->bytes_total = 0;
  for (guint i = 0; i < weights->tensors->len; i++)
    self->bytes_total += ((FluxTensorInfo *)weights->tensors->pdata[i])->n_bytes;
  self->config = g_steal_pointer (&weights->config);
  self->folder = flux_folder_new (&options, weights->tensors, error);
  return self->folder != NULL;
}

static gboolean
write_tensor (GstFluxModelSink *self, GstBuffer *buffer, GError **error)
{
  FluxTensorInfo *info = gst_flux_weight_meta_get (buffer);
  GstMapInfo map;
  gboolean ok = FALSE;

  if (info == NULL || self->folder == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "A buffer came that does not say which tensor it is, or before the list of "
        "tensors: fluxmodelsink takes what fluxmodelsrc sends.");
  } else if (gst_buffer_map (buffer, &map, GST_MAP_READ)) {
    ok = flux_folder_put (self->folder, info->name, map.data, map.size, error);
    self->bytes_done += map.size;
    gst_buffer_unmap (buffer, &map);
  } else {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "The tensor '%s' cannot be mapped.", info->name);
  }
  g_clear_pointer (&info, flux_tensor_info_free);
  return ok;
}

static GstFlowReturn
gst_flux_model_sink_render (GstBaseSink *base, GstBuffer *buffer)
{
  GstFluxModelSink *self = GST_FLUX_MODEL_SINK (base);
  GError *error = NULL;

  if (self->failed)
    return GST_FLOW_ERROR;
  if (!write_tensor (self, buffer, &error)) {
    post_once (self, error);
    drop_folder (self);
    return GST_FLOW_ERROR;
  }
  /* gst-launch-1.0 waits for PLAYING while an activity runs: not before preroll is over.
   */
  if (self->bytes_total > 0 && GST_STATE (self) == GST_STATE_PLAYING)
    gst_flux_progress_update (
        "weights", (gint)(100 * self->bytes_done / self->bytes_total), &self->progress);
  return GST_FLOW_OK;
}

static void
finish (GstFluxModelSink *self)
{
  FluxFolder *folder = g_steal_pointer (&self->folder);
  GError *error = NULL;

  if (self->failed)
    return;
  if (folder == NULL)
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "No weights came: there is nothing to write to '%s'.", self->location);
  else
    flux_folder_commit (folder, self->config, &error);
  if (error != NULL)
    post_once (self, error);
  else
    gst_flux_progress_end (&self->progress, self->location, NULL);
  drop_folder (self);
}

static gboolean
gst_flux_model_sink_event (GstBaseSink *base, GstEvent *event)
{
  GstFluxModelSink *self = GST_FLUX_MODEL_SINK (base);
  GstFluxWeights weights;
  GError *error = NULL;

  if (GST_EVENT_TYPE (event) == GST_EVENT_EOS) {
    finish (self);
  } else if (gst_flux_weights_event_parse (event, &weights)) {
    if (!self->failed && !open_folder (self, &weights, &error))
      post_once (self, error);
    gst_flux_weights_clear (&weights);
  }
  if (self->failed) {
    gst_event_unref (event);
    return FALSE;
  }
  return GST_BASE_SINK_CLASS (parent_class)->event (base, event);
}

static void
gst_flux_model_sink_finalize (GObject *object)
{
  drop_folder (GST_FLUX_MODEL_SINK (object));
  g_free (GST_FLUX_MODEL_SINK (object)->location);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_model_sink_class_init (GstFluxModelSinkClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseSinkClass *sink_class = GST_BASE_SINK_CLASS (klass);

  gobject_class->set_property = gst_flux_model_sink_set_property;
  gobject_class->get_property = gst_flux_model_sink_get_property;
  gobject_class->finalize = gst_flux_model_sink_finalize;
  g_object_class_install_property (gobject_class, PROP_LOCATION,
      g_param_spec_string ("location", "Location",
          "Folder to write; it must not be there yet, or be empty", NULL,
          GST_FLUX_PARAM_READY));
  g_object_class_install_property (gobject_class, PROP_MAX_SHARD_SIZE,
      g_param_spec_uint64 ("max-shard-size", "Max Shard Size",
          "Most that one file holds, unless a single tensor is larger (bytes, 1 or more)",
          1, G_MAXUINT64, DEFAULT_MAX_SHARD_SIZE, GST_FLUX_PARAM_READY));
  g_object_class_install_property (gobject_class, PROP_PARTS,
      g_param_spec_enum ("parts", "Parts",
          "Make location a whole model's folder with the source's VAE, text encoders and "
          "tokenizers",
          GST_TYPE_FLUX_PARTS, DEFAULT_PARTS, GST_FLUX_PARAM_READY));

  gst_element_class_set_static_metadata (element_class, "FLUX model writer", "Sink/File",
      "Writes a stream of weights as a diffusers folder",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &sink_template);

  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_model_sink_change_state);
  sink_class->render = GST_DEBUG_FUNCPTR (gst_flux_model_sink_render);
  sink_class->event = GST_DEBUG_FUNCPTR (gst_flux_model_sink_event);
}

static void
gst_flux_model_sink_init (GstFluxModelSink *self)
{
  self->max_shard_size = DEFAULT_MAX_SHARD_SIZE;
  self->parts = DEFAULT_PARTS;
  gst_base_sink_set_sync (GST_BASE_SINK (self), FALSE);
  gst_base_sink_set_last_sample_enabled (GST_BASE_SINK (self), FALSE);
}
