/* flux/files/config-json.c: small JSON objects from outside. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/files/config-json.h"

#include <json-glib/json-glib.h>
#include <stdio.h>

#include "flux/error.h"

enum { MAX_LENGTH = 1 << 20, MAX_DEPTH = 64 };

struct _FluxConfigJson {
  JsonParser *parser;
  JsonObject *object; /* the parser's */
  char *where;
};

/* json-glib recurses, so the depth is bounded before it sees the text. Brackets within
 * strings do not count; malformed text is left to json-glib. */
static gboolean
depth_is_bounded (const char *text, gsize length)
{
  gboolean in_string = FALSE;
  guint depth = 0;

  for (gsize i = 0; i < length; i++) {
    char c = text[i];
    if (in_string) {
      if (c == '\\')
        i++;
      else if (c == '"')
        in_string = FALSE;
    } else if (c == '"')
      in_string = TRUE;
    else if (c == '{' || c == '[') {
      if (++depth > MAX_DEPTH)
        return FALSE;
    } else if ((c == '}' || c == ']') && depth > 0)
      depth--;
  }
  return TRUE;
}

/* json-glib's messages begin with "<data>:LINE:COLUMN: ". */
static void
set_parse_error (GError **error, const char *where, const char *message)
{
  guint line, column;

  if (sscanf (message, "<data>:%u:%u:", &line, &column) == 2)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "%s is not JSON: it goes wrong in line %u, column %u; correct it there, or fetch "
        "the file again.",
        where, line, column);
  else
    g_set_error (
        error, FLUX_ERROR, FLUX_ERROR_FORMAT, "%s is not JSON: %s.", where, message);
}

FluxConfigJson *
flux_config_json_parse (const char *text, gsize length, const char *where, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new_immutable ();
  g_autoptr (GError) cause = NULL;
  FluxConfigJson *self;
  JsonNode *root;

  if (length > MAX_LENGTH || !g_utf8_validate (text, (gssize)length, NULL) ||
      !depth_is_bounded (text, length)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "%s is not the JSON of a configuration: it is longer than %d bytes, nested "
        "deeper than %d, or not UTF-8.",
        where, MAX_LENGTH, MAX_DEPTH);
    return NULL;
  }
  if (!json_parser_load_from_data (parser, text, (gssize)length, &cause)) {
    set_parse_error (error, where, cause->message);
    return NULL;
  }
  root = json_parser_get_root (parser);
  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root)) {
    g_set_error (
        error, FLUX_ERROR, FLUX_ERROR_FORMAT, "%s does not hold a JSON object.", where);
    return NULL;
  }
  self = g_new0 (FluxConfigJson, 1);
  self->object = json_node_get_object (root);
  self->parser = g_steal_pointer (&parser);
  self->where = g_strdup (where);
  return self;
}

/* The model whose configuration would be at path, or its part, when that is no folder. */
static char *
find_missing_folder (const char *path)
{
  static const char *const parts[] = {
      "transformer", "vae", "text_encoder", "text_encoder_2", "scheduler", NULL};
  g_autofree char *folder = g_path_get_dirname (path);
  g_autofree char *name = g_path_get_basename (folder);
  g_autofree char *model = g_path_get_dirname (folder);

  if (g_file_test (folder, G_FILE_TEST_IS_DIR))
    return NULL;
  return g_strv_contains (parts, name) && !g_file_test (model, G_FILE_TEST_IS_DIR)
             ? g_steal_pointer (&model)
             : g_steal_pointer (&folder);
}

static void
set_read_error (GError **error, const char *path, const GError *cause)
{
  g_autofree char *missing = find_missing_folder (path);

  if (missing != NULL && g_file_test (missing, G_FILE_TEST_EXISTS))
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "'%s' is a file, and a model is a folder in the diffusers layout: name that.",
        missing);
  else if (missing != NULL)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "There is no model folder '%s': name one in the diffusers layout, or fetch the "
        "model first.",
        missing);
  else if (g_error_matches (cause, G_FILE_ERROR, G_FILE_ERROR_NOENT))
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "Cannot read the configuration '%s': there is no such file; fetch the model "
        "again, or name another folder.",
        path);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
        "Cannot read the configuration '%s': %s.", path, cause->message);
}

FluxConfigJson *
flux_config_json_read (const char *path, GError **error)
{
  g_autoptr (GMappedFile) map = NULL;
  g_autoptr (GError) cause = NULL;
  g_autofree char *where = g_strdup_printf ("'%s'", path);
  g_autofree char *text = NULL;
  gsize length;

  map = g_mapped_file_new (path, FALSE, &cause);
  if (map == NULL) {
    set_read_error (error, path, cause);
    return NULL;
  }
  length = g_mapped_file_get_length (map);
  if (length <= MAX_LENGTH) /* a copy: the file may change while it is parsed */
    text = length > 0 ? g_memdup2 (g_mapped_file_get_contents (map), length) : NULL;
  return flux_config_json_parse (
      text != NULL ? text : "", text != NULL ? length : 0, where, error);
}

void
flux_config_json_free (FluxConfigJson *self)
{
  if (self == NULL)
    return;
  g_object_unref (self->parser);
  g_free (self->where);
  g_free (self);
}

