/* gstfluxcontext.c: how a preview finds the trainer of its pipeline.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxcontext.h"

#include "flux/error.h"

/* How long a training waits before it looks whether it has to pause or to stop. */
#define WAIT_SLICE (G_TIME_SPAN_SECOND / 10)

struct _GstFluxShared {
  gatomicrefcount ref_count;
  GMutex lock;
  GCond cond;
  GList *trainings, *previews; /* borrowed */
};

struct _GstFluxTraining {
  GstFluxShared *shared;
  gchar *name;
  FluxVaeInfo vae;
  /* the shared lock: */
  gboolean begun, ended, has_offer;
  GstFluxOffer offer;
  gchar *model_path;
  GstFluxPictureFunc picture;
  gpointer picture_data;
};

struct _GstFluxPreview {
  GstFluxShared *shared;
  gchar *trainer; /* or NULL */
  guint64 every_steps;
  /* the shared lock: */
  GstFluxTraining *training; /* NULL when not attached, or once it is gone */
  gboolean has_taken, busy, flushing, retired;
  guint64 taken; /* the last step of which there is a picture */
};

/* gst-launch-1.0 prints each context, and GStreamer warns of values without a text. */
static void
shared_to_string (const GValue *shared, GValue *string)
{
  g_value_take_string (string, g_strdup_printf ("%p", g_value_get_boxed (shared)));
}

G_DEFINE_BOXED_TYPE_WITH_CODE (GstFluxShared, gst_flux_shared, gst_flux_shared_ref,
    gst_flux_shared_unref,
    g_value_register_transform_func (g_define_type_id, G_TYPE_STRING, shared_to_string))

static GstFluxShared *
shared_new (void)
{
  GstFluxShared *self = g_new0 (GstFluxShared, 1);

  g_atomic_ref_count_init (&self->ref_count);
  g_mutex_init (&self->lock);
  g_cond_init (&self->cond);
  return self;
}

GstFluxShared *
gst_flux_shared_ref (GstFluxShared *self)
{
  g_atomic_ref_count_inc (&self->ref_count);
  return self;
}

void
gst_flux_shared_unref (GstFluxShared *self)
{
  if (!g_atomic_ref_count_dec (&self->ref_count))
    return;
  g_mutex_clear (&self->lock);
  g_cond_clear (&self->cond);
  g_free (self);
}

static GstFluxShared *
shared_from_element (GstElement *element)
{
  GstContext *context = gst_element_get_context (element, GST_FLUX_CONTEXT_TYPE);
  GstFluxShared *self = NULL;

  if (context == NULL)
    return NULL;
  gst_structure_get (
      gst_context_get_structure (context), "shared", GST_TYPE_FLUX_SHARED, &self, NULL);
  gst_context_unref (context);
  return self;
}

GstFluxShared *
gst_flux_shared_get (GstElement *element)
{
  GstFluxShared *self = shared_from_element (element);
  GstContext *context;

  if (self != NULL)
    return self;
  gst_element_post_message (element,
      gst_message_new_need_context (GST_OBJECT (element), GST_FLUX_CONTEXT_TYPE));
  self = shared_from_element (element);
  if (self != NULL)
    return self;
  self = shared_new ();
  context = gst_context_new (GST_FLUX_CONTEXT_TYPE, TRUE);
  gst_structure_set (gst_context_writable_structure (context), "shared",
      GST_TYPE_FLUX_SHARED, self, NULL);
  gst_element_set_context (element, context);
  gst_element_post_message (
      element, gst_message_new_have_context (GST_OBJECT (element), context));
  return self;
}

/* ---- the trainer's side ---- */

GstFluxTraining *
gst_flux_training_new (GstFluxShared *shared, const gchar *name, const FluxVaeInfo *vae)
{
  GstFluxTraining *self = g_new0 (GstFluxTraining, 1);

  self->shared = gst_flux_shared_ref (shared);
  self->name = g_strdup (name);
  self->vae = *vae;
  g_mutex_lock (&shared->lock);
  shared->trainings = g_list_append (shared->trainings, self);
  g_mutex_unlock (&shared->lock);
  return self;
}

void
gst_flux_training_set_vae (GstFluxTraining *self, const FluxVaeInfo *vae)
{
  g_mutex_lock (&self->shared->lock);
  self->vae = *vae;
  g_mutex_unlock (&self->shared->lock);
}

