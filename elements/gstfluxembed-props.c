/* gstfluxembed-props.c: properties of fluxembed. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxembed-private.h"

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
  PROP_WEIGHTS_CACHE,
};

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
    case PROP_WEIGHTS_CACHE:
      g_free (self->weights_cache);
      self->weights_cache = g_value_dup_string (value);
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
    case PROP_WEIGHTS_CACHE:
      g_value_set_string (value, self->weights_cache);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

void
gst_flux_embed_install_properties (GstFluxEmbedClass *embed_class)
{
  GObjectClass *klass = G_OBJECT_CLASS (embed_class);

  klass->set_property = gst_flux_embed_set_property;
  klass->get_property = gst_flux_embed_get_property;
  g_object_class_install_property (klass, PROP_LOCATION,
      g_param_spec_string ("location", "Location",
          "Table of embeddings, .parquet or .safetensors; NULL: rows are computed and "
          "not "
          "kept",
          NULL, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_TEXT_MODEL,
      g_param_spec_string ("text-model", "Text Model",
          "Folder of the model whose text encoders compute missing rows, or "
          "hf://user/name; NULL: look-up only",
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
  g_object_class_install_property (
      klass, PROP_WEIGHTS_CACHE, gst_flux_param_spec_weights_cache ());
}

void
gst_flux_embed_init_properties (GstFluxEmbed *self)
{
  self->text_quantization = FX_Q_INT8;
  self->max_sequence_length = 512;
  self->device = g_strdup ("auto");
  self->weights_cache = g_strdup ("auto");
  self->compute_dtype = FX_N_DTYPES;
}

void
gst_flux_embed_free_properties (GstFluxEmbed *self)
{
  g_free (self->location);
  g_free (self->text_model);
  g_free (self->device);
  g_free (self->weights_cache);
}
