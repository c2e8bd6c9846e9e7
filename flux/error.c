/* flux/error.c: the error domain. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/error.h"

#include <errno.h>

#include "kernels/fx.h"

GQuark
flux_error_quark (void)
{
  return g_quark_from_static_string ("flux-error");
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
  } else if (saved_errno == ENOENT)
    code = FLUX_ERROR_NOT_FOUND;
  g_set_error (error, FLUX_ERROR, code, "%s '%s': %s%s.", what, path,
      g_strerror (saved_errno), advice);
}
