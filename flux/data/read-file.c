/* flux/data/read-file.c: files and names of a data set, with bounds.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/data/dataset-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flux/error.h"

static GBytes *
read_descriptor (int fd, const gchar *shown, gsize max_size, GError **error)
{
  struct stat info;
  guint8 *data;
  gsize size, done = 0;

  if (fstat (fd, &info) != 0) {
    flux_error_from_errno (error, FLUX_ERROR_READ, errno, "Cannot read", shown);
    return NULL;
  }
  if (!S_ISREG (info.st_mode) || (guint64)info.st_size > max_size) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        S_ISREG (info.st_mode) ? "'%s' is too large, over %" G_GSIZE_FORMAT " bytes."
                               : "'%s' is not a regular file (limit %" G_GSIZE_FORMAT
                                 " bytes).",
        shown, max_size);
    return NULL;
  }
  size = info.st_size;
  data = g_try_malloc (size + 1);
  if (data == NULL) {
    g_set_error (
        error, FLUX_ERROR, FLUX_ERROR_NO_SPACE, "No memory is left for '%s'.", shown);
    return NULL;
  }
  while (done < size) {
    gssize n = read (fd, data + done, size - done);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      flux_error_from_errno (error, FLUX_ERROR_READ, errno, "Cannot read", shown);
      g_free (data);
      return NULL;
    }
    if (n ==
        0) /* somebody cut the file meanwhile: what is left is judged by its reader */
      break;
    done += n;
  }
  return g_bytes_new_take (data, done);
}

GBytes *
flux_dataset_read_file (const gchar *path, gsize max_size, GError **error)
{
  gchar *shown = g_filename_display_name (path);
  /* Not blocking: a FIFO in the folder must not hang the pipeline. */
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  GBytes *bytes = NULL;

  if (fd < 0) {
    flux_error_from_errno (error, FLUX_ERROR_READ, errno, "Cannot open", shown);
  } else {
    bytes = read_descriptor (fd, shown, max_size, error);
    close (fd);
  }
  g_free (shown);
  return bytes;
}

static gint
compare_names (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const gchar *const *)a, *(const gchar *const *)b);
}

GPtrArray *
flux_dataset_list_folder (const gchar *path, GError **error)
{
  GError *local = NULL;
  GDir *dir = g_dir_open (path, 0, &local);
  GPtrArray *names;
  const gchar *name;

  if (dir == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND, "Cannot open the data set: %s.",
        local->message);
    g_error_free (local);
    return NULL;
  }
  names = g_ptr_array_new_with_free_func (g_free);
  while ((name = g_dir_read_name (dir)) != NULL)
    if (name[0] != '.')
      g_ptr_array_add (names, g_strdup (name));
  g_dir_close (dir);
  g_ptr_array_sort (names, compare_names);
  return names;
}

FluxImageFormat
flux_dataset_format_of_name (const gchar *name)
{
  static const struct {
    const gchar *end;
    FluxImageFormat format;
  } ends[] = {{"png", FLUX_IMAGE_FORMAT_PNG}, {"jpg", FLUX_IMAGE_FORMAT_JPEG},
      {"jpeg", FLUX_IMAGE_FORMAT_JPEG}, {"jpe", FLUX_IMAGE_FORMAT_JPEG},
      {"jfif", FLUX_IMAGE_FORMAT_JPEG}, {"webp", FLUX_IMAGE_FORMAT_WEBP},
      {"gif", FLUX_IMAGE_FORMAT_OTHER}, {"bmp", FLUX_IMAGE_FORMAT_OTHER},
      {"tif", FLUX_IMAGE_FORMAT_OTHER}, {"tiff", FLUX_IMAGE_FORMAT_OTHER},
      {"avif", FLUX_IMAGE_FORMAT_OTHER}, {"heic", FLUX_IMAGE_FORMAT_OTHER},
      {"heif", FLUX_IMAGE_FORMAT_OTHER}, {"jxl", FLUX_IMAGE_FORMAT_OTHER},
      {"jp2", FLUX_IMAGE_FORMAT_OTHER}, {"psd", FLUX_IMAGE_FORMAT_OTHER},
      {"ppm", FLUX_IMAGE_FORMAT_OTHER}, {"svg", FLUX_IMAGE_FORMAT_OTHER}};
  const gchar *dot = strrchr (name, '.');

  if (dot != NULL)
    for (guint i = 0; i < G_N_ELEMENTS (ends); i++)
      if (g_ascii_strcasecmp (dot + 1, ends[i].end) == 0)
        return ends[i].format;
  return FLUX_IMAGE_FORMAT_UNKNOWN;
}

gboolean
flux_dataset_is_inside (const gchar *name)
{
  gchar **parts;
  gboolean inside = name[0] != '\0' && !g_path_is_absolute (name);

  parts = g_strsplit (name, G_DIR_SEPARATOR_S, -1);
  for (gchar **p = parts; *p != NULL; p++)
    inside &= strcmp (*p, "..") != 0;
  g_strfreev (parts);
  return inside;
}

static gboolean
is_blank (const gchar *text)
{
  for (; *text != '\0'; text = g_utf8_next_char (text))
    if (!g_unichar_isspace (g_utf8_get_char (text)))
      return FALSE;
  return TRUE;
}

gchar *
flux_dataset_take_caption (FluxDataset *self, gchar *text)
{
  if (text != NULL && !is_blank (text))
    return text;
  g_free (text);
  return g_strdup (self->instance_prompt);
}
