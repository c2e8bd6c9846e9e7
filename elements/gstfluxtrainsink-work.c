/* gstfluxtrainsink-work.c: opening the model, a step, saving. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <errno.h>
#include <glib/gstdio.h>

#include "elements/gstfluxtrainsink-private.h"
#include "flux/files/replace.h"

#define GST_CAT_DEFAULT gst_flux_train_sink_debug

#define LORA_SUFFIX ".safetensors"

guint64
gst_flux_train_sink_get_step (GstFluxTrainSink *self)
{
  return self->trainer != NULL ? flux_trainer_get_step (self->trainer) : 0;
}

guint64
gst_flux_train_sink_get_max_steps (GstFluxTrainSink *self)
{
  guint64 max_steps;

  GST_OBJECT_LOCK (self);
  max_steps = self->train.max_steps;
  GST_OBJECT_UNLOCK (self);
  return max_steps;
}

/* ---- where things go ---- */

gchar *
gst_flux_train_sink_get_lora_path (GstFluxTrainSink *self)
{
  if (self->location == NULL)
    return g_build_filename (self->output, FLUX_LORA_FILE, NULL);
  if (g_str_has_suffix (self->location, LORA_SUFFIX))
    return g_strdup (self->location);
  return g_build_filename (self->location, FLUX_LORA_FILE, NULL);
}

static gchar *
checkpoint_folder (GstFluxTrainSink *self)
{
  if (self->output != NULL)
    return g_strdup (self->output);
  if (g_str_has_suffix (self->location, LORA_SUFFIX))
    return g_strdup_printf ("%.*s-checkpoints",
        (int)(strlen (self->location) - strlen (LORA_SUFFIX)), self->location);
  return g_strdup (self->location);
}

gboolean
gst_flux_train_sink_check_output (GstFluxTrainSink *self, GError **error)
{
  g_autofree gchar *path = gst_flux_train_sink_get_lora_path (self);
  g_autofree gchar *beside = NULL;

  if (!flux_file_check_writable (path, "The adapter", error))
    return FALSE;
  if (self->output == NULL)
    return TRUE;
  beside = g_build_filename (self->output, FLUX_LORA_FILE, NULL);
  return flux_file_check_writable (beside, "A checkpoint", error);
}

/* ---- opening ---- */

static gboolean
open_progress (const char *what, gint percent, gpointer data)
{
  GstFluxTrainSink *self = data;

  return gst_flux_train_sink_may_go_on (self) && !g_atomic_int_get (&self->finish) &&
         gst_flux_progress_update (what, percent, &self->opening);
}

/* The largest sample that is held, in tokens. */
static void
largest_sample (GstFluxTrainSink *self, gint *text_tokens, gint *image_tokens)
{
  *text_tokens = *image_tokens = 1;
  for (guint i = 0; i < self->held->len; i++) {
    FluxSample *s = g_array_index (self->held, GstFluxHeldSample, i).sample;

    *text_tokens = MAX (*text_tokens, s->text_tokens);
    *image_tokens = MAX (*image_tokens, s->width / 2 * (s->height / 2));
  }
}

static FluxTrainConfig
train_config (GstFluxTrainSink *self)
{
  FluxTrainConfig config = self->train;

  config.targets = self->targets;
  config.budget = (guint64)self->vram_budget << 20;
  config.vae_scaling = self->vae.scaling_factor;
  config.vae_shift = self->vae.shift_factor;
  return config;
}

static FluxModelKey
base_key (GstFluxTrainSink *self)
{
  return (FluxModelKey){.path = self->path,
      .qtype = (fx_qtype)self->quantization,
      .compute = (fx_dtype)self->compute_dtype,
      .offload = self->offload};
}

static gboolean
has_room (fx_backend *b, gpointer data, GError **error)
{
  GstFluxTrainSink *self = data;
  const FluxTrainConfig config = train_config (self);
  const FluxModelKey key = base_key (self);
  gint text_tokens, image_tokens;

  largest_sample (self, &text_tokens, &image_tokens);
  return flux_trainer_check_room (b, &key, &config, text_tokens, image_tokens, error);
}

static void
acquire_base (
    GstFluxTrainSink *self, FluxWeightsCache *cache, GError **fallback, GError **error)
{
  FluxModelKey key = base_key (self);

  key.cache = cache;
  key.room = has_room;
  key.room_data = self;
  key.fallback = fallback;
  if (flux_device_parse (self->device, &key.device, error))
    self->base = flux_model_acquire (&key, open_progress, self, error);
}

