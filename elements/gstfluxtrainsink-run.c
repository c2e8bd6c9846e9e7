/* gstfluxtrainsink-run.c: the two running designs: when a step is due.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * T, one-shot: samples are held; so is the EOS event, while an own task trains. The
 * streaming thread is never blocked at EOS (a second Ctrl-C would kill gst-launch-1.0 -e
 * with nothing saved), and the base class makes the EOS message when the event is handed
 * to it at last.
 *
 * R, stream: a step in render(), as soon as a window is full; GST_FLOW_EOS at max-steps.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxtrainsink-private.h"

#define GST_CAT_DEFAULT gst_flux_train_sink_debug

static gboolean
is_task (GstFluxTrainSink *self)
{
  return self->eos != NULL;
}

gboolean
gst_flux_train_sink_may_go_on (GstFluxTrainSink *self)
{
  GstBaseSink *base = GST_BASE_SINK (self);
  gboolean ok;

  if (g_atomic_int_get (&self->stopping))
    return FALSE;
  if (!is_task (self)) {
    /* In render(), with the PREROLL_LOCK, which whoever pauses or flushes waits for. */
    return !g_atomic_int_get (&self->unlocked) ||
           gst_base_sink_wait_preroll (base) == GST_FLOW_OK;
  }
  GST_BASE_SINK_PREROLL_LOCK (base);
  ok = !base->flushing &&
       gst_base_sink_do_preroll (base, GST_MINI_OBJECT (self->eos)) == GST_FLOW_OK &&
       !base->flushing;
  GST_BASE_SINK_PREROLL_UNLOCK (base);
  return ok;
}

static gboolean
cancelled (GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED, "stopped");
  return FALSE;
}

/* Lets previews look at the step that was done last, or at step 0. */
static gboolean
show (GstFluxTrainSink *self, GError **error)
{
  guint64 step = gst_flux_train_sink_get_step (self);

  while (
      gst_flux_training_offer (self->training, step) && !g_atomic_int_get (&self->finish))
    if (!gst_flux_train_sink_may_go_on (self))
      return cancelled (error);
  return gst_flux_train_sink_may_go_on (self) || cancelled (error);
}

/* TRUE when there is nothing (more) to do: the steps are done, or EOS was sent to us. */
static gboolean
is_done (GstFluxTrainSink *self)
{
  return g_atomic_int_get (&self->finish) ||
         gst_flux_train_sink_get_step (self) >= gst_flux_train_sink_get_max_steps (self);
}

/* While paused is set, for a tenth of a second at most: ask again. */
static gboolean
is_paused (GstFluxTrainSink *self)
{
  gboolean paused;

  GST_OBJECT_LOCK (self);
  if (self->paused)
    g_cond_wait_until (&self->unpaused, GST_OBJECT_GET_LOCK (self),
        g_get_monotonic_time () + G_TIME_SPAN_SECOND / 10);
  paused = self->paused;
  GST_OBJECT_UNLOCK (self);
  return paused;
}

/* Before a step. */
static gboolean
rest (GstFluxTrainSink *self, GError **error)
{
  gboolean rests = FALSE;

  while (!g_atomic_int_get (&self->finish) && is_paused (self)) {
    if (!rests)
      gst_flux_train_sink_tell_paused (self, TRUE);
    rests = TRUE;
    gst_flux_train_sink_save_if_asked (self);
    if (!gst_flux_train_sink_may_go_on (self))
      return cancelled (error);
  }
  if (rests)
    gst_flux_train_sink_tell_paused (self, FALSE);
  return TRUE;
}

static gboolean
conclude (GstFluxTrainSink *self, GError **error)
{
  if (!gst_flux_train_sink_finish (self, error) ||
      !gst_flux_train_sink_push (self, error))
    return FALSE;
  gst_flux_training_end (self->training);
  gst_flux_train_sink_set_state (self, STATE_FINISHED);
  return TRUE;
}

/* Opens what is not open. Somebody who has had enough does not wait for it: then it is
 * TRUE too, and the caller is done. */
static gboolean
open_or_finish (GstFluxTrainSink *self, GError **error)
{
  GError *failure = NULL;

  if (gst_flux_train_sink_open (self, &failure))
    return TRUE;
  if (g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_CANCELLED) &&
      g_atomic_int_get (&self->finish) && !g_atomic_int_get (&self->stopping)) {
    g_error_free (failure);
    return TRUE;
  }
  g_propagate_error (error, failure);
  return FALSE;
}

