/* gstfluxadapters.c: lists of adapters in properties. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxadapters.h"

#include <math.h>
#include <string.h>

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

void
gst_flux_adapters_free (GArray *adapters)
{
  for (guint i = 0; i < adapters->len; i++) {
    g_free (g_array_index (adapters, GstFluxAdapter, i).path);
    flux_lora_free (g_array_index (adapters, GstFluxAdapter, i).lora);
  }
  g_array_unref (adapters);
}

GArray *
gst_flux_adapters_parse (const gchar *loras, GError **error)
{
  GArray *adapters = g_array_new (FALSE, FALSE, sizeof (GstFluxAdapter));
  gchar **list = loras != NULL ? g_strsplit (loras, ",", -1) : NULL;
  gboolean ok = TRUE;

  for (guint i = 0; ok && list != NULL && list[i] != NULL; i++) {
    GstFluxAdapter a = {NULL};

    ok = parse_lora (list[i], &a.path, &a.scale, error);
    if (ok)
      g_array_append_val (adapters, a);
  }
  g_strfreev (list);
  if (!ok)
    g_clear_pointer (&adapters, gst_flux_adapters_free);
  return adapters;
}

gboolean
gst_flux_adapters_check (const gchar *loras, GError **error)
{
  GArray *list = gst_flux_adapters_parse (loras, error);
  gboolean ok = list != NULL;

  for (guint i = 0; ok && i < list->len; i++) {
    const gchar *path = g_array_index (list, GstFluxAdapter, i).path;

    ok = flux_hub_is_uri (path) || g_file_test (path, G_FILE_TEST_EXISTS);
    if (!ok)
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
          "There is no adapter '%s': loras names .safetensors files, or hf://user/name.",
          path);
  }
  g_clear_pointer (&list, gst_flux_adapters_free);
  return ok;
}

gboolean
gst_flux_adapters_fetch (
    const gchar *loras, GstFluxHub *hub, GHashTable *files, GError **error)
{
  GArray *list = gst_flux_adapters_parse (loras, error);
  gboolean ok = list != NULL;

  for (guint i = 0; ok && i < list->len; i++) {
    const gchar *location = g_array_index (list, GstFluxAdapter, i).path;
    gchar *path;

    if (!flux_hub_is_uri (location) || g_hash_table_contains (files, location))
      continue;
    path = gst_flux_hub_resolve (hub, location, FLUX_HUB_LORA, error);
    ok = path != NULL;
    if (ok)
      g_hash_table_insert (files, g_strdup (location), path);
  }
  g_clear_pointer (&list, gst_flux_adapters_free);
  return ok;
}

/* Says what was applied: an adapter that silently is not is the worst there is. */
static void
announce (GstElement *element, const gchar *path, const FluxLoraReport *report)
{
  GST_INFO_OBJECT (element, "adapter '%s' (%s): %u of %u tensors on %u layers", path,
      report->format, report->n_tensors - report->n_left_out, report->n_tensors,
      report->n_layers);
  gst_element_post_message (
      element, gst_message_new_element (GST_OBJECT (element),
                   gst_structure_new ("flux-adapter", "location", G_TYPE_STRING, path,
                       "format", G_TYPE_STRING, report->format, "layers", G_TYPE_UINT,
                       report->n_layers, "tensors", G_TYPE_UINT, report->n_tensors,
                       "left-out", G_TYPE_UINT, report->n_left_out, NULL)));
  if (report->n_left_out > 0)
    gst_flux_post_warning (element,
        g_error_new (FLUX_ERROR, FLUX_ERROR_MISMATCH,
            "%u of the %u tensors in '%s' fit no layer of this transformer and are left "
            "out: %s.",
            report->n_left_out, report->n_tensors, path, report->left_out));
}

FluxLora *
gst_flux_adapter_load (GstElement *element, const gchar *path, const gchar *file,
    const FluxConfig *config, fx_backend *backend, gboolean strict, GError **error)
{
  FluxLoraReport report = {0};
  FluxLora *lora = flux_lora_read (
      config, backend, file != NULL ? file : path, strict, FALSE, &report, error);

  if (lora == NULL)
    return NULL;
  announce (element, path, &report);
  flux_lora_report_clear (&report);
  return lora;
}
