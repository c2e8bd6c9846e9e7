/* gstfluxtrainsink-props.c: properties of fluxtrainsink. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxtrainsink-private.h"

#define HTTP_ADDRESS "127.0.0.1"
#define HTTP_PORT 7070

enum {
  PROP_0,
  PROP_MODEL,
  PROP_QUANTIZATION,
  PROP_DEVICE,
  PROP_COMPUTE_DTYPE,
  PROP_WEIGHTS_CACHE,
  PROP_LOCATION,
  PROP_LORA_FORMAT,
  PROP_OUTPUT,
  PROP_RESUME_FROM,
  PROP_MODE,
  PROP_RANK,
  PROP_ALPHA,
  PROP_TARGETS,
  PROP_OPTIMIZER,
  PROP_LEARNING_RATE,
  PROP_BETA1,
  PROP_BETA2,
  PROP_EPSILON,
  PROP_WEIGHT_DECAY,
  PROP_LR_SCHEDULER,
  PROP_WARMUP_STEPS,
  PROP_LR_NUM_CYCLES,
  PROP_LR_POWER,
  PROP_MAX_STEPS,
  PROP_ACCUMULATE,
  PROP_MAX_GRAD_NORM,
  PROP_GUIDANCE,
  PROP_CAPTION_DROPOUT,
  PROP_WEIGHTING_SCHEME,
  PROP_LOGIT_MEAN,
  PROP_LOGIT_STD,
  PROP_MODE_SCALE,
  PROP_TIMESTEP_PRECISION,
  PROP_GRADIENT_CHECKPOINTING,
  PROP_VRAM_BUDGET,
  PROP_CHECKPOINT_INTERVAL,
  PROP_CHECKPOINTS_LIMIT,
  PROP_METER_TRIPLES,
  PROP_SEED,
  PROP_REPORT_TO,
  PROP_REPORT_DIR,
  PROP_HTTP_ADDRESS,
  PROP_HTTP_PORT,
  PROP_HTTP_TOKEN,
  PROP_PUSH_TO_HUB,
  PROP_PUSH_PRIVATE,
  PROP_TRIGGER_WORDS,
  PROP_PAUSED,
  PROP_STATE,
  PROP_STEP,
  PROP_LOSS,
  N_PROPS,
};

/* Where each property is kept; its type is that of its GParamSpec. */
#define AT(field) G_STRUCT_OFFSET (GstFluxTrainSink, field)
static const gsize offsets[N_PROPS] = {
    [PROP_MODEL] = AT (model),
    [PROP_QUANTIZATION] = AT (quantization),
    [PROP_DEVICE] = AT (device),
    [PROP_COMPUTE_DTYPE] = AT (compute_dtype),
    [PROP_WEIGHTS_CACHE] = AT (weights_cache),
    [PROP_LOCATION] = AT (location),
    [PROP_LORA_FORMAT] = AT (lora_format),
    [PROP_OUTPUT] = AT (output),
    [PROP_RESUME_FROM] = AT (resume_from),
    [PROP_MODE] = AT (mode),
    [PROP_RANK] = AT (train.rank),
    [PROP_ALPHA] = AT (train.alpha),
    [PROP_TARGETS] = AT (targets),
    [PROP_OPTIMIZER] = AT (train.optimizer),
    [PROP_LEARNING_RATE] = AT (train.learning_rate),
    [PROP_BETA1] = AT (train.beta1),
    [PROP_BETA2] = AT (train.beta2),
    [PROP_EPSILON] = AT (train.epsilon),
    [PROP_WEIGHT_DECAY] = AT (train.weight_decay),
    [PROP_LR_SCHEDULER] = AT (train.lr_scheduler),
    [PROP_WARMUP_STEPS] = AT (train.warmup_steps),
    [PROP_LR_NUM_CYCLES] = AT (train.lr_num_cycles),
    [PROP_LR_POWER] = AT (train.lr_power),
    [PROP_MAX_STEPS] = AT (train.max_steps),
    [PROP_ACCUMULATE] = AT (train.accumulate),
    [PROP_MAX_GRAD_NORM] = AT (train.max_grad_norm),
    [PROP_GUIDANCE] = AT (train.guidance),
    [PROP_CAPTION_DROPOUT] = AT (train.caption_dropout),
    [PROP_WEIGHTING_SCHEME] = AT (train.weighting),
    [PROP_LOGIT_MEAN] = AT (train.logit_mean),
    [PROP_LOGIT_STD] = AT (train.logit_std),
    [PROP_MODE_SCALE] = AT (train.mode_scale),
    [PROP_TIMESTEP_PRECISION] = AT (train.timestep_precision),
    [PROP_GRADIENT_CHECKPOINTING] = AT (train.recompute),
    [PROP_VRAM_BUDGET] = AT (vram_budget),
    [PROP_CHECKPOINT_INTERVAL] = AT (checkpoint_interval),
    [PROP_CHECKPOINTS_LIMIT] = AT (checkpoints_limit),
    [PROP_METER_TRIPLES] = AT (meter_triples),
    [PROP_SEED] = AT (train.seed),
    [PROP_REPORT_TO] = AT (report_to),
    [PROP_REPORT_DIR] = AT (report_dir),
    [PROP_HTTP_ADDRESS] = AT (http_address),
    [PROP_HTTP_PORT] = AT (http_port),
    [PROP_HTTP_TOKEN] = AT (http_token),
    [PROP_PUSH_TO_HUB] = AT (push_to_hub),
    [PROP_PUSH_PRIVATE] = AT (push_private),
    [PROP_TRIGGER_WORDS] = AT (trigger_words),
    [PROP_PAUSED] = AT (paused),
    [PROP_STATE] = AT (state),
    [PROP_STEP] = AT (step),
    [PROP_LOSS] = AT (loss),
};

