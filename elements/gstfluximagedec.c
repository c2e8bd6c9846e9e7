/* gstfluximagedec.c: decodes pictures and takes the reference's key of them.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-fluximagedec
 * @title: fluximagedec
 *
 * Decodes PNG, JPEG and WebP pictures, one a buffer, to RGB. Format and size may change
 * from buffer to buffer; the format is seen from the bytes, not from the caps. Pixels are
 * those of Python's PIL, bit for bit.
 *
 * The buffer's GstFluxSampleMeta gets the key of the picture: SHA-256 of what PIL's
 * image.tobytes() gives in the file's own mode, after the EXIF orientation. It is the
 * image_hash of the reference's tables, and it does not depend on `alpha` and
 * `background`.
 *
 * Transparent pictures are laid over `background`; alpha=ignore shows what is under the
 * transparency instead, as PIL's convert("RGB") does. Of 16-bit pictures the high bytes
 * are taken. CMYK is converted without a colour profile, and always as Adobe writes it
 * (inverted), as PIL does. Of animations the first picture is shown.
 *
 * A picture that is damaged or larger than `max-pixels` is an error that names the file,
 * or, with on-error=skip, a warning.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 fluxdatasetsrc location=mucha ! fluximagedec background=0x808080 !
 * videoconvert ! pngenc ! multifilesink location=%03d.png
 * ]| Converts a data set to RGB.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluximagedec.h"

#include <gst/video/video.h>

#include "elements/gstfluxcommon.h"
#include "elements/gstfluxheld.h"
#include "elements/gstfluxsamplemeta.h"
#include "flux/image/image.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_image_dec_debug);
#define GST_CAT_DEFAULT gst_flux_image_dec_debug

#define DEFAULT_APPLY_ORIENTATION TRUE
#define DEFAULT_ALPHA GST_FLUX_IMAGE_ALPHA_COMPOSITE
#define DEFAULT_BACKGROUND 0xffffff
#define DEFAULT_ON_ERROR GST_FLUX_IMAGE_ON_ERROR_FAIL

enum {
  PROP_0,
  PROP_APPLY_ORIENTATION,
  PROP_ALPHA,
  PROP_BACKGROUND,
  PROP_MAX_PIXELS,
  PROP_ON_ERROR,
};

struct _GstFluxImageDec {
  GstElement parent;

  GstPad *sinkpad, *srcpad;

  gboolean apply_orientation; /* properties */
  GstFluxImageAlpha alpha;
  guint background;
  guint64 max_pixels;
  GstFluxImageOnError on_error;

  GstVideoInfo info; /* of the caps that were set last; width 0: none */
  gint fps_n, fps_d; /* of the sink caps */
  GstFluxHeld held;
};

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE ("sink", GST_PAD_SINK,
    GST_PAD_ALWAYS, GST_STATIC_CAPS ("image/png; image/jpeg; image/webp"));

static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE ("src", GST_PAD_SRC, GST_PAD_ALWAYS,
        GST_STATIC_CAPS (GST_VIDEO_CAPS_MAKE (
            "RGB") ", pixel-aspect-ratio = (fraction) 1/1, colorimetry = (string) sRGB"));

GType
gst_flux_image_alpha_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {GST_FLUX_IMAGE_ALPHA_COMPOSITE, "Laid over the background", "composite"},
      {GST_FLUX_IMAGE_ALPHA_IGNORE, "Alpha is dropped, as PIL's convert(\"RGB\") does",
          "ignore"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxImageAlpha", values);
}

GType
gst_flux_image_on_error_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {GST_FLUX_IMAGE_ON_ERROR_FAIL, "Stop with an error", "fail"},
      {GST_FLUX_IMAGE_ON_ERROR_SKIP, "Leave the picture out with a warning", "skip"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxImageOnError", values);
}

#define gst_flux_image_dec_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxImageDec, gst_flux_image_dec, GST_TYPE_ELEMENT,
    GST_DEBUG_CATEGORY_INIT (
        gst_flux_image_dec_debug, "fluximagedec", 0, "FLUX picture decoder"))
GST_ELEMENT_REGISTER_DEFINE (
    fluximagedec, "fluximagedec", GST_RANK_NONE, GST_TYPE_FLUX_IMAGE_DEC);

