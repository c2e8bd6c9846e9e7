/* gstfluxcachesrc.c: replays samples of a folder. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
/**
 * SECTION:element-fluxcachesrc
 * @title: fluxcachesrc
 *
 * Sends the samples that fluxcachesink wrote to the folder `location`, in the order they
 * were written in or, with `shuffle`, in a permutation a pass that depends on `seed` and
 * the pass alone. `epochs` passes; -1 is endless.
 *
 * One sample lasts a second of stream time, so a position is a number of samples, and
 * seeking is to a sample.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 -e fluxcachesrc location=mucha.cache ! fluxtrainsink model=FLUX.1-dev
 * max-steps=700 location=mucha.safetensors
 * ]| Trains without pictures, VAE and text encoders.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxcachesrc.h"

#include "elements/gstfluxcommon.h"
#include "elements/gstfluxsamplecache.h"
#include "elements/gstfluxsamplemeta.h"
#include "flux/train/trainer.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_cache_src_debug);
#define GST_CAT_DEFAULT gst_flux_cache_src_debug

#define DEFAULT_EPOCHS 1
#define DEFAULT_SHUFFLE FALSE
#define DEFAULT_SEED 0
#define NO_EPOCH G_MAXUINT64

enum {
  PROP_0,
  PROP_LOCATION,
  PROP_EPOCHS,
  PROP_SHUFFLE,
  PROP_SEED,
};

struct _GstFluxCacheSrc {
  GstFluxSource parent;

  gchar *location; /* properties */
  gint epochs;
  gboolean shuffle;
  guint64 seed;

  GstFluxCacheIndex index;
  GstFluxTensorInfo info; /* of the caps that were set last */
  guint64 next;           /* position in samples */
  guint32 *order;         /* of order_epoch */
  guint64 order_epoch;
  gboolean sent_empty;
};

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE (
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_SAMPLE_CAPS));

#define gst_flux_cache_src_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxCacheSrc, gst_flux_cache_src, GST_TYPE_FLUX_SOURCE,
    GST_DEBUG_CATEGORY_INIT (
        gst_flux_cache_src_debug, "fluxcachesrc", 0, "FLUX sample cache reader"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxcachesrc, "fluxcachesrc", GST_RANK_NONE, GST_TYPE_FLUX_CACHE_SRC);

static void
gst_flux_cache_src_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxCacheSrc *self = GST_FLUX_CACHE_SRC (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LOCATION:
      g_free (self->location);
      self->location = g_value_dup_string (value);
      break;
    case PROP_EPOCHS:
      self->epochs = g_value_get_int (value);
      break;
    case PROP_SHUFFLE:
      self->shuffle = g_value_get_boolean (value);
      break;
    case PROP_SEED:
      self->seed = g_value_get_uint64 (value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
gst_flux_cache_src_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxCacheSrc *self = GST_FLUX_CACHE_SRC (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LOCATION:
      g_value_set_string (value, self->location);
      break;
    case PROP_EPOCHS:
      g_value_set_int (value, self->epochs);
      break;
    case PROP_SHUFFLE:
      g_value_set_boolean (value, self->shuffle);
      break;
    case PROP_SEED:
      g_value_set_uint64 (value, self->seed);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static gboolean
start (GstFluxCacheSrc *self)
{
  GError *error = NULL;

  if (self->location == NULL)
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxcachesrc has nothing to read: set location to a folder that fluxcachesink "
        "wrote.");
  else if (gst_flux_cache_index_read (&self->index, self->location, &error)) {
    memset (&self->info, 0, sizeof self->info);
    self->next = 0;
    self->order = g_new (guint32, self->index.names->len);
    self->order_epoch = NO_EPOCH;
    self->sent_empty = FALSE;
    return TRUE;
  }
  gst_flux_cache_index_clear (&self->index);
  gst_flux_post_error (self, error);
  return FALSE;
}

static GstStateChangeReturn
gst_flux_cache_src_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxCacheSrc *self = GST_FLUX_CACHE_SRC (element);
  GstStateChangeReturn ret;

  /* Not in the base class's start(), to whose failure it would add an error. */
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (self->order != NULL && (transition == GST_STATE_CHANGE_PAUSED_TO_READY ||
                                 ret == GST_STATE_CHANGE_FAILURE)) {
    g_clear_pointer (&self->order, g_free);
    gst_flux_cache_index_clear (&self->index);
  }
  return ret;
}

static const gchar *
name_at (GstFluxCacheSrc *self, guint64 epoch, guint place)
{
  if (!self->shuffle)
    return g_ptr_array_index (self->index.names, place);
  if (self->order_epoch != epoch) {
    flux_train_permutation (self->seed, epoch, self->index.names->len, self->order);
    self->order_epoch = epoch;
  }
  return g_ptr_array_index (self->index.names, self->order[place]);
}

static gboolean
send_empty_prompt (GstFluxCacheSrc *self, GError **error)
{
  FluxEmbedding e;

  if (self->sent_empty || !self->index.empty_prompt)
    return TRUE;
  if (!gst_flux_cache_read_empty_prompt (self->location, &e, error))
    return FALSE;
  gst_pad_push_event (GST_BASE_SRC_PAD (self), gst_flux_empty_prompt_event_new (&e));
  flux_embedding_clear (&e);
  self->sent_empty = TRUE;
  return TRUE;
}

static gboolean
set_caps (GstFluxCacheSrc *self, const GstFluxTensorInfo *info)
{
  GstCaps *caps;
  gboolean ok;

  if (memcmp (info, &self->info, sizeof *info) == 0)
    return TRUE;
  caps = gst_flux_tensor_info_to_caps (info);
  ok = gst_base_src_set_caps (GST_BASE_SRC (self), caps);
  gst_caps_unref (caps);
  self->info = *info;
  return ok;
}

static GstFlowReturn
gst_flux_cache_src_create (GstPushSrc *push, GstBuffer **buffer)
{
  GstFluxCacheSrc *self = GST_FLUX_CACHE_SRC (push);
  guint n = self->index.names->len;
  guint64 epoch = self->next / n;
  GstFluxTensorInfo info;
  GstFluxSample sample;
  GError *error = NULL;

  if (self->epochs >= 0 && epoch >= (guint64)self->epochs)
    return GST_FLOW_EOS;
  *buffer = gst_flux_cache_read_sample (
      self->location, name_at (self, epoch, (guint)(self->next % n)), &info, &error);
  if (*buffer == NULL)
    goto failed;
  if (strcmp (info.model, self->index.model) != 0) {
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "The cache '%s' mixes the posteriors of two VAEs (%s and %s): write it again.",
        self->location, info.model, self->index.model);
    goto failed;
  }
  if (!set_caps (self, &info)) {
    gst_clear_buffer (buffer);
    return GST_FLOW_NOT_NEGOTIATED;
  }
  if (!send_empty_prompt (self, &error))
    goto failed;
  gst_flux_sample_meta_get (*buffer, &sample);
  sample.epoch = (guint)MIN (epoch, G_MAXUINT);
  gst_flux_sample_meta_set (*buffer, &sample);
  GST_BUFFER_PTS (*buffer) = self->next * GST_SECOND;
  GST_BUFFER_DURATION (*buffer) = GST_SECOND;
  GST_BUFFER_OFFSET (*buffer) = self->next;
  GST_BUFFER_OFFSET_END (*buffer) = self->next + 1;
  self->next++;
  return GST_FLOW_OK;

failed:
  gst_clear_buffer (buffer);
  gst_flux_post_error (self, error);
  return GST_FLOW_ERROR;
}

