/* flux/report/http-listen.c: addresses and connections of the page's server.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Connections are accepted here and not by libsoup, so that they can be counted: a
 * process has a limited number of file descriptors, and the training needs some. */
#include <gio/gio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "flux/report/http-private.h"

struct _FluxHttpListener {
  GSocketService *service;
  GInetSocketAddress *address;
  guint *n_connections; /* an atomic rc box: connections may end later */
  void (*connected) (GSocketConnection *connection, gpointer data);
  gpointer data;
};

static void
on_gone (gpointer data, GObject *connection)
{
  guint *n = data;

  *n -= 1;
  g_atomic_rc_box_release (n);
}

static gboolean
on_incoming (
    GSocketService *service, GSocketConnection *c, GObject *source, gpointer data)
{
  FluxHttpListener *self = data;
  GSocket *socket = g_socket_connection_get_socket (c);

  if (*self->n_connections >= FLUX_HTTP_MAX_CONNECTIONS)
    return TRUE;
  *self->n_connections += 1;
  g_object_weak_ref (
      G_OBJECT (c), on_gone, g_atomic_rc_box_acquire (self->n_connections));
  g_socket_set_timeout (socket, FLUX_HTTP_TIMEOUT);
  g_socket_set_option (socket, IPPROTO_TCP, TCP_NODELAY, TRUE, NULL);
  self->connected (c, self->data);
  return TRUE;
}

static GInetAddress *
parse_address (const char *text, GError **error)
{
  GInetAddress *address;

  if (g_ascii_strcasecmp (text, "localhost") == 0)
    return g_inet_address_new_loopback (G_SOCKET_FAMILY_IPV4);
  address = g_inet_address_new_from_string (text);
  if (address == NULL)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "'%s' is no address for the training's page: set http-address to an IP address "
        "of this machine, 0.0.0.0 for all of them, or 127.0.0.1.",
        text);
  return address;
}

static void
explain (const FluxReportHttp *config, const GError *why, GError **error)
{
  if (g_error_matches (why, G_IO_ERROR, G_IO_ERROR_ADDRESS_IN_USE))
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The training's page cannot have port %u of %s, which something else has, "
        "perhaps another training: set http-port to another one, or to 0 for any.",
        config->port, config->address);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The training's page cannot have port %u of %s: %s. Set http-address and "
        "http-port to what this machine has.",
        config->port, config->address, why->message);
}

static GInetSocketAddress *
bind_to (GSocketService *service, const FluxReportHttp *config, GError **error)
{
  g_autoptr (GInetAddress) address = parse_address (config->address, error);
  g_autoptr (GSocketAddress) wanted = NULL;
  GSocketAddress *is = NULL;
  g_autoptr (GError) failure = NULL;

  if (address == NULL)
    return NULL;
  wanted = g_inet_socket_address_new (address, (guint16)config->port);
  if (!g_socket_listener_add_address (G_SOCKET_LISTENER (service), wanted,
          G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP, NULL, &is, &failure)) {
    explain (config, failure, error);
    return NULL;
  }
  return G_INET_SOCKET_ADDRESS (is);
}

FluxHttpListener *
flux_http_listener_new (const FluxReportHttp *config,
    void (*connected) (GSocketConnection *connection, gpointer data), gpointer data,
    GError **error)
{
  GSocketService *service = g_socket_service_new ();
  GInetSocketAddress *address = bind_to (service, config, error);
  FluxHttpListener *self;

  if (address == NULL) {
    g_object_unref (service);
    return NULL;
  }
  self = g_new0 (FluxHttpListener, 1);
  self->service = service;
  self->address = address;
  self->n_connections = g_atomic_rc_box_new0 (guint);
  self->connected = connected;
  self->data = data;
  g_signal_connect (service, "incoming", G_CALLBACK (on_incoming), self);
  return self;
}

void
flux_http_listener_free (FluxHttpListener *self)
{
  g_signal_handlers_disconnect_by_data (self->service, self);
  g_socket_service_stop (self->service);
  g_socket_listener_close (G_SOCKET_LISTENER (self->service));
  g_object_unref (self->service);
  g_object_unref (self->address);
  g_atomic_rc_box_release (self->n_connections);
  g_free (self);
}

gboolean
flux_http_listener_is_loopback (FluxHttpListener *self)
{
  return g_inet_address_get_is_loopback (
      g_inet_socket_address_get_address (self->address));
}

guint
flux_http_listener_get_port (FluxHttpListener *self)
{
  return g_inet_socket_address_get_port (self->address);
}

/* The one that packets to others would have; none is sent (to RFC 5737's example). */
static GInetAddress *
own_address (void)
{
  g_autoptr (GSocket) socket =
      g_socket_new (G_SOCKET_FAMILY_IPV4, G_SOCKET_TYPE_DATAGRAM, 0, NULL);
  g_autoptr (GSocketAddress) there =
      g_inet_socket_address_new_from_string ("192.0.2.1", 9);
  g_autoptr (GSocketAddress) here = NULL;

  if (socket != NULL && g_socket_connect (socket, there, NULL, NULL))
    here = g_socket_get_local_address (socket, NULL);
  if (here == NULL)
    return NULL;
  return g_object_ref (g_inet_socket_address_get_address (G_INET_SOCKET_ADDRESS (here)));
}

char *
flux_http_listener_get_url (FluxHttpListener *self)
{
  g_autoptr (GInetAddress) address =
      g_object_ref (g_inet_socket_address_get_address (self->address));
  g_autofree char *name = NULL;

  if (g_inet_address_get_is_any (address)) {
    g_object_unref (address);
    address = own_address ();
  }
  name = address != NULL ? g_inet_address_to_string (address)
                         : g_strdup (g_get_host_name ());
  return g_strdup_printf (
      strchr (name, ':') != NULL ? "http://[%s]:%u/" : "http://%s:%u/", name,
      flux_http_listener_get_port (self));
}
