/* gstfluxvaeenc-props.c: properties of fluxvaeenc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxvaeenc-private.h"

enum {
  PROP_0,
  PROP_MODEL,
  PROP_CACHE_LOCATION,
  PROP_DEVICE,
  PROP_COMPUTE_DTYPE,
  PROP_CACHE_HITS,
  PROP_CACHE_MISSES,
};

static void
gst_flux_vae_enc_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxVaeEnc *self = GST_FLUX_VAE_ENC (object);
  gchar **field = NULL;

  switch (id) {
    case PROP_COMPUTE_DTYPE:
      GST_OBJECT_LOCK (self);
      self->compute_dtype = (fx_dtype)g_value_get_enum (value);
      GST_OBJECT_UNLOCK (self);
      return;
    case PROP_MODEL:
      field = &self->model;
      break;
    case PROP_CACHE_LOCATION:
      field = &self->cache_location;
      break;
    case PROP_DEVICE:
      field = &self->device;
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      return;
  }
  GST_OBJECT_LOCK (self);
  g_free (*field);
  *field = g_value_dup_string (value);
  GST_OBJECT_UNLOCK (self);
}

static void
gst_flux_vae_enc_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxVaeEnc *self = GST_FLUX_VAE_ENC (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_MODEL:
      g_value_set_string (value, self->model);
      break;
    case PROP_CACHE_LOCATION:
      g_value_set_string (value, self->cache_location);
      break;
    case PROP_DEVICE:
      g_value_set_string (value, self->device);
      break;
    case PROP_COMPUTE_DTYPE:
      g_value_set_enum (value, (gint)self->compute_dtype);
      break;
    case PROP_CACHE_HITS:
    case PROP_CACHE_MISSES:
      if (self->posterior != NULL)
        gst_flux_posterior_get_counts (self->posterior, &self->hits, &self->misses);
      g_value_set_uint64 (value, id == PROP_CACHE_HITS ? self->hits : self->misses);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

void
gst_flux_vae_enc_install_properties (GstFluxVaeEncClass *enc_class)
{
  GObjectClass *klass = G_OBJECT_CLASS (enc_class);

  klass->set_property = gst_flux_vae_enc_set_property;
  klass->get_property = gst_flux_vae_enc_get_property;
  g_object_class_install_property (klass, PROP_MODEL,
      g_param_spec_string ("model", "Model",
          "Folder of the model (with vae in it) or of its VAE, or hf://user/name", NULL,
          GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_CACHE_LOCATION,
      g_param_spec_string ("cache-location", "Cache Location",
          "Folder where posteriors are kept; NULL: in memory, as long as the element "
          "runs",
          NULL, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_DEVICE, gst_flux_param_spec_device ());
  g_object_class_install_property (
      klass, PROP_COMPUTE_DTYPE, gst_flux_param_spec_compute_dtype ());
  g_object_class_install_property (klass, PROP_CACHE_HITS,
      g_param_spec_uint64 ("cache-hits", "Cache Hits",
          "Pictures whose posterior was found in the cache since PAUSED (pictures, 0 or "
          "more)",
          0, G_MAXUINT64, 0, GST_FLUX_PARAM_READ));
  g_object_class_install_property (klass, PROP_CACHE_MISSES,
      g_param_spec_uint64 ("cache-misses", "Cache Misses",
          "Pictures that were encoded since PAUSED (pictures, 0 or more)", 0, G_MAXUINT64,
          0, GST_FLUX_PARAM_READ));
}

void
gst_flux_vae_enc_init_properties (GstFluxVaeEnc *self)
{
  self->device = g_strdup ("auto");
  self->compute_dtype = FX_N_DTYPES;
}

void
gst_flux_vae_enc_free_properties (GstFluxVaeEnc *self)
{
  g_free (self->model);
  g_free (self->cache_location);
  g_free (self->device);
}
