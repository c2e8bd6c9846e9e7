/* flux/error.c: the error domain. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/error.h"

#include <errno.h>
#include <math.h>

#include "kernels/fx.h"

typedef struct {
  guint64 needed, available;
  char *hint; /* NULL: nothing is said of memory */
} FluxErrorPrivate;

static void
flux_error_private_init (FluxErrorPrivate *self)
{
}

static void
flux_error_private_copy (const FluxErrorPrivate *from, FluxErrorPrivate *to)
{
  *to = *from;
  to->hint = g_strdup (from->hint);
}

static void
flux_error_private_clear (FluxErrorPrivate *self)
{
  g_free (self->hint);
}

G_DEFINE_EXTENDED_ERROR (FluxError, flux_error)

void
flux_error_no_room (GError **error, const char *what, guint64 needed, guint64 available,
    const char *source, const char *hint)
{
  GError *e = g_error_new (FLUX_ERROR, FLUX_ERROR_NO_SPACE,
      "%s takes at least %.0f MiB of the device's memory, and %.0f MiB are %s: %s.", what,
      ceil ((double)needed / (1 << 20)), floor ((double)available / (1 << 20)), source,
      hint);
  FluxErrorPrivate *room = flux_error_get_private (e);

  *room = (FluxErrorPrivate){needed, available, g_strdup (hint)};
  g_propagate_error (error, e);
}

gboolean
flux_error_get_room (
    const GError *error, guint64 *needed, guint64 *available, const char **hint)
{
  const FluxErrorPrivate *room =
      error->domain == FLUX_ERROR ? flux_error_get_private (error) : NULL;

  if (room == NULL || room->hint == NULL)
    return FALSE;
  *needed = room->needed;
  *available = room->available;
  *hint = room->hint;
  return TRUE;
}

void
flux_error_from_fx (GError **error, int status, const char *what)
{
  FluxError code = FLUX_ERROR_DEVICE;

  if (status == FX_ERR_MEMORY)
    code = FLUX_ERROR_NO_SPACE;
  else if (status == FX_ERR_SHAPE)
    code = FLUX_ERROR_MISMATCH;
  g_set_error (error, FLUX_ERROR, code, "%s: %s", what, fx_error_message ());
}

void
flux_error_from_errno (
    GError **error, FluxError code, int saved_errno, const char *what, const char *path)
{
  const char *advice = "";

  if (saved_errno == ENOSPC || saved_errno == EDQUOT) {
    code = FLUX_ERROR_NO_SPACE;
    advice = "; make room there, or name another place";
  } else if (code == FLUX_ERROR_WRITE &&
             (saved_errno == ENOENT || saved_errno == EACCES || saved_errno == EPERM ||
                 saved_errno == EROFS || saved_errno == ENOTDIR)) {
    advice = "; name a place that can be written to";
  } else if (code == FLUX_ERROR_READ && saved_errno == ENOENT) {
    advice = "; check the name, or put the file there";
  }
  if (saved_errno == ENOENT)
    code = FLUX_ERROR_NOT_FOUND;
  g_set_error (error, FLUX_ERROR, code, "%s '%s': %s%s.", what, path,
      g_strerror (saved_errno), advice);
}
