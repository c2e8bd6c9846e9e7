/* gstfluxpainter.c: prompts to pictures, for fluxsamplersrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxpainter.h"

#include <math.h>

#include "elements/gstfluxcommon.h"

struct _GstFluxPainter {
  GstElement *element; /* not owned */
  GstFluxPainterFunc may_go_on;
  gpointer data;
  FluxModel *model;
  FluxSampler *sampler;
  GPtrArray *loras; /* FluxLora, owned */
  GstFluxProgress progress;
};

/* One of the list: path, and the scale after its last colon when that is a number. A path
 * may have colons itself: what follows the last one is meant as a scale when what stands
 * before it is, or is named as, an adapter, and the whole is no file. */
static gboolean
parse_lora (const gchar *text, gchar **path, gdouble *scale, GError **error)
{
  g_autofree gchar *whole = g_strstrip (g_strdup (text)), *head = NULL;
  const gchar *colon = strrchr (whole, ':');

  *scale = 1;
  if (whole[0] == '\0') {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "loras has an empty entry: write a.safetensors:0.8,b.safetensors.");
    return FALSE;
  }
  if (colon != NULL) {
    gchar *end = NULL;
    gdouble value = g_ascii_strtod (colon + 1, &end);

    head = g_strstrip (g_strndup (whole, colon - whole));
    if (colon[1] != '\0' && *end == '\0' && isfinite (value)) {
      *scale = value;
      *path = g_steal_pointer (&head);
      return TRUE;
    }
    if (!g_file_test (whole, G_FILE_TEST_EXISTS) &&
        (g_str_has_suffix (head, ".safetensors") ||
            g_file_test (head, G_FILE_TEST_IS_REGULAR))) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "The scale '%s' of the adapter '%s' in loras is no number: write '%s:0.8'.",
          colon + 1, head, head);
      return FALSE;
    }
  }
  *path = g_steal_pointer (&whole);
  return TRUE;
}

gboolean
gst_flux_painter_check_loras (const gchar *loras, GError **error)
{
  gchar **list = loras != NULL ? g_strsplit (loras, ",", -1) : NULL;
  gboolean ok = TRUE;

  for (guint i = 0; ok && list != NULL && list[i] != NULL; i++) {
    gchar *path = NULL;
    gdouble scale;

    ok = parse_lora (list[i], &path, &scale, error);
    if (ok && !g_file_test (path, G_FILE_TEST_EXISTS)) {
      ok = FALSE;
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
          "There is no adapter '%s': loras names .safetensors files.", path);
    }
    g_free (path);
  }
  g_strfreev (list);
  return ok;
}

static gboolean
load_loras (GstFluxPainter *self, const gchar *loras, GError **error)
{
  gchar **list = loras != NULL ? g_strsplit (loras, ",", -1) : NULL;
  FluxTransformer *transformer = flux_model_get_transformer (self->model);
  gboolean ok = TRUE;

  for (guint i = 0; ok && list != NULL && list[i] != NULL; i++) {
    gchar *path = NULL;
    gdouble scale;
    FluxLora *lora = NULL;

    if (parse_lora (list[i], &path, &scale, error)) {
      flux_model_lock (self->model);
      lora = flux_lora_load (flux_transformer_get_config (transformer),
          flux_model_get_backend (self->model), path, FALSE, error);
      flux_model_unlock (self->model);
    }
    ok = lora != NULL;
    if (ok) {
      flux_lora_set_multiplier (lora, (float)scale);
      g_ptr_array_add (self->loras, lora);
    }
    g_free (path);
  }
  g_strfreev (list);
  return ok;
}

static gboolean
prepare (GstFluxPainter *self, const gchar *dir, fx_qtype text_qtype, const gchar *loras,
    FluxLora *lora, GError **error)
{
  g_autoptr (GPtrArray) all = g_ptr_array_new ();

  self->sampler = flux_sampler_new (self->model, dir, text_qtype, error);
  if (self->sampler == NULL || !load_loras (self, loras, error))
    return FALSE;
  for (guint i = 0; i < self->loras->len; i++)
    g_ptr_array_add (all, g_ptr_array_index (self->loras, i));
  if (lora != NULL)
    g_ptr_array_add (all, lora);
  return flux_sampler_set_loras (
      self->sampler, (FluxLora *const *)all->pdata, all->len, error);
}

static GstFluxPainter *
painter_new (GstElement *element, GstFluxPainterFunc may_go_on, gpointer data)
{
  GstFluxPainter *self = g_new0 (GstFluxPainter, 1);

  self->element = element;
  self->may_go_on = may_go_on;
  self->data = data;
  self->loras = g_ptr_array_new_with_free_func ((GDestroyNotify)flux_lora_free);
  return self;
}

static gboolean
open_progress (const char *what, gint percent, gpointer data)
{
  GstFluxPainter *self = data;

  return self->may_go_on (self->data) &&
         gst_flux_progress_update (what, percent, &self->progress);
}

GstFluxPainter *
gst_flux_painter_new (GstElement *element, const FluxModelKey *key, fx_qtype text_qtype,
    const gchar *loras, GstFluxPainterFunc may_go_on, gpointer data, GError **error)
{
  GstFluxPainter *self = painter_new (element, may_go_on, data);
  GError *failure = NULL;

  gst_flux_progress_init (&self->progress, element, "open", NULL);
  self->model = flux_model_acquire (key, open_progress, self, &failure);
  if (self->model != NULL)
    prepare (self, key->path, text_qtype, loras, NULL, &failure);
  gst_flux_progress_end (&self->progress, "model", failure);
  if (failure == NULL)
    return self;
  g_propagate_error (error, failure);
  gst_flux_painter_free (self);
  return NULL;
}

GstFluxPainter *
gst_flux_painter_new_shared (GstElement *element, FluxModel *model, const gchar *dir,
    fx_qtype text_qtype, const gchar *loras, FluxLora *lora, GstFluxPainterFunc may_go_on,
    gpointer data, GError **error)
{
  GstFluxPainter *self = painter_new (element, may_go_on, data);

  self->model = flux_model_ref (model);
  if (prepare (self, dir, text_qtype, loras, lora, error))
    return self;
  gst_flux_painter_free (self);
  return NULL;
}

void
gst_flux_painter_free (GstFluxPainter *self)
{
  g_clear_pointer (&self->sampler, flux_sampler_free);
  /* The adapters' memory is the backend's. */
  if (self->model != NULL)
    flux_model_lock (self->model);
  g_ptr_array_unref (self->loras);
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

  gst_flux_progress_init (&self->progress, self->element, "sample", NULL);
  flux_sampler_run (
      self->sampler, request, rgb, stride, keep_lock, step_done, self, &failure);
  gst_flux_progress_end (&self->progress, "picture", failure);
  if (failure == NULL)
    return TRUE;
  g_propagate_error (error, failure);
  return FALSE;
}
