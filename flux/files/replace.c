/* flux/files/replace.c: replacing a file as a whole. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/files/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flux/error.h"

#define PREFIX ".flux-"
#define TEMPORARY PREFIX "XXXXXX" /* for g_mkstemp() */

/* Older than this nobody is between making a temporary file and locking it, or writes one
 * on another host that does not see our locks; and where files cannot be locked, nobody
 * writes one any more. */
enum { FRESH_SECONDS = 5 * 60, STALE_SECONDS = 60 * 60 };

struct _FluxReplace {
  char *path, *folder, *temporary;
  int fd;
  gboolean failed; /* a write failed: what is there must not be taken */
};

static gboolean
fail (GError **error, int saved_errno, const char *path)
{
  flux_error_from_errno (error, FLUX_ERROR_WRITE, saved_errno, "Could not write", path);
  return FALSE;
}

static gboolean
check_regular (const char *path, const struct stat *st, GError **error)
{
  if (S_ISREG (st->st_mode))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "Could not write '%s': it is %s; give the name of a file.", path,
      S_ISDIR (st->st_mode) ? "a folder" : "not a regular file");
  return FALSE;
}

FluxReplace *
flux_replace_begin (const char *path, GError **error)
{
  FluxReplace *self;
  struct stat st;
  gboolean exists = stat (path, &st) == 0;

  if (exists && !check_regular (path, &st, error))
    return NULL;
  self = g_new0 (FluxReplace, 1);
  self->path = g_strdup (path);
  self->folder = g_path_get_dirname (path);
  self->temporary = g_build_filename (self->folder, TEMPORARY, NULL);
  self->fd = g_mkstemp_full (self->temporary, O_WRONLY | O_CLOEXEC, 0666);
  if (self->fd < 0) {
    fail (error, errno, path);
    g_clear_pointer (&self->temporary, g_free);
    flux_replace_abort (self);
    return NULL;
  }
  /* As far as that is allowed: the contents matter more than the mode, and the lock only
   * keeps flux_replace_sweep() away. */
  if (flock (self->fd, LOCK_EX | LOCK_NB) != 0)
    errno = 0;
  if (exists && fchmod (self->fd, st.st_mode & 07777) != 0)
    errno = 0;
  return self;
}

gboolean
flux_replace_write (FluxReplace *self, gconstpointer data, gsize length, GError **error)
{
  const char *p = data;

  while (length > 0) {
    /* Linux writes less than 2 GiB at once anyway. */
    gssize n = write (self->fd, p, MIN (length, (gsize)1 << 30));

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) {
      self->failed = TRUE;
      return fail (error, n < 0 ? errno : EIO, self->path);
    }
    p += n;
    length -= n;
  }
  return TRUE;
}

gboolean
flux_replace_sync (FluxReplace *self, GError **error)
{
  if (fsync (self->fd) == 0)
    return TRUE;
  self->failed = TRUE;
  return fail (error, errno, self->path);
}

/* The new name is on disk only when the folder is. */
static gboolean
sync_folder (FluxReplace *self, GError **error)
{
  int fd = open (self->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), saved_errno = 0;

  if (fd < 0)
    return TRUE; /* a folder may be writable and not readable */
  if (fsync (fd) != 0)
    saved_errno = errno;
  close (fd);
  /* Some network file systems cannot sync a folder. */
  if (saved_errno == 0 || saved_errno == EINVAL || saved_errno == ENOTSUP)
    return TRUE;
  return fail (error, saved_errno, self->path);
}

static gboolean
finish (FluxReplace *self, GError **error)
{
  if (self->failed) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_WRITE,
        "Could not write '%s': an earlier part of it failed.", self->path);
    return FALSE;
  }
  if (!flux_replace_sync (self, error))
    return FALSE;
  /* Closed only afterwards, by the abort: the lock goes with it. */
  if (g_rename (self->temporary, self->path) != 0)
    return fail (error, errno, self->path);
  g_clear_pointer (&self->temporary, g_free);
  return sync_folder (self, error);
}

gboolean
flux_replace_commit (FluxReplace *self, GError **error)
{
  gboolean ok = finish (self, error);

  flux_replace_abort (self); /* removes what is left, which is nothing after success */
  return ok;
}

void
flux_replace_abort (FluxReplace *self)
{
  if (self->fd >= 0)
    close (self->fd);
  if (self->temporary != NULL)
    g_unlink (self->temporary);
  g_free (self->temporary);
  g_free (self->folder);
  g_free (self->path);
  g_free (self);
}

gboolean
flux_file_replace (const char *path, gconstpointer data, gsize length, GError **error)
{
  FluxReplace *self = flux_replace_begin (path, error);

  if (self == NULL)
    return FALSE;
  if (!flux_replace_write (self, data, length, error)) {
    flux_replace_abort (self);
    return FALSE;
  }
  return flux_replace_commit (self, error);
}

/* Did the process that wrote this file, seconds ago for the last time, end? */
static gboolean
is_left_behind (const char *path, gint64 seconds)
{
  int fd, saved_errno = 0;

  if (seconds <= FRESH_SECONDS)
    return FALSE;
  /* Network file systems lock only what is open for writing. */
  fd = open (path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0 || flock (fd, LOCK_EX | LOCK_NB) != 0)
    saved_errno = errno;
  if (fd >= 0)
    close (fd);
  return saved_errno == 0 || (saved_errno != EWOULDBLOCK && seconds > STALE_SECONDS);
}

void
flux_replace_sweep (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const gint64 now = g_get_real_time () / G_USEC_PER_SEC;
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    struct stat st;

    if (g_str_has_prefix (name, PREFIX) && strlen (name) == strlen (TEMPORARY) &&
        lstat (path, &st) == 0 && S_ISREG (st.st_mode) &&
        is_left_behind (path, now - st.st_mtime))
      g_unlink (path);
  }
}

gboolean
flux_file_check_writable (const char *path, const char *what, GError **error)
{
  g_autofree char *folder = g_path_get_dirname (path);
  g_autofree char *temporary = g_build_filename (folder, TEMPORARY, NULL);
  struct stat st;
  int fd = -1, saved_errno;

  if (stat (path, &st) == 0 && !check_regular (path, &st, error))
    return FALSE;
  if (g_mkdir_with_parents (folder, 0777) == 0)
    fd = g_mkstemp_full (temporary, O_WRONLY | O_CLOEXEC, 0600);
  saved_errno = errno;
  if (fd >= 0) {
    close (fd);
    g_unlink (temporary);
    return TRUE;
  }
  g_set_error (error, FLUX_ERROR,
      saved_errno == ENOSPC || saved_errno == EDQUOT ? FLUX_ERROR_NO_SPACE
                                                     : FLUX_ERROR_WRITE,
      "%s cannot be written: the folder '%s' takes no files (%s); name one that does.",
      what, folder, g_strerror (saved_errno));
  return FALSE;
}
