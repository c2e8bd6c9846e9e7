/* gstfluxquantize.c: a model's weights in another type. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
/**
 * SECTION:element-fluxquantize
 * @title: fluxquantize
 *
 * Changes the type of the weights that pass. nf4, nf4-double and int8 are what diffusers
 * saves of a transformer that bitsandbytes has quantised: every linear layer, with the
 * quantization_config that opens it again; biases and norms stay as they are, and in 4
 * bits layers whose rows are no multiple of 64 (FLUX has none), which the configuration
 * then lists. The nested_offset of nf4-double is followed by spaces.
 *
 * fp8 is the linear layers' weights in e4m3 without scales, as files of 8-bit floats for
 * FLUX have them; from_pretrained() casts them to its torch_dtype. It is for storage;
 * the products in 8 bits of quantization=fp8 find better scales in the original. bf16 and
 * fp32 change all tensors.
 *
 * All of them can be read by fluxsamplersrc, fluxtrainsink and fluxmodelsrc. Weights that
 * are quantised already come expanded to floats and are quantised anew.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 -e fluxmodelsrc location=FLUX.1-dev ! fluxlorafuse
 * loras=mucha.safetensors ! fluxquantize type=nf4 ! queue max-size-buffers=8 !
 * fluxmodelsink location=FLUX.1-dev-mucha-nf4 parts=link
 * ]| A model in 4 bits that has learnt a style.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxquantize.h"

#include "flux/convert/config-text.h"
#include "flux/convert/quantise.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_quantize_debug);
#define GST_CAT_DEFAULT gst_flux_quantize_debug

#define DEFAULT_TYPE TYPE_NF4

enum {
  PROP_0,
  PROP_TYPE,
};

typedef enum {
  TYPE_NF4,
  TYPE_NF4_DOUBLE,
  TYPE_INT8,
  TYPE_FP8,
  TYPE_BF16,
  TYPE_FP32
} GstFluxQuantizeType;

static const struct {
  FluxStoredKind kind;
  fx_dtype dtype; /* of floats */
  const gchar *layout;
} types[] = {
    [TYPE_NF4] = {FLUX_STORED_NF4, FX_U8, "stored"},
    [TYPE_NF4_DOUBLE] = {FLUX_STORED_NF4_DOUBLE, FX_U8, "stored"},
    [TYPE_INT8] = {FLUX_STORED_INT8, FX_I8, "stored"},
    [TYPE_FP8] = {FLUX_STORED_FLOAT, FX_E4M3, "stored"},
    [TYPE_BF16] = {FLUX_STORED_FLOAT, FX_BF16, "plain"},
    [TYPE_FP32] = {FLUX_STORED_FLOAT, FX_F32, "plain"},
};

struct _GstFluxQuantize {
  GstFluxWeightFilter parent;

  GstFluxQuantizeType type; /* property */

  FluxQuantise *quantise;
};

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE (
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_WEIGHTS_CAPS_ANY));

#define gst_flux_quantize_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxQuantize, gst_flux_quantize, GST_TYPE_FLUX_WEIGHT_FILTER,
    GST_DEBUG_CATEGORY_INIT (
        gst_flux_quantize_debug, "fluxquantize", 0, "FLUX weight quantiser"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxquantize, "fluxquantize", GST_RANK_NONE, GST_TYPE_FLUX_QUANTIZE);

#define GST_TYPE_FLUX_QUANTIZE_TYPE (gst_flux_quantize_type_get_type ())
static GType
gst_flux_quantize_type_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {TYPE_NF4, "4-bit NormalFloat, blocks of 64, as bitsandbytes", "nf4"},
      {TYPE_NF4_DOUBLE, "The same with 8-bit block scales", "nf4-double"},
      {TYPE_INT8, "8-bit rows, as LLM.int8", "int8"},
      {TYPE_FP8, "8-bit floats (e4m3) without scales", "fp8"},
      {TYPE_BF16, "bfloat16", "bf16"},
      {TYPE_FP32, "32-bit floats", "fp32"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxQuantizeType", values);
}

