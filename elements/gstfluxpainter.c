/* gstfluxpainter.c: prompts to pictures, for fluxsamplersrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxpainter.h"

#include <string.h>

#include "elements/gstfluxadapters.h"
#include "elements/gstfluxcommon.h"

struct _GstFluxPainter {
  GstElement *element; /* not owned */
  GstFluxPainterFunc may_go_on;
  gpointer data;
  FluxModel *model;
  FluxSampler *sampler;
  GArray *loras;     /* GstFluxAdapter */
  FluxLora *lora;    /* a view of the trainer's, or NULL */
  GHashTable *files; /* hf:// location to path, or NULL; not owned */
  GstFluxProgress progress;
  GstFluxProgress opening; /* what is loaded for a picture */
};

/* ---- adapters ---- */

/* With the model's lock. */
static FluxLora *
load_lora (GstFluxPainter *self, const gchar *path, gboolean strict, GError **error)
{
  const gchar *file =
      self->files != NULL ? g_hash_table_lookup (self->files, path) : NULL;

  return gst_flux_adapter_load (self->element, path, file,
      flux_model_get_config (self->model), flux_model_get_backend (self->model), strict,
      error);
}

/* The adapter that is loaded from this path, which then no longer holds it. */
static FluxLora *
take_loaded (GArray *adapters, const gchar *path)
{
  for (guint i = 0; i < adapters->len; i++) {
    GstFluxAdapter *a = &g_array_index (adapters, GstFluxAdapter, i);

    if (a->lora != NULL && strcmp (a->path, path) == 0)
      return g_steal_pointer (&a->lora);
  }
  return NULL;
}

static gboolean
same_adapters (const GArray *a, const GArray *b)
{
  gboolean same = a->len == b->len;

  for (guint i = 0; same && i < a->len; i++)
    same = strcmp (g_array_index (a, GstFluxAdapter, i).path,
               g_array_index (b, GstFluxAdapter, i).path) == 0;
  return same;
}

/* Loads what is new and gives it to the sampler; takes `list`. With the model's lock. */
static gboolean
change_adapters (GstFluxPainter *self, GArray *list, gboolean strict, GError **error)
{
  g_autoptr (GPtrArray) all = g_ptr_array_new ();
  gboolean ok = TRUE;

  for (guint i = 0; ok && i < list->len; i++) {
    GstFluxAdapter *a = &g_array_index (list, GstFluxAdapter, i);

    a->lora = take_loaded (self->loras, a->path);
    if (a->lora == NULL)
      a->lora = load_lora (self, a->path, strict, error);
    ok = a->lora != NULL;
    g_ptr_array_add (all, a->lora);
  }
  if (!ok)
    g_ptr_array_set_size (all, 0);
  if (self->lora != NULL)
    g_ptr_array_add (all, self->lora);
  ok &= flux_sampler_set_loras (
      self->sampler, (FluxLora *const *)all->pdata, all->len, ok ? error : NULL);
  gst_flux_adapters_free (self->loras);
  self->loras = list;
  return ok;
}

gboolean
gst_flux_painter_set_loras (GstFluxPainter *self, const gchar *loras, gdouble scale,
    gboolean strict, GError **error)
{
  GArray *list = gst_flux_adapters_parse (loras, error);
  gboolean ok = TRUE;

  if (list == NULL)
    return FALSE;
  flux_model_lock (self->model);
  if (same_adapters (list, self->loras)) {
    for (guint i = 0; i < list->len; i++)
      g_array_index (self->loras, GstFluxAdapter, i).scale =
          g_array_index (list, GstFluxAdapter, i).scale;
    gst_flux_adapters_free (list);
  } else {
    ok = change_adapters (self, list, strict, error);
  }
  for (guint i = 0; ok && i < self->loras->len; i++) {
    const GstFluxAdapter *a = &g_array_index (self->loras, GstFluxAdapter, i);

    flux_lora_set_multiplier (a->lora, (float)(a->scale * scale));
  }
  if (self->lora != NULL)
    flux_lora_set_multiplier (self->lora, (float)scale);
  flux_model_unlock (self->model);
  return ok;
}

gboolean
gst_flux_painter_merge_loras (GstFluxPainter *self, const gchar *loras, gdouble scale,
    gboolean strict, GError **error)
{
  g_autoptr (GPtrArray) all = g_ptr_array_new ();
  gboolean ok = gst_flux_painter_set_loras (self, loras, scale, strict, error);

  if (!ok)
    return FALSE;
  for (guint i = 0; i < self->loras->len; i++)
    g_ptr_array_add (all, g_array_index (self->loras, GstFluxAdapter, i).lora);
  flux_model_lock (self->model);
  ok = flux_transformer_merge (flux_model_get_transformer (self->model),
           (FluxLora *const *)all->pdata, all->len, error) &&
       flux_sampler_set_loras (self->sampler, NULL, 0, error);
  if (ok) { /* they are in the weights now */
    gst_flux_adapters_free (self->loras);
    self->loras = gst_flux_adapters_parse (NULL, NULL);
  }
  flux_model_unlock (self->model);
  return ok;
}

