/* flux/hub/request.c: one request to the Hub, with redirects and second tries.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Redirects are followed here and not by libsoup, which would take the Authorization
 * header along to the other host. Facts: huggingface_hub utils/_http.py (which statuses
 * are tried again; X-Error-Code), file_download.py (Accept-Encoding: identity). */
#include <libsoup/soup.h>
#include <string.h>

#include "flux/hub/hub-private.h"

enum {
  MAX_REDIRECTS = 8,
  MAX_TRIES = 5,
  MAX_TRIES_UNREACHABLE = 2, /* no such host, connection refused */
  FIRST_WAIT_MS = 500,
  MAX_WAIT_S = 300, /* of Retry-After */
};

struct _FluxHubSession {
  FluxHub *hub;
  SoupSession *soup;
  GUri *endpoint;
};

FluxHubSession *
flux_hub_session_new (FluxHub *hub)
{
  FluxHubSession *self = g_new0 (FluxHubSession, 1);

  self->hub = hub;
  self->endpoint = g_uri_parse (hub->endpoint, SOUP_HTTP_URI_FLAGS, NULL);
  self->soup = soup_session_new_with_options (
      "timeout", hub->timeout, "user-agent", "gst-flux/0.1", NULL);
  /* The bytes as they are, and no header but those we set. */
  soup_session_remove_feature_by_type (self->soup, SOUP_TYPE_CONTENT_DECODER);
  soup_session_remove_feature_by_type (self->soup, SOUP_TYPE_AUTH_MANAGER);
  return self;
}

void
flux_hub_session_free (FluxHubSession *self)
{
  soup_session_abort (self->soup);
  g_object_unref (self->soup);
  g_clear_pointer (&self->endpoint, g_uri_unref);
  g_free (self);
}

void
flux_hub_answer_clear (FluxHubAnswer *self)
{
  g_clear_object (&self->body);
  g_clear_pointer (&self->next, g_free);
  g_clear_pointer (&self->etag, g_free);
}

static void
failure_clear (FluxHubFailure *self)
{
  g_clear_pointer (&self->code, g_free);
  g_clear_error (&self->transport);
}

static gboolean
same_origin (GUri *a, GUri *b)
{
  return a != NULL && b != NULL &&
         strcmp (g_uri_get_scheme (a), g_uri_get_scheme (b)) == 0 &&
         g_ascii_strcasecmp (g_uri_get_host (a), g_uri_get_host (b)) == 0 &&
         g_uri_get_port (a) == g_uri_get_port (b);
}

/* Sleeps unless somebody cancels; FALSE then. */
static gboolean
sleep_ms (FluxHub *hub, gint64 ms)
{
  GPollFD fd;

  if (g_cancellable_make_pollfd (hub->cancellable, &fd)) {
    g_poll (&fd, 1, (gint)ms);
    g_cancellable_release_fd (hub->cancellable);
  }
  return !g_cancellable_is_cancelled (hub->cancellable);
}

static gboolean
cancelled (GError **error)
{
  g_clear_error (error);
  return flux_hub_cancelled (error);
}

gboolean
flux_hub_wait_retry (FluxHub *hub, guint *tries, GError **error)
{
  if (g_cancellable_is_cancelled (hub->cancellable))
    return cancelled (error);
  if (++*tries >= MAX_TRIES)
    return FALSE;
  if (!sleep_ms (hub, FIRST_WAIT_MS << (*tries - 1)))
    return cancelled (error);
  g_clear_error (error);
  return TRUE;
}

static gboolean
may_retry (const FluxHubFailure *f, guint tries)
{
  if (f->status == 0) {
    if (f->transport->domain == FLUX_ERROR || f->transport->domain == G_TLS_ERROR)
      return FALSE;
    if (f->transport->domain == G_RESOLVER_ERROR ||
        g_error_matches (f->transport, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED))
      return tries < MAX_TRIES_UNREACHABLE;
    return tries < MAX_TRIES;
  }
  return tries < MAX_TRIES && f->wait_s <= MAX_WAIT_S &&
         (f->status == 408 || f->status == 429 || f->status == 500 || f->status == 502 ||
             f->status == 503 || f->status == 504);
}

/* ---- one try ---- */

