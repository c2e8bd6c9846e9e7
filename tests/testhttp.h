/* tests/testhttp.h: the plainest of HTTP clients. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <string.h>

static inline GSocketConnection *
test_http_connect (guint port)
{
  GSocketClient *client = g_socket_client_new ();
  gchar *host = g_strdup_printf ("127.0.0.1:%u", port);
  GSocketConnection *c;

  g_socket_client_set_timeout (client, 20);
  c = g_socket_client_connect_to_host (client, host, (guint16)port, NULL, NULL);
  g_free (host);
  g_object_unref (client);
  return c;
}

/* Whatever comes after `request` was sent, up to the end; NULL: nobody listens. */
static inline gchar *
test_http_raw (guint port, gconstpointer request, gsize length)
{
  GSocketConnection *c = test_http_connect (port);
  GString *all;
  gchar part[4096];
  gssize n;

  if (c == NULL)
    return NULL;
  all = g_string_new (NULL);
  g_output_stream_write_all (
      g_io_stream_get_output_stream (G_IO_STREAM (c)), request, length, NULL, NULL, NULL);
  while ((n = g_input_stream_read (g_io_stream_get_input_stream (G_IO_STREAM (c)), part,
              sizeof part, NULL, NULL)) > 0)
    g_string_append_len (all, part, n);
  g_object_unref (c);
  return g_string_free (all, FALSE);
}

/* headers: NULL, or lines that end with \r\n; with no Host among them it is the right
 * one. */
static inline gchar *
test_http (guint port, const gchar *method, const gchar *path, const gchar *headers)
{
  gchar *host = g_strdup_printf ("Host: 127.0.0.1:%u\r\n", port);
  gchar *request = g_strdup_printf (
      "%s %s HTTP/1.1\r\n%s%sConnection: close\r\nContent-Length: 0\r\n\r\n", method,
      path, headers != NULL && strstr (headers, "Host:") != NULL ? "" : host,
      headers != NULL ? headers : "");
  gchar *text = test_http_raw (port, request, strlen (request));

  g_free (request);
  g_free (host);
  return text;
}

/* 0: nobody listens, or it is no HTTP. */
static inline guint
test_http_status (const gchar *answer)
{
  return answer != NULL && g_str_has_prefix (answer, "HTTP/1.")
             ? (guint)g_ascii_strtoull (answer + strlen ("HTTP/1.1 "), NULL, 10)
             : 0;
}

static inline guint
test_http_ask (guint port, const gchar *method, const gchar *path, const gchar *headers)
{
  gchar *answer = test_http (port, method, path, headers);
  guint status = test_http_status (answer);

  g_free (answer);
  return status;
}

static inline const gchar *
test_http_body (const gchar *answer)
{
  const gchar *end = strstr (answer, "\r\n\r\n");

  return end != NULL ? end + 4 : "";
}

static inline guint
test_http_port (const gchar *url)
{
  return (guint)g_ascii_strtoull (strrchr (url, ':') + 1, NULL, 10);
}