/* ---- life ---- */

static GstFluxPainter *
painter_new (GstElement *element, GstFluxPainterFunc may_go_on, gpointer data)
{
  GstFluxPainter *self = g_new0 (GstFluxPainter, 1);

  self->element = element;
  self->may_go_on = may_go_on;
  self->data = data;
  self->loras = gst_flux_adapters_parse (NULL, NULL);
  return self;
}

static gboolean
open_progress (const char *what, gint percent, gpointer data)
{
  GstFluxPainter *self = data;

  return self->may_go_on (self->data) &&
         gst_flux_progress_update (what, percent, &self->progress);
}

/* Of text encoders, and of a transformer that takes turns with them and the VAE. */
static gboolean
load_progress (const char *what, gint percent, gpointer data)
{
  GstFluxPainter *self = data;
  gboolean ok = self->may_go_on (self->data) &&
                gst_flux_progress_update (what, percent, &self->opening);

  if (ok && percent >= 100)
    gst_flux_progress_end (&self->opening, what, NULL);
  return ok;
}

GstFluxPainter *
gst_flux_painter_new (GstElement *element, const FluxModelKey *key, fx_qtype text_qtype,
    gboolean own, GstFluxPainterFunc may_go_on, gpointer data, GError **error)
{
  GstFluxPainter *self = painter_new (element, may_go_on, data);
  FluxModelKey told = *key;
  GError *failure = NULL, *fallback = NULL;

  told.fallback = &fallback;
  gst_flux_progress_init (&self->progress, element, "open", NULL);
  self->model =
      (own ? flux_model_load : flux_model_acquire) (&told, open_progress, self, &failure);
  if (self->model != NULL)
    gst_flux_tell_device (
        element, flux_model_get_backend (self->model), g_steal_pointer (&fallback));
  g_clear_error (&fallback);
  if (self->model != NULL)
    self->sampler = flux_sampler_new (self->model, key->path, text_qtype, &failure);
  gst_flux_progress_end (&self->progress, "model", failure);
  if (failure == NULL) {
    flux_sampler_set_cache (self->sampler, key->cache);
    flux_sampler_set_progress (self->sampler, load_progress, self);
    return self;
  }
  g_propagate_error (error, failure);
  gst_flux_painter_free (self);
  return NULL;
}

GstFluxPainter *
gst_flux_painter_new_shared (GstElement *element, FluxModel *model, const gchar *dir,
    fx_qtype text_qtype, FluxWeightsCache *cache, FluxLora *lora,
    GstFluxPainterFunc may_go_on, gpointer data, GError **error)
{
  GstFluxPainter *self = painter_new (element, may_go_on, data);

  self->model = flux_model_ref (model);
  self->lora = flux_lora_new_view (lora);
  self->sampler = flux_sampler_new (model, dir, text_qtype, error);
  if (self->sampler != NULL &&
      flux_sampler_set_loras (self->sampler, &self->lora, 1, error)) {
    flux_sampler_set_cache (self->sampler, cache);
    flux_sampler_set_progress (self->sampler, load_progress, self);
    return self;
  }
  gst_flux_painter_free (self);
  return NULL;
}

void
gst_flux_painter_set_files (GstFluxPainter *self, GHashTable *files)
{
  self->files = files;
}

void
gst_flux_painter_free (GstFluxPainter *self)
{
  g_clear_pointer (&self->sampler, flux_sampler_free);
  flux_lora_free (self->lora);
  /* The adapters' memory is the backend's. */
  if (self->model != NULL)
    flux_model_lock (self->model);
  gst_flux_adapters_free (self->loras);
  if (self->model != NULL) {
    flux_model_unlock (self->model);
    flux_model_unref (self->model);
  }
  g_free (self);
}

static gboolean
step_done (int step, int steps, gpointer data)
{
  GstFluxPainter *self = data;
  gchar *text = g_strdup_printf ("step %d of %d", step, steps);
  gboolean ok = self->may_go_on (self->data) &&
                gst_flux_progress_update (text, 100 * step / steps, &self->progress);

  g_free (text);
  return ok;
}

gboolean
gst_flux_painter_paint (GstFluxPainter *self, const FluxSampleRequest *request,
    guint8 *rgb, gint stride, gboolean keep_lock, GError **error)
{
  GError *failure = NULL;

  gst_flux_progress_init (&self->opening, self->element, "open", NULL);
  gst_flux_progress_init (&self->progress, self->element, "sample", NULL);
  flux_sampler_run (
      self->sampler, request, rgb, stride, keep_lock, step_done, self, &failure);
  gst_flux_progress_end (&self->opening, "model", failure);
  gst_flux_progress_end (&self->progress, "picture", failure);
  if (failure == NULL)
    return TRUE;
  g_propagate_error (error, failure);
  return FALSE;
}
