/* flux/hub/request-none.c: a build without libsoup. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/hub/hub-private.h"

struct _FluxHubSession {
  FluxHub *hub;
};

FluxHubSession *
flux_hub_session_new (FluxHub *hub)
{
  FluxHubSession *self = g_new0 (FluxHubSession, 1);

  self->hub = hub;
  return self;
}

void
flux_hub_session_free (FluxHubSession *self)
{
  g_free (self);
}

void
flux_hub_answer_clear (FluxHubAnswer *self)
{
}

gboolean
flux_hub_wait_retry (FluxHub *hub, guint *tries, GError **error)
{
  return FALSE;
}

/* FLUX_ERROR_READ: then the cache is asked. */
gboolean
flux_hub_send (FluxHubSession *self, const char *url, const FluxHubRequest *request,
    const char *what, FluxHubAnswer *answer, GError **error)
{
  if (g_strcmp0 (request->method, "GET") == 0)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
        "This build cannot download %s: build it with libsoup 3, or download it with the "
        "Hub's own client.",
        self->hub->ref.repo);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
        "This build cannot send to %s: build it with libsoup 3, or upload with the Hub's "
        "own client.",
        self->hub->ref.repo);
  return FALSE;
}

gboolean
flux_hub_get (FluxHubSession *self, const char *url, const char *what, gint64 first,
    gint64 last, FluxHubAnswer *answer, GError **error)
{
  FluxHubRequest request = {.method = "GET"};

  return flux_hub_send (self, url, &request, what, answer, error);
}