static void
gst_flux_train_sink_set_property (
    GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (object);
  gpointer field = G_STRUCT_MEMBER_P (self, offsets[id]);

  GST_OBJECT_LOCK (self);
  if (G_VALUE_HOLDS_STRING (value)) {
    g_free (*(gchar **)field);
    *(gchar **)field = g_value_dup_string (value);
  } else if (G_VALUE_HOLDS_ENUM (value)) {
    *(gint *)field = g_value_get_enum (value);
  } else if (G_VALUE_HOLDS_FLAGS (value)) {
    *(guint *)field = g_value_get_flags (value);
  } else if (G_VALUE_HOLDS_INT (value)) {
    *(gint *)field = g_value_get_int (value);
  } else if (G_VALUE_HOLDS_UINT (value)) {
    *(guint *)field = g_value_get_uint (value);
  } else if (G_VALUE_HOLDS_UINT64 (value)) {
    *(guint64 *)field = g_value_get_uint64 (value);
  } else if (G_VALUE_HOLDS_BOOLEAN (value)) {
    *(gboolean *)field = g_value_get_boolean (value);
  } else if (G_VALUE_HOLDS_FLOAT (value)) {
    *(gfloat *)field = g_value_get_float (value);
  } else if (G_VALUE_HOLDS_DOUBLE (value)) {
    *(gdouble *)field = g_value_get_double (value);
  } else {
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
  }
  if (id == PROP_PAUSED)
    g_cond_signal (&self->unpaused);
  GST_OBJECT_UNLOCK (self);
}

