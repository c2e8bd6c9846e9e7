/* gstfluximagecrop.c: scales and crops pictures to sizes that FLUX takes.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-fluximagecrop
 * @title: fluximagecrop
 *
 * Makes pictures of a size that FLUX can be trained on: both sides are multiples of 16,
 * pixels are square, nothing is letterboxed, and nothing stretched unless asked. Input
 * sizes may change from picture to picture, and output sizes follow.
 *
 * `resize` is cover (the picture is scaled until it covers `width` x `height`, what
 * sticks out is cropped), squash (each side is scaled by itself), bucket (cover, to that
 * size of at most `max-area` pixels, with sides in steps of `bucket-step`, whose aspect
 * ratio is nearest) or none (only cropped). A `width` or `height` of 0 is what the caps
 * downstream say, else it follows from the other one and the picture's aspect ratio,
 * rounded to the nearest multiple of 16; when both are 0, it is the picture's own size,
 * rounded down. A width or height that is set has to be a multiple of 16: anything else
 * is an error.
 *
 * Scaling is antialiased bilinear, bit for bit that of Python's PIL, as
 * torchvision.transforms.Resize does for the reference's scripts.
 *
 * Random crops and flips depend on `seed` and the picture's key, so they are the same in
 * each epoch and can be cached. `variants` sends each picture several times, each with
 * draws of its own; the frame rate is multiplied. The part that was taken is written into
 * the buffer's GstFluxSampleMeta.
 *
 * ## Example launch lines
 * |[
 * gst-launch-1.0 fluxdatasetsrc location=mucha ! fluximagedec ! fluximagecrop
 * resize=bucket max-area=262144 ! videoconvert ! pngenc ! multifilesink location=%03d.png
 * ]| Shows what aspect buckets make of a data set.
 * |[
 * gst-launch-1.0 videotestsrc num-buffers=1 ! video/x-raw,format=RGB,width=640,height=480
 * ! fluximagecrop width=256 height=256 crop=random flip=random variants=4 ! pngenc !
 * multifilesink location=%d.png
 * ]| Four random crops of a test picture.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluximagecrop-private.h"

#include "elements/gstfluxsamplemeta.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_image_crop_debug);
#define GST_CAT_DEFAULT gst_flux_image_crop_debug

#define RGB_CAPS GST_VIDEO_CAPS_MAKE ("RGB") ", pixel-aspect-ratio = (fraction) 1/1"

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE (
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS (RGB_CAPS));

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE ("src", GST_PAD_SRC,
    GST_PAD_ALWAYS, GST_STATIC_CAPS (RGB_CAPS ", colorimetry = (string) sRGB"));

#define gst_flux_image_crop_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxImageCrop, gst_flux_image_crop, GST_TYPE_ELEMENT,
    GST_DEBUG_CATEGORY_INIT (
        gst_flux_image_crop_debug, "fluximagecrop", 0, "FLUX picture cropper"))
GST_ELEMENT_REGISTER_DEFINE (
    fluximagecrop, "fluximagecrop", GST_RANK_NONE, GST_TYPE_FLUX_IMAGE_CROP);

/* ---- caps ---- */

static gint
get_fixed (const GstStructure *s, const gchar *field)
{
  gint value;

  return gst_structure_get_int (s, field, &value) ? value : 0;
}

/* The size that a capsfilter or the like downstream insists on. */
static void
ask_downstream (GstFluxImageCrop *self)
{
  GstCaps *caps = gst_pad_get_allowed_caps (self->srcpad);

  self->wanted_width = self->wanted_height = 0;
  if (caps != NULL && gst_caps_get_size (caps) == 1) {
    const GstStructure *s = gst_caps_get_structure (caps, 0);

    self->wanted_width = get_fixed (s, "width");
    self->wanted_height = get_fixed (s, "height");
  }
  gst_clear_caps (&caps);
}

