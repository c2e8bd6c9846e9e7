/* gstfluxcachesink.c: writes samples to a folder. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
/**
 * SECTION:element-fluxcachesink
 * @title: fluxcachesink
 *
 * Writes what a trainer needs of each picture (posterior, embeddings, caption, key) to
 * the folder `location`, for fluxcachesrc: afterwards neither the pictures nor the VAE
 * nor the text encoders are needed. Files are replaced atomically, and the folder is a
 * cache only when EOS has been reached.
 *
 * A folder that holds the cache of another VAE is refused. In a looping stream a sample
 * is written once.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 fluxdatasetsrc location=mucha ! fluximagedec ! fluximagecrop width=512
 * height=768 ! fluxvaeenc model=FLUX.1-dev ! fluxembed location=mucha.parquet !
 * fluxcachesink location=mucha.cache
 * ]| Prepares a training.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxcachesink.h"

#include "elements/gstfluxcommon.h"
#include "elements/gstfluxsamplecache.h"
#include "elements/gstfluxsamplemeta.h"
#include "flux/files/replace.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_cache_sink_debug);
#define GST_CAT_DEFAULT gst_flux_cache_sink_debug

enum {
  PROP_0,
  PROP_LOCATION,
};

struct _GstFluxCacheSink {
  GstBaseSink parent;

  gchar *location;         /* property */
  GstFluxTensorInfo info;  /* of the current caps */
  GstFluxCacheIndex index; /* of what has been written */
  GHashTable *written;     /* names of the index */
  gboolean refused;        /* the caps */
};

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE (
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_SAMPLE_CAPS));

#define gst_flux_cache_sink_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxCacheSink, gst_flux_cache_sink, GST_TYPE_BASE_SINK,
    GST_DEBUG_CATEGORY_INIT (
        gst_flux_cache_sink_debug, "fluxcachesink", 0, "FLUX sample cache writer"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxcachesink, "fluxcachesink", GST_RANK_NONE, GST_TYPE_FLUX_CACHE_SINK);

static void
gst_flux_cache_sink_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxCacheSink *self = GST_FLUX_CACHE_SINK (object);

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
gst_flux_cache_sink_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxCacheSink *self = GST_FLUX_CACHE_SINK (object);

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

static gboolean
open_folder (GstFluxCacheSink *self, GError **error)
{
  g_autofree gchar *index = NULL;

  if (self->location == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxcachesink has nowhere to write to: set location to a folder.");
    return FALSE;
  }
  index = g_build_filename (self->location, GST_FLUX_CACHE_INDEX_FILE, NULL);
  return flux_file_check_writable (index, "The sample cache", error);
}

static gboolean
start (GstFluxCacheSink *self)
{
  GError *error = NULL;

  if (!open_folder (self, &error)) {
    gst_flux_post_error (self, error);
    return FALSE;
  }
  self->refused = FALSE;
  gst_flux_cache_index_init (&self->index);
  self->written = g_hash_table_new (g_str_hash, g_str_equal);
  return TRUE;
}

static GstStateChangeReturn
gst_flux_cache_sink_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxCacheSink *self = GST_FLUX_CACHE_SINK (element);
  GstStateChangeReturn ret;

  /* Not in the base class's start(), to whose failure others would add an error. */
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (self->written != NULL && (transition == GST_STATE_CHANGE_PAUSED_TO_READY ||
                                   ret == GST_STATE_CHANGE_FAILURE)) {
    g_clear_pointer (&self->written, g_hash_table_unref);
    gst_flux_cache_index_clear (&self->index);
  }
  return ret;
}

/* One cache, one VAE: neither the stream nor what is in the folder may be of another. */
static gboolean
check_model (GstFluxCacheSink *self, const gchar *model, GError **error)
{
  GstFluxCacheIndex old;
  gboolean same;

  if (self->index.model != NULL) {
    if (strcmp (self->index.model, model) == 0)
      return TRUE;
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "The posteriors of two VAEs (%s and %s) came in one stream; '%s' can hold one.",
        self->index.model, model, self->location);
    return FALSE;
  }
  same = !gst_flux_cache_index_read (&old, self->location, NULL) ||
         strcmp (old.model, model) == 0;
  if (!same)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "'%s' holds a cache of another VAE (%s, not %s): delete it, or name another "
        "folder.",
        self->location, old.model, model);
  gst_flux_cache_index_clear (&old);
  if (same)
    self->index.model = g_strdup (model);
  return same;
}

