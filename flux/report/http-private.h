/* flux/report/http-private.h: the parts of the page's server. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 *   http.c         the reporter, and its thread
 *   http-answer.c  what is answered to a request
 *   http-listen.c  addresses and connections
 *   http-access.c  tokens, Host and Origin
 *   http-none.c    in place of them all, without libsoup */
#pragma once

#include "flux/report/live.h"

G_BEGIN_DECLS

/* ---- http-access.c ---- */

char *flux_http_make_token (GError **error);
/* Whether it may serve as one. */
gboolean flux_http_check_token (const char *token, GError **error);
/* given: NULL is none. */
gboolean flux_http_is_token (const char *token, const char *given);
/* Values of headers; NULL: there is none. */
gboolean flux_http_is_local_host (const char *host);
gboolean flux_http_is_own_origin (const char *origin, const char *host);

/* ---- http-listen.c ---- */

enum {
  FLUX_HTTP_MAX_CONNECTIONS = 128, /* further ones are closed at once */
  FLUX_HTTP_TIMEOUT = 30,          /* seconds in which a connection does nothing */
};

typedef struct _FluxHttpListener FluxHttpListener;

/* connected: with a connection, in the thread-default context of the caller, which has
 * to be the same one in all of these functions. */
FluxHttpListener *flux_http_listener_new (const FluxReportHttp *config,
    void (*connected) (GSocketConnection *connection, gpointer data), gpointer data,
    GError **error);
void flux_http_listener_free (FluxHttpListener *self);
/* Only this machine reaches it. */
gboolean flux_http_listener_is_loopback (FluxHttpListener *self);
/* As others on its network may write it; g_free() it. */
char *flux_http_listener_get_url (FluxHttpListener *self);
guint flux_http_listener_get_port (FluxHttpListener *self);

/* ---- http-answer.c ---- */

typedef struct {
  FluxLive *live;
  const char *token;  /* NULL: none is asked for */
  const char *cookie; /* its name: browsers share cookies between ports */
  const char *run;    /* in the paths of pictures */
  FluxReportCommandFunc command;
  gpointer data;
} FluxHttpSite;

typedef struct _SoupServer SoupServer;
/* site stays as long as the server. */
void flux_http_serve (SoupServer *server, FluxHttpSite *site);

G_END_DECLS