/* The properties, with the sizes of the caps downstream where they are 0. */
static FluxCropOptions
get_options (GstFluxImageCrop *self, guint *variants)
{
  FluxCropOptions options;

  GST_OBJECT_LOCK (self);
  options = self->options;
  *variants = self->variants;
  GST_OBJECT_UNLOCK (self);
  if (options.width == 0)
    options.width = self->wanted_width;
  if (options.height == 0)
    options.height = self->wanted_height;
  return options;
}

static gboolean
set_src_caps (GstFluxImageCrop *self, gint width, gint height, guint variants)
{
  GstVideoInfo info;
  GstCaps *caps;
  gboolean ok;

  gst_video_info_set_format (&info, GST_VIDEO_FORMAT_RGB, width, height);
  info.fps_d = self->in.fps_d;
  if (!gst_util_fraction_multiply (
          self->in.fps_n, MAX (self->in.fps_d, 1), variants, 1, &info.fps_n, &info.fps_d))
    info.fps_n = self->in.fps_n;
  if (gst_video_info_is_equal (&info, &self->out))
    return TRUE;
  caps = gst_video_info_to_caps (&info);
  GST_DEBUG_OBJECT (self, "%" GST_PTR_FORMAT, caps);
  ok = gst_pad_set_caps (self->srcpad, caps);
  gst_caps_unref (caps);
  if (!ok)
    return FALSE;
  self->out = info;
  self->held.has_caps = TRUE;
  gst_flux_held_push (&self->held, self->srcpad);
  return TRUE;
}

/* Sets the output caps for pictures of the input's size. */
static gboolean
negotiate (GstFluxImageCrop *self, GError **error)
{
  guint variants;
  FluxCropOptions options;
  gint width, height;

  ask_downstream (self);
  options = get_options (self, &variants);
  if (!flux_crop_get_size (
          &options, self->in.width, self->in.height, &width, &height, error))
    return FALSE;
  return set_src_caps (self, width, height, variants);
}

static gboolean
take_caps (GstFluxImageCrop *self, GstCaps *caps)
{
  GError *error = NULL;
  gboolean ok = gst_video_info_from_caps (&self->in, caps);

  /* A picture that is too small is reported when it comes, with its name; settings that
   * are wrong for every picture at once. */
  if (ok && !negotiate (self, &error) &&
      !g_error_matches (error, FLUX_ERROR, FLUX_ERROR_MISMATCH)) {
    ok = FALSE;
    if (error != NULL)
      gst_flux_post_error (self, g_steal_pointer (&error));
  }
  g_clear_error (&error);
  return ok;
}

static gboolean
gst_flux_image_crop_sink_event (GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstFluxImageCrop *self = GST_FLUX_IMAGE_CROP (parent);
  GstCaps *caps;
  gboolean ok;

  switch (GST_EVENT_TYPE (event)) {
    case GST_EVENT_CAPS:
      gst_event_parse_caps (event, &caps);
      ok = take_caps (self, caps);
      gst_event_unref (event);
      return ok;
    case GST_EVENT_FLUSH_STOP:
      gst_flux_held_drop (&self->held);
      break;
    case GST_EVENT_EOS:
      gst_flux_held_push (&self->held, self->srcpad);
      break;
    default:
      if (gst_flux_held_take (&self->held, event))
        return TRUE;
      break;
  }
  return gst_pad_event_default (pad, parent, event);
}

/* ---- data ---- */

/* 64 bits of the key; of the pixels when no decoder has taken one. */
static guint64
get_identity (const GstFluxSample *sample, GstVideoFrame *frame)
{
  gchar *key = NULL;
  guint64 identity;

  if (sample->key == NULL) {
    GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
    const guint8 *row = GST_VIDEO_FRAME_PLANE_DATA (frame, 0);

    for (gint y = 0; y < GST_VIDEO_FRAME_HEIGHT (frame); y++) {
      g_checksum_update (sum, row, 3 * GST_VIDEO_FRAME_WIDTH (frame));
      row += GST_VIDEO_FRAME_PLANE_STRIDE (frame, 0);
    }
    key = g_strndup (g_checksum_get_string (sum), 16);
    g_checksum_free (sum);
  } else {
    key = g_strndup (sample->key, 16);
  }
  identity = g_ascii_strtoull (key, NULL, 16);
  g_free (key);
  return identity;
}

