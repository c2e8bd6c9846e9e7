/* flux/files/safetensors-index.c: several files joined by an index, and where files are
 * looked for. SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "flux/error.h"
#include "flux/files/json-cursor.h"
#include "flux/files/map-file.h"
#include "flux/files/safetensors-private.h"

static gboolean
bad_index (GError **error, const char *path, const char *what)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is not a valid safetensors index: %s.", path, what);
  return FALSE;
}

/* A shard lies beside its index: whatever could lead elsewhere is refused. */
static gboolean
is_plain_name (const char *name)
{
  return *name != '\0' && *name != '.' && strpbrk (name, "/\\") == NULL;
}

static gboolean
read_weight_map (FluxJsonCursor *c, const char *path, GHashTable *seen, GPtrArray *names,
    GPtrArray *shards, GError **error)
{
  gboolean first = TRUE;
  char *name, *shard;

  if (!flux_json_open (c, '{'))
    return bad_index (error, path, c->fault);
  while (flux_json_next_member (c, &first, &name)) {
    g_ptr_array_add (names, name);
    shard = flux_json_read_string (c);
    if (shard == NULL)
      break;
    g_ptr_array_add (shards, shard);
    if (!is_plain_name (shard)) {
      g_autofree char *what = g_strdup_printf (
          "tensor '%s' is said to be in '%s', which is not a file beside the index", name,
          shard);

      return bad_index (error, path, what);
    }
    if (!g_hash_table_add (seen, name))
      return bad_index (error, path, "it names a tensor twice");
  }
  return c->fault == NULL ? TRUE : bad_index (error, path, c->fault);
}

gboolean
flux_safetensors_read_index (
    const char *path, GPtrArray **names, GPtrArray **shards, GError **error)
{
  g_autoptr (GMappedFile) mapping = flux_map_file (path, error);
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);
  g_autoptr (GPtrArray) n = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GPtrArray) s = g_ptr_array_new_with_free_func (g_free);
  gboolean first = TRUE, found = FALSE, ok = TRUE;
  FluxJsonCursor c;
  char *key;

  if (mapping == NULL)
    return FALSE;
  if (g_mapped_file_get_length (mapping) > FLUX_SAFETENSORS_MAX_HEADER)
    return bad_index (error, path, "it is longer than 100 MB");
  flux_json_cursor_init (
      &c, g_mapped_file_get_contents (mapping), g_mapped_file_get_length (mapping));
  if (!flux_json_open (&c, '{'))
    return bad_index (error, path, c.fault);
  while (ok && flux_json_next_member (&c, &first, &key)) {
    if (strcmp (key, "weight_map") == 0) {
      ok = found ? bad_index (error, path, "it has two weight_maps")
                 : read_weight_map (&c, path, seen, n, s, error);
      found = TRUE;
    } else {
      flux_json_skip (&c);
    }
    g_free (key);
  }
  if (ok && !flux_json_finish (&c))
    ok = bad_index (error, path, c.fault);
  if (ok && !found)
    ok = bad_index (error, path, "it has no weight_map");
  if (ok) {
    *names = g_steal_pointer (&n);
    *shards = g_steal_pointer (&s);
  }
  return ok;
}

/* The only .safetensors of a folder, or NULL with an error. */
static char *
find_only (const char *folder, GError **error)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_autofree char *found = NULL;
  const char *name;
  guint n = 0;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    if (g_str_has_suffix (name, ".safetensors")) {
      n++;
      g_free (found);
      found = g_build_filename (folder, name, NULL);
    }
  }
  if (n == 1)
    return g_steal_pointer (&found);
  if (n == 0)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "There is no .safetensors file in '%s'; check the folder, or fetch the model.",
        folder);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "'%s' holds %u .safetensors files and none has a usual name; give the file.",
        folder, n);
  return NULL;
}

char *
flux_safetensors_find (const char *path, GError **error)
{
  static const char *const stems[] = {
      "diffusion_pytorch_model", "model", "pytorch_lora_weights"};
  static const char *const suffixes[] = {".safetensors", ".safetensors.index.json"};

  if (!g_file_test (path, G_FILE_TEST_IS_DIR))
    return g_strdup (path);
  for (guint i = 0; i < G_N_ELEMENTS (stems); i++) {
    for (guint j = 0; j < G_N_ELEMENTS (suffixes); j++) {
      g_autofree char *name = g_strconcat (stems[i], suffixes[j], NULL);
      g_autofree char *file = g_build_filename (path, name, NULL);

      if (g_file_test (file, G_FILE_TEST_EXISTS))
        return g_steal_pointer (&file);
    }
  }
  return find_only (path, error);
}