/* When the base does not fit with what training takes, its blocks are streamed. */
static gboolean
open_base (GstFluxTrainSink *self, GError **error)
{
  g_autoptr (FluxWeightsCache) cache = flux_weights_cache_new (self->weights_cache);
  GError *failure = NULL, *fallback = NULL;

  gst_flux_progress_init (&self->opening, GST_ELEMENT (self), "open", NULL);
  self->offload = FLUX_OFFLOAD_NONE;
  acquire_base (self, cache, &fallback, &failure);
  if (g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_NO_SPACE)) {
    g_clear_error (&failure);
    self->offload = FLUX_OFFLOAD_STREAM;
    acquire_base (self, cache, &fallback, &failure);
    if (self->base != NULL)
      GST_INFO_OBJECT (self, "the blocks of the base stay on the host");
  }
  gst_flux_progress_end (&self->opening, "base model", failure);
  gst_flux_post_cache_warning (self, cache);
  if (self->base != NULL) {
    gst_flux_tell_device (
        GST_ELEMENT (self), flux_model_get_backend (self->base), fallback);
    return TRUE;
  }
  g_clear_error (&fallback);
  g_propagate_error (error, failure);
  return FALSE;
}

/* A resumed one-shot run finds its place by the step alone, if the data are the same. */
static void
check_position (GstFluxTrainSink *self)
{
  g_autofree gchar *position = NULL;
  const gchar *before = flux_trainer_get_position (self->trainer);
  GChecksum *sum;

  if (self->streaming)
    return;
  sum = g_checksum_new (G_CHECKSUM_SHA256);
  for (guint i = 0; i < self->held->len; i++) {
    FluxSample *s = g_array_index (self->held, GstFluxHeldSample, i).sample;

    if (s->key != NULL)
      g_checksum_update (sum, (const guchar *)s->key, -1);
  }
  position = g_strdup_printf (
      "one-shot, %u samples %.16s", self->held->len, g_checksum_get_string (sum));
  g_checksum_free (sum);
  if (before != NULL && before[0] != '\0' && strcmp (before, position) != 0)
    GST_ELEMENT_WARNING (self, STREAM, FAILED,
        ("'%s' was trained on other samples than those that came: the order of the "
         "samples is not the one it would have gone on with.",
            self->resume_from),
        ("then: %s; now: %s", before, position));
  flux_trainer_set_position (self->trainer, position);
}

/* A resumed run that has nothing to do ends as it is meant to; but was it meant? */
static void
check_steps_left (GstFluxTrainSink *self)
{
  guint64 max_steps = gst_flux_train_sink_get_max_steps (self);

  if (self->resume_from != NULL && flux_trainer_get_step (self->trainer) >= max_steps)
    GST_ELEMENT_WARNING (self, RESOURCE, SETTINGS,
        ("'%s' has done all of its %" G_GUINT64_FORMAT
         " steps: raise max-steps to go on training.",
            self->resume_from, max_steps),
        (NULL));
}

/* A seed other than the default was meant to do something. */
static void
check_seed (GstFluxTrainSink *self)
{
  guint64 seed = flux_trainer_get_seed (self->trainer);

  if (self->resume_from != NULL && self->train.seed != 0 && self->train.seed != seed)
    GST_ELEMENT_WARNING (self, RESOURCE, SETTINGS,
        ("'%s' was trained with seed %" G_GUINT64_FORMAT
         " and goes on with it: seed=%" G_GUINT64_FORMAT " has no effect.",
            self->resume_from, seed, self->train.seed),
        (NULL));
}

/* Another base, rounded otherwise: training can go on, and a GPU may leave no choice. */
static void
check_quantization (GstFluxTrainSink *self)
{
  const gchar *before = flux_trainer_get_quantization (self->trainer);
  const gchar *now =
      flux_transformer_get_quantization (flux_model_get_transformer (self->base));

  if (before != NULL && strcmp (before, now) != 0)
    GST_ELEMENT_WARNING (self, RESOURCE, SETTINGS,
        ("'%s' was trained with quantization=%s and goes on with %s: the loss may jump; "
         "set quantization=%s to go on as before.",
            self->resume_from, before, now, before),
        (NULL));
}

