/* flux/hub/fetch.c: one file: resumed, checked, named by its hash.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "flux/hub/hub-private.h"

enum { BUFFER = 1 << 16 };

typedef struct {
  FluxHub *hub;
  const FluxHubFile *file;
  char *url, *blob, *incomplete;
  int fd;
  GChecksum *sum; /* of the first `done` bytes, as its etag is made */
  guint64 done;
} Fetch;

/* SHA-256 of the content; git's SHA-1 is of "blob LENGTH\0" and the content. */
static void
start_sum (Fetch *self)
{
  g_autofree char *head = NULL;

  g_clear_pointer (&self->sum, g_checksum_free);
  if (strlen (self->file->etag) == 64) {
    self->sum = g_checksum_new (G_CHECKSUM_SHA256);
    return;
  }
  self->sum = g_checksum_new (G_CHECKSUM_SHA1);
  head = g_strdup_printf ("blob %" G_GUINT64_FORMAT, self->file->size);
  g_checksum_update (self->sum, (const guchar *)head, (gssize)strlen (head) + 1);
}

static gboolean
write_error (Fetch *self, GError **error)
{
  flux_error_from_errno (
      error, FLUX_ERROR_WRITE, errno, "Cannot write the download", self->incomplete);
  return FALSE;
}

static gboolean
append (const guint8 *data, gsize length, gpointer user, GError **error)
{
  Fetch *self = user;

  g_checksum_update (self->sum, data, (gssize)length);
  for (gsize at = 0; at < length;) {
    ssize_t n = write (self->fd, data + at, length - at);

    if (n < 0 && errno != EINTR)
      return write_error (self, error);
    if (n > 0)
      at += (gsize)n;
  }
  self->done += length;
  return TRUE;
}

static gboolean
start_over (Fetch *self, GError **error)
{
  if (ftruncate (self->fd, 0) != 0 || lseek (self->fd, 0, SEEK_SET) != 0)
    return write_error (self, error);
  flux_hub_count (self->hub, -(gint64)self->done);
  self->done = 0;
  start_sum (self);
  return TRUE;
}

/* Takes the hash of what an earlier try left. */
static gboolean
resume (Fetch *self, GError **error)
{
  g_autofree guint8 *buffer = g_malloc (BUFFER);
  struct stat st;
  ssize_t n;

  start_sum (self);
  if (fstat (self->fd, &st) != 0 || !S_ISREG (st.st_mode))
    return write_error (self, error);
  if ((guint64)st.st_size > self->file->size)
    return start_over (self, error);
  while ((n = read (self->fd, buffer, BUFFER)) != 0) {
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return write_error (self, error);
    if (g_cancellable_is_cancelled (self->hub->cancellable)) {
      return flux_hub_cancelled (error);
    }
    g_checksum_update (self->sum, buffer, n);
    self->done += (guint64)n;
  }
  flux_hub_count (self->hub, (gint64)self->done);
  return TRUE;
}

static gboolean
check_space (Fetch *self, GError **error)
{
  struct statvfs fs;
  guint64 missing = self->file->size - self->done, room;
  g_autofree char *needs = NULL, *has = NULL;

  if (fstatvfs (self->fd, &fs) != 0)
    return TRUE;
  room = (guint64)fs.f_bavail * fs.f_frsize;
  if (room >= missing)
    return TRUE;
  needs = g_format_size (missing);
  has = g_format_size (room);
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
      "'%s' needs %s more and the cache '%s' has room for %s: make room there, or set "
      "HF_HUB_CACHE to another place.",
      self->file->path, needs, self->hub->cache, has);
  return FALSE;
}

static gboolean
too_long (Fetch *self, GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "The Hub sends more of '%s' than the %" G_GUINT64_FORMAT
      " bytes that it has: try again later.",
      self->file->path, self->file->size);
  return FALSE;
}

/* Reads an answer up to byte `end`; FALSE with an error of G_IO_ERROR when the connection
 * is at fault. */
static gboolean
read_body (Fetch *self, GInputStream *body, guint64 end, GError **error)
{
  g_autofree guint8 *buffer = g_malloc (BUFFER);
  gssize n;

  while ((n = g_input_stream_read (body, buffer, BUFFER, self->hub->cancellable, error)) >
         0) {
    if ((guint64)n > end - self->done)
      return too_long (self, error);
    if (!append (buffer, (gsize)n, self, error))
      return FALSE;
    flux_hub_count (self->hub, n);
  }
  if (n == 0 && self->done < end)
    return flux_hub_cut_off (error);
  return n == 0;
}

/* One request: the rest of a small file, the next piece of a large one, or all of it when
 * the server does not do parts. */
