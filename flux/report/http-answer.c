/* flux/report/http-answer.c: what the page's server answers. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 *   GET  /, /page.css, /page.js        the page
 *   GET  /state?stride=S&from=N        see flux_live_get_json()
 *   GET  /settings                     a JSON object
 *   GET  /picture/RUN/ID.png           a picture of a preview
 *   POST /pause /resume /save /stop    the buttons, with the header X-Flux-Page
 *
 * Another site can make a browser send a plain form, but neither that header nor an
 * Origin of ours. */
#include <libsoup/soup.h>
#include <string.h>

#include "flux/report/http-private.h"
#include "flux/report/page.h"

static const struct {
  const char *path, *type, *text;
} pages[] = {
    {"/", "text/html; charset=utf-8", FLUX_PAGE_HTML},
    {"/page.css", "text/css; charset=utf-8", FLUX_PAGE_CSS},
    {"/page.js", "text/javascript; charset=utf-8", FLUX_PAGE_JS},
};

static const struct {
  const char *path;
  FluxReportCommand command;
} buttons[] = {
    {"/pause", FLUX_REPORT_PAUSE},
    {"/resume", FLUX_REPORT_RESUME},
    {"/save", FLUX_REPORT_SAVE},
    {"/stop", FLUX_REPORT_STOP},
};

static const char no_token[] =
    "<!doctype html><html lang=en><meta charset=utf-8>"
    "<meta name=viewport content=\"width=device-width\"><title>gst-flux</title>"
    "<p>This page needs its token: open the address that the training has printed, or "
    "type what follows <code>token=</code> there.</p><form action=\"/\"><input "
    "name=token autocomplete=off autocapitalize=none autofocus> <button>Open</button>"
    "</form></html>";

static const char *
header (SoupServerMessage *m, const char *name)
{
  return soup_message_headers_get_one (soup_server_message_get_request_headers (m), name);
}

static void
set_header (SoupServerMessage *m, const char *name, const char *value)
{
  soup_message_headers_replace (
      soup_server_message_get_response_headers (m), name, value);
}

/* text: of static storage. */
static void
answer (SoupServerMessage *m, guint status, const char *type, const char *text)
{
  soup_server_message_set_status (m, status, NULL);
  soup_server_message_set_response (m, type, SOUP_MEMORY_STATIC, text, strlen (text));
}

static void
refuse (SoupServerMessage *m, guint status, const char *why)
{
  answer (m, status, "text/plain; charset=utf-8", why);
}

/* Takes bytes. */
static void
answer_bytes (SoupServerMessage *m, const char *type, GBytes *bytes)
{
  soup_server_message_set_status (m, SOUP_STATUS_OK, NULL);
  set_header (m, "Content-Type", type);
  soup_message_body_append_bytes (soup_server_message_get_response_body (m), bytes);
  g_bytes_unref (bytes);
}

static void
set_headers (SoupServerMessage *m)
{
  set_header (m, "Content-Security-Policy",
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
      "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'");
  set_header (m, "Cross-Origin-Resource-Policy", "same-origin");
  set_header (m, "X-Content-Type-Options", "nosniff");
  set_header (m, "Referrer-Policy", "no-referrer");
  set_header (m, "Cache-Control", "no-store");
}

/* ---- who may ---- */

static gboolean
has_cookie (SoupServerMessage *m, const FluxHttpSite *site)
{
  const char *value = header (m, "Cookie");
  GHashTable *cookies;
  gboolean has;

  if (value == NULL)
    return FALSE;
  cookies = soup_header_parse_semi_param_list (value);
  has = flux_http_is_token (site->token, g_hash_table_lookup (cookies, site->cookie));
  soup_header_free_param_list (cookies);
  return has;
}

static gboolean
knows_token (SoupServerMessage *m, const FluxHttpSite *site)
{
  const char *bearer = header (m, "Authorization");

  if (bearer != NULL && g_str_has_prefix (bearer, "Bearer "))
    return flux_http_is_token (site->token, bearer + strlen ("Bearer "));
  return has_cookie (m, site);
}

/* The address with the token becomes a cookie, and an address without. */
static gboolean
take_token (
    SoupServerMessage *m, const char *path, GHashTable *query, const FluxHttpSite *site)
{
  g_autofree char *cookie = NULL;

  if (query == NULL || strcmp (path, "/") != 0 ||
      !flux_http_is_token (site->token, g_hash_table_lookup (query, "token")))
    return FALSE;
  cookie = g_strdup_printf (
      "%s=%s; Path=/; HttpOnly; SameSite=Lax", site->cookie, site->token);
  set_header (m, "Set-Cookie", cookie);
  soup_server_message_set_redirect (m, SOUP_STATUS_SEE_OTHER, "/");
  return TRUE;
}

