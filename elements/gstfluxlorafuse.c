/* gstfluxlorafuse.c: adds adapters to a model's weights. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
/**
 * SECTION:element-fluxlorafuse
 * @title: fluxlorafuse
 *
 * Adds adapters to the weights that pass, so that the model that comes out draws what the
 * one that came in draws with them: W + scale B A, summed in fp32 and rounded once to the
 * weight's type. `loras`, `lora-scale` and `strict` are those of fluxsamplersrc, which
 * reads the same files. Weights in 4 or 8 bits come expanded to floats; fluxquantize
 * quantises them again.
 *
 * The adapters are read when the list of tensors comes. A part of one that has no weight
 * there is an error, before anything has been written.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 -e fluxmodelsrc location=FLUX.1-dev ! fluxlorafuse
 * loras="mucha.safetensors:0.8,inks.safetensors:0.4" ! fluxmodelsink
 * location=FLUX.1-dev-mucha parts=link
 * ]| A model of its own from two adapters.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxlorafuse.h"

#include "elements/gstfluxadapters.h"
#include "flux/convert/fuse.h"

GST_DEBUG_CATEGORY_STATIC (gst_flux_lora_fuse_debug);
#define GST_CAT_DEFAULT gst_flux_lora_fuse_debug

#define DEFAULT_LORA_SCALE 1.0
#define DEFAULT_STRICT TRUE

enum {
  PROP_0,
  PROP_LORAS,
  PROP_LORA_SCALE,
  PROP_STRICT,
};

struct _GstFluxLoraFuse {
  GstFluxWeightFilter parent;

  gchar *loras; /* properties */
  gdouble lora_scale;
  gboolean strict;

  GstFluxHub hub;
  fx_backend *backend; /* has the adapters */
  GArray *adapters;
  FluxFuse *fuse;
};

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE (
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_WEIGHTS_CAPS_PLAIN));

#define gst_flux_lora_fuse_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxLoraFuse, gst_flux_lora_fuse, GST_TYPE_FLUX_WEIGHT_FILTER,
    GST_DEBUG_CATEGORY_INIT (
        gst_flux_lora_fuse_debug, "fluxlorafuse", 0, "FLUX adapter fuser"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxlorafuse, "fluxlorafuse", GST_RANK_NONE, GST_TYPE_FLUX_LORA_FUSE);

