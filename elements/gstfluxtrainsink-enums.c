/* gstfluxtrainsink-enums.c: what properties of fluxtrainsink choose from.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxtrainsink-private.h"

GType
gst_flux_train_mode_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {MODE_AUTO, "one-shot, until a sample of a later pass comes: then stream", "auto"},
      {MODE_ONE_SHOT, "Collect all samples until EOS, then train", "one-shot"},
      {MODE_STREAM, "Train on samples as they come", "stream"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxTrainMode", values);
}

GType
gst_flux_train_state_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {STATE_IDLE, "Not running", "idle"},
      {STATE_COLLECTING, "Taking samples", "collecting"},
      {STATE_OPENING, "Loading the model", "opening"},
      {STATE_TRAINING, "Training", "training"},
      {STATE_FINISHED, "Training has ended, the adapter is saved", "finished"},
      {STATE_FAILED, "Training has ended with an error", "failed"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxTrainState", values);
}

GType
gst_flux_train_lora_format_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_LORA_DIFFUSERS, "diffusers and PEFT", "diffusers"},
      {FLUX_LORA_KOHYA, "kohya-ss, as most sharing sites have it", "kohya"},
      {FLUX_LORA_COMFY, "ComfyUI", "comfy"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxLoraFormat", values);
}

GType
gst_flux_train_optimizer_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_OPTIMIZER_ADAMW8BIT, "AdamW with 8-bit state, as bitsandbytes", "adamw8bit"},
      {FLUX_OPTIMIZER_ADAMW, "AdamW with 32-bit state, as torch", "adamw"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxOptimizer", values);
}

GType
gst_flux_train_lr_scheduler_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_LR_CONSTANT, "Constant", "constant"},
      {FLUX_LR_CONSTANT_WITH_WARMUP, "Constant after a warm-up", "constant-with-warmup"},
      {FLUX_LR_LINEAR, "Linearly to 0", "linear"},
      {FLUX_LR_COSINE, "Cosine to 0", "cosine"},
      {FLUX_LR_COSINE_WITH_RESTARTS, "Cosine, several times", "cosine-with-restarts"},
      {FLUX_LR_POLYNOMIAL, "Polynomial", "polynomial"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxLrScheduler", values);
}

GType
gst_flux_train_weighting_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_WEIGHTING_NONE, "Uniform sigma, weight 1", "none"},
      {FLUX_WEIGHTING_LOGIT_NORMAL, "Logit-normal sigma, weight 1", "logit-normal"},
      {FLUX_WEIGHTING_MODE, "Mode-sampled sigma, weight 1", "mode"},
      {FLUX_WEIGHTING_SIGMA_SQRT, "Uniform sigma, weight 1 / sigma^2", "sigma-sqrt"},
      {FLUX_WEIGHTING_COSMAP, "Uniform sigma, weight of the cosine map", "cosmap"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxWeightingScheme", values);
}

GType
gst_flux_train_timestep_precision_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FLUX_TIMESTEP_EXACT, "As drawn", "exact"},
      {FLUX_TIMESTEP_PARITY, "Rounded as the bfloat16 reference does", "parity"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxTimestepPrecision", values);
}