static gboolean
gst_flux_cache_sink_set_caps (GstBaseSink *base, GstCaps *caps)
{
  GstFluxCacheSink *self = GST_FLUX_CACHE_SINK (base);
  GError *error = NULL;

  if (!gst_flux_tensor_info_from_caps (&self->info, caps))
    return FALSE;
  if (check_model (self, self->info.model, &error))
    return TRUE;
  /* Caps are sticky, and come again with each buffer; say it once. */
  if (!self->refused)
    gst_flux_post_error (self, g_steal_pointer (&error));
  g_clear_error (&error);
  self->refused = TRUE;
  return FALSE;
}

static GstFlowReturn
gst_flux_cache_sink_render (GstBaseSink *base, GstBuffer *buffer)
{
  GstFluxCacheSink *self = GST_FLUX_CACHE_SINK (base);
  GstFluxSample sample;
  gchar *name;
  GError *error = NULL;

  gst_flux_sample_meta_get (buffer, &sample);
  if (sample.key == NULL)
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "A sample came without the key of its image: put fluxembed before "
        "fluxcachesink.");
  else
    gst_flux_cache_write_sample (self->location, buffer, &self->info, &name, &error);
  if (error != NULL) {
    gst_flux_post_error (self, error);
    return GST_FLOW_ERROR;
  }
  if (sample.epoch > 0 && g_hash_table_contains (self->written, name)) {
    g_free (name);
  } else {
    g_ptr_array_add (self->index.names, name);
    g_hash_table_add (self->written, name);
  }
  return GST_FLOW_OK;
}

static gboolean
finish (GstFluxCacheSink *self, GError **error)
{
  if (self->index.names->len == 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "No sample came: there is nothing to write to '%s'.", self->location);
    return FALSE;
  }
  return gst_flux_cache_index_write (&self->index, self->location, error);
}

static gboolean
gst_flux_cache_sink_event (GstBaseSink *base, GstEvent *event)
{
  GstFluxCacheSink *self = GST_FLUX_CACHE_SINK (base);
  FluxEmbedding e;
  GError *error = NULL;

  if (GST_EVENT_TYPE (event) == GST_EVENT_EOS) {
    /* An error has been posted when the caps were refused. */
    if (!self->refused)
      finish (self, &error);
  } else if (gst_flux_empty_prompt_event_parse (event, &e)) {
    self->index.empty_prompt =
        gst_flux_cache_write_empty_prompt (self->location, &e, &error);
    flux_embedding_clear (&e);
  }
  if (error != NULL) {
    gst_flux_post_error (self, error);
    gst_event_unref (event);
    return FALSE;
  }
  return GST_BASE_SINK_CLASS (parent_class)->event (base, event);
}

static void
gst_flux_cache_sink_finalize (GObject *object)
{
  g_free (GST_FLUX_CACHE_SINK (object)->location);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_cache_sink_class_init (GstFluxCacheSinkClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseSinkClass *sink_class = GST_BASE_SINK_CLASS (klass);

  gobject_class->set_property = gst_flux_cache_sink_set_property;
  gobject_class->get_property = gst_flux_cache_sink_get_property;
  gobject_class->finalize = gst_flux_cache_sink_finalize;
  g_object_class_install_property (gobject_class, PROP_LOCATION,
      g_param_spec_string ("location", "Location",
          "Folder that the samples are written to", NULL, GST_FLUX_PARAM_READY));

  gst_element_class_set_static_metadata (element_class, "FLUX sample cache writer",
      "Sink/Tensor", "Writes posteriors with their embeddings to a folder",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &sink_template);

  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_cache_sink_change_state);
  sink_class->set_caps = GST_DEBUG_FUNCPTR (gst_flux_cache_sink_set_caps);
  sink_class->render = GST_DEBUG_FUNCPTR (gst_flux_cache_sink_render);
  sink_class->event = GST_DEBUG_FUNCPTR (gst_flux_cache_sink_event);
}

static void
gst_flux_cache_sink_init (GstFluxCacheSink *self)
{
  gst_base_sink_set_sync (GST_BASE_SINK (self), FALSE);
  gst_base_sink_set_last_sample_enabled (GST_BASE_SINK (self), FALSE);
}