/* Seconds, or a date (RFC 9110 10.2.3). */
static gint64
parse_retry_after (const char *text)
{
  guint64 seconds;
  GDateTime *date, *now;
  gint64 wait = -1;

  if (text == NULL)
    return -1;
  if (g_ascii_string_to_unsigned (text, 10, 0, G_MAXINT32, &seconds, NULL))
    return (gint64)seconds;
  date = soup_date_time_new_from_http_string (text);
  if (date != NULL) {
    now = g_date_time_new_now_utc ();
    wait = MAX (0, g_date_time_difference (date, now) / G_TIME_SPAN_SECOND + 1);
    g_date_time_unref (now);
    g_date_time_unref (date);
  }
  return wait;
}

/* Link: <URL>; rel="next" */
static char *
parse_next (SoupMessageHeaders *headers, GUri *base)
{
  const char *link = soup_message_headers_get_list (headers, "Link");
  const char *open = link != NULL ? strchr (link, '<') : NULL;
  const char *close = open != NULL ? strchr (open, '>') : NULL;
  g_autofree char *text = NULL, *from = NULL;

  if (close == NULL || strstr (close, "rel=\"next\"") == NULL)
    return NULL;
  text = g_strndup (open + 1, (gsize)(close - open - 1));
  from = g_uri_to_string (base);
  return g_uri_resolve_relative (from, text, SOUP_HTTP_URI_FLAGS, NULL);
}

static gboolean
read_headers (SoupMessage *message, const FluxHubRequest *request, FluxHubAnswer *answer,
    FluxHubFailure *f)
{
  SoupMessageHeaders *headers = soup_message_get_response_headers (message);
  goffset first, end, total;

  f->status = soup_message_get_status (message);
  answer->status = f->status;
  if (f->status != SOUP_STATUS_OK && f->status != SOUP_STATUS_PARTIAL_CONTENT &&
      !(strcmp (request->method, SOUP_METHOD_GET) != 0 &&
          (SOUP_STATUS_IS_SUCCESSFUL (f->status) ||
              (f->status == SOUP_STATUS_CONFLICT && request->may_conflict)))) {
    f->wait_s = parse_retry_after (soup_message_headers_get_one (headers, "Retry-After"));
    f->code = g_strdup (soup_message_headers_get_one (headers, "X-Error-Code"));
    return FALSE;
  }
  answer->is_partial = f->status == SOUP_STATUS_PARTIAL_CONTENT;
  if (!answer->is_partial)
    answer->total =
        soup_message_headers_get_encoding (headers) == SOUP_ENCODING_CONTENT_LENGTH
            ? soup_message_headers_get_content_length (headers)
            : -1;
  else if (request->last >= 0 &&
           soup_message_headers_get_content_range (headers, &first, &end, &total)) {
    answer->first = first;
    answer->total = total;
  } else {
    f->status = 0;
    g_set_error (&f->transport, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "a part of the file that was not asked for");
    return FALSE;
  }
  return TRUE;
}

/* The next address after a redirect; NULL and a failure when it may not be gone to. */
static GUri *
follow (SoupMessage *message, GUri *from, FluxHubFailure *f)
{
  const char *location = soup_message_headers_get_one (
      soup_message_get_response_headers (message), "Location");
  GUri *to = location != NULL
                 ? g_uri_parse_relative (from, location, SOUP_HTTP_URI_FLAGS, NULL)
                 : NULL;
  const char *scheme = to != NULL ? g_uri_get_scheme (to) : "";

  if (g_uri_get_host (to != NULL ? to : from) != NULL &&
      (strcmp (scheme, "https") == 0 ||
          (strcmp (scheme, "http") == 0 &&
              strcmp (g_uri_get_scheme (from), "http") == 0)))
    return to;
  g_clear_pointer (&to, g_uri_unref);
  f->status = 0;
  g_set_error (&f->transport, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "it sends us to an address that is none, or is not encrypted");
  return NULL;
}

