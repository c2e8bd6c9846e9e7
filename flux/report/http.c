/* flux/report/http.c: a page of the training, served while it runs.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The server has a thread and a main context of its own; events only change what
 * live.h keeps. */
#include <libsoup/soup.h>

#include "flux/report/http-private.h"

typedef struct {
  FluxReporter base;
  FluxHttpSite site;
  char *token, *cookie, *run;
  GMainContext *context;
  GMainLoop *loop;
  GThread *thread;
  SoupServer *server;
  FluxHttpListener *listener;
} Http;

/* ---- the thread ---- */

static void
on_connected (GSocketConnection *connection, gpointer data)
{
  Http *self = data;
  g_autoptr (GSocketAddress) local =
      g_socket_connection_get_local_address (connection, NULL);
  g_autoptr (GSocketAddress) remote =
      g_socket_connection_get_remote_address (connection, NULL);

  /* What it says (a client that is gone already) interests nobody. */
  if (local != NULL && remote != NULL)
    soup_server_accept_iostream (
        self->server, G_IO_STREAM (connection), local, remote, NULL);
}

static gpointer
run (gpointer data)
{
  Http *self = data;

  g_main_context_push_thread_default (self->context);
  g_main_loop_run (self->loop);
  g_clear_pointer (&self->listener, flux_http_listener_free);
  soup_server_disconnect (self->server);
  while (g_main_context_iteration (self->context, FALSE))
    continue;
  g_clear_object (&self->server);
  g_main_context_pop_thread_default (self->context);
  return NULL;
}

static gboolean
quit (gpointer data)
{
  g_main_loop_quit (data);
  return G_SOURCE_REMOVE;
}

/* By the loop itself, which may not have begun yet. */
static void
end_thread (Http *self)
{
  GSource *source = g_idle_source_new ();

  g_source_set_callback (source, quit, self->loop, NULL);
  g_source_attach (source, self->context);
  g_source_unref (source);
  g_thread_join (self->thread);
}

/* ---- events ---- */

static gboolean
http_step (FluxReporter *base, const FluxReportStep *step, GError **error)
{
  flux_live_step (((Http *)base)->site.live, step);
  return TRUE;
}

static gboolean
http_paired_loss (FluxReporter *base, guint64 step, double loss, GError **error)
{
  flux_live_paired_loss (((Http *)base)->site.live, step, loss);
  return TRUE;
}

static gboolean
http_image (FluxReporter *base, const FluxReportImage *image, GError **error)
{
  flux_live_image (((Http *)base)->site.live, image);
  return TRUE;
}

static void
http_state (FluxReporter *base, const char *state)
{
  flux_live_state (((Http *)base)->site.live, state);
}

static void
http_saved (FluxReporter *base, guint64 step)
{
  flux_live_saved (((Http *)base)->site.live, step);
}

/* ---- beginning and end ---- */

static void
http_free (FluxReporter *base, gboolean finished)
{
  Http *self = (Http *)base;

  if (self->thread != NULL)
    end_thread (self);
  g_clear_pointer (&self->listener, flux_http_listener_free);
  g_clear_object (&self->server);
  g_clear_pointer (&self->site.live, flux_live_free);
  g_main_loop_unref (self->loop);
  g_main_context_unref (self->context);
  g_free (self->token);
  g_free (self->cookie);
  g_free (self->run);
}

static gboolean
choose_token (Http *self, const char *given, GError **error)
{
  if (given != NULL) {
    if (!flux_http_check_token (given, error))
      return FALSE;
    self->token = g_strdup (given);
  } else if (!flux_http_listener_is_loopback (self->listener)) {
    self->token = flux_http_make_token (error);
    return self->token != NULL;
  }
  return TRUE;
}

/* With the thread's context. */
static gboolean
open_server (Http *self, const FluxReportHttp *config, GError **error)
{
  self->server = soup_server_new (NULL, NULL);
  self->listener = flux_http_listener_new (config, on_connected, self, error);
  if (self->listener == NULL || !choose_token (self, config->token, error))
    return FALSE;
  self->cookie =
      g_strdup_printf ("gst-flux-%u", flux_http_listener_get_port (self->listener));
  self->base.location = flux_http_listener_get_url (self->listener);
  self->base.token = self->site.token = self->token;
  self->site.cookie = self->cookie;
  flux_http_serve (self->server, &self->site);
  return TRUE;
}

FluxReporter *
flux_report_http_new (const FluxReportRun *of, GError **error)
{
  Http *self = g_new0 (Http, 1);
  gboolean ok;

  self->base.step = http_step;
  self->base.paired_loss = http_paired_loss;
  self->base.image = http_image;
  self->base.state = http_state;
  self->base.saved = http_saved;
  self->base.free = http_free;
  self->run = g_strdup (of->run);
  self->site.run = self->run;
  self->site.live = flux_live_new (of);
  self->site.command = of->config->http.command;
  self->site.data = of->config->http.data;
  self->context = g_main_context_new ();
  self->loop = g_main_loop_new (self->context, FALSE);
  g_main_context_push_thread_default (self->context);
  ok = open_server (self, &of->config->http, error);
  g_main_context_pop_thread_default (self->context);
  if (!ok) {
    http_free (&self->base, FALSE);
    g_free (self->base.location);
    g_free (self);
    return NULL;
  }
  self->thread = g_thread_new ("flux-page", run, self);
  return &self->base;
}