gboolean
flux_config_json_has (FluxConfigJson *self, const char *key)
{
  JsonNode *node = json_object_get_member (self->object, key);

  return node != NULL && !JSON_NODE_HOLDS_NULL (node);
}

static JsonNode *
require (FluxConfigJson *self, const char *key, JsonNodeType type, const char *what,
    GError **error)
{
  JsonNode *node = json_object_get_member (self->object, key);

  if (node == NULL || JSON_NODE_HOLDS_NULL (node)) {
    g_set_error (
        error, FLUX_ERROR, FLUX_ERROR_FORMAT, "%s has no \"%s\".", self->where, key);
    return NULL;
  }
  if (JSON_NODE_TYPE (node) != type) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT, "\"%s\" in %s is not %s.", key,
        self->where, what);
    return NULL;
  }
  return node;
}

static gboolean
bad_value (FluxConfigJson *self, const char *key, const char *what, GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT, "\"%s\" in %s is not %s.", key,
      self->where, what);
  return FALSE;
}

static gboolean
node_to_int (FluxConfigJson *self, const char *key, JsonNode *node, gint64 min,
    gint64 max, gint64 *value, GError **error)
{
  if (!JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != G_TYPE_INT64)
    return bad_value (self, key, "a whole number", error);
  *value = json_node_get_int (node);
  if (*value < min || *value > max) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "\"%s\" in %s is %" G_GINT64_FORMAT ", not within %" G_GINT64_FORMAT
        "..%" G_GINT64_FORMAT ".",
        key, self->where, *value, min, max);
    return FALSE;
  }
  return TRUE;
}

gboolean
flux_config_json_int (FluxConfigJson *self, const char *key, gint64 min, gint64 max,
    int *value, GError **error)
{
  JsonNode *node = require (self, key, JSON_NODE_VALUE, "a whole number", error);
  gint64 wide;

  if (node == NULL || !node_to_int (self, key, node, MAX (min, G_MININT),
                          MIN (max, G_MAXINT), &wide, error))
    return FALSE;
  *value = (int)wide;
  return TRUE;
}

gboolean
flux_config_json_number (FluxConfigJson *self, const char *key, double min, double max,
    double *value, GError **error)
{
  JsonNode *node = require (self, key, JSON_NODE_VALUE, "a number", error);

  if (node == NULL)
    return FALSE;
  if (json_node_get_value_type (node) == G_TYPE_INT64)
    *value = (double)json_node_get_int (node);
  else if (json_node_get_value_type (node) == G_TYPE_DOUBLE)
    *value = json_node_get_double (node);
  else
    return bad_value (self, key, "a number", error);
  if (!(*value >= min && *value <= max)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "\"%s\" in %s is %g, not within %g..%g.", key, self->where, *value, min, max);
    return FALSE;
  }
  return TRUE;
}

gboolean
flux_config_json_bool (
    FluxConfigJson *self, const char *key, gboolean *value, GError **error)
{
  JsonNode *node = require (self, key, JSON_NODE_VALUE, "true or false", error);

  if (node == NULL)
    return FALSE;
  if (json_node_get_value_type (node) != G_TYPE_BOOLEAN)
    return bad_value (self, key, "true or false", error);
  *value = json_node_get_boolean (node);
  return TRUE;
}

const char *
flux_config_json_string (FluxConfigJson *self, const char *key, GError **error)
{
  JsonNode *node = require (self, key, JSON_NODE_VALUE, "a string", error);

  if (node == NULL)
    return NULL;
  if (json_node_get_value_type (node) != G_TYPE_STRING) {
    bad_value (self, key, "a string", error);
    return NULL;
  }
  return json_node_get_string (node);
}

gboolean
flux_config_json_ints (FluxConfigJson *self, const char *key, gint64 min, gint64 max,
    gint64 *values, guint *n, GError **error)
{
  JsonNode *node = require (self, key, JSON_NODE_ARRAY, "a list of whole numbers", error);
  JsonArray *array;
  guint length;

  if (node == NULL)
    return FALSE;
  array = json_node_get_array (node);
  length = json_array_get_length (array);
  if (length == 0 || length > *n) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "\"%s\" in %s has %u entries, not 1..%u.", key, self->where, length, *n);
    return FALSE;
  }
  for (guint i = 0; i < length; i++)
    if (!node_to_int (
            self, key, json_array_get_element (array, i), min, max, &values[i], error))
      return FALSE;
  *n = length;
  return TRUE;
}

FluxConfigJson *
flux_config_json_child (FluxConfigJson *self, const char *key, GError **error)
{
  JsonNode *node = require (self, key, JSON_NODE_OBJECT, "an object", error);
  FluxConfigJson *child;

  if (node == NULL)
    return NULL;
  child = g_new0 (FluxConfigJson, 1);
  child->parser = g_object_ref (self->parser);
  child->object = json_node_get_object (node);
  child->where = g_strdup_printf ("\"%s\" in %s", key, self->where);
  return child;
}

char **
flux_config_json_names (FluxConfigJson *self)
{
  GPtrArray *names = g_ptr_array_new ();
  g_autoptr (GList) members = json_object_get_members (self->object);

  for (GList *m = members; m != NULL; m = m->next)
    g_ptr_array_add (names, g_strdup (m->data));
  g_ptr_array_add (names, NULL);
  return (char **)g_ptr_array_free (names, FALSE);
}
