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

char *
flux_config_text_plain (const char *text)
{
  g_autoptr (JsonNode) root = json_from_string (text, NULL);

  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root))
    return g_strdup (text);
  json_object_remove_member (json_node_get_object (root), "quantization_config");
  return json_to_string (root, TRUE);
}
