/* flux/hub/hub.c: from a URI to a local path. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "flux/hub/hub.h"

#include "flux/hub/hub-private.h"

enum { TICK = G_TIME_SPAN_SECOND / 10 };

typedef struct {
  FluxHub hub;
  FluxHubWant want;
  char *path;
  GError *error;
} Pull;

gboolean
flux_hub_cancelled (GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED, "stopped");
  return FALSE;
}

gboolean
flux_hub_cut_off (GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_PARTIAL_INPUT, "the connection was closed");
  return FALSE;
}

static char *
use_cache (Pull *self, GError **error)
{
  FluxHubListing listing = {0};
  g_autofree char *path = NULL;
  GPtrArray *chosen = NULL;
  char *result = NULL;

  if (flux_hub_list_cached (&self->hub, &listing, error))
    chosen = flux_hub_select (&self->hub.ref, &listing, self->want, &path, error);
  if (chosen != NULL) {
    result = flux_hub_snapshot_path (&self->hub, listing.commit, path);
    g_ptr_array_unref (chosen);
  }
  flux_hub_listing_clear (&listing);
  return result;
}

/* What is not there yet, with the sum of it for the percentage. */
static GPtrArray *
find_missing (Pull *self, const FluxHubListing *listing, GPtrArray *chosen)
{
  GPtrArray *missing = g_ptr_array_new ();
  guint64 total = 0;

  for (guint i = 0; i < chosen->len; i++) {
    FluxHubFile *file = chosen->pdata[i];

    if (flux_hub_store_has (&self->hub, listing->commit, file))
      continue;
    g_ptr_array_add (missing, file);
    total += MIN (file->size, G_MAXUINT64 - total);
  }
  g_mutex_lock (&self->hub.lock);
  self->hub.total = total;
  g_mutex_unlock (&self->hub.lock);
  return missing;
}

static gboolean
download (
    Pull *self, FluxHubSession *session, const FluxHubListing *listing, GPtrArray *chosen)
{
  g_autoptr (GPtrArray) missing = find_missing (self, listing, chosen);

  if (missing->len > 0 &&
      !flux_hub_store_prepare (&self->hub, listing->commit, &self->error))
    return FALSE;
  for (guint i = 0; i < missing->len; i++) {
    FluxHubFile *file = missing->pdata[i];

    if (!flux_hub_fetch (session, &self->hub, listing->commit, file, &self->error) ||
        !flux_hub_store_link (&self->hub, listing->commit, file, &self->error))
      return FALSE;
  }
  if (!flux_hub_store_ref (
          &self->hub, listing->commit, missing->len > 0 ? &self->error : NULL))
    return missing->len == 0; /* a cache that may only be read is enough */
  return TRUE;
}

/* The network is at fault, not the question. */
static gboolean
is_unreachable (const GError *error)
{
  return g_error_matches (error, FLUX_ERROR, FLUX_ERROR_READ);
}

static void
pull (gpointer data)
{
  Pull *self = data;
  g_autoptr (FluxHubSession) session = flux_hub_session_new (&self->hub);
  FluxHubListing listing = {0};
  g_autoptr (GPtrArray) chosen = NULL;
  g_autofree char *path = NULL;

  if (self->hub.offline) {
    self->path = use_cache (self, &self->error);
    return;
  }
  if (!flux_hub_list (session, &self->hub, &listing, &self->error)) {
    if (is_unreachable (self->error) && (self->path = use_cache (self, NULL)) != NULL)
      g_clear_error (&self->error);
  } else {
    chosen = flux_hub_select (&self->hub.ref, &listing, self->want, &path, &self->error);
    if (chosen != NULL && download (self, session, &listing, chosen))
      self->path = flux_hub_snapshot_path (&self->hub, listing.commit, path);
  }
  flux_hub_listing_clear (&listing);
}

/* ---- a thread that works, and this one, which watches it ---- */

typedef struct {
  FluxHub *hub;
  FluxHubWorkFunc work;
  gpointer data;
  GCond cond;
  gboolean finished; /* hub->lock */
} Worker;

static gpointer
run (gpointer data)
{
  Worker *self = data;

  self->work (self->data);
  g_mutex_lock (&self->hub->lock);
  self->finished = TRUE;
  g_cond_broadcast (&self->cond);
  g_mutex_unlock (&self->hub->lock);
  return NULL;
}

/* Ten times a second, also while nothing comes. */
static void
watch (Worker *self, FluxProgressFunc progress, gpointer data)
{
  FluxHub *hub = self->hub;

  g_mutex_lock (&hub->lock);
  while (!self->finished) {
    guint64 done, total;
    gboolean go_on = TRUE;

    g_cond_wait_until (&self->cond, &hub->lock, g_get_monotonic_time () + TICK);
    done = hub->done;
    total = hub->total;
    g_mutex_unlock (&hub->lock);
    if (progress != NULL) {
      g_autofree char *size = g_format_size (total);
      g_autofree char *what = total > 0 ? g_strdup_printf ("%s, %s", hub->ref.repo, size)
                                        : g_strdup (hub->ref.repo);

      go_on = progress (what,
          total > 0 ? (gint)((double)MIN (done, total) * 100 / (double)total) : -1, data);
    }
    if (!go_on)
      g_cancellable_cancel (hub->cancellable);
    g_mutex_lock (&hub->lock);
  }
  g_mutex_unlock (&hub->lock);
}

gboolean
flux_hub_work (FluxHub *hub, FluxHubWorkFunc work, gpointer work_data,
    FluxProgressFunc progress, gpointer data, GError **error)
{
  Worker self = {.hub = hub, .work = work, .data = work_data};
  GThread *thread;

  g_cond_init (&self.cond);
  thread = g_thread_try_new ("flux-hub", run, &self, error);
  if (thread != NULL) {
    watch (&self, progress, data);
    g_thread_join (thread);
  }
  g_cond_clear (&self.cond);
  return thread != NULL;
}

char *
flux_hub_resolve (const char *location, FluxHubWant want, FluxProgressFunc progress,
    gpointer data, GError **error)
{
  Pull self = {.want = want};

  if (!flux_hub_is_uri (location))
    return g_strdup (location);
  if (flux_hub_init (&self.hub, location, &self.error))
    flux_hub_work (&self.hub, pull, &self, progress, data, &self.error);
  if (g_cancellable_is_cancelled (self.hub.cancellable)) {
    g_clear_error (&self.error);
    g_clear_pointer (&self.path, g_free);
    flux_hub_cancelled (&self.error);
  }
  flux_hub_clear (&self.hub);
  if (self.error != NULL)
    g_propagate_error (error, self.error);
  return self.path;
}
