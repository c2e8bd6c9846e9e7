/* gstfluxcontext.h: how a preview finds the trainer of its pipeline.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A GstContext "gst.flux.model" holds a GstFluxShared: the list of the trainings of one
 * pipeline, whose branches need not be linked. Whichever of fluxtrainsink and
 * fluxsamplersrc comes to READY first makes it and posts HAVE_CONTEXT; the others get it
 * from their bin by NEED_CONTEXT.
 *
 * A training offers each of its steps, with the resident model and the adapter. A preview
 * takes the first one offered and then every one that is a multiple of its every-steps,
 * and the training waits for it: a picture is of exactly that step, and what is learnt
 * does not depend on who looks. */
#pragma once

#include <gst/gst.h>

#include "flux/model.h"
#include "flux/vae/vae.h"

G_BEGIN_DECLS

#define GST_FLUX_CONTEXT_TYPE "gst.flux.model"

typedef struct _GstFluxShared GstFluxShared;
typedef struct _GstFluxTraining GstFluxTraining;
typedef struct _GstFluxPreview GstFluxPreview;

/* Boxed, reference counted. */
#define GST_TYPE_FLUX_SHARED (gst_flux_shared_get_type ())
GType gst_flux_shared_get_type (void);
GstFluxShared *gst_flux_shared_ref (GstFluxShared *self);
void gst_flux_shared_unref (GstFluxShared *self);
/* That of element's pipeline, made when there is none. */
GstFluxShared *gst_flux_shared_get (GstElement *element);

/* ---- the trainer's side ---- */

/* name: the element's; vae: of its model, zeros when it is not known yet. */
GstFluxTraining *
gst_flux_training_new (GstFluxShared *shared, const gchar *name, const FluxVaeInfo *vae);
void gst_flux_training_set_vae (GstFluxTraining *self, const FluxVaeInfo *vae);
void gst_flux_training_free (GstFluxTraining *self);
/* Before a run: previews that attach now wait for it. */
void gst_flux_training_reset (GstFluxTraining *self);
/* Somebody wants the pictures that previews make; from their threads, while the training
 * waits. Set it while no preview is attached; NULL: nobody. */
typedef void (*GstFluxPictureFunc) (guint64 step, const gchar *prompt, const guint8 *rgb,
    guint width, guint height, guint stride, gpointer data);
void gst_flux_training_set_picture_func (
    GstFluxTraining *self, GstFluxPictureFunc func, gpointer data);
/* Somebody will look at this training. */
gboolean gst_flux_training_has_preview (GstFluxTraining *self);
/* model_path: as the trainer's property says; lora: valid until end. */
void gst_flux_training_begin (GstFluxTraining *self, FluxModel *model,
    const gchar *model_path, fx_qtype qtype, FluxLora *lora);
/* Step `step` is done (0: before the first). TRUE while a preview wants a picture of it:
 * after waiting for up to a tenth of a second; ask again. */
gboolean gst_flux_training_offer (GstFluxTraining *self, guint64 step);
/* Previews get EOS; returns when none uses the adapter any more. */
void gst_flux_training_end (GstFluxTraining *self);

/* ---- the sampler's side ---- */

typedef struct {
  guint64 step;
  FluxModel *model; /* valid between wait and done */
  const gchar *model_path;
  fx_qtype qtype;
  FluxLora *lora;
} GstFluxOffer;

/* From READY on, so that a training knows in PAUSED that somebody will look. trainer: an
 * element's name; NULL: the only one. */
GstFluxPreview *
gst_flux_preview_new (GstFluxShared *shared, const gchar *trainer, guint64 every_steps);
void gst_flux_preview_free (GstFluxPreview *self);
/* PAUSED and above. An error when there is no such training. */
gboolean gst_flux_preview_attach (GstFluxPreview *self, GError **error);
void gst_flux_preview_detach (GstFluxPreview *self);
/* Of the trainer's model; zeros when the trainer is gone or does not know yet. */
void gst_flux_preview_get_vae (GstFluxPreview *self, FluxVaeInfo *vae);
/* GST_FLOW_OK: offer is filled, call done. GST_FLOW_EOS: the training has ended.
 * GST_FLOW_FLUSHING: somebody called set_flushing. */
GstFlowReturn gst_flux_preview_wait (GstFluxPreview *self, GstFluxOffer *offer);
/* Between wait and done: hands a picture of the offer, [height, stride] of RGB, to whom
 * the trainer chose. */
void gst_flux_preview_show (GstFluxPreview *self, const gchar *prompt, const guint8 *rgb,
    guint width, guint height, guint stride);
/* taken: there is a picture, or there will never be one of this step. */
void gst_flux_preview_done (GstFluxPreview *self, gboolean taken);
/* FALSE: give up the picture. */
gboolean gst_flux_preview_may_go_on (GstFluxPreview *self);
void gst_flux_preview_set_flushing (GstFluxPreview *self, gboolean flushing);
/* No more pictures are wanted (downstream had enough): the training goes on alone. */
void gst_flux_preview_retire (GstFluxPreview *self);

G_END_DECLS