static void
gst_flux_train_sink_get_property (
    GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (object);
  gconstpointer field = G_STRUCT_MEMBER_P (self, offsets[id]);

  GST_OBJECT_LOCK (self);
  if (G_VALUE_HOLDS_STRING (value))
    g_value_set_string (value, *(gchar *const *)field);
  else if (G_VALUE_HOLDS_ENUM (value))
    g_value_set_enum (value, *(const gint *)field);
  else if (G_VALUE_HOLDS_FLAGS (value))
    g_value_set_flags (value, *(const guint *)field);
  else if (G_VALUE_HOLDS_INT (value))
    g_value_set_int (value, *(const gint *)field);
  else if (G_VALUE_HOLDS_UINT (value))
    g_value_set_uint (value, *(const guint *)field);
  else if (G_VALUE_HOLDS_UINT64 (value))
    g_value_set_uint64 (value, *(const guint64 *)field);
  else if (G_VALUE_HOLDS_BOOLEAN (value))
    g_value_set_boolean (value, *(const gboolean *)field);
  else if (G_VALUE_HOLDS_FLOAT (value))
    g_value_set_float (value, *(const gfloat *)field);
  else if (G_VALUE_HOLDS_DOUBLE (value))
    g_value_set_double (value, *(const gdouble *)field);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
  GST_OBJECT_UNLOCK (self);
}

/* ---- their descriptions ---- */

static void
add_string (GObjectClass *klass, guint id, const gchar *name, const gchar *nick,
    const gchar *initial, const gchar *blurb)
{
  g_object_class_install_property (
      klass, id, g_param_spec_string (name, nick, blurb, initial, GST_FLUX_PARAM_READY));
}

static void
add_enum (GObjectClass *klass, guint id, const gchar *name, const gchar *nick, GType type,
    gint initial, const gchar *blurb)
{
  g_object_class_install_property (klass, id,
      g_param_spec_enum (name, nick, blurb, type, initial, GST_FLUX_PARAM_READY));
}

static void
add_double (GObjectClass *klass, guint id, const gchar *name, const gchar *nick,
    gdouble min, gdouble max, gdouble initial, const gchar *blurb)
{
  g_object_class_install_property (klass, id,
      g_param_spec_double (name, nick, blurb, min, max, initial, GST_FLUX_PARAM_READY));
}

static void
add_uint64 (GObjectClass *klass, guint id, const gchar *name, const gchar *nick,
    guint64 min, guint64 initial, const gchar *blurb, GParamFlags flags)
{
  g_object_class_install_property (klass, id,
      g_param_spec_uint64 (name, nick, blurb, min, G_MAXINT64, initial, flags));
}

