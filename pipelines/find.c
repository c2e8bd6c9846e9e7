/* pipelines/find.c: where pipeline files are. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "pipelines/find.h"

#include <string.h>

#define SUFFIX ".launch"

char *
gst_flux_pipelines_folder (void)
{
  const char *set = g_getenv ("GST_FLUX_PIPELINES");
  g_autofree char *program = NULL, *bin = NULL, *beside = NULL;

  if (set != NULL)
    return g_strdup (set);
  program = g_file_read_link ("/proc/self/exe", NULL);
  if (program != NULL) {
    bin = g_path_get_dirname (program);
    beside = g_build_filename (bin, "..", "share", "gst-flux", "pipelines", NULL);
    if (g_file_test (beside, G_FILE_TEST_IS_DIR))
      return g_canonicalize_filename (beside, NULL);
  }
  return g_strdup (PIPELINES_DIR);
}

static gint
compare_names (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *)a, *(const char *const *)b);
}

char *
gst_flux_pipelines_names (const char *folder)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    if (g_str_has_suffix (name, SUFFIX))
      g_ptr_array_add (names, g_strndup (name, strlen (name) - strlen (SUFFIX)));
  if (dir != NULL)
    g_dir_close (dir);
  g_ptr_array_sort (names, compare_names);
  g_ptr_array_add (names, NULL);
  return g_strjoinv (", ", (char **)names->pdata);
}

char *
gst_flux_pipelines_read (const char *name, GError **error)
{
  g_autofree char *folder = gst_flux_pipelines_folder ();
  g_autofree char *file = g_strconcat (name, SUFFIX, NULL);
  g_autofree char *installed = g_build_filename (folder, file, NULL);
  g_autofree char *names = NULL;
  char *text = NULL;

  if (g_file_test (name, G_FILE_TEST_IS_REGULAR)) {
    g_file_get_contents (name, &text, NULL, error);
  } else if (g_file_test (installed, G_FILE_TEST_IS_REGULAR)) {
    g_file_get_contents (installed, &text, NULL, error);
  } else {
    names = gst_flux_pipelines_names (folder);
    g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_NOENT,
        names[0] != '\0'
            ? "There is no pipeline '%s', neither a file nor in '%s'. There are: %s."
            : "There is no pipeline file '%s', and '%s' has none at all: set "
              "GST_FLUX_PIPELINES to the folder that has them.%s",
        name, folder, names);
  }
  return text;
}
