/* gstfluximagecrop-props.c: properties of fluximagecrop. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluximagecrop-private.h"

#define DEFAULT_RESIZE FLUX_RESIZE_COVER
#define DEFAULT_WIDTH 0
#define DEFAULT_HEIGHT 0
#define DEFAULT_MAX_AREA (512 * 768)
#define DEFAULT_BUCKET_STEP 64
#define DEFAULT_CROP FLUX_CROP_CENTRE
#define DEFAULT_FLIP FLUX_FLIP_NONE
#define DEFAULT_VARIANTS 1
#define DEFAULT_SEED 0

enum {
  PROP_0,
  PROP_RESIZE,
  PROP_WIDTH,
  PROP_HEIGHT,
  PROP_MAX_AREA,
  PROP_BUCKET_STEP,
  PROP_CROP,
  PROP_FLIP,
  PROP_VARIANTS,
  PROP_SEED,
};

GType
gst_flux_image_resize_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_RESIZE_NONE, "Not scaled, only cropped", "none"},
      {FLUX_RESIZE_COVER, "Scaled to cover the size, then cropped", "cover"},
      {FLUX_RESIZE_SQUASH, "Stretched to the size", "squash"},
      {FLUX_RESIZE_BUCKET, "Covers the size of the nearest aspect ratio", "bucket"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxImageResize", values);
}

GType
gst_flux_image_position_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_CROP_CENTRE, "In the middle", "centre"},
      {FLUX_CROP_RANDOM, "Anywhere, by seed, key and variant", "random"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxImagePosition", values);
}

GType
gst_flux_image_flip_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_FLIP_NONE, "Never", "none"},
      {FLUX_FLIP_RANDOM, "Half of the pictures, by seed, key and variant", "random"},
      {FLUX_FLIP_ALWAYS, "All pictures", "always"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxImageFlip", values);
}

static void
gst_flux_image_crop_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxImageCrop *self = GST_FLUX_IMAGE_CROP (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_RESIZE:
      self->options.resize = g_value_get_enum (value);
      break;
    case PROP_WIDTH:
      self->options.width = g_value_get_int (value);
      break;
    case PROP_HEIGHT:
      self->options.height = g_value_get_int (value);
      break;
    case PROP_MAX_AREA:
      self->options.max_area = g_value_get_int (value);
      break;
    case PROP_BUCKET_STEP:
      self->options.bucket_step = g_value_get_int (value);
      break;
    case PROP_CROP:
      self->options.position = g_value_get_enum (value);
      break;
    case PROP_FLIP:
      self->options.flip = g_value_get_enum (value);
      break;
    case PROP_VARIANTS:
      self->variants = g_value_get_uint (value);
      break;
    case PROP_SEED:
      self->options.seed = g_value_get_uint64 (value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
gst_flux_image_crop_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxImageCrop *self = GST_FLUX_IMAGE_CROP (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_RESIZE:
      g_value_set_enum (value, self->options.resize);
      break;
    case PROP_WIDTH:
      g_value_set_int (value, self->options.width);
      break;
    case PROP_HEIGHT:
      g_value_set_int (value, self->options.height);
      break;
    case PROP_MAX_AREA:
      g_value_set_int (value, self->options.max_area);
      break;
    case PROP_BUCKET_STEP:
      g_value_set_int (value, self->options.bucket_step);
      break;
    case PROP_CROP:
      g_value_set_enum (value, self->options.position);
      break;
    case PROP_FLIP:
      g_value_set_enum (value, self->options.flip);
      break;
    case PROP_VARIANTS:
      g_value_set_uint (value, self->variants);
      break;
    case PROP_SEED:
      g_value_set_uint64 (value, self->options.seed);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
install_size_properties (GObjectClass *klass)
{
  g_object_class_install_property (klass, PROP_RESIZE,
      g_param_spec_enum ("resize", "Resize", "How pictures come to their size",
          GST_TYPE_FLUX_IMAGE_RESIZE, DEFAULT_RESIZE, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_WIDTH,
      g_param_spec_int ("width", "Width",
          "Width in pixels, a multiple of 16; not for buckets; 0: from the caps "
          "downstream, the height, or the picture (pixels, 0 to 16384)",
          0, FLUX_CROP_MAX_SIDE, DEFAULT_WIDTH, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_HEIGHT,
      g_param_spec_int ("height", "Height",
          "Height in pixels, a multiple of 16; not for buckets; 0: from the caps "
          "downstream, the width, or the picture (pixels, 0 to 16384)",
          0, FLUX_CROP_MAX_SIDE, DEFAULT_HEIGHT, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_MAX_AREA,
      g_param_spec_int ("max-area", "Max Area",
          "Largest bucket in pixels (pixels, 256 to 67108864)", 256, 1 << 26,
          DEFAULT_MAX_AREA, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_BUCKET_STEP,
      g_param_spec_int ("bucket-step", "Bucket Step",
          "Sides of buckets are multiples of this many pixels, itself a multiple of 16 "
          "(pixels, 16 to 4096)",
          16, 4096, DEFAULT_BUCKET_STEP, GST_FLUX_PARAM_READY));
}

static void
install_draw_properties (GObjectClass *klass)
{
  g_object_class_install_property (klass, PROP_CROP,
      g_param_spec_enum ("crop", "Crop", "Which part of the picture is kept",
          GST_TYPE_FLUX_IMAGE_POSITION, DEFAULT_CROP, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_FLIP,
      g_param_spec_enum ("flip", "Flip", "Which pictures are mirrored left to right",
          GST_TYPE_FLUX_IMAGE_FLIP, DEFAULT_FLIP, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_VARIANTS,
      g_param_spec_uint ("variants", "Variants",
          "How often each picture is sent, with random draws of its own each time "
          "(times, 1 to 1024)",
          1, 1024, DEFAULT_VARIANTS, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_SEED,
      g_param_spec_uint64 ("seed", "Seed",
          "Seed of random crops and flips (number, 0 or more)", 0, G_MAXUINT64,
          DEFAULT_SEED, GST_FLUX_PARAM_READY));
}

void
gst_flux_image_crop_install_properties (GstFluxImageCropClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);

  gobject_class->set_property = gst_flux_image_crop_set_property;
  gobject_class->get_property = gst_flux_image_crop_get_property;
  install_size_properties (gobject_class);
  install_draw_properties (gobject_class);
}

void
gst_flux_image_crop_init_properties (GstFluxImageCrop *self)
{
  self->options.resize = DEFAULT_RESIZE;
  self->options.width = DEFAULT_WIDTH;
  self->options.height = DEFAULT_HEIGHT;
  self->options.max_area = DEFAULT_MAX_AREA;
  self->options.bucket_step = DEFAULT_BUCKET_STEP;
  self->options.position = DEFAULT_CROP;
  self->options.flip = DEFAULT_FLIP;
  self->options.seed = DEFAULT_SEED;
  self->variants = DEFAULT_VARIANTS;
}