static gboolean
open_trainer (GstFluxTrainSink *self, GError **error)
{
  const FluxTrainConfig config = train_config (self);
  gint text_tokens, image_tokens;

  largest_sample (self, &text_tokens, &image_tokens);
  self->trainer =
      flux_trainer_new (self->base, &config, text_tokens, image_tokens, error);
  if (self->trainer == NULL)
    return FALSE;
  if (self->empty_prompt != NULL)
    flux_trainer_set_empty_prompt (self->trainer, self->empty_prompt);
  if (self->resume_from != NULL &&
      !flux_trainer_resume (self->trainer, self->resume_from, error)) {
    g_clear_pointer (&self->trainer, flux_trainer_free);
    return FALSE;
  }
  check_position (self);
  check_steps_left (self);
  check_seed (self);
  check_quantization (self);
  return TRUE;
}

gboolean
gst_flux_train_sink_open (GstFluxTrainSink *self, GError **error)
{
  guint64 step;

  if (self->trainer != NULL) {
    gst_flux_train_sink_set_state (self, STATE_TRAINING);
    return TRUE;
  }
  gst_flux_train_sink_set_state (self, STATE_OPENING);
  if (self->train.caption_dropout > 0 && self->empty_prompt == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "caption-dropout needs the embeddings of the empty prompt, which did not come: "
        "set text-model on fluxembed, or add the row \"\" to its table.");
    return FALSE;
  }
  if (!gst_flux_train_sink_check_output (self, error) ||
      !gst_flux_train_sink_check_push (self, error) ||
      (self->base == NULL && !open_base (self, error)) || !open_trainer (self, error))
    return FALSE;
  step = flux_trainer_get_step (self->trainer);
  GST_OBJECT_LOCK (self);
  self->step = step;
  GST_OBJECT_UNLOCK (self);
  self->saved_step = step;
  gst_flux_training_begin (self->training, self->base, self->path,
      (fx_qtype)self->quantization, flux_trainer_get_lora (self->trainer));
  gst_flux_train_sink_set_state (self, STATE_TRAINING);
  gst_element_post_message (
      GST_ELEMENT (self), gst_message_new_duration_changed (GST_OBJECT (self)));
  return gst_flux_train_sink_start_meter (self, error);
}

/* ---- saving ---- */

static gboolean
save_checkpoint_in (
    GstFluxTrainSink *self, const gchar *folder, gchar **path, GError **error)
{
  gchar *made = NULL;

  if (g_mkdir_with_parents (folder, 0777) != 0) {
    flux_error_from_errno (
        error, FLUX_ERROR_WRITE, errno, "Could not create the folder", folder);
    return FALSE;
  }
  if (!flux_trainer_save_checkpoint (
          self->trainer, folder, self->checkpoints_limit, &made, error))
    return FALSE;
  self->saved_step = flux_trainer_get_step (self->trainer);
  gst_flux_train_sink_post_checkpoint (self, made, FALSE);
  if (path != NULL)
    *path = made;
  else
    g_free (made);
  return TRUE;
}

static gboolean
save_checkpoint (GstFluxTrainSink *self, gchar **path, GError **error)
{
  g_autofree gchar *folder = checkpoint_folder (self);

  return save_checkpoint_in (self, folder, path, error);
}

/* The last resort, when the place for it takes nothing (any more). */
static gboolean
save_checkpoint_elsewhere (GstFluxTrainSink *self, gchar **path)
{
  g_autofree gchar *folder = g_dir_make_tmp ("gst-flux-XXXXXX", NULL);

  if (folder == NULL)
    return FALSE;
  if (save_checkpoint_in (self, folder, path, NULL))
    return TRUE;
  g_rmdir (folder);
  return FALSE;
}

static gboolean
has_unsaved (GstFluxTrainSink *self)
{
  return self->trainer != NULL &&
         flux_trainer_get_step (self->trainer) > self->saved_step;
}

/* A full disk on the way is no reason to lose what is in memory. */
static void
save_on_the_way (GstFluxTrainSink *self)
{
  GError *error = NULL;

  if (save_checkpoint (self, NULL, &error))
    return;
  g_prefix_error (&error, "Training goes on without this checkpoint. ");
  gst_flux_post_warning (self, error);
}

static gboolean
take_wish (GstFluxTrainSink *self)
{
  return g_atomic_int_compare_and_exchange (&self->want_checkpoint, TRUE, FALSE);
}

void
gst_flux_train_sink_save_if_asked (GstFluxTrainSink *self)
{
  if (take_wish (self) && has_unsaved (self))
    save_on_the_way (self);
}

static void
checkpoint_if_due (GstFluxTrainSink *self)
{
  guint64 step = flux_trainer_get_step (self->trainer), interval;

  GST_OBJECT_LOCK (self);
  interval = self->checkpoint_interval;
  GST_OBJECT_UNLOCK (self);
  if (take_wish (self) || (interval != 0 && step % interval == 0))
    save_on_the_way (self);
}

