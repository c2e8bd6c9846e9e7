/* flux/report/http-access.c: who may see the page and press its buttons.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Without a token the page is for this machine. A site that another page of the browser
 * comes from could give its own name the address 127.0.0.1 (DNS rebinding), so Host must
 * then be an address or localhost. With a token the cookie, which belongs to the name,
 * keeps such sites out. */
#include <string.h>
#include <unistd.h>

#include "flux/report/http-private.h"

enum { TOKEN_LENGTH = 20 }; /* of 32 letters: 100 bits */

char *
flux_http_make_token (GError **error)
{
  /* Those that nobody mistakes for another when typing them into a telephone. */
  static const char letters[] = "abcdefghijkmnpqrstuvwxyz23456789";
  guint8 bytes[TOKEN_LENGTH];
  char token[TOKEN_LENGTH + 1] = "";

  G_STATIC_ASSERT (sizeof letters == 32 + 1);
  if (getentropy (bytes, sizeof bytes) != 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
        "The system has no random numbers for the page's token: set http-token.");
    return NULL;
  }
  for (guint i = 0; i < TOKEN_LENGTH; i++)
    token[i] = letters[bytes[i] % 32];
  return g_strdup (token);
}

gboolean
flux_http_check_token (const char *token, GError **error)
{
  gsize length = strlen (token);

  if (length >= 16 && length <= 256 &&
      strspn (token,
          "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == length)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "http-token must have 16 to 256 of the characters A-Z a-z 0-9 - _.");
  return FALSE;
}

/* The time does not depend on how much of it is right. */
gboolean
flux_http_is_token (const char *token, const char *given)
{
  gsize length = strlen (token), n = given != NULL ? strlen (given) : 0;
  gsize differ = length ^ n;

  for (gsize i = 0; i < n; i++)
    differ |= (gsize)((guint8)given[i] ^ (guint8)token[i % length]);
  return differ == 0;
}

/* Host: name, name:port or [address]:port. */
gboolean
flux_http_is_local_host (const char *host)
{
  g_autofree char *name = NULL;
  const char *end;

  if (host == NULL)
    return FALSE;
  if (host[0] == '[') {
    end = strchr (host, ']');
    if (end == NULL || (end[1] != '\0' && end[1] != ':'))
      return FALSE;
    name = g_strndup (host + 1, (gsize)(end - host - 1));
  } else {
    end = strchr (host, ':');
    name = end != NULL ? g_strndup (host, (gsize)(end - host)) : g_strdup (host);
  }
  return g_ascii_strcasecmp (name, "localhost") == 0 || g_hostname_is_ip_address (name);
}

/* Of a page that came from here, or of no browser. */
gboolean
flux_http_is_own_origin (const char *origin, const char *host)
{
  if (origin == NULL)
    return TRUE;
  if (host == NULL)
    return FALSE;
  if (g_str_has_prefix (origin, "http://"))
    return g_ascii_strcasecmp (origin + strlen ("http://"), host) == 0;
  return g_str_has_prefix (origin, "https://") &&
         g_ascii_strcasecmp (origin + strlen ("https://"), host) == 0;
}
