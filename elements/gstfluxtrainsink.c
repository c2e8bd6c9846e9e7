/* gstfluxtrainsink.c: trains a LoRA on the samples that come. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
/**
 * SECTION:element-fluxtrainsink
 * @title: fluxtrainsink
 *
 * Trains a low-rank adapter on a frozen, usually 4-bit FLUX.1 transformer, with the
 * samples of fluxembed or fluxcachesrc, and writes it as diffusers loads it.
 *
 * ## When it trains
 * By `mode`: one-shot collects all samples until EOS, holds EOS, trains max-steps
 * optimiser steps in a thread of its own, and only then is at EOS itself. The order of
 * the samples is a permutation an epoch that depends on the seed and the set of samples,
 * not on the order they came in. stream trains on samples in the order they come, a step
 * a window of `accumulate`, and returns GST_FLOW_EOS at max-steps; it needs a source that
 * loops. auto, the default, is one-shot until a sample of a second pass comes: then it is
 * stream (and begins with the samples it has). In both, a window ends with its epoch, so
 * that the last one may be shorter. Samples of one window may have different sizes.
 *
 * A model of the Hugging Face Hub, model=hf://user/name, is downloaded when the first
 * caps come, but for what other elements need of it.
 *
 * ## Stopping
 * An EOS event sent to the element (as gst-launch-1.0 -e does on Ctrl-C: the element has
 * the source flag, so that a pipeline hands it on) ends training after the current step:
 * the adapter and a checkpoint are written. Leaving PAUSED ends it too, and leaves a
 * checkpoint; the file at `location` is then not touched. In PAUSED training rests, and
 * so it does while the property `paused` is set, between two steps.
 *
 * ## Messages
 * Element messages on the bus:
 *
 * `flux-step`, after each step: `step` (guint64, from 1), `max-steps` (guint64), `epoch`
 * (guint, from 0), `loss` (gdouble, mean of the window), `learning-rate` (gdouble),
 * `grad-norm` (gdouble, before clipping), `step-time` (guint64, nanoseconds).
 *
 * `flux-checkpoint`, after something was written: `location` (string: a checkpoint's
 * folder, or the adapter's file), `step` (guint64), `final` (gboolean: it is the adapter
 * at the end).
 *
 * `flux-meter`, before the first step and after the last when meter-triples is set:
 * `step` (guint64), `loss` (gdouble, over the same triples each time), `triples` (guint).
 *
 * `flux-report`, once for each format that `report-to` names: `format` (string), and
 * `location` (string: a file; of wandb, the folder of the run; of http, the page's
 * address without its token).
 *
 * `flux-push`, when the adapter is on the Hub: `location` (string: its page).
 *
 * ## The page
 * `report-to=http` serves a page while the element is in PAUSED or PLAYING: loss, paired
 * loss, learning rate, speed, memory, time left, the pictures of previews, and buttons
 * that pause (the property `paused`), save (the signal save-checkpoint) and stop (as an
 * EOS event does). An INFO message has its address, with the token where one is needed.
 *
 * ## Publishing
 * With `push-to-hub` the adapter goes to that repository of the Hub after the last step,
 * with a model card: base model, trigger words, settings, the loss, and the pictures of
 * previews. It is private unless push-private is FALSE. Nothing is sent when the training
 * was stopped before its end, and no name of a folder or file on this machine.
 *
 * Progress messages: download, open, train, save and push.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 -e fluxdatasetsrc location=mucha ! fluximagedec ! fluximagecrop
 * width=512 height=768 ! fluxvaeenc model=FLUX.1-dev cache-location=mucha.latents !
 * fluxembed location=mucha.parquet text-model=FLUX.1-dev ! fluxtrainsink model=FLUX.1-dev
 * max-steps=700 location=mucha.safetensors
 * ]| From images and captions to a LoRA.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxsamplemeta.h"
#include "elements/gstfluxtrainsink-private.h"

GST_DEBUG_CATEGORY (gst_flux_train_sink_debug);
#define GST_CAT_DEFAULT gst_flux_train_sink_debug

enum { SIGNAL_SAVE_CHECKPOINT, N_SIGNALS };

static guint signals[N_SIGNALS];

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE (
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_FLUX_SAMPLE_CAPS));

#define gst_flux_train_sink_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxTrainSink, gst_flux_train_sink, GST_TYPE_BASE_SINK,
    G_IMPLEMENT_INTERFACE (GST_TYPE_PRESET, NULL) GST_DEBUG_CATEGORY_INIT (
        gst_flux_train_sink_debug, "fluxtrainsink", 0, "FLUX LoRA trainer"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxtrainsink, "fluxtrainsink", GST_RANK_NONE, GST_TYPE_FLUX_TRAIN_SINK);

/* ---- NULL <-> READY: what can be known without the weights ---- */