void
gst_flux_training_free (GstFluxTraining *self)
{
  GstFluxShared *shared = self->shared;

  gst_flux_training_end (self);
  g_mutex_lock (&shared->lock);
  shared->trainings = g_list_remove (shared->trainings, self);
  for (GList *l = shared->previews; l != NULL; l = l->next) {
    GstFluxPreview *p = l->data;

    if (p->training == self)
      p->training = NULL;
  }
  g_cond_broadcast (&shared->cond);
  g_mutex_unlock (&shared->lock);
  gst_flux_shared_unref (shared);
  g_free (self->name);
  g_free (self);
}

void
gst_flux_training_reset (GstFluxTraining *self)
{
  g_mutex_lock (&self->shared->lock);
  self->begun = self->ended = self->has_offer = FALSE;
  g_mutex_unlock (&self->shared->lock);
}

void
gst_flux_training_set_picture_func (
    GstFluxTraining *self, GstFluxPictureFunc func, gpointer data)
{
  g_mutex_lock (&self->shared->lock);
  self->picture = func;
  self->picture_data = data;
  g_mutex_unlock (&self->shared->lock);
}

gboolean
gst_flux_training_has_preview (GstFluxTraining *self)
{
  gboolean has = FALSE;

  g_mutex_lock (&self->shared->lock);
  for (GList *l = self->shared->previews; l != NULL; l = l->next) {
    const GstFluxPreview *p = l->data;

    has |= p->trainer == NULL || strcmp (p->trainer, self->name) == 0;
  }
  g_mutex_unlock (&self->shared->lock);
  return has;
}

void
gst_flux_training_begin (GstFluxTraining *self, FluxModel *model, const gchar *model_path,
    fx_qtype qtype, FluxLora *lora)
{
  g_mutex_lock (&self->shared->lock);
  g_free (self->model_path);
  self->model_path = g_strdup (model_path);
  self->offer.model = flux_model_ref (model);
  self->offer.model_path = self->model_path;
  self->offer.qtype = qtype;
  self->offer.lora = lora;
  self->begun = TRUE;
  self->has_offer = FALSE;
  g_mutex_unlock (&self->shared->lock);
}

/* With the lock: the step on offer is one that p still has to take. */
static gboolean
wants (const GstFluxPreview *p, const GstFluxTraining *t)
{
  if (p->training != t || p->retired || !t->begun || t->ended || !t->has_offer)
    return FALSE;
  if (!p->has_taken)
    return TRUE;
  return p->taken != t->offer.step && t->offer.step % p->every_steps == 0;
}

static gboolean
is_wanted (const GstFluxTraining *self)
{
  for (GList *l = self->shared->previews; l != NULL; l = l->next)
    if (wants (l->data, self))
      return TRUE;
  return FALSE;
}

gboolean
gst_flux_training_offer (GstFluxTraining *self, guint64 step)
{
  gboolean wanted;

  g_mutex_lock (&self->shared->lock);
  self->offer.step = step;
  self->has_offer = TRUE;
  wanted = is_wanted (self);
  if (wanted) {
    g_cond_broadcast (&self->shared->cond);
    g_cond_wait_until (
        &self->shared->cond, &self->shared->lock, g_get_monotonic_time () + WAIT_SLICE);
    wanted = is_wanted (self);
  }
  g_mutex_unlock (&self->shared->lock);
  return wanted;
}

static gboolean
is_used (const GstFluxTraining *self)
{
  for (GList *l = self->shared->previews; l != NULL; l = l->next) {
    GstFluxPreview *p = l->data;

    if (p->training == self && p->busy)
      return TRUE;
  }
  return FALSE;
}

void
gst_flux_training_end (GstFluxTraining *self)
{
  FluxModel *model;

  g_mutex_lock (&self->shared->lock);
  self->ended = TRUE;
  g_cond_broadcast (&self->shared->cond);
  while (is_used (self))
    g_cond_wait (&self->shared->cond, &self->shared->lock);
  model = self->offer.model;
  memset (&self->offer, 0, sizeof self->offer);
  g_clear_pointer (&self->model_path, g_free);
  g_mutex_unlock (&self->shared->lock);
  if (model != NULL)
    flux_model_unref (model);
}

/* ---- the sampler's side ---- */

/* With the lock. */
static GstFluxTraining *
find_training (GstFluxShared *shared, const gchar *trainer, GError **error)
{
  GList *found = shared->trainings;

  if (trainer != NULL) {
    while (found != NULL && strcmp (((GstFluxTraining *)found->data)->name, trainer) != 0)
      found = found->next;
    if (found == NULL)
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "There is no fluxtrainsink named '%s' in this pipeline to show previews of.",
          trainer);
  } else if (found == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "every-steps shows previews of a fluxtrainsink, and there is none in this "
        "pipeline.");
  } else if (found->next != NULL) {
    found = NULL;
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "There is more than one fluxtrainsink in this pipeline: say by trainer=NAME "
        "which one to show previews of.");
  }
  return found != NULL ? found->data : NULL;
}

