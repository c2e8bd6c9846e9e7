/* flux/hub/ranges.c: a large file by several connections. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Each connection fetches the next piece that nobody has into memory and hands it on when
 * its turn has come. So the bytes arrive in order: the partial file is always the first
 * bytes of the whole (what huggingface_hub's earlier versions resume from too), its hash
 * is taken while it is written, and an interruption loses a few pieces. */
#include <string.h>

#include "flux/hub/hub-private.h"

enum { N_CONNECTIONS = 4 };

typedef struct {
  FluxHub *hub;
  const char *url, *what;
  guint64 first, size;
  FluxHubSinkFunc sink;
  gpointer user;
  GMutex lock;
  GCond cond;
  guint64 next, written; /* pieces; lock */
  GError *error;         /* the first; lock */
} Ranges;

static guint64
n_pieces (const Ranges *self)
{
  return (self->size - self->first + FLUX_HUB_CHUNK - 1) / FLUX_HUB_CHUNK;
}

/* Bytes from..from + length of the file; goes on where a connection broke. */
static gboolean
fetch_piece (Ranges *self, FluxHubSession *session, guint64 from, gsize length,
    guint8 *data, GError **error)
{
  gsize got = 0;
  guint tries = 0;

  while (got < length) {
    FluxHubAnswer answer;
    GError *failure = NULL;
    gssize n = 0;

    if (!flux_hub_get (session, self->url, self->what, (gint64)(from + got),
            (gint64)(from + length - 1), &answer, error))
      return FALSE;
    if (!answer.is_partial || answer.first != (gint64)(from + got) ||
        (answer.total >= 0 && (guint64)answer.total != self->size)) {
      flux_hub_answer_clear (&answer);
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
          "The Hub sent another part of '%s' than was asked for: try again later.",
          self->what);
      return FALSE;
    }
    while (got < length && (n = g_input_stream_read (answer.body, data + got,
                                length - got, self->hub->cancellable, &failure)) > 0) {
      got += (gsize)n;
      tries = 0;
      flux_hub_count (self->hub, n);
    }
    flux_hub_answer_clear (&answer);
    if (got == length)
      return TRUE;
    if (failure == NULL)
      flux_hub_cut_off (&failure);
    if (!flux_hub_wait_retry (self->hub, &tries, &failure)) {
      g_propagate_error (error, failure);
      return FALSE;
    }
  }
  return TRUE;
}

/* With the lock: waits for the turn of piece; FALSE when all is over. */
static gboolean
wait_turn (Ranges *self, guint64 piece)
{
  while (self->written != piece && self->error == NULL)
    g_cond_wait (&self->cond, &self->lock);
  return self->error == NULL;
}

/* With the lock. Takes error. */
static void
fail (Ranges *self, GError *error)
{
  if (self->error == NULL)
    self->error = error;
  else
    g_error_free (error);
  g_cond_broadcast (&self->cond);
}

static gpointer
run (gpointer data)
{
  Ranges *self = data;
  g_autoptr (FluxHubSession) session = flux_hub_session_new (self->hub);
  guint8 *bytes = g_try_malloc (FLUX_HUB_CHUNK);

  g_mutex_lock (&self->lock);
  if (bytes == NULL)
    fail (self, g_error_new (FLUX_ERROR, FLUX_ERROR_NO_SPACE, "Out of memory."));
  while (self->error == NULL && self->next < n_pieces (self)) {
    guint64 piece = self->next++, from = self->first + piece * FLUX_HUB_CHUNK;
    gsize length = (gsize)MIN (FLUX_HUB_CHUNK, self->size - from);
    GError *error = NULL;
    gboolean ok;

    g_mutex_unlock (&self->lock);
    ok = fetch_piece (self, session, from, length, bytes, &error);
    g_mutex_lock (&self->lock);
    /* A turn has one owner, who need not hold the lock while writing. */
    if (ok && wait_turn (self, piece)) {
      g_mutex_unlock (&self->lock);
      ok = self->sink (bytes, length, self->user, &error);
      g_mutex_lock (&self->lock);
      if (ok)
        self->written++;
      g_cond_broadcast (&self->cond);
    }
    if (error != NULL)
      fail (self, error);
  }
  g_mutex_unlock (&self->lock);
  g_free (bytes);
  return NULL;
}

gboolean
flux_hub_get_ranges (FluxHub *hub, const char *url, const char *what, guint64 first,
    guint64 size, FluxHubSinkFunc sink, gpointer user, GError **error)
{
  Ranges self = {.hub = hub,
      .url = url,
      .what = what,
      .first = first,
      .size = size,
      .sink = sink,
      .user = user};
  GThread *threads[N_CONNECTIONS] = {NULL};
  guint n = (guint)MIN (N_CONNECTIONS, n_pieces (&self));

  g_mutex_init (&self.lock);
  g_cond_init (&self.cond);
  /* This thread is one of them, also when no other can be had. */
  for (guint i = 1; i < n; i++)
    threads[i] = g_thread_try_new ("flux-hub-range", run, &self, NULL);
  run (&self);
  for (guint i = 1; i < n; i++)
    if (threads[i] != NULL)
      g_thread_join (threads[i]);
  g_mutex_clear (&self.lock);
  g_cond_clear (&self.cond);
  if (self.error == NULL)
    return TRUE;
  g_propagate_error (error, self.error);
  return FALSE;
}