static gboolean
check_settings (GstFluxTrainSink *self, GError **error)
{
  FluxTrainConfig config = self->train;

  if (self->model == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxtrainsink has no model: set model to the folder of one.");
    return FALSE;
  }
  if (self->location == NULL && self->output == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "fluxtrainsink does not know where the adapter goes: set location to a "
        ".safetensors file.");
    return FALSE;
  }
  if (self->resume_from != NULL && flux_hub_is_uri (self->resume_from)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "resume-from takes a folder of this computer, not '%s': put the checkpoint, with "
        "its state.safetensors, into one, and name that.",
        self->resume_from);
    return FALSE;
  }
  if (!gst_flux_train_sink_read_model (self, error))
    return FALSE;
  config.targets = self->targets;
  if (self->vae_fingerprint != NULL) {
    config.vae_scaling = self->vae.scaling_factor;
    config.vae_shift = self->vae.shift_factor;
  }
  return flux_train_config_check (&config, error);
}

static gboolean
start (GstFluxTrainSink *self)
{
  GstFluxShared *shared;
  GError *error = NULL;

  if (!check_settings (self, &error)) {
    gst_flux_train_sink_forget_model (self);
    gst_flux_post_error (self, error);
    return FALSE;
  }
  shared = gst_flux_shared_get (GST_ELEMENT (self));
  self->training = gst_flux_training_new (shared, GST_ELEMENT_NAME (self), &self->vae);
  gst_flux_shared_unref (shared);
  return TRUE;
}

static void
stop (GstFluxTrainSink *self)
{
  g_clear_pointer (&self->training, gst_flux_training_free);
  gst_flux_train_sink_forget_model (self);
  memset (&self->vae, 0, sizeof self->vae);
}

/* ---- READY <-> PAUSED ---- */

/* A window that waits for the first preview would keep the pipeline from PLAYING, and
 * training, which makes that preview, waits for PLAYING: then the trainer does not take
 * part in the preroll. (The preview is live, so nobody expects one.) */
static void
choose_async (GstFluxTrainSink *self)
{
  GstBaseSink *base = GST_BASE_SINK (self);
  gboolean looked_at = gst_flux_training_has_preview (self->training);

  if (looked_at && gst_base_sink_is_async_enabled (base)) {
    gst_base_sink_set_async_enabled (base, FALSE);
    self->async_off = TRUE;
  } else if (!looked_at && self->async_off) {
    gst_base_sink_set_async_enabled (base, TRUE);
    self->async_off = FALSE;
  }
}

static gboolean
begin_run (GstFluxTrainSink *self)
{
  GError *error = NULL;

  if (!gst_flux_train_sink_check_output (self, &error) ||
      !gst_flux_train_sink_start_telling (self, &error)) {
    gst_flux_post_error (self, error);
    return FALSE;
  }
  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
  g_atomic_int_set (&self->stopping, FALSE);
  g_atomic_int_set (&self->unlocked, FALSE);
  g_atomic_int_set (&self->finish, FALSE);
  g_atomic_int_set (&self->want_checkpoint, FALSE);
  self->streaming = self->mode == MODE_STREAM;
  self->epoch = 0;
  gst_flux_progress_init (&self->training_progress, GST_ELEMENT (self), "train", NULL);
  GST_OBJECT_LOCK (self);
  self->step = 0;
  self->loss = 0;
  GST_OBJECT_UNLOCK (self);
  gst_flux_training_reset (self->training);
  choose_async (self);
  gst_flux_train_sink_set_state (self, STATE_COLLECTING);
  return TRUE;
}

