/* flux/adapters/alpha.c: what an adapter file says about its alphas.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * peft LoraConfig: lora_alpha, alpha_pattern {end of a module's name: alpha}, use_rslora.
 * diffusers writes it with loaders/lora_base.py:1049-1060. */
#include "flux/adapters/alpha.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/config-json.h"
#include "flux/transformer/slots.h"

struct _FluxLoraAlpha {
  gboolean known, stabilised;
  double alpha;
  GArray *pattern; /* Entry */
};

typedef struct {
  char *suffix;
  double alpha;
} Entry;

static void
clear_entry (gpointer data)
{
  g_free (((Entry *)data)->suffix);
}

/* The name under which the file holds a key, or NULL. */
static const char *
find_key (FluxConfigJson *json, const char *key, char *buffer, gsize size)
{
  g_snprintf (buffer, size, "transformer.%s", key);
  if (flux_config_json_has (json, buffer))
    return buffer;
  return flux_config_json_has (json, key) ? key : NULL;
}

static gboolean
read_flag (FluxConfigJson *json, const char *key, gboolean *value, GError **error)
{
  char buffer[64];
  const char *found = find_key (json, key, buffer, sizeof buffer);

  *value = FALSE;
  return found == NULL || flux_config_json_bool (json, found, value, error);
}

static gboolean
read_pattern (FluxLoraAlpha *self, FluxConfigJson *json, GError **error)
{
  char buffer[64];
  const char *found = find_key (json, "alpha_pattern", buffer, sizeof buffer);
  g_autoptr (FluxConfigJson) pattern = NULL;
  g_auto (GStrv) names = NULL;

  if (found == NULL)
    return TRUE;
  pattern = flux_config_json_child (json, found, error);
  if (pattern == NULL)
    return FALSE;
  names = flux_config_json_names (pattern);
  for (guint i = 0; names[i] != NULL; i++) {
    Entry entry;
    if (!flux_config_json_number (
            pattern, names[i], -FLT_MAX, FLT_MAX, &entry.alpha, error))
      return FALSE;
    entry.suffix = g_strdup (names[i]);
    g_array_append_val (self->pattern, entry);
  }
  return TRUE;
}

static gboolean
read_config (FluxLoraAlpha *self, FluxConfigJson *json, const char *path, GError **error)
{
  char buffer[64];
  const char *found = find_key (json, "lora_alpha", buffer, sizeof buffer);
  gboolean dora;

  if (found != NULL) {
    self->known = TRUE;
    if (!flux_config_json_number (json, found, -FLT_MAX, FLT_MAX, &self->alpha, error))
      return FALSE;
  }
  if (!read_flag (json, "use_rslora", &self->stabilised, error) ||
      !read_flag (json, "use_dora", &dora, error))
    return FALSE;
  if (dora) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "'%s' is a DoRA adapter, not a plain LoRA; convert it to a LoRA first.", path);
    return FALSE;
  }
  return read_pattern (self, json, error);
}

FluxLoraAlpha *
flux_lora_alpha_read (FluxSafetensors *file, GError **error)
{
  g_autoptr (FluxLoraAlpha) self = g_new0 (FluxLoraAlpha, 1);
  const char *path = flux_safetensors_get_path (file);
  const char *text = flux_safetensors_get_metadata (file, "lora_adapter_metadata");
  g_autofree char *where = g_strdup_printf ("lora_adapter_metadata of '%s'", path);
  g_autoptr (FluxConfigJson) json = NULL;

  self->pattern = g_array_new (FALSE, FALSE, sizeof (Entry));
  g_array_set_clear_func (self->pattern, clear_entry);
  if (text == NULL)
    return g_steal_pointer (&self);
  json = flux_config_json_parse (text, strlen (text), where, error);
  if (json == NULL || !read_config (self, json, path, error))
    return NULL;
  return g_steal_pointer (&self);
}

void
flux_lora_alpha_free (FluxLoraAlpha *self)
{
  g_array_unref (self->pattern);
  g_free (self);
}

float
flux_lora_alpha_of (FluxLoraAlpha *self, const char *module, int rank)
{
  double alpha = self->known ? self->alpha : rank;
  gboolean found = FALSE;

  /* "proj_out" is a layer and the end of others' names: who is named in full comes first.
   * peft matches "^proj_out" with the whole name only. */
  for (guint i = 0; i < self->pattern->len && !found; i++) {
    const Entry *entry = &g_array_index (self->pattern, Entry, i);

    found = strcmp (module, entry->suffix + (entry->suffix[0] == '^')) == 0;
    if (found)
      alpha = entry->alpha;
  }
  for (guint i = 0; i < self->pattern->len && !found; i++) {
    const Entry *entry = &g_array_index (self->pattern, Entry, i);

    found = flux_slot_matches (module, entry->suffix);
    if (found)
      alpha = entry->alpha;
  }
  return (float)(self->stabilised ? alpha * sqrt (rank) : alpha);
}
