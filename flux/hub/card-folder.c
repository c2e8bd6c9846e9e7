/* flux/hub/card-folder.c: what there is to push at a path, and what it tells.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <json-glib/json-glib.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/safetensors.h"
#include "flux/hub/card-private.h"
#include "flux/hub/hub-private.h"

#define SAFETENSORS ".safetensors"
enum {
  MAX_FILES = 1000,
  MAX_DEPTH = 8,
  MAX_LINE = 1 << 16,
  MAX_LOG = 64 << 20, /* bytes of a .jsonl file */
  MAX_PROMPT = 1 << 12,
};

static gboolean
is_left_out (const char *name, gboolean is_folder)
{
  return name[0] == '.' || (is_folder && (g_str_has_prefix (name, "checkpoint-") ||
                                             g_str_has_suffix (name, "-checkpoints")));
}

static gboolean
walk (
    GPtrArray *files, const char *folder, const char *prefix, guint depth, GError **error)
{
  g_autoptr (GError) failure = NULL;
  g_autoptr (GDir) dir = g_dir_open (folder, 0, &failure);
  const char *name;

  if (dir == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ, "'%s' cannot be read: %s.", folder,
        failure->message);
    return FALSE;
  }
  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *file = g_build_filename (folder, name, NULL);
    g_autofree char *path =
        prefix[0] != '\0' ? g_strconcat (prefix, "/", name, NULL) : g_strdup (name);
    gboolean is_folder = g_file_test (file, G_FILE_TEST_IS_DIR);

    if (is_left_out (name, is_folder))
      continue;
    if (is_folder) {
      if (depth < MAX_DEPTH && !g_file_test (file, G_FILE_TEST_IS_SYMLINK) &&
          !walk (files, file, path, depth + 1, error))
        return FALSE;
    } else if (g_file_test (file, G_FILE_TEST_IS_REGULAR))
      flux_hub_upload_add (files, path, file);
    if (files->len > MAX_FILES) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "'%s' has more than %d files: push a folder with the adapter and its pictures.",
          folder, MAX_FILES);
      return FALSE;
    }
  }
  return TRUE;
}

static gint
compare_paths (gconstpointer a, gconstpointer b)
{
  const FluxHubUpload *const *x = a, *const *y = b;

  return strcmp ((*x)->path, (*y)->path);
}

/* ---- what they tell ---- */

static gboolean
is_number (JsonObject *o, const char *name)
{
  JsonNode *node = json_object_get_member (o, name);
  GType type = node != NULL && JSON_NODE_HOLDS_VALUE (node)
                   ? json_node_get_value_type (node)
                   : G_TYPE_INVALID;

  return type == G_TYPE_INT64 || type == G_TYPE_DOUBLE;
}

/* {"step": 3, "loss": 0.4, ...} or {"step": 3, "paired_loss": 0.4}; any other line is
 * none of our business. */
static void
read_line (FluxCard *self, const char *line)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonNode *root;
  JsonObject *o;
  guint64 step;

  if (strlen (line) > MAX_LINE || !json_parser_load_from_data (parser, line, -1, NULL))
    return;
  root = json_parser_get_root (parser);
  o = root != NULL && JSON_NODE_HOLDS_OBJECT (root) ? json_node_get_object (root) : NULL;
  if (o == NULL || !is_number (o, "step"))
    return;
  step = (guint64)MAX (0, json_object_get_int_member (o, "step"));
  if (is_number (o, "loss"))
    flux_card_add_step (self, step, json_object_get_double_member (o, "loss"));
  else if (is_number (o, "paired_loss"))
    flux_card_add_paired_loss (
        self, step, json_object_get_double_member (o, "paired_loss"));
}

static void
read_log (FluxCard *self, const char *file)
{
  g_autofree char *text = NULL;
  gsize length;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents (file, &text, &length, NULL) || length > MAX_LOG)
    return;
  lines = g_strsplit (text, "\n", -1);
  for (guint i = 0; lines[i] != NULL; i++)
    if (lines[i][0] == '{')
      read_line (self, lines[i]);
}

static gboolean
is_picture (const char *path)
{
  static const char *const ends[] = {".png", ".jpg", ".jpeg", ".webp", NULL};

  return flux_hub_ends_in (path, ends);
}

/* Its prompt is in NAME.txt, or it is its name. */
static void
tell_picture (FluxCard *self, const FluxHubUpload *upload)
{
  g_autofree char *stem =
      g_strndup (upload->file, (gsize)(strrchr (upload->file, '.') - upload->file));
  g_autofree char *beside = g_strconcat (stem, ".txt", NULL), *prompt = NULL;
  gsize length;

  if (!g_file_get_contents (beside, &prompt, &length, NULL) || length > MAX_PROMPT ||
      g_strstrip (prompt)[0] == '\0') {
    g_free (prompt);
    prompt = g_path_get_basename (stem);
  }
  flux_card_add_file (self, prompt, upload->path);
}

static void
tell (FluxCard *self, GPtrArray *files, char **weights)
{
  guint n_weights = 0, n_logs = 0;

  for (guint i = 0; i < files->len; i++) {
    const FluxHubUpload *upload = files->pdata[i];

    if (g_str_has_suffix (upload->path, SAFETENSORS) && n_weights++ == 0)
      *weights = g_strdup (upload->path);
    else if (g_str_has_suffix (upload->path, ".jsonl") && n_logs++ == 0)
      read_log (self, upload->file);
    else if (is_picture (upload->path))
      tell_picture (self, upload);
  }
  if (n_weights != 1)
    g_clear_pointer (weights, g_free);
}

gboolean
flux_card_collect (
    FluxCard *self, const char *source, GPtrArray *files, char **weights, GError **error)
{
  *weights = NULL;
  if (g_file_test (source, G_FILE_TEST_IS_DIR)) {
    if (!walk (files, source, "", 0, error))
      return FALSE;
    g_ptr_array_sort (files, compare_paths);
  } else if (!g_file_test (source, G_FILE_TEST_EXISTS)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "There is nothing at '%s' to push: name a folder, or an adapter's .safetensors "
        "file.",
        source);
    return FALSE;
  } else if (!g_str_has_suffix (source, SAFETENSORS)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "'%s' is no adapter to push: name a .safetensors file, or a folder.", source);
    return FALSE;
  } else {
    flux_hub_upload_add (files, FLUX_LORA_FILE, source);
  }
  tell (self, files, weights);
  if (files->len > 0)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
      "The folder '%s' has no files to push.", source);
  return FALSE;
}