/* Memory is given back here and not in NULL, so that an application can park a pipeline
 * in READY. */
static void
end_run (GstFluxTrainSink *self)
{
  gst_flux_train_sink_clear_run (self);
  gst_flux_train_sink_close (self);
  g_clear_pointer (&self->empty_prompt, flux_sample_unref);
  gst_flux_train_sink_end_telling (self);
  gst_flux_train_sink_set_state (self, STATE_IDLE);
}

static GstStateChangeReturn
gst_flux_train_sink_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (element);
  GstStateChangeReturn ret;

  /* Not in the base class's start(), to whose failure others would add an error. */
  if (transition == GST_STATE_CHANGE_NULL_TO_READY && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !begin_run (self))
    return GST_STATE_CHANGE_FAILURE;
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) {
    g_atomic_int_set (&self->stopping, TRUE);
    gst_flux_hub_set_cancelled (&self->hub, TRUE);
  }
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY ||
      (transition == GST_STATE_CHANGE_READY_TO_PAUSED && ret == GST_STATE_CHANGE_FAILURE))
    end_run (self);
  if (transition == GST_STATE_CHANGE_READY_TO_NULL)
    stop (self);
  return ret;
}

static gboolean
gst_flux_train_sink_unlock (GstBaseSink *base)
{
  g_atomic_int_set (&GST_FLUX_TRAIN_SINK (base)->unlocked, TRUE);
  return TRUE;
}

static gboolean
gst_flux_train_sink_unlock_stop (GstBaseSink *base)
{
  g_atomic_int_set (&GST_FLUX_TRAIN_SINK (base)->unlocked, FALSE);
  return TRUE;
}

/* ---- what comes in ---- */

static gboolean
gst_flux_train_sink_set_caps (GstBaseSink *base, GstCaps *caps)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (base);
  GError *error = NULL;

  if (!gst_flux_tensor_info_from_caps (&self->info, caps))
    return FALSE;
  if (gst_flux_train_sink_check_caps (self, &self->info, &error))
    return TRUE;
  /* Caps are sticky, and come again with each buffer; say it once. */
  if (self->state != STATE_FAILED)
    gst_flux_train_sink_fail (self, g_steal_pointer (&error));
  g_clear_error (&error);
  return FALSE;
}

static FluxSample *
sample_new (
    const GstFluxTensorInfo *info, GBytes *moments, GBytes *prompt_embeds, GBytes *pooled)
{
  FluxSample *s = g_new0 (FluxSample, 1);

  g_atomic_ref_count_init (&s->ref_count);
  s->moments = moments;
  s->channels = info->channels;
  s->height = info->height;
  s->width = info->width;
  s->prompt_embeds = prompt_embeds;
  s->text_tokens = info->text_length;
  s->joint_dim = info->text_dim;
  s->pooled = pooled;
  return s;
}

static FluxSample *
sample_from_buffer (
    GstFluxTrainSink *self, GstBuffer *buffer, guint *epoch, GError **error)
{
  GBytes *bytes[3] = {NULL, NULL, NULL};
  GstFluxSample meta;
  FluxSample *s;

  for (guint i = 0; i < 3; i++) {
    bytes[i] = gst_flux_buffer_get_bytes (buffer, i, &self->info, error);
    if (bytes[i] == NULL) {
      g_clear_pointer (&bytes[0], g_bytes_unref);
      g_clear_pointer (&bytes[1], g_bytes_unref);
      return NULL;
    }
  }
  s = sample_new (&self->info, bytes[0], bytes[1], bytes[2]);
  gst_flux_sample_meta_get (buffer, &meta);
  s->key = g_strdup (meta.key != NULL ? meta.key : "");
  s->caption = g_strdup (meta.caption);
  *epoch = meta.epoch;
  return s;
}

