/* gstfluxadapters.h: lists of adapters in properties. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * "a.safetensors:0.8,hf://user/name": paths, or locations on the Hub, each with a scale
 * after its last colon or 1. */
#pragma once

#include "elements/gstfluxhub.h"
#include "flux/transformer/lora.h"

G_BEGIN_DECLS

typedef struct {
  gchar *path; /* or hf:// location */
  gdouble scale;
  FluxLora *lora; /* NULL until it is loaded; owned */
} GstFluxAdapter;

/* An array of GstFluxAdapter, empty for NULL; NULL after an error. */
GArray *gst_flux_adapters_parse (const gchar *loras, GError **error);
void gst_flux_adapters_free (GArray *adapters);

/* For checks before anything is loaded; hf:// is not looked up. */
gboolean gst_flux_adapters_check (const gchar *loras, GError **error);
/* Downloads those that are on the Hub and not yet in files, hf:// location to path. */
gboolean gst_flux_adapters_fetch (
    const gchar *loras, GstFluxHub *hub, GHashTable *files, GError **error);
/* Reads an adapter, and says on the bus what was applied (flux-adapter, and a warning of
 * what was left out). file: where it is when path is a location on the Hub, or NULL.
 * strict: see flux_lora_read(). */
FluxLora *
gst_flux_adapter_load (GstElement *element, const gchar *path, const gchar *file,
    const FluxConfig *config, fx_backend *backend, gboolean strict, GError **error);

G_END_DECLS