static void
gst_flux_lora_fuse_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxLoraFuse *self = GST_FLUX_LORA_FUSE (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LORAS:
      g_free (self->loras);
      self->loras = g_value_dup_string (value);
      break;
    case PROP_LORA_SCALE:
      self->lora_scale = g_value_get_double (value);
      break;
    case PROP_STRICT:
      self->strict = g_value_get_boolean (value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
gst_flux_lora_fuse_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxLoraFuse *self = GST_FLUX_LORA_FUSE (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LORAS:
      g_value_set_string (value, self->loras);
      break;
    case PROP_LORA_SCALE:
      g_value_set_double (value, self->lora_scale);
      break;
    case PROP_STRICT:
      g_value_set_boolean (value, self->strict);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static gboolean
gst_flux_lora_fuse_start (GstFluxWeightFilter *filter, GError **error)
{
  GstFluxLoraFuse *self = GST_FLUX_LORA_FUSE (filter);

  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
  if (self->loras != NULL && *self->loras != '\0')
    return gst_flux_adapters_check (self->loras, error);
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "fluxlorafuse has nothing to fuse: set loras to an adapter's file.");
  return FALSE;
}

static void
gst_flux_lora_fuse_stop (GstFluxWeightFilter *filter)
{
  GstFluxLoraFuse *self = GST_FLUX_LORA_FUSE (filter);

  g_clear_pointer (&self->fuse, flux_fuse_free);
  g_clear_pointer (&self->adapters, gst_flux_adapters_free);
  g_clear_pointer (&self->backend, fx_backend_free);
}

static void
gst_flux_lora_fuse_cancel (GstFluxWeightFilter *filter)
{
  gst_flux_hub_set_cancelled (&GST_FLUX_LORA_FUSE (filter)->hub, TRUE);
}

static gboolean
load (GstFluxLoraFuse *self, GHashTable *files, const gchar *folder, GError **error)
{
  FluxConfig config;

  if (folder == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The stream does not say of which model the weights are.");
    return FALSE;
  }
  if (!flux_config_read (folder, &config, error) ||
      (self->backend = gst_flux_backend_new (GST_ELEMENT (self), "cpu", FX_F32, error)) ==
          NULL)
    return FALSE;
  for (guint i = 0; i < self->adapters->len; i++) {
    GstFluxAdapter *a = &g_array_index (self->adapters, GstFluxAdapter, i);

    a->lora = gst_flux_adapter_load (GST_ELEMENT (self), a->path,
        g_hash_table_lookup (files, a->path), &config, self->backend, self->strict,
        error);
    if (a->lora == NULL)
      return FALSE;
    flux_lora_set_multiplier (a->lora, (float)(a->scale * self->lora_scale));
  }
  return TRUE;
}

static gboolean
gst_flux_lora_fuse_plan (
    GstFluxWeightFilter *filter, GstFluxWeights *weights, GError **error)
{
  GstFluxLoraFuse *self = GST_FLUX_LORA_FUSE (filter);
  g_autoptr (GHashTable) files =
      g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_autoptr (GPtrArray) loras = g_ptr_array_new ();
  g_autofree gchar *left_out = NULL;

  self->adapters = gst_flux_adapters_parse (self->loras, error);
  if (self->adapters == NULL ||
      !gst_flux_adapters_fetch (self->loras, &self->hub, files, error) ||
      !load (self, files, weights->location, error))
    return FALSE;
  for (guint i = 0; i < self->adapters->len; i++)
    g_ptr_array_add (loras, g_array_index (self->adapters, GstFluxAdapter, i).lora);
  self->fuse = flux_fuse_new ((FluxLora *const *)loras->pdata, loras->len,
      weights->tensors, self->strict, &left_out, error);
  if (left_out != NULL)
    gst_flux_post_warning (
        self, g_error_new (FLUX_ERROR, FLUX_ERROR_MISMATCH, "%s.", left_out));
  return self->fuse != NULL;
}

static GstFlowReturn
gst_flux_lora_fuse_convert (GstFluxWeightFilter *filter, const FluxTensorInfo *info,
    gconstpointer data, GstBuffer *buffer, GError **error)
{
  GstFluxLoraFuse *self = GST_FLUX_LORA_FUSE (filter);
  GBytes *bytes;

  if (!flux_fuse_changes (self->fuse, info))
    return gst_flux_weight_filter_push_same (filter, buffer);
  bytes = flux_fuse_add (self->fuse, info, data, error);
  return bytes != NULL ? gst_flux_weight_filter_push (filter, info, bytes, buffer)
                       : GST_FLOW_ERROR;
}

/* Ctrl-C under gst-launch-1.0 -e ends a download too. */
static gboolean
gst_flux_lora_fuse_send_event (GstElement *element, GstEvent *event)
{
  return gst_flux_hub_take_eos (&GST_FLUX_LORA_FUSE (element)->hub, event) ||
         GST_ELEMENT_CLASS (parent_class)->send_event (element, event);
}

static void
gst_flux_lora_fuse_finalize (GObject *object)
{
  g_free (GST_FLUX_LORA_FUSE (object)->loras);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_lora_fuse_class_init (GstFluxLoraFuseClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstFluxWeightFilterClass *filter_class = GST_FLUX_WEIGHT_FILTER_CLASS (klass);

  gobject_class->set_property = gst_flux_lora_fuse_set_property;
  gobject_class->get_property = gst_flux_lora_fuse_get_property;
  gobject_class->finalize = gst_flux_lora_fuse_finalize;
  g_object_class_install_property (gobject_class, PROP_LORAS,
      g_param_spec_string ("loras", "LoRAs",
          "Adapters whose effects add up, each with a scale after a colon or 1: "
          "a.safetensors:0.8,hf://user/name",
          NULL, GST_FLUX_PARAM_READY));
  g_object_class_install_property (gobject_class, PROP_LORA_SCALE,
      g_param_spec_double ("lora-scale", "LoRA Scale",
          "Multiplies the scales in loras (factor, any)", -G_MAXFLOAT, G_MAXFLOAT,
          DEFAULT_LORA_SCALE, GST_FLUX_PARAM_READY));
  g_object_class_install_property (
      gobject_class, PROP_STRICT, gst_flux_param_spec_strict ());

  gst_element_class_set_static_metadata (element_class, "FLUX adapter fuser",
      "Filter/Tensor", "Adds adapters to the weights of a transformer",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &src_template);

  element_class->send_event = GST_DEBUG_FUNCPTR (gst_flux_lora_fuse_send_event);
  filter_class->start = gst_flux_lora_fuse_start;
  filter_class->stop = gst_flux_lora_fuse_stop;
  filter_class->cancel = gst_flux_lora_fuse_cancel;
  filter_class->plan = gst_flux_lora_fuse_plan;
  filter_class->convert = gst_flux_lora_fuse_convert;
}

static void
gst_flux_lora_fuse_init (GstFluxLoraFuse *self)
{
  self->lora_scale = DEFAULT_LORA_SCALE;
  self->strict = DEFAULT_STRICT;
  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
}
