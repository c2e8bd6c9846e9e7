/* flux/adapters/write.c: writes adapters as diffusers does.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers loaders/lora_base.py:1049-1060, 1098-1108: tensors transformer.MODULE.lora_A
 * .weight, metadata format "pt" and lora_adapter_metadata, the JSON (indent 2, sorted
 * keys) of the LoraConfig that peft is to build. Only fields that every peft since 0.10
 * knows are written: newer ones have defaults, and an older peft refuses strangers. */
#include <json-glib/json-glib.h>
#include <string.h>

#include "flux/adapters/write-original.h"
#include "flux/error.h"
#include "flux/files/safetensors.h"
#include "flux/transformer/lora-private.h"

/* ---- target_modules ---- */

/* What follows "blocks.N." */
static const char *
layer_of (const char *name)
{
  const char *p = strchr (name, '.');

  p = p != NULL ? strchr (p + 1, '.') : NULL;
  return p != NULL ? p + 1 : name;
}

/* Do all layers that PEFT would match with `suffix` have a module? */
static gboolean
suffix_is_complete (const FluxLora *self, const char *suffix)
{
  for (guint i = 0; i < self->n_slots; i++) {
    if (self->modules[i].rank == 0 && flux_slot_matches (self->slots[i].name, suffix))
      return FALSE;
  }
  return TRUE;
}

static gint
compare_strings (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *)a, *(const char *const *)b);
}

/* The shortest names that select exactly the modules of this adapter; sorted. */
static GPtrArray *
find_targets (const FluxLora *self)
{
  GPtrArray *targets = g_ptr_array_new ();
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);

  for (guint i = 0; i < self->n_slots; i++) {
    const char *name = self->slots[i].name, *layer = layer_of (name);
    if (self->modules[i].rank == 0)
      continue;
    if (suffix_is_complete (self, layer))
      name = layer;
    if (g_hash_table_add (seen, (gpointer)name))
      g_ptr_array_add (targets, (gpointer)name);
  }
  g_ptr_array_sort (targets, compare_strings);
  return targets;
}

/* ---- the JSON ---- */

static void
add_number (JsonBuilder *j, const char *name, double value)
{
  json_builder_set_member_name (j, name);
  if (value == (double)(gint64)value)
    json_builder_add_int_value (j, (gint64)value);
  else
    json_builder_add_double_value (j, value);
}

static void
add_flag (JsonBuilder *j, const char *name, gboolean value)
{
  json_builder_set_member_name (j, name);
  json_builder_add_boolean_value (j, value);
}

static void
add_string (JsonBuilder *j, const char *name, const char *value)
{
  json_builder_set_member_name (j, name);
  if (value != NULL)
    json_builder_add_string_value (j, value);
  else
    json_builder_add_null_value (j);
}

/* Is this the name of a layer and the end of another's, as "proj_out" is? */
static gboolean
is_ambiguous (const FluxLora *self, const char *name)
{
  return strcmp (name, self->slots[flux_slot_end (&self->config, FLUX_E_OUT)].name) == 0;
}

/* Modules whose alpha (or rank) is not the adapter's, by full name, which peft takes for
 * an end unless it starts with '^'. */
static void
add_pattern (JsonBuilder *j, const char *name, const FluxLora *self, gboolean ranks)
{
  json_builder_set_member_name (j, name);
  json_builder_begin_object (j);
  for (guint i = 0; i < self->n_slots; i++) {
    g_autofree char *layer = g_strconcat (
        is_ambiguous (self, self->slots[i].name) ? "^" : "", self->slots[i].name, NULL);

    if (self->modules[i].rank == 0)
      continue;
    if (ranks && self->modules[i].rank != self->rank)
      add_number (j, layer, self->modules[i].rank);
    if (!ranks && self->alphas[i] != self->alpha)
      add_number (j, layer, (double)self->alphas[i]);
  }
  json_builder_end_object (j);
}

/* The keys are in order here: json-glib keeps it. */
static char *
describe_config (const FluxLora *self)
{
  g_autoptr (JsonBuilder) j = json_builder_new ();
  g_autoptr (GPtrArray) targets = find_targets (self);
  g_autoptr (JsonNode) root = NULL;

  json_builder_begin_object (j);
  add_pattern (j, "transformer.alpha_pattern", self, FALSE);
  add_string (j, "transformer.bias", "none");
  add_flag (j, "transformer.fan_in_fan_out", FALSE);
  add_flag (j, "transformer.inference_mode", FALSE);
  add_string (j, "transformer.init_lora_weights", "gaussian");
  add_string (j, "transformer.layers_pattern", NULL);
  add_string (j, "transformer.layers_to_transform", NULL);
  add_number (j, "transformer.lora_alpha", (double)self->alpha);
  add_number (j, "transformer.lora_dropout", 0);
  add_string (j, "transformer.peft_type", "LORA");
  add_number (j, "transformer.r", self->rank);
  add_pattern (j, "transformer.rank_pattern", self, TRUE);
  json_builder_set_member_name (j, "transformer.target_modules");
  json_builder_begin_array (j);
  for (guint i = 0; i < targets->len; i++)
    json_builder_add_string_value (j, g_ptr_array_index (targets, i));
  json_builder_end_array (j);
  add_flag (j, "transformer.use_dora", FALSE);
  add_flag (j, "transformer.use_rslora", FALSE);
  json_builder_end_object (j);
  root = json_builder_get_root (j);
  return json_to_string (root, TRUE);
}

static FluxTensorSource
tensor (GPtrArray *names, char *name, gint64 rows, gint64 cols, const float *data)
{
  g_ptr_array_add (names, name);
  return (FluxTensorSource){
      .name = name, .dtype = FX_F32, .n_dims = 2, .dims = {rows, cols}, .data = data};
}

static gboolean
write_diffusers (FluxLora *self, const char *path, const float *values, GError **error)
{
  g_autofree char *config = describe_config (self);
  const char *metadata[] = {"format", "pt", "lora_adapter_metadata", config, NULL};
  g_autofree FluxTensorSource *sources = g_new0 (FluxTensorSource, self->n_tensors);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);

  for (guint i = 0; i < self->n_tensors; i++) {
    const FluxLoraTensor *t = &self->tensors[i];

    sources[i] = tensor (names,
        g_strdup_printf ("transformer.%s.lora_%c.weight", self->slots[t->slot].name,
            t->is_b ? 'B' : 'A'),
        t->rows, t->cols, values + t->offset);
  }
  return flux_safetensors_write (path, sources, self->n_tensors, metadata, error);
}

gboolean
flux_lora_write (FluxLora *self, const char *path, FluxLoraFormat format, GError **error)
{
  g_autofree float *values = g_malloc (MAX (self->n_flat, 1) * sizeof (float));
  int status = fx_download (
      self->backend, values, self->parameters.base, self->n_flat * sizeof (float));

  if (status != FX_OK) {
    flux_error_from_fx (error, status, path);
    return FALSE;
  }
  return format == FLUX_LORA_DIFFUSERS ? write_diffusers (self, path, values, error)
                                       : flux_lora_write_original (self, path, values,
                                             format == FLUX_LORA_KOHYA, error);
}

gboolean
flux_lora_save (FluxLora *self, const char *path, GError **error)
{
  return flux_lora_write (self, path, FLUX_LORA_DIFFUSERS, error);
}
