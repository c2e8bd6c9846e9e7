/* flux/hub/explain.c: what the Hub refused, in words. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/hub/hub-private.h"

static void
explain_refusal (FluxHub *hub, const char *what, const FluxHubFailure *f, GError **error)
{
  g_autofree char *page = flux_hub_page (hub);
  g_autofree char *file =
      what != NULL ? g_strdup_printf ("'%s' of ", what) : g_strdup ("");
  const char *kind = hub->ref.is_dataset ? "data set" : "model", *code = f->code;

  if (g_strcmp0 (code, "GatedRepo") == 0 || (f->status == 403 && code == NULL))
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The %s %s is gated: accept its conditions at %s and set HF_TOKEN to a token of "
        "that account that may read it%s.",
        kind, hub->ref.repo, page,
        hub->token != NULL ? " (the present one may not)" : "");
  else if (g_strcmp0 (code, "RevisionNotFound") == 0)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "The %s %s has no revision '%s': see %s for those it has.", kind, hub->ref.repo,
        hub->ref.revision, page);
  else if (g_strcmp0 (code, "EntryNotFound") == 0 || (f->status == 404 && what != NULL))
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "The %s %s has no file '%s' in revision '%s'.", kind, hub->ref.repo,
        what != NULL ? what : hub->ref.path, hub->ref.revision);
  else if (f->status == 401 && hub->token != NULL)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The Hub does not accept the token for %s %s, or there is no such repository: "
        "make a new token that may read it and put it into HF_TOKEN.",
        kind, hub->ref.repo);
  else if (f->status == 401 || f->status == 404)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "There is no %s %s at %s, or it is private: check the name, and set HF_TOKEN if "
        "it needs one.",
        kind, hub->ref.repo, hub->endpoint);
  else if (f->status == 416)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' of %s is shorter at the Hub than its listing says: try again later.",
        what != NULL ? what : "", hub->ref.repo);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
        "The Hub at %s answered %u%s when it was asked for %sthe %s %s: try again later, "
        "or set HF_HUB_OFFLINE=1 to use what the cache has.",
        hub->endpoint, f->status, f->status >= 500 ? ", a fault of its own," : "", file,
        kind, hub->ref.repo);
}

/* what: the file, or what was asked for. */
static void
explain_write (FluxHub *hub, const char *what, const FluxHubFailure *f, GError **error)
{
  if (f->status == 401)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The Hub does not accept the token: make one that may write at "
        "%s/settings/tokens "
        "and put it into HF_TOKEN.",
        hub->endpoint);
  else if (f->status == 403)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The token may not write to %s: name a repository of your own, or make a token "
        "with the permission to write at %s/settings/tokens.",
        hub->ref.repo, hub->endpoint);
  else if (f->status == 404)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "There is no model %s at %s, or the token may not write to it.", hub->ref.repo,
        hub->endpoint);
  else if (f->status == 402 || f->status == 413 || f->status == 507)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "The account has no room left at the Hub for %s (%u): make room there, or name "
        "another.",
        what != NULL ? what : hub->ref.repo, f->status);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_WRITE,
        "The Hub answered %u to %s for %s: try again later.", f->status,
        what != NULL ? what : "a request", hub->ref.repo);
}

void
flux_hub_explain (FluxHub *hub, gboolean writing, const char *what,
    const FluxHubFailure *f, GError **error)
{
  if (f->status == 429)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
        "The Hub has had too many requests from here (429): try again %s%" G_GINT64_FORMAT
        "%s%s.",
        f->wait_s >= 0 ? "in " : "later", f->wait_s >= 0 ? f->wait_s : 429,
        f->wait_s >= 0 ? " seconds" : "",
        hub->token == NULL ? ", or set HF_TOKEN, which allows more" : "");
  else if (f->status == 0 && f->transport->domain == FLUX_ERROR &&
           f->transport->code != FLUX_ERROR_FORMAT)
    g_propagate_error (error, g_error_copy (f->transport)); /* of our side: a sentence */
  else if (f->status != 0 && writing)
    explain_write (hub, what, f, error);
  else if (f->status != 0)
    explain_refusal (hub, what, f, error);
  else if (writing)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
        "Sending %s to %s at %s broke off (%s): try again, files that have arrived are "
        "not "
        "sent twice.",
        what != NULL ? what : "", hub->ref.repo, hub->endpoint, f->transport->message);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
        "The Hub at %s cannot be reached for %s (%s): check the network, or set "
        "HF_HUB_OFFLINE=1 to use what the cache has.",
        hub->endpoint, what != NULL ? what : hub->ref.repo, f->transport->message);
}