static void
gst_flux_quantize_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxQuantize *self = GST_FLUX_QUANTIZE (object);

  switch (id) {
    case PROP_TYPE:
      GST_OBJECT_LOCK (self);
      self->type = g_value_get_enum (value);
      GST_OBJECT_UNLOCK (self);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
}

static void
gst_flux_quantize_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxQuantize *self = GST_FLUX_QUANTIZE (object);

  switch (id) {
    case PROP_TYPE:
      GST_OBJECT_LOCK (self);
      g_value_set_enum (value, self->type);
      GST_OBJECT_UNLOCK (self);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
}

static void
gst_flux_quantize_stop (GstFluxWeightFilter *filter)
{
  g_clear_pointer (&GST_FLUX_QUANTIZE (filter)->quantise, flux_quantise_free);
}

static const gchar *
gst_flux_quantize_get_layout (GstFluxWeightFilter *filter)
{
  return types[GST_FLUX_QUANTIZE (filter)->type].layout;
}

static gboolean
gst_flux_quantize_plan (
    GstFluxWeightFilter *filter, GstFluxWeights *weights, GError **error)
{
  GstFluxQuantize *self = GST_FLUX_QUANTIZE (filter);
  gchar *config = weights->config;

  self->quantise = flux_quantise_new (
      types[self->type].kind, types[self->type].dtype, weights->tensors, error);
  if (self->quantise == NULL)
    return FALSE;
  weights->config = flux_config_text_quantise (
      config, types[self->type].kind, flux_quantise_get_skipped (self->quantise));
  g_free (config);
  g_ptr_array_unref (weights->tensors);
  weights->tensors = g_ptr_array_ref (flux_quantise_get_infos (self->quantise));
  return TRUE;
}

static GstFlowReturn
gst_flux_quantize_convert (GstFluxWeightFilter *filter, const FluxTensorInfo *info,
    gconstpointer data, GstBuffer *buffer, GError **error)
{
  GstFluxQuantize *self = GST_FLUX_QUANTIZE (filter);
  FluxQuantised parts[FLUX_QUANTISED_PARTS];
  GstFlowReturn ret = GST_FLOW_OK;
  guint n;

  if (!flux_quantise_changes (self->quantise, info))
    return gst_flux_weight_filter_push_same (filter, buffer);
  n = flux_quantise_run (self->quantise, info, data, parts, error);
  for (guint i = 0; i < n; i++) {
    if (ret == GST_FLOW_OK)
      ret = gst_flux_weight_filter_push (
          filter, parts[i].info, g_steal_pointer (&parts[i].bytes), buffer);
    flux_quantised_clear (&parts[i]);
  }
  return n > 0 ? ret : GST_FLOW_ERROR;
}

static void
gst_flux_quantize_class_init (GstFluxQuantizeClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstFluxWeightFilterClass *filter_class = GST_FLUX_WEIGHT_FILTER_CLASS (klass);

  gobject_class->set_property = gst_flux_quantize_set_property;
  gobject_class->get_property = gst_flux_quantize_get_property;
  g_object_class_install_property (gobject_class, PROP_TYPE,
      g_param_spec_enum ("type", "Type", "What the weights of linear layers become",
          GST_TYPE_FLUX_QUANTIZE_TYPE, DEFAULT_TYPE, GST_FLUX_PARAM_READY));

  gst_element_class_set_static_metadata (element_class, "FLUX weight quantiser",
      "Filter/Tensor", "Changes the type of the weights of a transformer",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &src_template);

  filter_class->stop = gst_flux_quantize_stop;
  filter_class->get_layout = gst_flux_quantize_get_layout;
  filter_class->plan = gst_flux_quantize_plan;
  filter_class->convert = gst_flux_quantize_convert;
}

static void
gst_flux_quantize_init (GstFluxQuantize *self)
{
  self->type = DEFAULT_TYPE;
}
