/* gstfluxsamplersrc-props.c: properties of fluxsamplersrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxsamplersrc-private.h"

#define DEFAULT_QUANTIZATION FX_Q_NF4
#define DEFAULT_TEXT_QUANTIZATION FX_Q_INT8
#define DEFAULT_STEPS 28
#define DEFAULT_GUIDANCE 3.5
#define DEFAULT_NOISE_DTYPE FX_F32
#define DEFAULT_MAX_SEQUENCE_LENGTH 512

enum {
  PROP_0,
  PROP_MODEL,
  PROP_QUANTIZATION,
  PROP_TEXT_QUANTIZATION,
  PROP_DEVICE,
  PROP_COMPUTE_DTYPE,
  PROP_WEIGHTS_CACHE,
  PROP_OFFLOAD,
  PROP_LORAS,
  PROP_LORA_SCALE,
  PROP_STRICT,
  PROP_MERGE,
  PROP_PROMPT,
  PROP_PROMPT_LOCATION,
  PROP_SEED,
  PROP_STEPS,
  PROP_GUIDANCE,
  PROP_NOISE_DTYPE,
  PROP_MAX_SEQUENCE_LENGTH,
  PROP_EVERY_STEPS,
  PROP_TRAINER,
};

static GType
gst_flux_sampler_offload_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_OFFLOAD_NONE, "The transformer stays on the device", "none"},
      {FLUX_OFFLOAD_MODEL,
          "Text encoders, transformer and VAE take turns; the transformer is loaded for "
          "each picture",
          "model"},
      {FLUX_OFFLOAD_STREAM,
          "The transformer's blocks stay in the host's memory and are copied as they are "
          "used",
          "stream"},
      {0, NULL, NULL},
  };

  return gst_flux_enum_register (&type, "GstFluxSamplerOffload", values);
}

/* The field of a property that is a string. */
static gchar **
string_field (GstFluxSamplerSrc *self, guint id)
{
  switch (id) {
    case PROP_MODEL:
      return &self->model;
    case PROP_DEVICE:
      return &self->device;
    case PROP_WEIGHTS_CACHE:
      return &self->weights_cache;
    case PROP_LORAS:
      return &self->loras;
    case PROP_PROMPT:
      return &self->prompt;
    case PROP_PROMPT_LOCATION:
      return &self->prompt_location;
    case PROP_TRAINER:
      return &self->trainer;
    default:
      return NULL;
  }
}

static void
gst_flux_sampler_src_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (object);
  gchar **string = string_field (self, id);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_QUANTIZATION:
      self->quantization = g_value_get_enum (value);
      self->has_quantization = TRUE;
      break;
    case PROP_TEXT_QUANTIZATION:
      self->text_quantization = g_value_get_enum (value);
      break;
    case PROP_SEED:
      self->seed = g_value_get_uint64 (value);
      break;
    case PROP_STEPS:
      self->steps = g_value_get_int (value);
      break;
    case PROP_GUIDANCE:
      self->guidance = g_value_get_double (value);
      break;
    case PROP_LORA_SCALE:
      self->lora_scale = g_value_get_double (value);
      break;
    case PROP_STRICT:
      self->strict = g_value_get_boolean (value);
      break;
    case PROP_MERGE:
      self->merge = g_value_get_boolean (value);
      break;
    case PROP_NOISE_DTYPE:
      self->noise_dtype = g_value_get_enum (value);
      break;
    case PROP_COMPUTE_DTYPE:
      self->compute_dtype = (fx_dtype)g_value_get_enum (value);
      break;
    case PROP_OFFLOAD:
      self->offload = (FluxOffload)g_value_get_enum (value);
      break;
    case PROP_MAX_SEQUENCE_LENGTH:
      self->max_sequence_length = g_value_get_uint (value);
      break;
    case PROP_EVERY_STEPS:
      self->every_steps = g_value_get_uint64 (value);
      break;
    default:
      if (string == NULL) {
        G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      } else {
        g_free (*string);
        *string = g_value_dup_string (value);
      }
      break;
  }
  GST_OBJECT_UNLOCK (self);
  /* A preview that prerolled would wait for a training that waits for PLAYING. */
  if (id == PROP_EVERY_STEPS) {
    gboolean live = g_value_get_uint64 (value) > 0;

    gst_base_src_set_live (GST_BASE_SRC (self), live);
    gst_base_src_set_do_timestamp (GST_BASE_SRC (self), live);
  }
}

