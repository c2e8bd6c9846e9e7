/* gstfluxtrainsink-meter.c: a loss that can be compared, before and after.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxtrainsink-private.h"

static gboolean
read_and_post (GstFluxTrainSink *self, GError **error)
{
  double loss = 0;
  gboolean ok;

  flux_model_lock (self->base);
  ok = flux_meter_read (self->meter, self->trainer, &loss, error);
  flux_model_unlock (self->base);
  if (!ok)
    return FALSE;
  gst_flux_train_sink_report_paired_loss (
      self, flux_trainer_get_step (self->trainer), loss);
  gst_flux_train_sink_note_paired_loss (
      self, flux_trainer_get_step (self->trainer), loss);
  gst_element_post_message (GST_ELEMENT (self),
      gst_message_new_element (GST_OBJECT (self),
          gst_structure_new ("flux-meter", "step", G_TYPE_UINT64,
              flux_trainer_get_step (self->trainer), "loss", G_TYPE_DOUBLE, loss,
              "triples", G_TYPE_UINT, flux_meter_get_n_triples (self->meter), NULL)));
  return TRUE;
}

/* A stream has no fixed set of samples to measure on. */
gboolean
gst_flux_train_sink_start_meter (GstFluxTrainSink *self, GError **error)
{
  g_autofree FluxSample **samples = g_new (FluxSample *, self->held->len);
  FluxTrainConfig config = self->train;

  if (self->meter_triples == 0 || self->streaming || self->held->len == 0)
    return TRUE;
  for (guint i = 0; i < self->held->len; i++)
    samples[i] = g_array_index (self->held, GstFluxHeldSample, i).sample;
  config.vae_scaling = self->vae.scaling_factor;
  config.vae_shift = self->vae.shift_factor;
  self->meter = flux_meter_new (&config, samples, self->held->len, self->meter_triples);
  return read_and_post (self, error);
}

gboolean
gst_flux_train_sink_end_meter (GstFluxTrainSink *self, GError **error)
{
  gboolean ok = self->meter == NULL || read_and_post (self, error);

  g_clear_pointer (&self->meter, flux_meter_free);
  return ok;
}
