/* gstfluxdatasetsrc-props.c: properties of fluxdatasetsrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxdatasetsrc-private.h"

#define DEFAULT_CAPTION_COLUMN "text"
#define DEFAULT_SHUFFLE FALSE
#define DEFAULT_SEED 0
#define DEFAULT_REPEATS 1
#define DEFAULT_LOOP FALSE

enum {
  PROP_0,
  PROP_LOCATION,
  PROP_CAPTION_COLUMN,
  PROP_INSTANCE_PROMPT,
  PROP_SHUFFLE,
  PROP_SEED,
  PROP_REPEATS,
  PROP_LOOP,
  PROP_N_SAMPLES,
};

static void
set_string (gchar **field, const GValue *value)
{
  g_free (*field);
  *field = g_value_dup_string (value);
}

static void
gst_flux_dataset_src_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxDatasetSrc *self = GST_FLUX_DATASET_SRC (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LOCATION:
      set_string (&self->location, value);
      break;
    case PROP_CAPTION_COLUMN:
      set_string (&self->caption_column, value);
      break;
    case PROP_INSTANCE_PROMPT:
      set_string (&self->instance_prompt, value);
      break;
    case PROP_SHUFFLE:
      self->shuffle = g_value_get_boolean (value);
      break;
    case PROP_SEED:
      self->seed = g_value_get_uint64 (value);
      break;
    case PROP_REPEATS:
      self->repeats = g_value_get_uint (value);
      break;
    case PROP_LOOP:
      self->loop = g_value_get_boolean (value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

static void
gst_flux_dataset_src_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxDatasetSrc *self = GST_FLUX_DATASET_SRC (object);

  GST_OBJECT_LOCK (self);
  switch (id) {
    case PROP_LOCATION:
      g_value_set_string (value, self->location);
      break;
    case PROP_CAPTION_COLUMN:
      g_value_set_string (value, self->caption_column);
      break;
    case PROP_INSTANCE_PROMPT:
      g_value_set_string (value, self->instance_prompt);
      break;
    case PROP_SHUFFLE:
      g_value_set_boolean (value, self->shuffle);
      break;
    case PROP_SEED:
      g_value_set_uint64 (value, self->seed);
      break;
    case PROP_REPEATS:
      g_value_set_uint (value, self->repeats);
      break;
    case PROP_LOOP:
      g_value_set_boolean (value, self->loop);
      break;
    case PROP_N_SAMPLES:
      g_value_set_uint (value, self->n_samples);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
      break;
  }
  GST_OBJECT_UNLOCK (self);
}

void
gst_flux_dataset_src_install_properties (GstFluxDatasetSrcClass *src_class)
{
  GObjectClass *klass = G_OBJECT_CLASS (src_class);

  klass->set_property = gst_flux_dataset_src_set_property;
  klass->get_property = gst_flux_dataset_src_get_property;
  g_object_class_install_property (klass, PROP_LOCATION,
      g_param_spec_string ("location", "Location",
          "Folder with metadata.jsonl, with pictures or with parquet files; or a .jsonl "
          "or .parquet file; or hf://datasets/user/name",
          NULL, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_CAPTION_COLUMN,
      g_param_spec_string ("caption-column", "Caption Column",
          "Name of the captions in metadata.jsonl and in parquet files",
          DEFAULT_CAPTION_COLUMN, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_INSTANCE_PROMPT,
      g_param_spec_string ("instance-prompt", "Instance Prompt",
          "Caption of pictures that have none; NULL: that is an error", NULL,
          GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_SHUFFLE,
      g_param_spec_boolean ("shuffle", "Shuffle",
          "Send each epoch in an order of its own, by seed and epoch", DEFAULT_SHUFFLE,
          GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_SEED,
      g_param_spec_uint64 ("seed", "Seed", "Seed of the orders (number, 0 or more)", 0,
          G_MAXUINT64, DEFAULT_SEED, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_REPEATS,
      g_param_spec_uint ("repeats", "Repeats",
          "How often an epoch has each picture (times, 1 to 1000000)", 1, 1000000,
          DEFAULT_REPEATS, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_LOOP,
      g_param_spec_boolean ("loop", "Loop", "Send epoch after epoch without end",
          DEFAULT_LOOP, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_N_SAMPLES,
      g_param_spec_uint ("n-samples", "Number of Samples",
          "Pictures in the data set, without repeats; 0 below PAUSED (pictures, 0 or "
          "more)",
          0, G_MAXUINT, 0, GST_FLUX_PARAM_READ));
}

void
gst_flux_dataset_src_init_properties (GstFluxDatasetSrc *self)
{
  self->caption_column = g_strdup (DEFAULT_CAPTION_COLUMN);
  self->shuffle = DEFAULT_SHUFFLE;
  self->seed = DEFAULT_SEED;
  self->repeats = DEFAULT_REPEATS;
  self->loop = DEFAULT_LOOP;
}

void
gst_flux_dataset_src_free_properties (GstFluxDatasetSrc *self)
{
  g_free (self->location);
  g_free (self->caption_column);
  g_free (self->instance_prompt);
}