static void
gst_flux_sampler_src_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (object);
  gchar **string = string_field (self, id);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_QUANTIZATION:
      g_value_set_enum (value, self->quantization);
      break;
    case PROP_TEXT_QUANTIZATION:
      g_value_set_enum (value, self->text_quantization);
      break;
    case PROP_SEED:
      g_value_set_uint64 (value, self->seed);
      break;
    case PROP_STEPS:
      g_value_set_int (value, self->steps);
      break;
    case PROP_GUIDANCE:
      g_value_set_double (value, self->guidance);
      break;
    case PROP_LORA_SCALE:
      g_value_set_double (value, self->lora_scale);
      break;
    case PROP_STRICT:
      g_value_set_boolean (value, self->strict);
      break;
    case PROP_MERGE:
      g_value_set_boolean (value, self->merge);
      break;
    case PROP_NOISE_DTYPE:
      g_value_set_enum (value, self->noise_dtype);
      break;
    case PROP_COMPUTE_DTYPE:
      g_value_set_enum (value, (gint)self->compute_dtype);
      break;
    case PROP_OFFLOAD:
      g_value_set_enum (value, (gint)self->offload);
      break;
    case PROP_MAX_SEQUENCE_LENGTH:
      g_value_set_uint (value, self->max_sequence_length);
      break;
    case PROP_EVERY_STEPS:
      g_value_set_uint64 (value, self->every_steps);
      break;
    default:
      if (string == NULL)
        G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      else
        g_value_set_string (value, *string);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
