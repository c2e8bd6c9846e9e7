/* flux/convert/parts.c: whole folders: the other parts of a model, names, removal.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "flux/convert/folder-private.h"
#include "flux/error.h"

enum { MAX_DEPTH = 8 };

char *
flux_folder_trim (const char *location)
{
  gsize n = strlen (location);

  while (n > 1 && location[n - 1] == '/')
    n--;
  return g_strndup (location, n);
}

gboolean
flux_folder_is_free (const char *location, GError **error)
{
  g_autoptr (GDir) dir = g_dir_open (location, 0, NULL);
  const gboolean is_empty = dir != NULL && g_dir_read_name (dir) == NULL;

  if (is_empty || (dir == NULL && !g_file_test (location, G_FILE_TEST_EXISTS) &&
                      !g_file_test (location, G_FILE_TEST_IS_SYMLINK)))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "Could not write '%s': it is there already; remove it, or name another folder.",
      location);
  return FALSE;
}

void
flux_folder_remove (const char *path)
{
  g_autoptr (GDir) dir =
      g_file_test (path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open (path, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *child = g_build_filename (path, name, NULL);

    flux_folder_remove (child);
  }
  g_remove (path);
}

void
flux_folder_sync_parent (const char *location)
{
  g_autofree char *parent = g_path_get_dirname (location);
  const int fd = open (parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  if (fd < 0)
    return;
  if (fsync (fd) != 0)
    errno = 0; /* some network file systems cannot */
  close (fd);
}

static gboolean
copy_file (const char *from, const char *to, GError **error)
{
  g_autoptr (GFile) source = g_file_new_for_path (from);
  g_autoptr (GFile) target = g_file_new_for_path (to);
  g_autoptr (GError) cause = NULL;

  if (g_file_copy (source, target, G_FILE_COPY_NONE, NULL, NULL, NULL, &cause))
    return TRUE;
  g_set_error (error, FLUX_ERROR,
      g_error_matches (cause, G_IO_ERROR, G_IO_ERROR_NO_SPACE) ? FLUX_ERROR_NO_SPACE
                                                               : FLUX_ERROR_WRITE,
      "Could not copy '%s': %s.", from, cause->message);
  return FALSE;
}

static gboolean
copy_folder (const char *from, const char *to, int depth, GError **error)
{
  g_autoptr (GDir) dir = g_dir_open (from, 0, NULL);
  const char *name;

  if (dir == NULL || depth > MAX_DEPTH) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ, "Could not copy '%s': %s.", from,
        dir == NULL ? "it cannot be read" : "its folders are nested too deep");
    return FALSE;
  }
  if (g_mkdir (to, 0777) != 0) {
    flux_error_from_errno (error, FLUX_ERROR_WRITE, errno, "Could not write", to);
    return FALSE;
  }
  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *source = g_build_filename (from, name, NULL);
    g_autofree char *target = g_build_filename (to, name, NULL);
    const gboolean is_dir = g_file_test (source, G_FILE_TEST_IS_DIR);

    if (is_dir ? !copy_folder (source, target, depth + 1, error)
               : !copy_file (source, target, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
link_part (const char *from, const char *to, GError **error)
{
  g_autofree char *absolute = g_canonicalize_filename (from, NULL);

  if (symlink (absolute, to) == 0)
    return TRUE;
  flux_error_from_errno (error, FLUX_ERROR_WRITE, errno, "Could not link", to);
  return FALSE;
}

/* Folders but the transformer's; of the files only the index, since the others can be
 * the whole model once more in another layout. */
static gboolean
add_part (
    const char *model, const char *name, const char *to, gboolean link, GError **error)
{
  g_autofree char *from = g_build_filename (model, name, NULL);
  g_autofree char *target = g_build_filename (to, name, NULL);

  if (!g_file_test (from, G_FILE_TEST_IS_DIR))
    return strcmp (name, "model_index.json") != 0 || copy_file (from, target, error);
  if (*name == '.' || strcmp (name, "transformer") == 0)
    return TRUE;
  return link ? link_part (from, target, error) : copy_folder (from, target, 0, error);
}

gboolean
flux_folder_add_parts (
    const char *transformer, const char *to, gboolean link, GError **error)
{
  g_autofree char *absolute =
      transformer != NULL ? g_canonicalize_filename (transformer, NULL) : NULL;
  g_autofree char *model = absolute != NULL ? g_path_get_dirname (absolute) : NULL;
  g_autofree char *index =
      model != NULL ? g_build_filename (model, "model_index.json", NULL) : NULL;
  g_autoptr (GDir) dir = NULL;
  const char *name;

  if (index == NULL || !g_file_test (index, G_FILE_TEST_EXISTS)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "The other parts of the model are not beside '%s' (there is no "
        "model_index.json): read a whole model's folder, or set parts=none.",
        transformer != NULL ? transformer : "the transformer");
    return FALSE;
  }
  dir = g_dir_open (model, 0, NULL);
  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    if (!add_part (model, name, to, link, error))
      return FALSE;
  }
  return TRUE;
}