/* due: a step can be done. */
static gboolean
get_ready (GstFluxTrainSink *self, gboolean *due, GError **error)
{
  *due = FALSE;
  if (!open_or_finish (self, error))
    return FALSE;
  if (self->trainer == NULL)
    return TRUE;
  if (!show (self, error))
    return FALSE;
  if (is_done (self))
    return TRUE;
  if (!rest (self, error))
    return FALSE;
  *due = !is_done (self);
  return TRUE;
}

/* ---- T ---- */

/* The order in which samples came is not part of the result: they are sorted by content,
 * then permuted anew each epoch. */
static gint
compare_held (gconstpointer a, gconstpointer b)
{
  const FluxSample *x = ((const GstFluxHeldSample *)a)->sample;
  const FluxSample *y = ((const GstFluxHeldSample *)b)->sample;
  gint order = g_strcmp0 (x->key, y->key);

  if (order == 0)
    order = g_strcmp0 (x->caption, y->caption);
  return order != 0 ? order : g_bytes_compare (x->moments, y->moments);
}

/* Step s trains on window s % W of epoch s / W, where W windows of `accumulate` samples
 * make an epoch; the last one may be short. So the step alone says where in the data a
 * resumed run goes on. */
static gboolean
train_window (GstFluxTrainSink *self, GError **error)
{
  guint n = self->held->len, accumulate = self->train.accumulate;
  guint n_windows = (n + accumulate - 1) / accumulate;
  guint64 step = flux_trainer_get_step (self->trainer);
  guint first = (guint)(step % n_windows) * accumulate;
  guint count = MIN (accumulate, n - first);
  g_autofree guint32 *order = g_new (guint32, n);
  g_autofree FluxSample **samples = g_new (FluxSample *, count);

  self->epoch = (guint)(step / n_windows);
  flux_train_permutation (flux_trainer_get_seed (self->trainer), self->epoch, n, order);
  for (guint i = 0; i < count; i++)
    samples[i] = g_array_index (self->held, GstFluxHeldSample, order[first + i]).sample;
  return gst_flux_train_sink_step (self, samples, count, error);
}

static void
forward_eos (GstFluxTrainSink *self)
{
  GstBaseSink *base = GST_BASE_SINK (self);
  GstBaseSinkClass *parent = g_type_class_peek (GST_TYPE_BASE_SINK);
  GstEvent *eos;

  GST_BASE_SINK_PREROLL_LOCK (base);
  if (!base->flushing) {
    eos = g_steal_pointer (&self->eos);
    parent->event (base, eos);
  }
  GST_BASE_SINK_PREROLL_UNLOCK (base);
}

/* Opens what is not open, and does a step; more: there is another one to do. */
static gboolean
advance (GstFluxTrainSink *self, gboolean *more, GError **error)
{
  gboolean due;

  *more = FALSE;
  if (is_done (self))
    return TRUE;
  if (!get_ready (self, &due, error))
    return FALSE;
  if (!due)
    return TRUE;
  if (!train_window (self, error))
    return FALSE;
  *more = !is_done (self);
  return *more || show (self, error);
}

/* Called again and again until it stops itself. */
static void
run_task (gpointer data)
{
  GstFluxTrainSink *self = data;
  gboolean more = FALSE;
  GError *error = NULL;

  if (gst_flux_train_sink_may_go_on (self)) {
    if (advance (self, &more, &error) && more)
      return;
    if (error == NULL && conclude (self, &error))
      forward_eos (self);
    if (error != NULL)
      gst_flux_train_sink_fail (self, error);
  }
  gst_task_stop (self->task);
}

static void
start_task (GstFluxTrainSink *self, GstEvent *eos)
{
  if (self->task == NULL) {
    self->task = gst_task_new (run_task, self, NULL);
    gst_task_set_lock (self->task, &self->task_lock);
  }
  GST_INFO_OBJECT (self, "EOS is held: training on %u samples", self->held->len);
  g_array_sort (self->held, compare_held);
  self->eos = eos;
  gst_task_start (self->task);
}

