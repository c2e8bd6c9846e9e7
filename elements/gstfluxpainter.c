/* gstfluxpainter.c: prompts to pictures, for fluxsamplersrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxpainter.h"

#include <math.h>
#include <string.h>

#include "elements/gstfluxcommon.h"

struct _GstFluxPainter {
  GstElement *element; /* not owned */
  GstFluxPainterFunc may_go_on;
  gpointer data;
  FluxModel *model;
  FluxSampler *sampler;
  GArray *loras;     /* Adapter */
  FluxLora *lora;    /* the trainer's, not owned, or NULL */
  GHashTable *files; /* hf:// location to path, or NULL; not owned */
  GstFluxProgress progress;
};

typedef struct {
  gchar *path;
  gdouble scale;
  FluxLora *lora;
} Adapter;

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
    if (!g_file_test (whole, G_FILE_TEST_EXISTS) && strcmp (head, "hf") != 0 &&
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

static void
free_adapters (GArray *adapters)
{
  for (guint i = 0; i < adapters->len; i++) {
    g_free (g_array_index (adapters, Adapter, i).path);
    flux_lora_free (g_array_index (adapters, Adapter, i).lora);
  }
  g_array_unref (adapters);
}

static gboolean
parse_list (const gchar *loras, GArray *adapters, GError **error)
{
  gchar **list = loras != NULL ? g_strsplit (loras, ",", -1) : NULL;
  gboolean ok = TRUE;

  for (guint i = 0; ok && list != NULL && list[i] != NULL; i++) {
    Adapter a = {NULL};

    ok = parse_lora (list[i], &a.path, &a.scale, error);
    if (ok)
      g_array_append_val (adapters, a);
  }
  g_strfreev (list);
  return ok;
}

gboolean
gst_flux_painter_check_loras (const gchar *loras, GError **error)
{
  GArray *list = g_array_new (FALSE, FALSE, sizeof (Adapter));
  gboolean ok = parse_list (loras, list, error);

  for (guint i = 0; ok && i < list->len; i++) {
    const gchar *path = g_array_index (list, Adapter, i).path;

    ok = flux_hub_is_uri (path) || g_file_test (path, G_FILE_TEST_EXISTS);
    if (!ok)
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
          "There is no adapter '%s': loras names .safetensors files, or hf://user/name.",
          path);
  }
  free_adapters (list);
  return ok;
}

gboolean
gst_flux_painter_fetch_loras (
    const gchar *loras, GstFluxHub *hub, GHashTable *files, GError **error)
{
  GArray *list = g_array_new (FALSE, FALSE, sizeof (Adapter));
  gboolean ok = parse_list (loras, list, error);

  for (guint i = 0; ok && i < list->len; i++) {
    const gchar *location = g_array_index (list, Adapter, i).path;
    gchar *path;

    if (!flux_hub_is_uri (location) || g_hash_table_contains (files, location))
      continue;
    path = gst_flux_hub_resolve (hub, location, FLUX_HUB_LORA, error);
    ok = path != NULL;
    if (ok)
      g_hash_table_insert (files, g_strdup (location), path);
  }
  free_adapters (list);
  return ok;
}

/* ---- adapters ---- */

/* Says what was applied: an adapter that silently is not is the worst there is. */
static void
announce_adapter (GstFluxPainter *self, const gchar *path, const FluxLoraReport *report)
{
  GST_INFO_OBJECT (self->element, "adapter '%s' (%s): %u of %u tensors on %u layers",
      path, report->format, report->n_tensors - report->n_left_out, report->n_tensors,
      report->n_layers);
  gst_element_post_message (self->element,
      gst_message_new_element (GST_OBJECT (self->element),
          gst_structure_new ("flux-adapter", "location", G_TYPE_STRING, path, "format",
              G_TYPE_STRING, report->format, "layers", G_TYPE_UINT, report->n_layers,
              "tensors", G_TYPE_UINT, report->n_tensors, "left-out", G_TYPE_UINT,
              report->n_left_out, NULL)));
  if (report->n_left_out > 0)
    gst_flux_post_warning (self->element,
        g_error_new (FLUX_ERROR, FLUX_ERROR_MISMATCH,
            "%u of the %u tensors in '%s' fit no layer of this transformer and are left "
            "out: %s.",
            report->n_left_out, report->n_tensors, path, report->left_out));
}

