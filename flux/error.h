/* flux/error.h: the error domain of the model library. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Messages are one sentence for a person: what is wrong with which file, and what to do.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

#define FLUX_ERROR (flux_error_quark ())

typedef enum {
  FLUX_ERROR_NOT_FOUND, /* a file, tensor, row or device that should be there is not */
  FLUX_ERROR_READ,      /* the system failed to read */
  FLUX_ERROR_WRITE,     /* the system failed to write */
  FLUX_ERROR_NO_SPACE,  /* disk, memory or device memory is full */
  FLUX_ERROR_FORMAT,    /* a file is not what it claims to be */
  FLUX_ERROR_MISMATCH,  /* well-formed, but of another model, rank, size */
  FLUX_ERROR_SETTINGS,  /* an option has no sensible meaning here */
  FLUX_ERROR_DEVICE,    /* a kernel or the device failed */
  FLUX_ERROR_NUMERIC,   /* NaN or Inf where there must be none */
  FLUX_ERROR_CANCELLED, /* the caller asked to stop */
} FluxError;

GQuark flux_error_quark (void);

/* FLUX_ERROR_NO_SPACE about the memory of a device: "WHAT takes at least N MiB of the
 * device's memory, and M MiB are SOURCE: HINT." */
void flux_error_no_room (GError **error, const char *what, guint64 needed,
    guint64 available, const char *source, const char *hint);
/* What such an error says, in bytes and words, which are the error's; FALSE for any other
 * error. */
gboolean flux_error_get_room (
    const GError *error, guint64 *needed, guint64 *available, const char **hint);

/* Sets error from a failing kernels/ call: fx_error_message() of this thread after
 * `what`. */
void flux_error_from_fx (GError **error, int status, const char *what);
/* The same for errno after a failed system call on path (ENOSPC becomes NO_SPACE, ENOENT
 * NOT_FOUND), with what to do where that is known. */
void flux_error_from_errno (
    GError **error, FluxError code, int saved_errno, const char *what, const char *path);

G_END_DECLS