void
gst_flux_train_sink_clear_run (GstFluxTrainSink *self)
{
  if (self->task != NULL) {
    gst_task_stop (self->task);
    gst_task_join (self->task);
    gst_clear_object (&self->task);
  }
  g_array_set_size (self->held, 0);
  gst_clear_event (&self->eos);
}

/* ---- R ---- */

/* Samples of the next window at the front of held, 0 when it is not full. A window ends
 * with its epoch, as the reference's does. */
static guint
count_window (GstFluxTrainSink *self, gboolean at_end)
{
  guint n = 0, accumulate = self->train.accumulate;
  const GstFluxHeldSample *held = (const GstFluxHeldSample *)self->held->data;

  while (n < accumulate && n < self->held->len && held[n].epoch == held[0].epoch)
    n++;
  return n == accumulate || n < self->held->len || at_end ? n : 0;
}

static gboolean
train_front (GstFluxTrainSink *self, guint n, GError **error)
{
  g_autofree FluxSample **samples = g_new (FluxSample *, n);
  gboolean due;

  if (!get_ready (self, &due, error))
    return FALSE;
  if (!due)
    return TRUE;
  for (guint i = 0; i < n; i++)
    samples[i] = g_array_index (self->held, GstFluxHeldSample, i).sample;
  self->epoch = g_array_index (self->held, GstFluxHeldSample, 0).epoch;
  if (!gst_flux_train_sink_step (self, samples, n, error))
    return FALSE;
  g_array_remove_range (self->held, 0, n);
  return !is_done (self) || show (self, error);
}

/* Trains on all full windows. GST_FLOW_EOS: done and saved. */
static GstFlowReturn
train_held (GstFluxTrainSink *self, gboolean at_end)
{
  GError *error = NULL;
  guint n;

  while (!is_done (self) && (n = count_window (self, at_end)) > 0)
    if (!gst_flux_train_sink_may_go_on (self) || !train_front (self, n, &error))
      break;
  if (error == NULL && g_atomic_int_get (&self->stopping))
    return GST_FLOW_FLUSHING;
  if (error == NULL && (is_done (self) || at_end) && conclude (self, &error))
    return GST_FLOW_EOS;
  if (error == NULL)
    return GST_BASE_SINK (self)->flushing ? GST_FLOW_FLUSHING : GST_FLOW_OK;
  if (g_error_matches (error, FLUX_ERROR, FLUX_ERROR_CANCELLED)) {
    g_error_free (error);
    return GST_FLOW_FLUSHING;
  }
  gst_flux_train_sink_fail (self, error);
  return GST_FLOW_ERROR;
}

GstFlowReturn
gst_flux_train_sink_sample_came (GstFluxTrainSink *self)
{
  const GstFluxHeldSample *held = (const GstFluxHeldSample *)self->held->data;

  if (!self->streaming && self->mode == MODE_AUTO &&
      held[self->held->len - 1].epoch > held[0].epoch) {
    GST_INFO_OBJECT (self, "the stream starts over: training as it comes");
    self->streaming = TRUE;
  }
  if (self->streaming)
    return train_held (self, FALSE);
  /* Nobody trains on what is still to come. */
  return g_atomic_int_get (&self->finish) ? GST_FLOW_EOS : GST_FLOW_OK;
}

/* ---- both ---- */

static gboolean
chain_eos (GstFluxTrainSink *self, GstEvent *event)
{
  GstBaseSinkClass *parent = g_type_class_peek (GST_TYPE_BASE_SINK);

  return parent->event (GST_BASE_SINK (self), event);
}

gboolean
gst_flux_train_sink_eos_came (GstFluxTrainSink *self, GstEvent *event)
{
  GError *error = NULL;

  if (self->state == STATE_FINISHED || self->state == STATE_FAILED)
    return chain_eos (self, event);
  if (g_atomic_int_get (&self->finish)) {
    if (conclude (self, &error))
      return chain_eos (self, event);
  } else if (self->streaming) {
    GstFlowReturn ret = train_held (self, TRUE);

    if (ret == GST_FLOW_EOS)
      return chain_eos (self, event);
  } else if (self->held->len > 0) {
    start_task (self, event);
    return TRUE;
  } else {
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "No sample came: there is nothing to train on.");
  }
  if (error != NULL)
    gst_flux_train_sink_fail (self, error);
  gst_event_unref (event);
  return FALSE;
}