/* Caps are those of the first sample, which create() sets; the template's fixed values
 * would be nobody's. */
static gboolean
gst_flux_cache_src_negotiate (GstBaseSrc *base)
{
  return TRUE;
}

static gboolean
gst_flux_cache_src_is_seekable (GstBaseSrc *base)
{
  return TRUE;
}

static gboolean
gst_flux_cache_src_do_seek (GstBaseSrc *base, GstSegment *segment)
{
  GstFluxCacheSrc *self = GST_FLUX_CACHE_SRC (base);

  if (segment->rate < 0)
    return FALSE;
  segment->time = segment->start;
  self->next = segment->position / GST_SECOND;
  return TRUE;
}

static gboolean
gst_flux_cache_src_query (GstBaseSrc *base, GstQuery *query)
{
  GstFluxCacheSrc *self = GST_FLUX_CACHE_SRC (base);
  GstFormat format;

  if (GST_QUERY_TYPE (query) == GST_QUERY_DURATION && self->index.names != NULL) {
    gst_query_parse_duration (query, &format, NULL);
    if (format == GST_FORMAT_TIME && self->epochs >= 0) {
      gst_query_set_duration (
          query, format, (gint64)self->epochs * self->index.names->len * GST_SECOND);
      return TRUE;
    }
  }
  return GST_BASE_SRC_CLASS (parent_class)->query (base, query);
}

static void
gst_flux_cache_src_finalize (GObject *object)
{
  g_free (GST_FLUX_CACHE_SRC (object)->location);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
install_properties (GObjectClass *klass)
{
  g_object_class_install_property (klass, PROP_LOCATION,
      g_param_spec_string ("location", "Location", "Folder that fluxcachesink wrote",
          NULL, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_EPOCHS,
      g_param_spec_int ("epochs", "Epochs",
          "Passes over the samples; -1: endless (passes, -1 or more)", -1, G_MAXINT,
          DEFAULT_EPOCHS, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_SHUFFLE,
      g_param_spec_boolean ("shuffle", "Shuffle", "Send each pass in an order of its own",
          DEFAULT_SHUFFLE, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_SEED,
      g_param_spec_uint64 ("seed", "Seed", "Seed of the orders (number, 0 or more)", 0,
          G_MAXUINT64, DEFAULT_SEED, GST_FLUX_PARAM_READY));
}

static void
gst_flux_cache_src_class_init (GstFluxCacheSrcClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseSrcClass *src_class = GST_BASE_SRC_CLASS (klass);

  gobject_class->set_property = gst_flux_cache_src_set_property;
  gobject_class->get_property = gst_flux_cache_src_get_property;
  gobject_class->finalize = gst_flux_cache_src_finalize;
  install_properties (gobject_class);

  gst_element_class_set_static_metadata (element_class, "FLUX sample cache reader",
      "Source/Tensor", "Replays posteriors with their embeddings from a folder",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &src_template);

  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_cache_src_change_state);
  src_class->negotiate = GST_DEBUG_FUNCPTR (gst_flux_cache_src_negotiate);
  src_class->is_seekable = GST_DEBUG_FUNCPTR (gst_flux_cache_src_is_seekable);
  src_class->do_seek = GST_DEBUG_FUNCPTR (gst_flux_cache_src_do_seek);
  src_class->query = GST_DEBUG_FUNCPTR (gst_flux_cache_src_query);
  GST_PUSH_SRC_CLASS (klass)->create = GST_DEBUG_FUNCPTR (gst_flux_cache_src_create);
}

static void
gst_flux_cache_src_init (GstFluxCacheSrc *self)
{
  gst_base_src_set_format (GST_BASE_SRC (self), GST_FORMAT_TIME);
  self->epochs = DEFAULT_EPOCHS;
}
