/* gstfluxmodelsrc.c: the tensors of a transformer, one a buffer. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
/**
 * SECTION:element-fluxmodelsrc
 * @title: fluxmodelsrc
 *
 * Sends the weights of the transformer in `location` (a model's folder, the transformer's
 * folder in it, or its safetensors file beside its config.json), one tensor a buffer, in
 * the order of the files. Buffers are views of the mapped files whose pages are given
 * back after use, so that memory does not grow with the model.
 *
 * Weights that bitsandbytes quantised come as they are when downstream takes them so
 * (fluxmodelsink), else expanded to floats.
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

#include "elements/gstfluxmodelsrc.h"

#include "elements/gstfluxcommon.h"
#include "elements/gstfluxweights.h"
#include "flux/convert/config-text.h"
#include "flux/convert/plain.h"
#include "flux/hub/hub.h"
#include "flux/transformer/config.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_model_src_debug);
#define GST_CAT_DEFAULT gst_flux_model_src_debug

enum {
  PROP_0,
  PROP_LOCATION,
};

struct _GstFluxModelSrc {
  GstFluxSource parent;

  gchar *location; /* property */

  FluxSafetensors *file;
  gchar *folder; /* of the transformer */
  gchar *config; /* config.json */
  FluxPlain *tensors;
  guint next;
  guint64 bytes_sent, bytes_total;
  gboolean failed; /* an error has been posted while streaming */
  GstFluxProgress progress;
};

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE (
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_WEIGHTS_CAPS_ANY));

#define gst_flux_model_src_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxModelSrc, gst_flux_model_src, GST_TYPE_FLUX_SOURCE,
    GST_DEBUG_CATEGORY_INIT (
        gst_flux_model_src_debug, "fluxmodelsrc", 0, "FLUX weight reader"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxmodelsrc, "fluxmodelsrc", GST_RANK_NONE, GST_TYPE_FLUX_MODEL_SRC);

static void
gst_flux_model_src_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxModelSrc *self = GST_FLUX_MODEL_SRC (object);

  switch (id) {
    case PROP_LOCATION:
      GST_OBJECT_LOCK (self);
      g_free (self->location);
      self->location = g_value_dup_string (value);
      GST_OBJECT_UNLOCK (self);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
}

static void
gst_flux_model_src_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxModelSrc *self = GST_FLUX_MODEL_SRC (object);

  switch (id) {
    case PROP_LOCATION:
      GST_OBJECT_LOCK (self);
      g_value_set_string (value, self->location);
      GST_OBJECT_UNLOCK (self);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
}

/* The folder with the transformer's config.json, and what to open in it. */
static gchar *
find_folder (const gchar *location, gchar **open)
{
  gchar *sub = g_build_filename (location, "transformer", NULL);

  if (g_file_test (sub, G_FILE_TEST_IS_DIR)) {
    *open = g_strdup (sub);
    return sub;
  }
  g_free (sub);
  *open = g_strdup (location);
  return g_file_test (location, G_FILE_TEST_IS_DIR) ? g_strdup (location)
                                                    : g_path_get_dirname (location);
}

static gboolean
open_model (GstFluxModelSrc *self, GError **error)
{
  g_autofree gchar *path = NULL;
  FluxConfig config;

  if (self->location == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxmodelsrc has nothing to read: set location to the folder of a model.");
    return FALSE;
  }
  if (flux_hub_is_uri (self->location)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxmodelsrc reads a folder of this computer: run gst-flux pull %s, and set "
        "location to what it prints.",
        self->location);
    return FALSE;
  }
  self->folder = find_folder (self->location, &path);
  self->file = flux_safetensors_open (path, error);
  if (self->file == NULL || !flux_config_read (self->folder, &config, error))
    return FALSE;
  self->config = flux_config_text_read (self->folder, error);
  return self->config != NULL;
}

static void
close_model (GstFluxModelSrc *self)
{
  g_clear_pointer (&self->tensors, flux_plain_free);
  g_clear_pointer (&self->file, flux_safetensors_unref);
  g_clear_pointer (&self->folder, g_free);
  g_clear_pointer (&self->config, g_free);
}

static gboolean
start (GstFluxModelSrc *self)
{
  GError *error = NULL;

  self->next = 0;
  self->failed = FALSE;
  self->bytes_sent = self->bytes_total = 0;
  gst_flux_progress_init (&self->progress, GST_ELEMENT (self), "weights", NULL);
  if (open_model (self, &error))
    return TRUE;
  close_model (self);
  gst_flux_post_error (self, error);
  return FALSE;
}

static GstStateChangeReturn
gst_flux_model_src_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxModelSrc *self = GST_FLUX_MODEL_SRC (element);
  GstStateChangeReturn ret;

  /* Not in the base class's start(), to whose failure it would add an error. */
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY || ret == GST_STATE_CHANGE_FAILURE)
    close_model (self);
  return ret;
}

static void
fail (GstFluxModelSrc *self, GError *error)
{
  self->failed = TRUE;
  gst_flux_post_error (self, error);
}

/* The base class sends EOS after an error too, which a sink would take for the end of a
 * model that is too short. */
static GstPadProbeReturn
drop_eos (GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  const GstEvent *event = GST_PAD_PROBE_INFO_EVENT (info);

  return ((GstFluxModelSrc *)data)->failed && GST_EVENT_TYPE (event) == GST_EVENT_EOS
             ? GST_PAD_PROBE_DROP
             : GST_PAD_PROBE_OK;
}