/* With a stream of its own for each try. */
static void
set_body (FluxHubSession *self, SoupMessage *message, const FluxHubRequest *request)
{
  g_autoptr (GInputStream) stream = NULL;
  gint64 length = 0;

  if (request->bytes != NULL) {
    length = (gint64)g_bytes_get_size (request->bytes);
    stream = g_memory_input_stream_new_from_bytes (request->bytes);
  } else if (request->file != NULL) {
    length = (gint64)request->length;
    stream =
        flux_hub_part_new (self->hub, request->file, request->first, request->length);
  }
  if (stream != NULL)
    soup_message_set_request_body (message, request->type, stream, length);
}

static SoupMessage *
make_message (FluxHubSession *self, GUri *uri, const FluxHubRequest *request)
{
  SoupMessage *message = soup_message_new_from_uri (request->method, uri);
  SoupMessageHeaders *headers = soup_message_get_request_headers (message);

  soup_message_add_flags (message, SOUP_MESSAGE_NO_REDIRECT);
  soup_message_headers_replace (headers, "Accept-Encoding", "identity");
  if (request->accept != NULL)
    soup_message_headers_replace (headers, "Accept", request->accept);
  if (request->last >= 0)
    soup_message_headers_set_range (headers, (goffset)request->first, request->last);
  set_body (self, message, request);
  if (self->hub->token != NULL && same_origin (uri, self->endpoint)) {
    g_autofree char *bearer = g_strconcat ("Bearer ", self->hub->token, NULL);

    soup_message_headers_replace (headers, "Authorization", bearer);
  }
  return message;
}

static gboolean
try_once (FluxHubSession *self, const char *url, const FluxHubRequest *request,
    FluxHubAnswer *answer, FluxHubFailure *f)
{
  GUri *uri = g_uri_parse (url, SOUP_HTTP_URI_FLAGS, &f->transport);
  gboolean ok = FALSE;

  f->status = 0;
  f->wait_s = -1;
  for (guint hop = 0; uri != NULL; hop++) {
    g_autoptr (SoupMessage) message = make_message (self, uri, request);
    g_autoptr (GInputStream) body =
        soup_session_send (self->soup, message, self->hub->cancellable, &f->transport);
    GUri *next;

    if (body == NULL)
      break;
    if (!SOUP_STATUS_IS_REDIRECTION (soup_message_get_status (message))) {
      ok = read_headers (message, request, answer, f);
      if (ok) {
        SoupMessageHeaders *headers = soup_message_get_response_headers (message);

        answer->next = parse_next (headers, uri);
        answer->etag = g_strdup (soup_message_headers_get_one (headers, "ETag"));
        answer->body = g_steal_pointer (&body);
      }
      break;
    }
    if (hop == MAX_REDIRECTS) {
      g_set_error (
          &f->transport, FLUX_ERROR, FLUX_ERROR_FORMAT, "it sends us round in circles");
      break;
    }
    next = follow (message, uri, f);
    g_uri_unref (uri);
    uri = next;
  }
  g_clear_pointer (&uri, g_uri_unref);
  return ok;
}

gboolean
flux_hub_send (FluxHubSession *self, const char *url, const FluxHubRequest *request,
    const char *what, FluxHubAnswer *answer, GError **error)
{
  for (guint tries = 1;; tries++) {
    FluxHubFailure f = {0};
    gint64 wait;

    memset (answer, 0, sizeof *answer);
    answer->total = -1;
    if (try_once (self, url, request, answer, &f))
      return TRUE;
    if (g_cancellable_is_cancelled (self->hub->cancellable)) {
      failure_clear (&f);
      return cancelled (error);
    }
    if (!may_retry (&f, tries) || (request->once && f.status == 0)) {
      flux_hub_explain (
          self->hub, strcmp (request->method, SOUP_METHOD_GET) != 0, what, &f, error);
      failure_clear (&f);
      return FALSE;
    }
    wait = f.wait_s >= 0 ? 1000 * f.wait_s : FIRST_WAIT_MS << (tries - 1);
    failure_clear (&f);
    if (!sleep_ms (self->hub, wait))
      return cancelled (error);
  }
}

gboolean
flux_hub_get (FluxHubSession *self, const char *url, const char *what, gint64 first,
    gint64 last, FluxHubAnswer *answer, GError **error)
{
  FluxHubRequest request = {
      .method = SOUP_METHOD_GET, .first = (guint64)first, .last = last};

  return flux_hub_send (self, url, &request, what, answer, error);
}
