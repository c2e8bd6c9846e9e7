/* flux/report/file.c: files that only grow. SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <unistd.h>

#include "flux/report/report-private.h"

gboolean
flux_report_file_open (FluxReportFile *self, const char *path, GError **error)
{
  g_autofree char *folder = g_path_get_dirname (path);

  self->fd = -1;
  self->path = NULL;
  if (g_mkdir_with_parents (folder, 0777) != 0) {
    flux_error_from_errno (error, FLUX_ERROR_WRITE, errno,
        "Could not create the folder of a report", folder);
    return FALSE;
  }
  self->fd = g_open (path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  if (self->fd < 0) {
    flux_error_from_errno (
        error, FLUX_ERROR_WRITE, errno, "Could not create the report", path);
    return FALSE;
  }
  self->path = g_strdup (path);
  return TRUE;
}

gboolean
flux_report_file_write (
    FluxReportFile *self, gconstpointer data, gsize length, GError **error)
{
  const char *p = data;

  while (length > 0) {
    gssize n = write (self->fd, p, length);

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) {
      flux_error_from_errno (error, FLUX_ERROR_WRITE, n < 0 ? errno : EIO,
          "Could not write the report", self->path);
      return FALSE;
    }
    p += n;
    length -= (gsize)n;
  }
  return TRUE;
}

void
flux_report_file_close (FluxReportFile *self)
{
  if (self->path != NULL)
    close (self->fd);
  g_clear_pointer (&self->path, g_free);
}