static void
install_data (GObjectClass *klass)
{
  add_string (klass, PROP_MODEL, "model", "Model", NULL,
      "Folder of the model in the diffusers layout, or hf://user/name");
  add_enum (klass, PROP_QUANTIZATION, "quantization", "Quantization",
      GST_TYPE_FLUX_QUANTIZATION, FX_Q_NF4,
      "Weights of the frozen base; in 4 or 8 bits in the file, they stay so with nf4");
  g_object_class_install_property (klass, PROP_DEVICE, gst_flux_param_spec_device ());
  g_object_class_install_property (
      klass, PROP_COMPUTE_DTYPE, gst_flux_param_spec_compute_dtype ());
  g_object_class_install_property (
      klass, PROP_WEIGHTS_CACHE, gst_flux_param_spec_weights_cache ());
  add_string (klass, PROP_LOCATION, "location", "Location", NULL,
      "Where the adapter goes: a .safetensors file, or a folder, for "
      "pytorch_lora_weights.safetensors in it; NULL: to output");
  add_enum (klass, PROP_LORA_FORMAT, "lora-format", "LoRA Format",
      gst_flux_train_lora_format_get_type (), FLUX_LORA_DIFFUSERS,
      "Layout of the adapter at location; checkpoints have diffusers' in any case");
  add_string (klass, PROP_OUTPUT, "output", "Output", NULL,
      "Folder of the checkpoints; when set, one is written at the end too; NULL: beside "
      "location");
  add_string (klass, PROP_RESUME_FROM, "resume-from", "Resume From", NULL,
      "Checkpoint to go on from, or a folder of them, for the latest; NULL: start anew");
  add_enum (klass, PROP_MODE, "mode", "Mode", gst_flux_train_mode_get_type (), MODE_AUTO,
      "When to train: after EOS on everything, or on samples as they come");
  add_uint64 (klass, PROP_CHECKPOINT_INTERVAL, "checkpoint-interval",
      "Checkpoint Interval", 0, 100,
      "Steps between checkpoints; 0: none on the way (steps, 0 or more)",
      GST_FLUX_PARAM_PLAYING);
  g_object_class_install_property (klass, PROP_CHECKPOINTS_LIMIT,
      g_param_spec_uint ("checkpoints-limit", "Checkpoints Limit",
          "Checkpoints that are kept, the oldest go; 0: all (checkpoints, 0 or more)", 0,
          G_MAXUINT, 0, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_METER_TRIPLES,
      g_param_spec_uint ("meter-triples", "Meter Triples",
          "Fixed triples of image, noise and sigma whose mean loss is measured before "
          "and "
          "after a one-shot training and posted as flux-meter; 0: none (triples, 0 to "
          "65536)",
          0, 65536, 0, GST_FLUX_PARAM_READY));
}

static void
install_adapter (GObjectClass *klass, const FluxTrainConfig *c)
{
  g_object_class_install_property (klass, PROP_RANK,
      g_param_spec_int ("rank", "Rank", "Rank of the adapter (number, 1 to 1024)", 1,
          1024, c->rank, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_ALPHA,
      g_param_spec_float ("alpha", "Alpha",
          "The adapter's effect is scaled by alpha / rank; 0: alpha = rank (number, 0 to "
          "65536)",
          0, 65536, 0, GST_FLUX_PARAM_READY));
  add_string (klass, PROP_TARGETS, "targets", "Targets", c->targets,
      "Layers that are adapted: attention, attention-all, all-linear, or suffixes of "
      "their names, separated by commas");
  add_enum (klass, PROP_OPTIMIZER, "optimizer", "Optimizer",
      gst_flux_train_optimizer_get_type (), c->optimizer, "Optimiser");
  g_object_class_install_property (klass, PROP_LEARNING_RATE,
      g_param_spec_double ("learning-rate", "Learning Rate",
          "Learning rate, before the schedule's factor (a step, 0 to 10)", 0, 10,
          c->learning_rate, GST_FLUX_PARAM_PLAYING));
  add_double (klass, PROP_BETA1, "beta1", "Beta 1", 0, 1, c->beta1,
      "Decay of the mean of the gradients (factor, 0 to 1)");
  add_double (klass, PROP_BETA2, "beta2", "Beta 2", 0, 1, c->beta2,
      "Decay of the mean of their squares (factor, 0 to 1)");
  add_double (klass, PROP_EPSILON, "epsilon", "Epsilon", 0, 1, c->epsilon,
      "Added to the root of the mean of the squares (number, 0 to 1)");
  add_double (klass, PROP_WEIGHT_DECAY, "weight-decay", "Weight Decay", 0, 100,
      c->weight_decay, "Decoupled weight decay (factor, 0 to 100)");
  add_double (klass, PROP_MAX_GRAD_NORM, "max-grad-norm", "Max Gradient Norm", 0,
      G_MAXFLOAT, c->max_grad_norm,
      "Gradients are clipped to this L2 norm; 0: never (norm, 0 or more)");
}

static void
install_schedule (GObjectClass *klass, const FluxTrainConfig *c)
{
  add_enum (klass, PROP_LR_SCHEDULER, "lr-scheduler", "Learning-Rate Scheduler",
      gst_flux_train_lr_scheduler_get_type (), c->lr_scheduler,
      "How the learning rate changes");
  add_uint64 (klass, PROP_WARMUP_STEPS, "warmup-steps", "Warm-up Steps", 0,
      c->warmup_steps,
      "Steps over which the learning rate rises from 0 (steps, 0 or more)",
      GST_FLUX_PARAM_READY);
  add_double (klass, PROP_LR_NUM_CYCLES, "lr-num-cycles", "Learning-Rate Cycles", 0, 1e6,
      c->lr_num_cycles,
      "Waves of cosine; whole ones of cosine-with-restarts (cycles, 0 to 1000000)");
  add_double (klass, PROP_LR_POWER, "lr-power", "Learning-Rate Power", 0, 100,
      c->lr_power, "Power of polynomial (number, 0 to 100)");
  add_uint64 (klass, PROP_MAX_STEPS, "max-steps", "Max Steps", 1, c->max_steps,
      "Optimiser steps, those before resuming included (steps, 1 or more)",
      GST_FLUX_PARAM_PLAYING);
  g_object_class_install_property (klass, PROP_ACCUMULATE,
      g_param_spec_uint ("accumulate", "Accumulate",
          "Samples an optimiser step (samples, 1 to 4096)", 1, 4096, c->accumulate,
          GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_GRADIENT_CHECKPOINTING,
      g_param_spec_boolean ("gradient-checkpointing", "Gradient Checkpointing",
          "Recompute each block's activations in the backward pass instead of keeping "
          "them: less memory, same results",
          c->recompute, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_VRAM_BUDGET,
      g_param_spec_uint ("vram-budget", "VRAM Budget",
          "MiB of device memory that base, adapter and buffers may take, CUDA's own "
          "share "
          "included: fewer samples then go through the blocks together, and if that is "
          "not enough the base's blocks come from the host's memory, which is slower and "
          "gives the same result; 0: what the device has (MiB, 0 or more)",
          0, G_MAXUINT, 0, GST_FLUX_PARAM_READY));
}

static void
install_draws (GObjectClass *klass, const FluxTrainConfig *c)
{
  add_double (klass, PROP_GUIDANCE, "guidance", "Guidance", 0, 1000, c->guidance,
      "Guidance that the model is told while training (scale, 0 to 1000)");
  add_double (klass, PROP_CAPTION_DROPOUT, "caption-dropout", "Caption Dropout", 0, 1,
      c->caption_dropout,
      "Probability of the empty prompt instead of the caption (probability, 0 to 1)");
  add_enum (klass, PROP_WEIGHTING_SCHEME, "weighting-scheme", "Weighting Scheme",
      gst_flux_train_weighting_get_type (), c->weighting,
      "How sigma is drawn and the loss weighted");
  add_double (klass, PROP_LOGIT_MEAN, "logit-mean", "Logit Mean", -100, 100,
      c->logit_mean, "Mean of logit-normal (number, -100 to 100)");
  add_double (klass, PROP_LOGIT_STD, "logit-std", "Logit Deviation", 0, 100, c->logit_std,
      "Standard deviation of logit-normal (number, 0 to 100)");
  add_double (klass, PROP_MODE_SCALE, "mode-scale", "Mode Scale", -100, 100,
      c->mode_scale, "Scale of mode (scale, -100 to 100)");
  add_enum (klass, PROP_TIMESTEP_PRECISION, "timestep-precision", "Timestep Precision",
      gst_flux_train_timestep_precision_get_type (), c->timestep_precision,
      "Rounding of timesteps");
  add_uint64 (klass, PROP_SEED, "seed", "Seed", 0, c->seed,
      "Seed of the adapter, the noise and the order of the samples (number, 0 or more)",
      GST_FLUX_PARAM_READY);
}

static void
install_report (GObjectClass *klass)
{
  g_object_class_install_property (klass, PROP_REPORT_TO,
      g_param_spec_flags ("report-to", "Report To",
          "Where the course of the training is told besides the bus",
          gst_flux_report_to_get_type (), 0, GST_FLUX_PARAM_READY));
  add_string (klass, PROP_REPORT_DIR, "report-dir", "Report Folder", NULL,
      "Folder of the reports; NULL: a folder reports beside the adapter");
  add_string (klass, PROP_HTTP_ADDRESS, "http-address", "HTTP Address", HTTP_ADDRESS,
      "Where report-to=http serves its page: an IP address of this machine, 0.0.0.0 for "
      "all of them; any other than 127.0.0.1 and ::1 needs a token, which is made when "
      "none is given and told in an INFO message");
  g_object_class_install_property (klass, PROP_HTTP_PORT,
      g_param_spec_uint ("http-port", "HTTP Port",
          "Port of that page; 0: any that is free (number, 0 to 65535)", 0, 65535,
          HTTP_PORT, GST_FLUX_PARAM_READY));
  g_object_class_install_property (klass, PROP_HTTP_TOKEN,
      g_param_spec_string ("http-token", "HTTP Token",
          "Token that the page asks for, of 16 or more of the characters A-Z a-z 0-9 - "
          "_; NULL: a random one, and none on 127.0.0.1 and ::1",
          NULL, G_PARAM_WRITABLE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY));
  add_string (klass, PROP_PUSH_TO_HUB, "push-to-hub", "Push To Hub", NULL,
      "Repository of the Hugging Face Hub, user/name, that the adapter goes to after the "
      "last step, with a model card; NULL: nothing is sent");
  g_object_class_install_property (klass, PROP_PUSH_PRIVATE,
      g_param_spec_boolean ("push-private", "Push Private",
          "Nobody else may see that repository: it is made so, and one that everybody "
          "may see is refused",
          TRUE, GST_FLUX_PARAM_READY));
  add_string (klass, PROP_TRIGGER_WORDS, "trigger-words", "Trigger Words", NULL,
      "What the model card says to write in prompts; NULL: the words that all captions "
      "begin or end with");
}

void
gst_flux_train_sink_install_properties (GstFluxTrainSinkClass *klass)
{
  GObjectClass *gobject_class = G_OBJECT_CLASS (klass);
  FluxTrainConfig c;

  flux_train_config_init (&c);
  gobject_class->set_property = gst_flux_train_sink_set_property;
  gobject_class->get_property = gst_flux_train_sink_get_property;
  install_data (gobject_class);
  install_adapter (gobject_class, &c);
  install_schedule (gobject_class, &c);
  install_draws (gobject_class, &c);
  install_report (gobject_class);
  g_object_class_install_property (gobject_class, PROP_PAUSED,
      g_param_spec_boolean ("paused", "Paused",
          "Rest between two steps, while the rest of the pipeline goes on; an EOS event "
          "sent to the element ends it, and save-checkpoint works",
          FALSE, GST_FLUX_PARAM_PLAYING));
  g_object_class_install_property (gobject_class, PROP_STATE,
      g_param_spec_enum ("state", "State", "What the element is doing",
          gst_flux_train_state_get_type (), STATE_IDLE, GST_FLUX_PARAM_READ));
  add_uint64 (gobject_class, PROP_STEP, "step", "Step", 0, 0,
      "Steps done (steps, 0 or more)", GST_FLUX_PARAM_READ);
  g_object_class_install_property (gobject_class, PROP_LOSS,
      g_param_spec_double ("loss", "Loss",
          "Loss of the last step (mean squared error, any)", -G_MAXDOUBLE, G_MAXDOUBLE, 0,
          GST_FLUX_PARAM_READ));
}

void
gst_flux_train_sink_init_properties (GstFluxTrainSink *self)
{
  flux_train_config_init (&self->train);
  self->train.alpha = 0;
  self->device = g_strdup ("auto");
  self->weights_cache = g_strdup ("auto");
  self->targets = g_strdup (self->train.targets);
  self->quantization = FX_Q_NF4;
  self->compute_dtype = FX_N_DTYPES;
  self->mode = MODE_AUTO;
  self->checkpoint_interval = 100;
  self->push_private = TRUE;
  self->http_address = g_strdup (HTTP_ADDRESS);
  self->http_port = HTTP_PORT;
}

void
gst_flux_train_sink_free_properties (GstFluxTrainSink *self)
{
  g_free (self->model);
  g_free (self->device);
  g_free (self->weights_cache);
  g_free (self->location);
  g_free (self->output);
  g_free (self->resume_from);
  g_free (self->targets);
  g_free (self->report_dir);
  g_free (self->http_address);
  g_free (self->http_token);
  g_free (self->push_to_hub);
  g_free (self->trigger_words);
}