GstFluxPreview *
gst_flux_preview_new (GstFluxShared *shared, const gchar *trainer, guint64 every_steps)
{
  GstFluxPreview *self = g_new0 (GstFluxPreview, 1);

  self->shared = gst_flux_shared_ref (shared);
  self->trainer = g_strdup (trainer);
  self->every_steps = every_steps;
  g_mutex_lock (&shared->lock);
  shared->previews = g_list_append (shared->previews, self);
  g_mutex_unlock (&shared->lock);
  return self;
}

void
gst_flux_preview_free (GstFluxPreview *self)
{
  GstFluxShared *shared = self->shared;

  g_mutex_lock (&shared->lock);
  shared->previews = g_list_remove (shared->previews, self);
  g_cond_broadcast (&shared->cond);
  g_mutex_unlock (&shared->lock);
  gst_flux_shared_unref (shared);
  g_free (self->trainer);
  g_free (self);
}

gboolean
gst_flux_preview_attach (GstFluxPreview *self, GError **error)
{
  gboolean ok;

  g_mutex_lock (&self->shared->lock);
  self->training = find_training (self->shared, self->trainer, error);
  self->has_taken = self->busy = self->flushing = self->retired = FALSE;
  ok = self->training != NULL;
  g_mutex_unlock (&self->shared->lock);
  return ok;
}

void
gst_flux_preview_detach (GstFluxPreview *self)
{
  g_mutex_lock (&self->shared->lock);
  self->training = NULL;
  g_cond_broadcast (&self->shared->cond);
  g_mutex_unlock (&self->shared->lock);
}

void
gst_flux_preview_get_vae (GstFluxPreview *self, FluxVaeInfo *vae)
{
  memset (vae, 0, sizeof *vae);
  g_mutex_lock (&self->shared->lock);
  if (self->training != NULL)
    *vae = self->training->vae;
  g_mutex_unlock (&self->shared->lock);
}

GstFlowReturn
gst_flux_preview_wait (GstFluxPreview *self, GstFluxOffer *offer)
{
  GstFlowReturn ret;

  g_mutex_lock (&self->shared->lock);
  while (!self->flushing && self->training != NULL && !self->training->ended &&
         !wants (self, self->training))
    g_cond_wait (&self->shared->cond, &self->shared->lock);
  if (self->flushing) {
    ret = GST_FLOW_FLUSHING;
  } else if (self->training == NULL || self->training->ended) {
    ret = GST_FLOW_EOS;
  } else {
    *offer = self->training->offer;
    self->busy = TRUE;
    ret = GST_FLOW_OK;
  }
  g_mutex_unlock (&self->shared->lock);
  return ret;
}

void
gst_flux_preview_show (GstFluxPreview *self, const gchar *prompt, const guint8 *rgb,
    guint width, guint height, guint stride)
{
  GstFluxPictureFunc func = NULL;
  gpointer data = NULL;
  guint64 step = 0;

  g_mutex_lock (&self->shared->lock);
  if (self->training != NULL) {
    func = self->training->picture;
    data = self->training->picture_data;
    step = self->training->offer.step;
  }
  g_mutex_unlock (&self->shared->lock);
  /* The training does not end while this preview is busy. */
  if (func != NULL)
    func (step, prompt, rgb, width, height, stride, data);
}

void
gst_flux_preview_done (GstFluxPreview *self, gboolean taken)
{
  g_mutex_lock (&self->shared->lock);
  self->busy = FALSE;
  if (taken && self->training != NULL) {
    self->has_taken = TRUE;
    self->taken = self->training->offer.step;
  }
  g_cond_broadcast (&self->shared->cond);
  g_mutex_unlock (&self->shared->lock);
}

gboolean
gst_flux_preview_may_go_on (GstFluxPreview *self)
{
  gboolean ok;

  g_mutex_lock (&self->shared->lock);
  ok = !self->flushing && self->training != NULL && !self->training->ended;
  g_mutex_unlock (&self->shared->lock);
  return ok;
}

void
gst_flux_preview_set_flushing (GstFluxPreview *self, gboolean flushing)
{
  g_mutex_lock (&self->shared->lock);
  self->flushing = flushing;
  g_cond_broadcast (&self->shared->cond);
  g_mutex_unlock (&self->shared->lock);
}

void
gst_flux_preview_retire (GstFluxPreview *self)
{
  g_mutex_lock (&self->shared->lock);
  self->retired = TRUE;
  g_cond_broadcast (&self->shared->cond);
  g_mutex_unlock (&self->shared->lock);
}