install_model (GObjectClass *klass)
{
  g_object_class_install_property (klass, PROP_MODEL,
      g_param_spec_string ("model", "Model",
          "Folder of the model in the diffusers layout, or hf://user/name; NULL in a "
          "preview: the trainer's",
          NULL, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_QUANTIZATION,
      g_param_spec_enum ("quantization", "Quantization",
          "Weights of the transformer; in 4 or 8 bits in the file, they stay so with nf4",
          GST_TYPE_FLUX_QUANTIZATION, DEFAULT_QUANTIZATION, GST_FLUX_PARAM_READY));
  g_object_class_install_property (
      klass, PROP_TEXT_QUANTIZATION, gst_flux_param_spec_text_quantization ());
  g_object_class_install_property (klass, PROP_DEVICE, gst_flux_param_spec_device ());
  g_object_class_install_property (
      klass, PROP_COMPUTE_DTYPE, gst_flux_param_spec_compute_dtype ());
  g_object_class_install_property (
      klass, PROP_WEIGHTS_CACHE, gst_flux_param_spec_weights_cache ());
  g_object_class_install_property (klass, PROP_OFFLOAD,
      g_param_spec_enum ("offload", "Offload",
          "What need not be on the device all the time, so that less of its memory does; "
          "the pictures are the same",
          gst_flux_sampler_offload_get_type (), FLUX_OFFLOAD_NONE, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_LORAS,
      g_param_spec_string ("loras", "LoRAs",
          "Adapters whose effects add up, each with a scale after a colon or 1: "
          "a.safetensors:0.8,hf://user/name; a change takes effect at the next picture",
          NULL, GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (klass, PROP_LORA_SCALE,
      g_param_spec_double ("lora-scale", "LoRA Scale",
          "Multiplies the scales in loras, and in a preview the trained adapter's: 0 is "
          "without it; from the next picture on (factor, any)",
          -G_MAXFLOAT, G_MAXFLOAT, 1, GST_FLUX_PARAM_PLAYING | GST_PARAM_CONTROLLABLE));
  g_object_class_install_property (klass, PROP_STRICT, gst_flux_param_spec_strict ());
  g_object_class_install_property (klass, PROP_MERGE,
      g_param_spec_boolean ("merge", "Merge",
          "Add the adapters to the weights of a model of one's own, quantization=none; "
          "each change of theirs loads it again",
          FALSE, GST_FLUX_PARAM_READY));
  g_object_class_install_property (
      klass, PROP_MAX_SEQUENCE_LENGTH, gst_flux_param_spec_max_sequence_length ());
}

static void
install_picture (GObjectClass *klass)
{
  g_object_class_install_property (klass, PROP_PROMPT,
      g_param_spec_string ("prompt", "Prompt", "What the next picture shows", NULL,
          GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (klass, PROP_PROMPT_LOCATION,
      g_param_spec_string ("prompt-location", "Prompt Location",
          "Text file with a prompt a line, one for each picture, instead of prompt; EOS "
          "comes after the last when num-buffers is not set, else they start over",
          NULL, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_SEED,
      g_param_spec_uint64 ("seed", "Seed",
          "Picture n, from 0, has seed + n; previews all have seed (number, 0 or more)",
          0, G_MAXUINT64, 0, GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (klass, PROP_STEPS,
      g_param_spec_int ("steps", "Steps", "Denoising steps (steps, 1 to 1000)", 1, 1000,
          DEFAULT_STEPS, GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (klass, PROP_GUIDANCE,
      g_param_spec_double ("guidance", "Guidance",
          "Guidance that the model is told (scale, 0 to 1000)", 0, 1000, DEFAULT_GUIDANCE,
          GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (klass, PROP_NOISE_DTYPE,
      g_param_spec_enum ("noise-dtype", "Noise Type",
          "Type that diffusers would draw the noise in: a seed gives another picture in "
          "each",
          GST_TYPE_FLUX_DTYPE, DEFAULT_NOISE_DTYPE, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_EVERY_STEPS,
      g_param_spec_uint64 ("every-steps", "Every Steps",
          "Show previews of the trainer in this pipeline: at its first step and then "
          "every that many; makes the source live; 0: no previews (steps, 0 or more)",
          0, G_MAXINT64, 0, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_TRAINER,
      g_param_spec_string ("trainer", "Trainer",
          "Name of the fluxtrainsink to show previews of; NULL: the only one", NULL,
          GST_FLUX_PARAM_READY));
}

void
gst_flux_sampler_src_install_properties (GstFluxSamplerSrcClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);

  gobject_class->set_property = gst_flux_sampler_src_set_property;
  gobject_class->get_property = gst_flux_sampler_src_get_property;
  install_model (gobject_class);
  install_picture (gobject_class);
}

void
gst_flux_sampler_src_init_properties (GstFluxSamplerSrc *self)
{
  self->device = g_strdup ("auto");
  self->weights_cache = g_strdup ("auto");
  self->quantization = DEFAULT_QUANTIZATION;
  self->text_quantization = DEFAULT_TEXT_QUANTIZATION;
  self->lora_scale = 1;
  self->strict = TRUE;
  self->steps = DEFAULT_STEPS;
  self->guidance = DEFAULT_GUIDANCE;
  self->noise_dtype = DEFAULT_NOISE_DTYPE;
  self->compute_dtype = FX_N_DTYPES;
  self->max_sequence_length = DEFAULT_MAX_SEQUENCE_LENGTH;
}

void
gst_flux_sampler_src_free_properties (GstFluxSamplerSrc *self)
{
  g_free (self->model);
  g_free (self->device);
  g_free (self->weights_cache);
  g_free (self->loras);
  g_free (self->prompt);
  g_free (self->prompt_location);
  g_free (self->trainer);
}