gboolean
gst_flux_train_sink_finish (GstFluxTrainSink *self, GError **error)
{
  guint64 step = gst_flux_train_sink_get_step (self);
  g_autofree gchar *path = NULL;
  GstFluxProgress progress;
  GError *failure = NULL;
  gboolean early = step < gst_flux_train_sink_get_max_steps (self);

  if (step == 0)
    return TRUE;
  path = gst_flux_train_sink_get_lora_path (self);
  gst_flux_progress_init (&progress, GST_ELEMENT (self), "save", NULL);
  gst_flux_progress_update ("adapter", 0, &progress);
  /* The checkpoint first: it is what training can go on from. */
  if ((self->output == NULL && !early) || !has_unsaved (self) ||
      save_checkpoint (self, NULL, &failure))
    flux_trainer_save_lora (self->trainer, path, self->lora_format, &failure);
  gst_flux_progress_end (&progress, path, failure);
  if (failure != NULL) {
    g_propagate_error (error, failure);
    return FALSE;
  }
  self->saved_step = step;
  gst_flux_train_sink_post_checkpoint (self, path, TRUE);
  if (!gst_flux_train_sink_end_meter (self, error))
    return FALSE;
  gst_flux_progress_end (&self->training_progress, early ? "stopped" : "done", NULL);
  return TRUE;
}

void
gst_flux_train_sink_fail (GstFluxTrainSink *self, GError *error)
{
  g_autofree gchar *path = NULL;
  gboolean cancelled = g_error_matches (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);

  if (!cancelled)
    gst_flux_training_end (self->training);
  if (!cancelled && has_unsaved (self) &&
      (save_checkpoint (self, &path, NULL) || save_checkpoint_elsewhere (self, &path))) {
    gchar *message = g_strdup_printf ("%s What was learnt up to step %" G_GUINT64_FORMAT
                                      " is in '%s'.",
        error->message, self->saved_step, path);

    g_free (error->message);
    error->message = message;
  }
  if (!cancelled)
    gst_flux_post_error (self, g_error_copy (error));
  gst_flux_progress_end (&self->training_progress, "stopped", error);
  gst_flux_train_sink_set_state (self, cancelled ? STATE_IDLE : STATE_FAILED);
  g_error_free (error);
}

void
gst_flux_train_sink_close (GstFluxTrainSink *self)
{
  GError *error = NULL;

  gst_flux_training_end (self->training);
  if (has_unsaved (self)) {
    if (!save_checkpoint (self, NULL, &error)) {
      /* Either it failed before, and there has been an error, or the application is
       * leaving and reads no messages any more. */
      GST_ERROR_OBJECT (self, "step %" G_GUINT64_FORMAT " is lost: %s",
          flux_trainer_get_step (self->trainer), error->message);
      g_clear_error (&error);
    }
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_CANCELLED, "stopped");
    gst_flux_progress_end (&self->training_progress, "stopped", error);
    g_clear_error (&error);
  }
  g_clear_pointer (&self->meter, flux_meter_free);
  g_clear_pointer (&self->trainer, flux_trainer_free);
  g_clear_pointer (&self->base, flux_model_unref);
}

/* ---- a step ---- */

gboolean
gst_flux_train_sink_step (
    GstFluxTrainSink *self, FluxSample *const *samples, guint n, GError **error)
{
  FluxStepResult result;
  gdouble learning_rate;
  guint64 max_steps;
  gint64 start;
  gboolean ok;

  GST_OBJECT_LOCK (self);
  learning_rate = self->train.learning_rate;
  max_steps = self->train.max_steps;
  GST_OBJECT_UNLOCK (self);
  flux_trainer_set_learning_rate (self->trainer, learning_rate);
  flux_trainer_set_max_steps (self->trainer, max_steps);

  flux_model_lock (self->base);
  start = g_get_monotonic_time ();
  ok = flux_trainer_step (self->trainer, samples, n, &result, error);
  self->step_time = (GstClockTime)(g_get_monotonic_time () - start) * GST_USECOND;
  flux_model_unlock (self->base);
  if (!ok)
    return FALSE;
  gst_flux_train_sink_post_step (self, &result);
  gst_flux_train_sink_report_step (self, &result, samples, n);
  gst_flux_train_sink_note_step (self, &result, samples, n);
  checkpoint_if_due (self);
  return TRUE;
}