/* Each variant takes its share of the picture's time; only the first may follow a gap. */
static void
set_times (GstBuffer *out, GstBuffer *in, guint variant, guint variants)
{
  GstClockTime duration = GST_BUFFER_DURATION (in);

  if (variant > 0)
    GST_BUFFER_FLAG_UNSET (out, GST_BUFFER_FLAG_DISCONT);
  if (GST_CLOCK_TIME_IS_VALID (duration)) {
    GstClockTime from = gst_util_uint64_scale (duration, variant, variants);
    GstClockTime to = gst_util_uint64_scale (duration, variant + 1, variants);

    if (GST_BUFFER_PTS_IS_VALID (out))
      GST_BUFFER_PTS (out) += from;
    if (GST_BUFFER_DTS_IS_VALID (out))
      GST_BUFFER_DTS (out) += from;
    GST_BUFFER_DURATION (out) = to - from;
  }
  if (GST_BUFFER_OFFSET_IS_VALID (in)) {
    GST_BUFFER_OFFSET (out) = GST_BUFFER_OFFSET (in) * variants + variant;
    GST_BUFFER_OFFSET_END (out) = GST_BUFFER_OFFSET (out) + 1;
  }
}

static GstBuffer *
make_buffer (GstFluxImageCrop *self, const FluxCrop *crop, GstVideoFrame *frame,
    GstFluxSample *sample, guint variant, guint variants, GError **error)
{
  GstBuffer *out = gst_buffer_new_allocate (NULL, self->out.size, NULL);
  GstMapInfo map;
  gboolean ok;

  if (out == NULL || !gst_buffer_map (out, &map, GST_MAP_WRITE)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "No memory is left for a picture of %dx%d.", crop->width, crop->height);
    gst_clear_buffer (&out);
    return NULL;
  }
  ok = flux_crop_apply (crop, GST_VIDEO_FRAME_PLANE_DATA (frame, 0),
      GST_VIDEO_FRAME_PLANE_STRIDE (frame, 0), map.data,
      GST_VIDEO_INFO_PLANE_STRIDE (&self->out, 0), error);
  gst_buffer_unmap (out, &map);
  if (!ok) {
    gst_buffer_unref (out);
    return NULL;
  }
  gst_buffer_copy_into (out, frame->buffer,
      GST_BUFFER_COPY_FLAGS | GST_BUFFER_COPY_TIMESTAMPS | GST_BUFFER_COPY_META, 0, -1);
  set_times (out, frame->buffer, variant, variants);
  sample->source_width = crop->source_width;
  sample->source_height = crop->source_height;
  sample->scaled_width = crop->scaled_width;
  sample->scaled_height = crop->scaled_height;
  sample->crop_x = crop->x;
  sample->crop_y = crop->y;
  sample->crop_width = crop->width;
  sample->crop_height = crop->height;
  sample->flip = crop->flip;
  sample->variant = variant;
  sample->n_variants = variants;
  gst_flux_sample_meta_set (out, sample);
  return out;
}

/* All variants of a picture. */
static GstFlowReturn
send_variants (GstFluxImageCrop *self, GstVideoFrame *frame, GError **error)
{
  GstFlowReturn flow = GST_FLOW_OK;
  GstFluxSample sample;
  guint variants;
  FluxCropOptions options = get_options (self, &variants);
  guint64 identity;

  gst_flux_sample_meta_get (frame->buffer, &sample);
  identity = get_identity (&sample, frame);
  for (guint v = 0; v < variants && flow == GST_FLOW_OK; v++) {
    FluxCrop crop;
    GstBuffer *out;

    if (!flux_crop_plan (
            &options, self->in.width, self->in.height, identity, v, &crop, error)) {
      g_prefix_error (
          error, "'%s': ", sample.filename != NULL ? sample.filename : "picture");
      return GST_FLOW_ERROR;
    }
    if (!set_src_caps (self, crop.width, crop.height, variants))
      return GST_PAD_IS_FLUSHING (self->srcpad) ? GST_FLOW_FLUSHING
                                                : GST_FLOW_NOT_NEGOTIATED;
    out = make_buffer (self, &crop, frame, &sample, v, variants, error);
    if (out == NULL)
      return GST_FLOW_ERROR;
    flow = gst_pad_push (self->srcpad, out);
  }
  return flow;
}

