/* flux/files/map-file.c: mapping a file of outside data. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/files/map-file.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "flux/error.h"

GMappedFile *
flux_map_file (const char *path, GError **error)
{
  GMappedFile *mapping;
  GStatBuf st;

  if (g_stat (path, &st) != 0) {
    flux_error_from_errno (error, FLUX_ERROR_READ, errno, "Could not read", path);
    return NULL;
  }
  if (!S_ISREG (st.st_mode)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
        "Could not read '%s': it is not a regular file.", path);
    return NULL;
  }
  errno = 0;
  mapping = g_mapped_file_new (path, FALSE, NULL);
  if (mapping == NULL)
    flux_error_from_errno (
        error, FLUX_ERROR_READ, errno ? errno : EIO, "Could not read", path);
  return mapping;
}

gboolean
flux_is_lfs_pointer (const char *bytes, gsize length)
{
  static const char lfs[] = "version https://git-lfs";

  return length >= sizeof lfs - 1 && memcmp (bytes, lfs, sizeof lfs - 1) == 0;
}