static GstFlowReturn
gst_flux_train_sink_render (GstBaseSink *base, GstBuffer *buffer)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (base);
  GstFluxHeldSample held;
  GError *error = NULL;

  /* A queue may send one more buffer after GST_FLOW_EOS, without its caps. */
  if (self->state == STATE_FINISHED)
    return GST_FLOW_EOS;
  held.sample = sample_from_buffer (self, buffer, &held.epoch, &error);
  if (held.sample == NULL) {
    gst_flux_train_sink_fail (self, error);
    return GST_FLOW_ERROR;
  }
  g_array_append_val (self->held, held);
  return gst_flux_train_sink_sample_came (self);
}

static void
take_empty_prompt (GstFluxTrainSink *self, FluxEmbedding *e)
{
  GstFluxTensorInfo info = {0};

  info.text_length = e->text_tokens;
  info.text_dim = e->joint_dim;
  info.pooled_dim = e->pooled_dim;
  g_clear_pointer (&self->empty_prompt, flux_sample_unref);
  if (e->joint_dim == self->shape.joint_attention_dim &&
      e->pooled_dim == self->shape.pooled_projection_dim)
    self->empty_prompt =
        sample_new (&info, NULL, g_bytes_ref (e->prompt_embeds), g_bytes_ref (e->pooled));
  flux_embedding_clear (e);
}

static gboolean
gst_flux_train_sink_event (GstBaseSink *base, GstEvent *event)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (base);
  FluxEmbedding e;

  switch (GST_EVENT_TYPE (event)) {
    case GST_EVENT_EOS:
      return gst_flux_train_sink_eos_came (self, event);
    case GST_EVENT_FLUSH_START:
      g_atomic_int_set (&self->stopping, TRUE);
      break;
    case GST_EVENT_FLUSH_STOP:
      gst_flux_train_sink_clear_run (self);
      self->streaming = self->mode == MODE_STREAM;
      g_atomic_int_set (&self->stopping, FALSE);
      break;
    default:
      if (gst_flux_empty_prompt_event_parse (event, &e))
        take_empty_prompt (self, &e);
      break;
  }
  return GST_BASE_SINK_CLASS (parent_class)->event (base, event);
}

/* ---- the element ---- */

void
gst_flux_train_sink_end_early (GstFluxTrainSink *self)
{
  GstEvent *eos = gst_event_new_eos ();

  g_atomic_int_set (&self->finish, TRUE);
  if (!gst_flux_hub_take_eos (&self->hub, eos))
    gst_event_unref (eos);
}

/* EOS that an application or gst-launch-1.0 -e sends: enough. It is for the trainer, not
 * for its sink pad: samples that are still on their way are of no more use. */
static gboolean
gst_flux_train_sink_send_event (GstElement *element, GstEvent *event)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (element);

  if (GST_EVENT_TYPE (event) != GST_EVENT_EOS)
    return GST_ELEMENT_CLASS (parent_class)->send_event (element, event);
  gst_flux_train_sink_end_early (self);
  gst_event_unref (event);
  return TRUE;
}