/* As stored when that is taken, else expanded. Sends what will come. */
static gboolean
gst_flux_model_src_negotiate (GstBaseSrc *base)
{
  GstFluxModelSrc *self = GST_FLUX_MODEL_SRC (base);
  GstCaps *allowed, *caps;
  GstFluxWeights weights;
  GError *error = NULL;
  gboolean ok, expand;

  if (self->tensors != NULL)
    return TRUE;
  allowed = gst_pad_get_allowed_caps (GST_BASE_SRC_PAD (base));
  if (allowed == NULL)
    allowed = gst_pad_get_pad_template_caps (GST_BASE_SRC_PAD (base));
  caps = gst_caps_from_string (GST_FLUX_WEIGHTS_CAPS ("stored"));
  expand = !gst_caps_can_intersect (caps, allowed);
  if (expand)
    gst_caps_set_simple (caps, "layout", G_TYPE_STRING, "plain", NULL);
  ok = gst_base_src_set_caps (base, caps);
  gst_caps_unref (caps);
  gst_caps_unref (allowed);
  if (!ok)
    return FALSE;
  self->tensors = flux_plain_new (self->file, expand, &error);
  weights.location = self->folder;
  weights.config =
      expand ? flux_config_text_plain (self->config) : g_strdup (self->config);
  if (self->tensors == NULL) {
    g_free (weights.config);
    fail (self, error);
    return FALSE;
  }
  weights.tensors = flux_plain_get_infos (self->tensors);
  for (guint i = 0; i < weights.tensors->len; i++)
    self->bytes_total += ((FluxTensorInfo *)weights.tensors->pdata[i])->n_bytes;
  /* A refusal comes back with the first buffer. */
  gst_pad_push_event (GST_BASE_SRC_PAD (base), gst_flux_weights_event_new (&weights));
  g_free (weights.config);
  return TRUE;
}

static GstFlowReturn
gst_flux_model_src_create (GstPushSrc *push, GstBuffer **buffer)
{
  GstFluxModelSrc *self = GST_FLUX_MODEL_SRC (push);
  GPtrArray *infos = flux_plain_get_infos (self->tensors);
  const FluxTensorInfo *info;
  GError *error = NULL;
  GBytes *bytes;

  if (self->next >= infos->len)
    return GST_FLOW_EOS;
  info = infos->pdata[self->next];
  bytes = flux_plain_read (self->tensors, self->next, &error);
  if (bytes == NULL) {
    fail (self, error);
    return GST_FLOW_ERROR;
  }
  *buffer = gst_flux_weight_buffer_new (info, bytes);
  g_bytes_unref (bytes);
  GST_BUFFER_PTS (*buffer) = self->next * GST_SECOND;
  GST_BUFFER_DURATION (*buffer) = GST_SECOND;
  GST_BUFFER_OFFSET (*buffer) = self->next;
  GST_BUFFER_OFFSET_END (*buffer) = ++self->next;
  self->bytes_sent += info->n_bytes;
  return GST_FLOW_OK;
}

static gboolean
gst_flux_model_src_is_seekable (GstBaseSrc *base)
{
  return FALSE;
}

static gboolean
gst_flux_model_src_query (GstBaseSrc *base, GstQuery *query)
{
  GstFluxModelSrc *self = GST_FLUX_MODEL_SRC (base);
  GstFormat format;

  if (GST_QUERY_TYPE (query) == GST_QUERY_DURATION && self->tensors != NULL) {
    gst_query_parse_duration (query, &format, NULL);
    if (format == GST_FORMAT_TIME) {
      gst_query_set_duration (
          query, format, flux_plain_get_infos (self->tensors)->len * GST_SECOND);
      return TRUE;
    }
  }
  return GST_BASE_SRC_CLASS (parent_class)->query (base, query);
}

static void
gst_flux_model_src_finalize (GObject *object)
{
  close_model (GST_FLUX_MODEL_SRC (object));
  g_free (GST_FLUX_MODEL_SRC (object)->location);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_model_src_class_init (GstFluxModelSrcClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseSrcClass *src_class = GST_BASE_SRC_CLASS (klass);

  gobject_class->set_property = gst_flux_model_src_set_property;
  gobject_class->get_property = gst_flux_model_src_get_property;
  gobject_class->finalize = gst_flux_model_src_finalize;
  g_object_class_install_property (gobject_class, PROP_LOCATION,
      g_param_spec_string ("location", "Location",
          "Model folder, transformer folder or safetensors file", NULL,
          GST_FLUX_PARAM_READY));

  gst_element_class_set_static_metadata (element_class, "FLUX weight reader",
      "Source/File", "Sends the weights of a transformer, one tensor a buffer",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &src_template);

  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_model_src_change_state);
  src_class->negotiate = GST_DEBUG_FUNCPTR (gst_flux_model_src_negotiate);
  src_class->is_seekable = GST_DEBUG_FUNCPTR (gst_flux_model_src_is_seekable);
  src_class->query = GST_DEBUG_FUNCPTR (gst_flux_model_src_query);
  GST_PUSH_SRC_CLASS (klass)->create = GST_DEBUG_FUNCPTR (gst_flux_model_src_create);
}

static void
gst_flux_model_src_init (GstFluxModelSrc *self)
{
  gst_base_src_set_format (GST_BASE_SRC (self), GST_FORMAT_TIME);
  gst_pad_add_probe (
      GST_BASE_SRC_PAD (self), GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, drop_eos, self, NULL);
}
