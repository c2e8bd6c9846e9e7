/* flux/convert/config-text.c: the text of config.json.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/convert/config-text.h"

#include <json-glib/json-glib.h>

#include "flux/error.h"
#include "flux/files/config-json.h"
#include "flux/files/map-file.h"

char *
flux_config_text_read (const char *folder, GError **error)
{
  g_autofree char *path = g_build_filename (folder, "config.json", NULL);
  g_autoptr (FluxConfigJson) json = flux_config_json_read (path, error);
  g_autoptr (GMappedFile) file = json != NULL ? flux_map_file (path, error) : NULL;
  g_autofree char *text = NULL;

  if (file == NULL)
    return NULL;
  text = g_strndup (g_mapped_file_get_contents (file), g_mapped_file_get_length (file));
  if (g_utf8_validate (text, -1, NULL))
    return g_steal_pointer (&text);
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT, "'%s' is not UTF-8.", path);
  return NULL;
}

static JsonObject *
bitsandbytes_config (FluxStoredKind kind, GPtrArray *skipped)
{
  JsonObject *o = json_object_new ();
  const gboolean in_4bit = kind != FLUX_STORED_INT8;

  json_object_set_boolean_member (o, "_load_in_4bit", in_4bit);
  json_object_set_boolean_member (o, "_load_in_8bit", !in_4bit);
  json_object_set_string_member (
      o, "bnb_4bit_compute_dtype", in_4bit ? "bfloat16" : "float32");
  json_object_set_string_member (o, "bnb_4bit_quant_storage", "uint8");
  json_object_set_string_member (o, "bnb_4bit_quant_type", in_4bit ? "nf4" : "fp4");
  json_object_set_boolean_member (
      o, "bnb_4bit_use_double_quant", kind == FLUX_STORED_NF4_DOUBLE);
  json_object_set_boolean_member (o, "llm_int8_enable_fp32_cpu_offload", FALSE);
  json_object_set_boolean_member (o, "llm_int8_has_fp16_weight", FALSE);
  if (skipped != NULL && skipped->len > 0) {
    JsonArray *names = json_array_new ();

    for (guint i = 0; i < skipped->len; i++)
      json_array_add_string_element (names, skipped->pdata[i]);
    json_object_set_array_member (o, "llm_int8_skip_modules", names);
  } else {
    json_object_set_null_member (o, "llm_int8_skip_modules");
  }
  json_object_set_double_member (o, "llm_int8_threshold", 6.0);
  json_object_set_boolean_member (o, "load_in_4bit", in_4bit);
  json_object_set_boolean_member (o, "load_in_8bit", !in_4bit);
  json_object_set_string_member (o, "quant_method", "bitsandbytes");
  return o;
}

char *
flux_config_text_quantise (const char *text, FluxStoredKind kind, GPtrArray *skipped)
{
  g_autoptr (JsonNode) root = json_from_string (text, NULL);
  JsonObject *o;

  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root))
    return g_strdup (text);
  o = json_node_get_object (root);
  json_object_remove_member (o, "quantization_config");
  if (kind != FLUX_STORED_FLOAT)
    json_object_set_object_member (
        o, "quantization_config", bitsandbytes_config (kind, skipped));
  return json_to_string (root, TRUE);
}

char *
flux_config_text_plain (const char *text)
{
  return flux_config_text_quantise (text, FLUX_STORED_FLOAT, NULL);
}
