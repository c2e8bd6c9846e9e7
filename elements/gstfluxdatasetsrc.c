/* gstfluxdatasetsrc.c: sends the pictures of a data set with their captions.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-fluxdatasetsrc
 * @title: fluxdatasetsrc
 *
 * Sends the files of a captioned picture data set, one a buffer, undecoded. The caption,
 * the file's name and its place in the data set travel in the buffer's GstFluxSampleMeta.
 *
 * `location` is a folder with metadata.jsonl (each line an object with "file_name" and
 * the `caption-column`, as the datasets library's imagefolder); or a folder of pictures,
 * each with its caption in a .txt or .caption file beside it; or a parquet file, or a
 * folder with parquet files, as the Hugging Face Hub serves them; or
 * hf://datasets/user/name[@revision][/folder], which is downloaded before the first
 * picture into the cache that Python's huggingface_hub shares (flux/hub/hub.h has its
 * environment variables; progress `download`). A picture without a caption gets
 * `instance-prompt`; it is an error when that is not set either. Captions have to be
 * UTF-8.
 *
 * Caps follow the file: image/jpeg, image/png or image/webp by its first bytes, changing
 * in mid-stream. Other formats are left out with a warning.
 *
 * With `shuffle` each epoch has an order of its own, which depends on `seed` and the
 * epoch alone. `repeats` sends each picture several times an epoch, `loop` is endless.
 * One picture lasts a second of stream time, so a position is a number of pictures, the
 * duration is known (unless `loop` is set), and seeking is to a picture.
 *
 * ## Example launch lines
 * |[
 * gst-launch-1.0 fluxdatasetsrc location=mucha ! fluximagedec ! fluximagecrop width=512
 * height=512 ! videoconvert ! autovideosink
 * ]| Shows a data set as it will be trained on, a picture a second.
 * |[
 * gst-launch-1.0 -v fluxdatasetsrc location=photos instance-prompt="a photo of sks dog"
 * shuffle=true num-buffers=4 ! fakesink silent=false
 * ]| Lists four pictures.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxcommon.h"
#include "elements/gstfluxdatasetsrc-private.h"
#include "elements/gstfluxsamplemeta.h"
#include "flux/train/trainer.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_dataset_src_debug);
#define GST_CAT_DEFAULT gst_flux_dataset_src_debug

#define NO_EPOCH G_MAXUINT64

#define PICTURE_CAPS(type) type ", framerate = (fraction) 1/1"

static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE ("src", GST_PAD_SRC, GST_PAD_ALWAYS,
        GST_STATIC_CAPS (PICTURE_CAPS ("image/jpeg") ";" PICTURE_CAPS (
            "image/png") ";" PICTURE_CAPS ("image/webp")));

#define gst_flux_dataset_src_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxDatasetSrc, gst_flux_dataset_src, GST_TYPE_FLUX_SOURCE,
    GST_DEBUG_CATEGORY_INIT (
        gst_flux_dataset_src_debug, "fluxdatasetsrc", 0, "FLUX picture data set reader"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxdatasetsrc, "fluxdatasetsrc", GST_RANK_NONE, GST_TYPE_FLUX_DATASET_SRC);

static void
set_n_samples (GstFluxDatasetSrc *self, guint n)
{
  GST_OBJECT_LOCK (self);
  self->n_samples = n;
  GST_OBJECT_UNLOCK (self);
  g_object_notify (G_OBJECT (self), "n-samples");
}

static guint64
epoch_length (GstFluxDatasetSrc *self)
{
  return (guint64)self->n_samples * self->repeats;
}

static gboolean
prepare_order (GstFluxDatasetSrc *self, GError **error)
{
  guint64 n = (guint64)flux_dataset_get_n_samples (self->dataset) * self->repeats;

  if (!self->shuffle)
    return TRUE;
  if (n <= G_MAXINT32)
    self->order = g_try_new (guint32, n);
  if (self->order == NULL)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "An epoch of %" G_GUINT64_FORMAT " pictures is too long to be shuffled: lower "
        "repeats.",
        n);
  return self->order != NULL;
}

static gboolean
open_dataset (GstFluxDatasetSrc *self, const gchar *location, GError **error)
{
  FluxDatasetOptions options = {location, self->caption_column, self->instance_prompt};
  const gchar *left_out;

  self->dataset = flux_dataset_open (&options, error);
  if (self->dataset == NULL || !prepare_order (self, error)) {
    g_clear_pointer (&self->dataset, flux_dataset_free);
    return FALSE;
  }
  left_out = flux_dataset_get_warning (self->dataset);
  if (left_out != NULL)
    gst_flux_post_warning (
        self, g_error_new_literal (FLUX_ERROR, FLUX_ERROR_FORMAT, left_out));
  self->order_epoch = NO_EPOCH;
  self->warned = left_out != NULL;
  set_n_samples (self, flux_dataset_get_n_samples (self->dataset));
  GST_INFO_OBJECT (self, "%u pictures in %s", self->n_samples, self->location);
  return TRUE;
}

/* What is on the Hub: at the first picture, in the streaming thread. */
static GstFlowReturn
open_remote (GstFluxDatasetSrc *self)
{
  g_autofree gchar *path = NULL;
  GError *error = NULL;
  GstFlowReturn ret;

  if (self->failed)
    return GST_FLOW_ERROR;
  path = gst_flux_hub_resolve (&self->hub, self->location, FLUX_HUB_DATASET, &error);
  if (path != NULL && open_dataset (self, path, &error)) {
    gst_element_post_message (
        GST_ELEMENT (self), gst_message_new_duration_changed (GST_OBJECT (self)));
    return GST_FLOW_OK;
  }
  ret = gst_flux_hub_flow (&self->hub, error);
  self->failed = ret == GST_FLOW_ERROR;
  gst_flux_post_error (self, error);
  return ret;
}