static void
gst_flux_image_dec_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxImageDec *self = GST_FLUX_IMAGE_DEC (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_APPLY_ORIENTATION:
      self->apply_orientation = g_value_get_boolean (value);
      break;
    case PROP_ALPHA:
      self->alpha = g_value_get_enum (value);
      break;
    case PROP_BACKGROUND:
      self->background = g_value_get_uint (value);
      break;
    case PROP_MAX_PIXELS:
      self->max_pixels = g_value_get_uint64 (value);
      break;
    case PROP_ON_ERROR:
      self->on_error = g_value_get_enum (value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
gst_flux_image_dec_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxImageDec *self = GST_FLUX_IMAGE_DEC (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_APPLY_ORIENTATION:
      g_value_set_boolean (value, self->apply_orientation);
      break;
    case PROP_ALPHA:
      g_value_set_enum (value, self->alpha);
      break;
    case PROP_BACKGROUND:
      g_value_set_uint (value, self->background);
      break;
    case PROP_MAX_PIXELS:
      g_value_set_uint64 (value, self->max_pixels);
      break;
    case PROP_ON_ERROR:
      g_value_set_enum (value, self->on_error);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

/* ---- events ---- */

static gboolean
gst_flux_image_dec_sink_event (GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstFluxImageDec *self = GST_FLUX_IMAGE_DEC (parent);
  GstCaps *caps;

  switch (GST_EVENT_TYPE (event)) {
    case GST_EVENT_CAPS:
      gst_event_parse_caps (event, &caps);
      if (!gst_structure_get_fraction (gst_caps_get_structure (caps, 0), "framerate",
              &self->fps_n, &self->fps_d)) {
        self->fps_n = 0;
        self->fps_d = 1;
      }
      gst_event_unref (event);
      return TRUE;
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

static gboolean
set_caps (GstFluxImageDec *self, gint width, gint height)
{
  GstVideoInfo info;
  GstCaps *caps;
  gboolean ok;

  gst_video_info_set_format (&info, GST_VIDEO_FORMAT_RGB, width, height);
  info.fps_n = self->fps_n;
  info.fps_d = self->fps_d;
  if (gst_video_info_is_equal (&info, &self->info))
    return TRUE;
  caps = gst_video_info_to_caps (&info);
  GST_DEBUG_OBJECT (self, "%" GST_PTR_FORMAT, caps);
  ok = gst_pad_set_caps (self->srcpad, caps);
  gst_caps_unref (caps);
  if (!ok)
    return FALSE;
  self->info = info;
  self->held.has_caps = TRUE;
  gst_flux_held_push (&self->held, self->srcpad);
  return TRUE;
}

/* The picture of a buffer, upright if wanted. */
static FluxImage *
decode (GstFluxImageDec *self, GstBuffer *buffer, const gchar *name, GError **error)
{
  guint64 max_pixels;
  gboolean upright;
  GstMapInfo map;
  FluxImage *image;

  GST_OBJECT_LOCK (self);
  max_pixels = self->max_pixels;
  upright = self->apply_orientation;
  GST_OBJECT_UNLOCK (self);
  if (!gst_buffer_map (buffer, &map, GST_MAP_READ)) {
    g_set_error (
        error, FLUX_ERROR, FLUX_ERROR_READ, "The bytes of '%s' cannot be read.", name);
    return NULL;
  }
  image = flux_image_decode (map.data, map.size, name, max_pixels, error);
  gst_buffer_unmap (buffer, &map);
  if (image != NULL && upright && !flux_image_apply_orientation (image)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "No memory is left to turn '%s' upright.", name);
    g_clear_pointer (&image, flux_image_free);
  }
  return image;
}

/* A new buffer with the RGB pixels and everything that came with `in`. */
static GstBuffer *
make_buffer (GstFluxImageDec *self, const FluxImage *image, GstBuffer *in,
    GstFluxSample *sample, const gchar *name, GError **error)
{
  GstBuffer *out = gst_buffer_new_allocate (NULL, self->info.size, NULL);
  guint32 background;
  gboolean composite;
  GstMapInfo map;
  gchar *key;

  if (out == NULL || !gst_buffer_map (out, &map, GST_MAP_WRITE)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "No memory is left for the pixels of '%s'.", name);
    gst_clear_buffer (&out);
    return NULL;
  }
  GST_OBJECT_LOCK (self);
  background = self->background;
  composite = self->alpha == GST_FLUX_IMAGE_ALPHA_COMPOSITE;
  GST_OBJECT_UNLOCK (self);
  flux_image_to_rgb (image, composite ? &background : NULL, map.data,
      GST_VIDEO_INFO_PLANE_STRIDE (&self->info, 0));
  gst_buffer_unmap (out, &map);

  gst_buffer_copy_into (out, in,
      GST_BUFFER_COPY_FLAGS | GST_BUFFER_COPY_TIMESTAMPS | GST_BUFFER_COPY_META, 0, -1);
  GST_BUFFER_FLAG_UNSET (out, GST_BUFFER_FLAG_DELTA_UNIT);
  key = flux_image_dup_key (image);
  sample->key = key;
  sample->has_background = composite && image->has_alpha;
  sample->background = background;
  sample->source_width = image->width;
  sample->source_height = image->height;
  gst_flux_sample_meta_set (out, sample);
  g_free (key);
  return out;
}

static GstFlowReturn
gst_flux_image_dec_chain (GstPad *pad, GstObject *parent, GstBuffer *buffer)
{
  GstFluxImageDec *self = GST_FLUX_IMAGE_DEC (parent);
  GstFluxSample sample;
  const gchar *name = "picture";
  GError *error = NULL;
  FluxImage *image;
  GstBuffer *out = NULL;
  gboolean skip;

  gst_flux_sample_meta_get (buffer, &sample);
  if (sample.filename != NULL)
    name = sample.filename;
  image = decode (self, buffer, name, &error);
  if (image != NULL) {
    if (image->warning != NULL)
      gst_flux_post_warning (
          self, g_error_new (FLUX_ERROR, FLUX_ERROR_FORMAT,
                    "'%s' is damaged (%s): look at it, and replace it if need be.", name,
                    image->warning));
    if (!set_caps (self, image->width, image->height)) {
      flux_image_free (image);
      gst_buffer_unref (buffer);
      return GST_PAD_IS_FLUSHING (self->srcpad) ? GST_FLOW_FLUSHING
                                                : GST_FLOW_NOT_NEGOTIATED;
    }
    out = make_buffer (self, image, buffer, &sample, name, &error);
    flux_image_free (image);
  }
  gst_buffer_unref (buffer);
  if (out != NULL)
    return gst_pad_push (self->srcpad, out);

  GST_OBJECT_LOCK (self);
  skip = self->on_error == GST_FLUX_IMAGE_ON_ERROR_SKIP;
  GST_OBJECT_UNLOCK (self);
  if (skip && g_error_matches (error, FLUX_ERROR, FLUX_ERROR_FORMAT)) {
    gst_flux_post_warning (self, error);
    return GST_FLOW_OK;
  }
  gst_flux_post_error (self, error);
  return GST_FLOW_ERROR;
}

static GstStateChangeReturn
gst_flux_image_dec_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxImageDec *self = GST_FLUX_IMAGE_DEC (element);
  GstStateChangeReturn ret;

  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) {
    gst_flux_held_drop (&self->held);
    self->held.has_caps = FALSE;
    gst_video_info_init (&self->info);
    self->fps_n = 0;
    self->fps_d = 1;
  }
  return ret;
}

static void
gst_flux_image_dec_finalize (GObject *object)
{
  gst_flux_held_drop (&GST_FLUX_IMAGE_DEC (object)->held);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
install_properties (GObjectClass *klass)
{
  g_object_class_install_property (klass, PROP_APPLY_ORIENTATION,
      g_param_spec_boolean ("apply-orientation", "Apply Orientation",
          "Turn pictures upright as their EXIF or XMP orientation says",
          DEFAULT_APPLY_ORIENTATION, GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (klass, PROP_ALPHA,
      g_param_spec_enum ("alpha", "Alpha", "What becomes of transparency",
          GST_TYPE_FLUX_IMAGE_ALPHA, DEFAULT_ALPHA, GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (klass, PROP_BACKGROUND,
      g_param_spec_uint ("background", "Background",
          "Colour under transparent pictures, as 0xRRGGBB (colour, 0 to 16777215)", 0,
          0xffffff, DEFAULT_BACKGROUND, GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (klass, PROP_MAX_PIXELS,
      g_param_spec_uint64 ("max-pixels", "Max Pixels",
          "Largest picture in pixels, against files that unpack to more than memory "
          "holds; the default is PIL's; 0: no limit (pixels, 0 or more)",
          0, G_MAXUINT64, FLUX_IMAGE_MAX_PIXELS, GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (klass, PROP_ON_ERROR,
      g_param_spec_enum ("on-error", "On Error",
          "What happens at a picture that cannot be decoded",
          GST_TYPE_FLUX_IMAGE_ON_ERROR, DEFAULT_ON_ERROR, GST_FLUX_PARAM_PLAYING));
}

static void
gst_flux_image_dec_class_init (GstFluxImageDecClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);

  gobject_class->set_property = gst_flux_image_dec_set_property;
  gobject_class->get_property = gst_flux_image_dec_get_property;
  gobject_class->finalize = gst_flux_image_dec_finalize;
  install_properties (gobject_class);

  gst_element_class_set_static_metadata (element_class, "FLUX picture decoder",
      "Decoder/Image", "Decodes PNG, JPEG and WebP to the pixels that PIL gives",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &sink_template);
  gst_element_class_add_static_pad_template (element_class, &src_template);
  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_image_dec_change_state);
}

static void
gst_flux_image_dec_init (GstFluxImageDec *self)
{
  self->sinkpad = gst_pad_new_from_static_template (&sink_template, "sink");
  gst_pad_set_chain_function (
      self->sinkpad, GST_DEBUG_FUNCPTR (gst_flux_image_dec_chain));
  gst_pad_set_event_function (
      self->sinkpad, GST_DEBUG_FUNCPTR (gst_flux_image_dec_sink_event));
  gst_element_add_pad (GST_ELEMENT (self), self->sinkpad);
  self->srcpad = gst_pad_new_from_static_template (&src_template, "src");
  gst_pad_use_fixed_caps (self->srcpad);
  gst_element_add_pad (GST_ELEMENT (self), self->srcpad);

  self->apply_orientation = DEFAULT_APPLY_ORIENTATION;
  self->alpha = DEFAULT_ALPHA;
  self->background = DEFAULT_BACKGROUND;
  self->max_pixels = FLUX_IMAGE_MAX_PIXELS;
  self->on_error = DEFAULT_ON_ERROR;
  gst_video_info_init (&self->info);
  self->fps_d = 1;
}