/* While training a position is a step: a second each, as samples are before. */
static gboolean
gst_flux_train_sink_query (GstElement *element, GstQuery *query)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (element);
  GstFormat format = GST_FORMAT_UNDEFINED;
  gboolean training;
  guint64 step, max_steps;

  GST_OBJECT_LOCK (self);
  training = self->state == STATE_TRAINING || self->state == STATE_FINISHED;
  step = self->step;
  max_steps = self->train.max_steps;
  GST_OBJECT_UNLOCK (self);
  if (training && GST_QUERY_TYPE (query) == GST_QUERY_POSITION) {
    gst_query_parse_position (query, &format, NULL);
    if (format == GST_FORMAT_TIME) {
      gst_query_set_position (query, format, (gint64)(step * GST_SECOND));
      return TRUE;
    }
  } else if (training && GST_QUERY_TYPE (query) == GST_QUERY_DURATION) {
    gst_query_parse_duration (query, &format, NULL);
    if (format == GST_FORMAT_TIME) {
      gst_query_set_duration (query, format,
          max_steps < G_MAXINT64 / GST_SECOND ? (gint64)(max_steps * GST_SECOND) : -1);
      return TRUE;
    }
  }
  return GST_ELEMENT_CLASS (parent_class)->query (element, query);
}

static void
gst_flux_train_sink_save_checkpoint (GstFluxTrainSink *self)
{
  g_atomic_int_set (&self->want_checkpoint, TRUE);
}

static void
held_clear (gpointer data)
{
  flux_sample_unref (((GstFluxHeldSample *)data)->sample);
}

static void
gst_flux_train_sink_finalize (GObject *object)
{
  GstFluxTrainSink *self = GST_FLUX_TRAIN_SINK (object);

  gst_flux_train_sink_free_properties (self);
  g_array_unref (self->held);
  g_rec_mutex_clear (&self->task_lock);
  g_cond_clear (&self->unpaused);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_train_sink_class_init (GstFluxTrainSinkClass *klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseSinkClass *sink_class = GST_BASE_SINK_CLASS (klass);

  G_OBJECT_CLASS (klass)->finalize = gst_flux_train_sink_finalize;
  gst_flux_train_sink_install_properties (klass);
  /**
   * GstFluxTrainSink::save-checkpoint:
   *
   * Writes a checkpoint after the current step; at once while training is paused.
   */
  signals[SIGNAL_SAVE_CHECKPOINT] = g_signal_new_class_handler ("save-checkpoint",
      G_TYPE_FROM_CLASS (klass), G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION,
      G_CALLBACK (gst_flux_train_sink_save_checkpoint), NULL, NULL, NULL, G_TYPE_NONE, 0);

  gst_element_class_set_static_metadata (element_class, "FLUX LoRA trainer",
      "Sink/Tensor/Trainer", "Trains a LoRA on a quantised FLUX.1 model",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &sink_template);
  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_train_sink_change_state);
  element_class->send_event = GST_DEBUG_FUNCPTR (gst_flux_train_sink_send_event);
  element_class->query = GST_DEBUG_FUNCPTR (gst_flux_train_sink_query);

  sink_class->unlock = GST_DEBUG_FUNCPTR (gst_flux_train_sink_unlock);
  sink_class->unlock_stop = GST_DEBUG_FUNCPTR (gst_flux_train_sink_unlock_stop);
  sink_class->set_caps = GST_DEBUG_FUNCPTR (gst_flux_train_sink_set_caps);
  sink_class->render = GST_DEBUG_FUNCPTR (gst_flux_train_sink_render);
  sink_class->event = GST_DEBUG_FUNCPTR (gst_flux_train_sink_event);
}

static void
gst_flux_train_sink_init (GstFluxTrainSink *self)
{
  gst_flux_train_sink_init_properties (self);
  gst_flux_train_sink_watch_caps (self);
  self->held = g_array_new (FALSE, FALSE, sizeof (GstFluxHeldSample));
  g_array_set_clear_func (self->held, held_clear);
  g_rec_mutex_init (&self->task_lock);
  g_cond_init (&self->unpaused);
  gst_base_sink_set_sync (GST_BASE_SINK (self), FALSE);
  gst_base_sink_set_last_sample_enabled (GST_BASE_SINK (self), FALSE);
  /* A bin hands EOS to its sources only. Without the flag, Ctrl-C under
   * gst-launch-1.0 -e would be without effect once the data's own EOS is held. */
  GST_OBJECT_FLAG_SET (self, GST_ELEMENT_FLAG_SOURCE);
}
