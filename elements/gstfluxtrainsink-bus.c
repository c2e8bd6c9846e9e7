/* gstfluxtrainsink-bus.c: messages of fluxtrainsink. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxtrainsink-private.h"

#define GST_CAT_DEFAULT gst_flux_train_sink_debug

static const gchar *
state_name (GstFluxTrainState state)
{
  GEnumClass *states = g_type_class_peek (gst_flux_train_state_get_type ());

  return g_enum_get_value (states, state)->value_nick;
}

void
gst_flux_train_sink_set_state (GstFluxTrainSink *self, GstFluxTrainState state)
{
  gboolean changed;

  GST_OBJECT_LOCK (self);
  changed = self->state != state;
  self->state = state;
  GST_OBJECT_UNLOCK (self);
  if (!changed)
    return;
  g_object_notify (G_OBJECT (self), "state");
  gst_flux_train_sink_report_state (self, state_name (state));
}

/* Whoever set it may have been a button of the page. */
void
gst_flux_train_sink_tell_paused (GstFluxTrainSink *self, gboolean paused)
{
  g_object_notify (G_OBJECT (self), "paused");
  gst_flux_train_sink_report_state (
      self, paused ? FLUX_REPORT_PAUSED : state_name (self->state));
}

/* The loss in words too, for those who only see gst-launch-1.0's progress lines. */
static void
report_progress (GstFluxTrainSink *self, const FluxStepResult *result, guint64 max_steps)
{
  gchar *text =
      g_strdup_printf ("step %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT ", loss %.4f",
          result->step, max_steps, result->loss);

  gst_flux_progress_update (
      text, (gint)MIN (100, 100 * result->step / max_steps), &self->training_progress);
  g_free (text);
}

void
gst_flux_train_sink_post_step (GstFluxTrainSink *self, const FluxStepResult *result)
{
  guint64 max_steps = gst_flux_train_sink_get_max_steps (self);
  GstStructure *s = gst_structure_new ("flux-step", "step", G_TYPE_UINT64, result->step,
      "max-steps", G_TYPE_UINT64, max_steps, "epoch", G_TYPE_UINT, self->epoch, "loss",
      G_TYPE_DOUBLE, result->loss, "learning-rate", G_TYPE_DOUBLE, result->learning_rate,
      "grad-norm", G_TYPE_DOUBLE, result->grad_norm, "loss-scale", G_TYPE_DOUBLE,
      result->loss_scale, "step-time", G_TYPE_UINT64, self->step_time, NULL);

  GST_OBJECT_LOCK (self);
  self->step = result->step;
  self->loss = result->loss;
  GST_OBJECT_UNLOCK (self);
  GST_LOG_OBJECT (self, "%" GST_PTR_FORMAT, s);
  gst_element_post_message (
      GST_ELEMENT (self), gst_message_new_element (GST_OBJECT (self), s));
  report_progress (self, result, max_steps);
}

void
gst_flux_train_sink_post_checkpoint (
    GstFluxTrainSink *self, const gchar *location, gboolean final)
{
  GstStructure *s = gst_structure_new ("flux-checkpoint", "location", G_TYPE_STRING,
      location, "step", G_TYPE_UINT64, flux_trainer_get_step (self->trainer), "final",
      G_TYPE_BOOLEAN, final, NULL);

  gst_flux_train_sink_report_saved (self, flux_trainer_get_step (self->trainer));
  GST_INFO_OBJECT (self, "%" GST_PTR_FORMAT, s);
  gst_element_post_message (
      GST_ELEMENT (self), gst_message_new_element (GST_OBJECT (self), s));
}