static gboolean
start (GstFluxDatasetSrc *self)
{
  GError *error = NULL;

  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
  self->failed = FALSE;
  self->next = 0;
  self->format = FLUX_IMAGE_FORMAT_UNKNOWN;
  if ((self->location != NULL && flux_hub_is_uri (self->location)) ||
      open_dataset (self, self->location, &error))
    return TRUE;
  gst_flux_post_error (self, error);
  return FALSE;
}

static void
close_dataset (GstFluxDatasetSrc *self)
{
  if (self->dataset == NULL)
    return;
  set_n_samples (self, 0);
  g_clear_pointer (&self->dataset, flux_dataset_free);
  g_clear_pointer (&self->order, g_free);
}

static GstStateChangeReturn
gst_flux_dataset_src_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxDatasetSrc *self = GST_FLUX_DATASET_SRC (element);
  GstStateChangeReturn ret;

  /* Not in the base class's start(), to whose failure it would add an error. */
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY ||
      (transition == GST_STATE_CHANGE_READY_TO_PAUSED && ret == GST_STATE_CHANGE_FAILURE))
    close_dataset (self);
  return ret;
}

static gboolean
gst_flux_dataset_src_unlock (GstBaseSrc *base)
{
  gst_flux_hub_set_cancelled (&GST_FLUX_DATASET_SRC (base)->hub, TRUE);
  return TRUE;
}

static gboolean
gst_flux_dataset_src_unlock_stop (GstBaseSrc *base)
{
  gst_flux_hub_set_cancelled (&GST_FLUX_DATASET_SRC (base)->hub, FALSE);
  return TRUE;
}

/* Caps are those of each picture: there is nothing to agree on before the first. */
static gboolean
gst_flux_dataset_src_negotiate (GstBaseSrc *base)
{
  return TRUE;
}

static guint
index_at (GstFluxDatasetSrc *self, guint64 epoch, guint64 place)
{
  if (self->shuffle) {
    if (self->order_epoch != epoch) {
      flux_train_permutation (self->seed, epoch, epoch_length (self), self->order);
      self->order_epoch = epoch;
    }
    place = self->order[place];
  }
  return place % self->n_samples;
}

static gboolean
set_format (GstFluxDatasetSrc *self, FluxImageFormat format)
{
  static const gchar *const types[] = {[FLUX_IMAGE_FORMAT_PNG] = "image/png",
      [FLUX_IMAGE_FORMAT_JPEG] = "image/jpeg",
      [FLUX_IMAGE_FORMAT_WEBP] = "image/webp"};
  GstCaps *caps;
  gboolean ok;

  if (format == self->format)
    return TRUE;
  caps = gst_caps_new_simple (types[format], "framerate", GST_TYPE_FRACTION, 1, 1, NULL);
  ok = gst_base_src_set_caps (GST_BASE_SRC (self), caps);
  gst_caps_unref (caps);
  self->format = format;
  return ok;
}

/* A picture of another format; nothing is sent for it. */
static void
leave_out (GstFluxDatasetSrc *self, const gchar *name)
{
  if (!self->warned)
    gst_flux_post_warning (self,
        g_error_new (FLUX_ERROR, FLUX_ERROR_FORMAT,
            "'%s' is left out, as are others of its kind: convert them to PNG, JPEG "
            "or WebP.",
            name));
  self->warned = TRUE;
}

/* The next picture that can be sent, at self->next. */
static GstFlowReturn
read_next (GstFluxDatasetSrc *self, FluxDatasetSample *picture, guint *index)
{
  const guint64 n = epoch_length (self);
  GError *error = NULL;

  for (guint64 left_out = 0; left_out < n; left_out++, self->next++) {
    if (!self->loop && self->next >= n)
      return GST_FLOW_EOS;
    *index = index_at (self, self->next / n, self->next % n);
    if (!flux_dataset_read (self->dataset, *index, picture, &error)) {
      gst_flux_post_error (self, error);
      return GST_FLOW_ERROR;
    }
    if (picture->format != FLUX_IMAGE_FORMAT_OTHER)
      return GST_FLOW_OK;
    leave_out (self, picture->name);
    flux_dataset_sample_clear (picture);
  }
  gst_flux_post_error (
      self, g_error_new (FLUX_ERROR, FLUX_ERROR_FORMAT,
                "'%s' holds no PNG, JPEG or WebP picture: convert its pictures.",
                self->location));
  return GST_FLOW_ERROR;
}