static gboolean
get_some (Fetch *self, FluxHubSession *session, gboolean *parts, GError **error)
{
  guint64 size = self->file->size, end = MIN (size, self->done + FLUX_HUB_CHUNK);
  gboolean ask_part = self->done > 0 || end < size, ok;
  FluxHubAnswer answer;

  if (!flux_hub_get (session, self->url, self->file->path, (gint64)self->done,
          ask_part ? (gint64)end - 1 : -1, &answer, error))
    return FALSE;
  *parts = answer.is_partial;
  if (answer.is_partial ? answer.first != (gint64)self->done ||
                              (answer.total >= 0 && (guint64)answer.total != size)
                        : answer.total > (gint64)size) {
    ok = too_long (self, error);
  } else {
    ok = answer.is_partial || self->done == 0 || start_over (self, error);
    ok = ok && read_body (self, answer.body, answer.is_partial ? end : size, error);
  }
  flux_hub_answer_clear (&answer);
  return ok;
}

static gboolean
get_all (Fetch *self, FluxHubSession *session, GError **error)
{
  guint tries = 0;
  gboolean parts = FALSE;

  while (self->done < self->file->size) {
    guint64 before = self->done;
    GError *failure = NULL;

    if (parts && self->file->size - self->done > FLUX_HUB_CHUNK)
      return flux_hub_get_ranges (self->hub, self->url, self->file->path, self->done,
          self->file->size, append, self, error);
    if (get_some (self, session, &parts, &failure))
      continue;
    if (self->done > before)
      tries = 0;
    if (failure->domain == FLUX_ERROR ||
        !flux_hub_wait_retry (self->hub, &tries, &failure)) {
      g_propagate_error (error, failure);
      return FALSE;
    }
  }
  return TRUE;
}

/* TRUE when the content is what its name says. */
static gboolean
is_right (Fetch *self)
{
  return strcmp (g_checksum_get_string (self->sum), self->file->etag) == 0;
}

static gboolean
finish (Fetch *self, GError **error)
{
  if (fsync (self->fd) == 0 && rename (self->incomplete, self->blob) == 0)
    return TRUE;
  return write_error (self, error);
}

static gboolean
run (Fetch *self, FluxHubSession *session, GError **error)
{
  gboolean resumed;

  self->fd = open (
      self->incomplete, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
  if (self->fd < 0)
    return write_error (self, error);
  if (!resume (self, error) || !check_space (self, error))
    return FALSE;
  resumed = self->done > 0;
  if (!get_all (self, session, error))
    return FALSE;
  /* What was left by somebody else may be another file's. */
  if (!is_right (self) && resumed &&
      (!start_over (self, error) || !get_all (self, session, error)))
    return FALSE;
  if (is_right (self))
    return finish (self, error);
  unlink (self->incomplete);
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' of %s arrived damaged (its checksum is wrong), and was thrown away: try "
      "again.",
      self->file->path, self->hub->ref.repo);
  return FALSE;
}

/* Errors of the connection get a sentence. */
static void
explain (Fetch *self, GError **error)
{
  GError *failure = *error;

  if (failure->domain == FLUX_ERROR)
    return;
  *error = NULL;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
      "The download of '%s' from %s broke off (%s): what has arrived is kept, try again.",
      self->file->path, self->hub->ref.repo, failure->message);
  g_error_free (failure);
}

gboolean
flux_hub_fetch (FluxHubSession *session, FluxHub *hub, const char *commit,
    const FluxHubFile *file, GError **error)
{
  g_autofree char *page = flux_hub_page (hub);
  g_autofree char *name = g_uri_escape_string (file->path, "/", FALSE);
  Fetch self = {.hub = hub, .file = file, .fd = -1};
  GError *failure = NULL;
  int lock = flux_hub_store_lock (hub, file->etag, error);
  gboolean ok;

  if (lock < 0)
    return FALSE;
  self.blob = flux_hub_blob_path (hub, file->etag);
  self.incomplete = g_strconcat (self.blob, ".incomplete", NULL);
  self.url = g_strdup_printf ("%s/resolve/%s/%s", page, commit, name);
  if (g_file_test (self.blob, G_FILE_TEST_IS_REGULAR)) {
    flux_hub_count (hub, (gint64)file->size);
    ok = TRUE;
  } else {
    ok = run (&self, session, &failure);
  }
  if (!ok) {
    explain (&self, &failure);
    g_propagate_error (error, failure);
  }
  if (self.fd >= 0)
    close (self.fd);
  close (lock);
  g_clear_pointer (&self.sum, g_checksum_free);
  g_free (self.url);
  g_free (self.blob);
  g_free (self.incomplete);
  return ok;
}