/* With the model's lock. */
static FluxLora *
load_lora (GstFluxPainter *self, const gchar *path, gboolean strict, GError **error)
{
  FluxTransformer *transformer = flux_model_get_transformer (self->model);
  FluxLoraReport report = {0};
  const gchar *file =
      self->files != NULL ? g_hash_table_lookup (self->files, path) : NULL;
  FluxLora *lora = flux_lora_read (flux_transformer_get_config (transformer),
      flux_model_get_backend (self->model), file != NULL ? file : path, strict, FALSE,
      &report, error);

  if (lora == NULL)
    return NULL;
  announce_adapter (self, path, &report);
  flux_lora_report_clear (&report);
  return lora;
}

/* The adapter that is loaded from this path, which then no longer holds it. */
static FluxLora *
take_loaded (GArray *adapters, const gchar *path)
{
  for (guint i = 0; i < adapters->len; i++) {
    Adapter *a = &g_array_index (adapters, Adapter, i);

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
    same = strcmp (g_array_index (a, Adapter, i).path,
               g_array_index (b, Adapter, i).path) == 0;
  return same;
}

/* Loads what is new and gives it to the sampler; takes `list`. With the model's lock. */
static gboolean
change_adapters (GstFluxPainter *self, GArray *list, gboolean strict, GError **error)
{
  g_autoptr (GPtrArray) all = g_ptr_array_new ();
  gboolean ok = TRUE;

  for (guint i = 0; ok && i < list->len; i++) {
    Adapter *a = &g_array_index (list, Adapter, i);

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
  free_adapters (self->loras);
  self->loras = list;
  return ok;
}

gboolean
gst_flux_painter_set_loras (GstFluxPainter *self, const gchar *loras, gdouble scale,
    gboolean strict, GError **error)
{
  GArray *list = g_array_new (FALSE, FALSE, sizeof (Adapter));
  gboolean ok = parse_list (loras, list, error);

  if (!ok) {
    free_adapters (list);
    return FALSE;
  }
  flux_model_lock (self->model);
  if (same_adapters (list, self->loras)) {
    for (guint i = 0; i < list->len; i++)
      g_array_index (self->loras, Adapter, i).scale =
          g_array_index (list, Adapter, i).scale;
    free_adapters (list);
  } else {
    ok = change_adapters (self, list, strict, error);
  }
  for (guint i = 0; ok && i < self->loras->len; i++) {
    const Adapter *a = &g_array_index (self->loras, Adapter, i);

    flux_lora_set_multiplier (a->lora, (float)(a->scale * scale));
  }
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
    g_ptr_array_add (all, g_array_index (self->loras, Adapter, i).lora);
  flux_model_lock (self->model);
  ok = flux_transformer_merge (flux_model_get_transformer (self->model),
           (FluxLora *const *)all->pdata, all->len, error) &&
       flux_sampler_set_loras (self->sampler, NULL, 0, error);
  if (ok) { /* they are in the weights now */
    free_adapters (self->loras);
    self->loras = g_array_new (FALSE, FALSE, sizeof (Adapter));
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
  self->loras = g_array_new (FALSE, FALSE, sizeof (Adapter));
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
    gboolean own, GstFluxPainterFunc may_go_on, gpointer data, GError **error)
{
  GstFluxPainter *self = painter_new (element, may_go_on, data);
  GError *failure = NULL;

  gst_flux_progress_init (&self->progress, element, "open", NULL);
  self->model =
      (own ? flux_model_load : flux_model_acquire) (key, open_progress, self, &failure);
  if (self->model != NULL)
    self->sampler = flux_sampler_new (self->model, key->path, text_qtype, &failure);
  gst_flux_progress_end (&self->progress, "model", failure);
  if (failure == NULL) {
    flux_sampler_set_cache (self->sampler, key->cache);
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
  self->lora = lora;
  self->sampler = flux_sampler_new (model, dir, text_qtype, error);
  if (self->sampler != NULL &&
      flux_sampler_set_loras (self->sampler, &self->lora, self->lora != NULL, error)) {
    flux_sampler_set_cache (self->sampler, cache);
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
  /* The adapters' memory is the backend's. */
  if (self->model != NULL)
    flux_model_lock (self->model);
  free_adapters (self->loras);
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