/* FALSE: it has been answered. */
static gboolean
may (SoupServerMessage *m, const char *path, GHashTable *query, const FluxHttpSite *site)
{
  if (site->token == NULL) {
    if (flux_http_is_local_host (header (m, "Host")))
      return TRUE;
    refuse (m, SOUP_STATUS_FORBIDDEN,
        "This page is at 127.0.0.1 or localhost, and has no other name.\n");
    return FALSE;
  }
  if (take_token (m, path, query, site))
    return FALSE;
  if (knows_token (m, site))
    return TRUE;
  set_header (m, "WWW-Authenticate", "Bearer");
  answer (m, SOUP_STATUS_UNAUTHORIZED, "text/html; charset=utf-8", no_token);
  return FALSE;
}

/* ---- what there is ---- */

static gboolean
is_get (SoupServerMessage *m)
{
  const char *method = soup_server_message_get_method (m);

  if (strcmp (method, "GET") == 0 || strcmp (method, "HEAD") == 0)
    return TRUE;
  set_header (m, "Allow", "GET, HEAD");
  refuse (m, SOUP_STATUS_METHOD_NOT_ALLOWED, "This can only be looked at.\n");
  return FALSE;
}

static void
press (SoupServerMessage *m, const FluxHttpSite *site, FluxReportCommand command)
{
  if (strcmp (soup_server_message_get_method (m), "POST") != 0) {
    set_header (m, "Allow", "POST");
    refuse (m, SOUP_STATUS_METHOD_NOT_ALLOWED, "This is a button: POST presses it.\n");
  } else if (!flux_http_is_own_origin (header (m, "Origin"), header (m, "Host")) ||
             header (m, "X-Flux-Page") == NULL) {
    refuse (m, SOUP_STATUS_FORBIDDEN,
        "Only this page's own buttons may do that (Origin, and the header "
        "X-Flux-Page).\n");
  } else {
    if (site->command != NULL)
      site->command (command, site->data);
    soup_server_message_set_status (m, SOUP_STATUS_NO_CONTENT, NULL);
  }
}

static guint64
number_of (GHashTable *query, const char *name)
{
  const char *text = query != NULL ? g_hash_table_lookup (query, name) : NULL;
  guint64 value = 0;

  if (text == NULL || !g_ascii_string_to_unsigned (text, 10, 0, G_MAXINT64, &value, NULL))
    return 0;
  return value;
}

/* /picture/RUN/ID.png; NULL: there is none. */
static GBytes *
picture_at (const char *path, const FluxHttpSite *site)
{
  g_autofree char *start = g_strdup_printf ("/picture/%s/", site->run);
  g_autofree char *name = NULL;
  guint64 id;

  if (!g_str_has_prefix (path, start) || !g_str_has_suffix (path, ".png"))
    return NULL;
  path += strlen (start);
  name = g_strndup (path, strlen (path) - MIN (strlen (path), strlen (".png")));
  if (!g_ascii_string_to_unsigned (name, 10, 0, G_MAXINT64, &id, NULL))
    return NULL;
  return flux_live_get_picture (site->live, id);
}

static void
look (SoupServerMessage *m, const char *path, GHashTable *query, const FluxHttpSite *site)
{
  GBytes *picture;

  if (strcmp (path, "/state") == 0) {
    set_header (m, "X-Flux-Run", site->run);
    answer_bytes (m, "application/json",
        flux_live_get_json (
            site->live, number_of (query, "stride"), number_of (query, "from")));
  } else if (strcmp (path, "/settings") == 0) {
    answer_bytes (m, "application/json", flux_live_get_settings (site->live));
  } else if ((picture = picture_at (path, site)) != NULL) {
    set_header (m, "Cache-Control", "private, max-age=86400, immutable");
    answer_bytes (m, "image/png", picture);
  } else {
    refuse (m, SOUP_STATUS_NOT_FOUND, "There is nothing here.\n");
  }
}

static void
on_request (SoupServer *server, SoupServerMessage *m, const char *path, GHashTable *query,
    gpointer data)
{
  const FluxHttpSite *site = data;

  set_headers (m);
  if (!may (m, path, query, site))
    return;
  for (guint i = 0; i < G_N_ELEMENTS (buttons); i++)
    if (strcmp (path, buttons[i].path) == 0) {
      press (m, site, buttons[i].command);
      return;
    }
  if (!is_get (m))
    return;
  for (guint i = 0; i < G_N_ELEMENTS (pages); i++)
    if (strcmp (path, pages[i].path) == 0) {
      answer (m, SOUP_STATUS_OK, pages[i].type, pages[i].text);
      return;
    }
  look (m, path, query, site);
}

/* Nobody needs to send us anything: a body, however long, is thrown away as it comes. */
static void
on_headers (SoupServer *server, SoupServerMessage *m, const char *path, GHashTable *query,
    gpointer data)
{
  soup_message_body_set_accumulate (soup_server_message_get_request_body (m), FALSE);
}

void
flux_http_serve (SoupServer *server, FluxHttpSite *site)
{
  soup_server_add_early_handler (server, NULL, on_headers, site, NULL);
  soup_server_add_handler (server, NULL, on_request, site, NULL);
}