static GstFlowReturn
gst_flux_dataset_src_create (GstPushSrc *push, GstBuffer **buffer)
{
  GstFluxDatasetSrc *self = GST_FLUX_DATASET_SRC (push);
  FluxDatasetSample picture;
  GstFluxSample sample = GST_FLUX_SAMPLE_INIT;
  guint index;
  GstFlowReturn flow = self->dataset != NULL ? GST_FLOW_OK : open_remote (self);

  if (flow == GST_FLOW_OK)
    flow = read_next (self, &picture, &index);
  if (flow != GST_FLOW_OK)
    return flow;
  if (!set_format (self, picture.format)) {
    flux_dataset_sample_clear (&picture);
    return GST_FLOW_NOT_NEGOTIATED;
  }
  *buffer = gst_buffer_new_wrapped_bytes (picture.bytes);
  sample.filename = picture.name;
  sample.caption = picture.caption;
  sample.index = index;
  sample.epoch = MIN (self->next / epoch_length (self), G_MAXUINT);
  gst_flux_sample_meta_set (*buffer, &sample);
  GST_BUFFER_PTS (*buffer) = self->next * GST_SECOND;
  GST_BUFFER_DURATION (*buffer) = GST_SECOND;
  GST_BUFFER_OFFSET (*buffer) = self->next;
  GST_BUFFER_OFFSET_END (*buffer) = self->next + 1;
  GST_LOG_OBJECT (self, "%s: %s", picture.name, picture.caption);
  flux_dataset_sample_clear (&picture);
  self->next++;
  return GST_FLOW_OK;
}

static gboolean
gst_flux_dataset_src_is_seekable (GstBaseSrc *base)
{
  return TRUE;
}

static gboolean
gst_flux_dataset_src_do_seek (GstBaseSrc *base, GstSegment *segment)
{
  GstFluxDatasetSrc *self = GST_FLUX_DATASET_SRC (base);

  if (segment->rate < 0)
    return FALSE;
  segment->time = segment->start;
  self->next = segment->position / GST_SECOND;
  return TRUE;
}

/* Pictures until EOS; -1 when there is none. */
static gint64
get_total (GstFluxDatasetSrc *self)
{
  gint num_buffers;
  gint64 total = -1;

  g_object_get (self, "num-buffers", &num_buffers, NULL);
  GST_OBJECT_LOCK (self);
  if (self->n_samples > 0 && !self->loop)
    total = epoch_length (self);
  if (self->n_samples > 0 && num_buffers >= 0)
    total = total < 0 ? num_buffers : MIN (total, num_buffers);
  GST_OBJECT_UNLOCK (self);
  return total;
}

static gboolean
gst_flux_dataset_src_query (GstBaseSrc *base, GstQuery *query)
{
  GstFluxDatasetSrc *self = GST_FLUX_DATASET_SRC (base);
  GstFormat format;
  gint64 total;

  if (GST_QUERY_TYPE (query) == GST_QUERY_DURATION) {
    gst_query_parse_duration (query, &format, NULL);
    total = get_total (self);
    if (format != GST_FORMAT_TIME || total < 0)
      return FALSE;
    gst_query_set_duration (query, format, total * GST_SECOND);
    return TRUE;
  }
  return GST_BASE_SRC_CLASS (parent_class)->query (base, query);
}

static void
gst_flux_dataset_src_finalize (GObject *object)
{
  GstFluxDatasetSrc *self = GST_FLUX_DATASET_SRC (object);

  gst_flux_dataset_src_free_properties (self);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_dataset_src_class_init (GstFluxDatasetSrcClass *klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseSrcClass *src_class = GST_BASE_SRC_CLASS (klass);

  G_OBJECT_CLASS (klass)->finalize = gst_flux_dataset_src_finalize;
  gst_flux_dataset_src_install_properties (klass);

  gst_element_class_set_static_metadata (element_class, "FLUX picture data set reader",
      "Source/File", "Sends captioned pictures of a folder or of parquet files",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &src_template);

  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_dataset_src_change_state);
  src_class->negotiate = GST_DEBUG_FUNCPTR (gst_flux_dataset_src_negotiate);
  src_class->is_seekable = GST_DEBUG_FUNCPTR (gst_flux_dataset_src_is_seekable);
  src_class->do_seek = GST_DEBUG_FUNCPTR (gst_flux_dataset_src_do_seek);
  src_class->query = GST_DEBUG_FUNCPTR (gst_flux_dataset_src_query);
  src_class->unlock = GST_DEBUG_FUNCPTR (gst_flux_dataset_src_unlock);
  src_class->unlock_stop = GST_DEBUG_FUNCPTR (gst_flux_dataset_src_unlock_stop);
  GST_PUSH_SRC_CLASS (klass)->create = GST_DEBUG_FUNCPTR (gst_flux_dataset_src_create);
}

static void
gst_flux_dataset_src_init (GstFluxDatasetSrc *self)
{
  gst_base_src_set_format (GST_BASE_SRC (self), GST_FORMAT_TIME);
  gst_flux_dataset_src_init_properties (self);
}