static GstFlowReturn
gst_flux_image_crop_chain (GstPad *pad, GstObject *parent, GstBuffer *buffer)
{
  GstFluxImageCrop *self = GST_FLUX_IMAGE_CROP (parent);
  GstFlowReturn flow = GST_FLOW_ERROR;
  GError *error = NULL;
  GstVideoFrame frame;

  if (self->in.width == 0) {
    flow = GST_FLOW_NOT_NEGOTIATED;
  } else {
    if (gst_pad_check_reconfigure (self->srcpad))
      ask_downstream (self);
    if (gst_video_frame_map (&frame, &self->in, buffer, GST_MAP_READ)) {
      flow = send_variants (self, &frame, &error);
      gst_video_frame_unmap (&frame);
    } else {
      g_set_error (&error, FLUX_ERROR, FLUX_ERROR_FORMAT,
          "A buffer is too small for the %dx%d pixels of its caps.", self->in.width,
          self->in.height);
    }
  }
  gst_buffer_unref (buffer);
  if (error != NULL)
    gst_flux_post_error (self, error);
  return flow;
}

static GstStateChangeReturn
gst_flux_image_crop_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxImageCrop *self = GST_FLUX_IMAGE_CROP (element);
  GstStateChangeReturn ret;

  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED) {
    GError *error = NULL;
    guint variants;
    FluxCropOptions options = get_options (self, &variants);

    if (!flux_crop_check (&options, &error)) {
      gst_flux_post_error (self, error);
      return GST_STATE_CHANGE_FAILURE;
    }
  }
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) {
    gst_flux_held_drop (&self->held);
    self->held.has_caps = FALSE;
    gst_video_info_init (&self->in);
    gst_video_info_init (&self->out);
    self->wanted_width = self->wanted_height = 0;
  }
  return ret;
}

static void
gst_flux_image_crop_finalize (GObject *object)
{
  gst_flux_held_drop (&GST_FLUX_IMAGE_CROP (object)->held);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_image_crop_class_init (GstFluxImageCropClass *klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);

  G_OBJECT_CLASS (klass)->finalize = gst_flux_image_crop_finalize;
  gst_flux_image_crop_install_properties (klass);

  gst_element_class_set_static_metadata (element_class, "FLUX picture cropper",
      "Filter/Effect/Video", "Scales and crops pictures to multiples of 16 pixels",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &sink_template);
  gst_element_class_add_static_pad_template (element_class, &src_template);
  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_image_crop_change_state);
}

static void
gst_flux_image_crop_init (GstFluxImageCrop *self)
{
  self->sinkpad = gst_pad_new_from_static_template (&sink_template, "sink");
  GST_PAD_SET_ACCEPT_INTERSECT (self->sinkpad);
  gst_pad_set_chain_function (
      self->sinkpad, GST_DEBUG_FUNCPTR (gst_flux_image_crop_chain));
  gst_pad_set_event_function (
      self->sinkpad, GST_DEBUG_FUNCPTR (gst_flux_image_crop_sink_event));
  gst_element_add_pad (GST_ELEMENT (self), self->sinkpad);
  self->srcpad = gst_pad_new_from_static_template (&src_template, "src");
  gst_element_add_pad (GST_ELEMENT (self), self->srcpad);

  gst_flux_image_crop_init_properties (self);
  gst_video_info_init (&self->in);
  gst_video_info_init (&self->out);
}
