/* flux/train/checkpoint-folder.c: folders named checkpoint-N. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * A checkpoint is made under a hidden name and renamed when its files are on disk, so one
 * that can be seen is whole. Only folders whose name is checkpoint-<digits> and which
 * hold both of our files are ever read or removed. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "flux/error.h"
#include "flux/train/checkpoint-private.h"

#define PREFIX "checkpoint-"

char *
flux_checkpoint_path (const char *folder, guint64 step)
{
  g_autofree char *name = g_strdup_printf (PREFIX "%" G_GUINT64_FORMAT, step);

  return g_build_filename (folder, name, NULL);
}

char *
flux_checkpoint_begin (const char *folder, guint64 step, GError **error)
{
  g_autofree char *name =
      g_strdup_printf ("." PREFIX "%" G_GUINT64_FORMAT "-XXXXXX", step);
  g_autofree char *path = g_build_filename (folder, name, NULL);

  if (g_mkdir_with_parents (folder, 0777) != 0 || g_mkdtemp_full (path, 0777) == NULL) {
    flux_error_from_errno (
        error, FLUX_ERROR_WRITE, errno, "Could not make a checkpoint in", folder);
    return NULL;
  }
  return g_steal_pointer (&path);
}

static void
sync_folder (const char *folder)
{
  int fd = open (folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  if (fd < 0)
    return;
  (void)!fsync (fd); /* not every file system can; the rename stands all the same */
  close (fd);
}

static gboolean
has_file (const char *folder, const char *name)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);

  return g_file_test (path, G_FILE_TEST_IS_REGULAR);
}

static gboolean
is_whole (const char *path)
{
  return has_file (path, FLUX_LORA_FILE) && has_file (path, FLUX_CHECKPOINT_STATE);
}

char *
flux_checkpoint_commit (
    const char *folder, const char *temporary, guint64 step, GError **error)
{
  g_autofree char *path = flux_checkpoint_path (folder, step);

  if (rename (temporary, path) != 0) {
    /* One of the same step is there, of an earlier run: it goes once it is exchanged. */
    if ((errno != ENOTEMPTY && errno != EEXIST) || !is_whole (path) ||
        renameat2 (AT_FDCWD, temporary, AT_FDCWD, path, RENAME_EXCHANGE) != 0) {
      flux_error_from_errno (
          error, FLUX_ERROR_WRITE, errno, "Could not name the checkpoint", path);
      return NULL;
    }
    flux_checkpoint_remove (temporary);
  }
  sync_folder (folder);
  return g_steal_pointer (&path);
}

void
flux_checkpoint_remove (const char *path)
{
  /* The state goes first: without it the rest is no checkpoint. */
  static const char *const files[] = {FLUX_CHECKPOINT_STATE, FLUX_LORA_FILE};

  for (guint i = 0; i < G_N_ELEMENTS (files); i++) {
    g_autofree char *file = g_build_filename (path, files[i], NULL);

    (void)g_unlink (file);
  }
  (void)g_rmdir (path);
}

/* checkpoint-N, N in digits without leading zeros. */
static gboolean
parse_name (const char *name, guint64 *step)
{
  const char *digits = name + strlen (PREFIX);

  return g_str_has_prefix (name, PREFIX) && (digits[0] != '0' || digits[1] == '\0') &&
         g_ascii_string_to_unsigned (digits, 10, 0, G_MAXUINT64, step, NULL);
}

static gint
compare_steps (gconstpointer a, gconstpointer b)
{
  guint64 x = *(const guint64 *)a, y = *(const guint64 *)b;

  return x < y ? -1 : x > y;
}

GArray *
flux_checkpoint_list (const char *folder)
{
  GArray *steps = g_array_new (FALSE, FALSE, sizeof (guint64));
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    guint64 step;

    if (parse_name (name, &step) && is_whole (path))
      g_array_append_val (steps, step);
  }
  if (dir != NULL)
    g_dir_close (dir);
  g_array_sort (steps, compare_steps);
  return steps;
}

char *
flux_checkpoint_find (const char *path, GError **error)
{
  g_autoptr (GArray) steps = NULL;

  if (is_whole (path))
    return g_strdup (path);
  steps = flux_checkpoint_list (path);
  if (steps->len > 0)
    return flux_checkpoint_path (path, g_array_index (steps, guint64, steps->len - 1));
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
      "There is no whole checkpoint in '%s': it should hold folders checkpoint-N with %s "
      "and %s.",
      path, FLUX_LORA_FILE, FLUX_CHECKPOINT_STATE);
  return NULL;
}
