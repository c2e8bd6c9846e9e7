/* flux/hub/push.c: files into a repository: the order of things.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "flux/hub/push-private.h"

void
flux_hub_upload_free (FluxHubUpload *self)
{
  g_free (self->path);
  g_free (self->file);
  g_clear_pointer (&self->bytes, g_bytes_unref);
  g_free (self);
}

void
flux_hub_upload_add (GPtrArray *uploads, const char *path, const char *file)
{
  FluxHubUpload *upload = g_new0 (FluxHubUpload, 1);

  upload->path = g_strdup (path);
  upload->file = g_strdup (file);
  g_ptr_array_add (uploads, upload);
}

static void
item_free (gpointer data)
{
  FluxHubItem *self = data;

  g_free (self->sha256);
  g_free (self->theirs);
  g_free (self);
}

/* ---- before ---- */

static gboolean
init (FluxHub *hub, const char *repo, GError **error)
{
  g_autofree char *uri = g_strconcat ("hf://", repo, NULL);

  if (!flux_hub_init (hub, uri, error))
    return FALSE;
  if (hub->ref.is_dataset || hub->ref.path[0] != '\0' || strchr (repo, '@') != NULL)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "'%s' is no model repository to push to: write user/name.", repo);
  else if (hub->offline)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "Nothing can be pushed to %s while HF_HUB_OFFLINE is set: unset it.", repo);
  else if (hub->token == NULL)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "Pushing to %s needs a token: make one that may write at %s/settings/tokens and "
        "put it into HF_TOKEN.",
        repo, hub->endpoint);
  else
    return TRUE;
  return FALSE;
}

gboolean
flux_hub_check_push (const char *repo, GError **error)
{
  FluxHub hub;
  gboolean ok = init (&hub, repo, error);

  flux_hub_clear (&hub);
  return ok;
}

GBytes *
flux_hub_item_read (const FluxHubItem *item, GError **error)
{
  char *text = NULL;
  gsize length;
  g_autoptr (GError) failure = NULL;

  if (item->upload->bytes != NULL)
    return g_bytes_ref (item->upload->bytes);
  if (g_file_get_contents (item->upload->file, &text, &length, &failure) &&
      length == item->size)
    return g_bytes_new_take (text, length);
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ, "'%s' cannot be read%s%s.",
      item->upload->file, failure != NULL ? ": " : ", it has just changed",
      failure != NULL ? failure->message : "");
  g_free (text);
  return NULL;
}

static gboolean
add_item (FluxHubPushing *self, const FluxHubUpload *upload, GError **error)
{
  FluxHubItem *item;
  struct stat st;

  if (!flux_hub_is_safe_path (upload->path)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "'%s' is no name for a file on the Hub.", upload->path);
    return FALSE;
  }
  if (upload->bytes == NULL && (stat (upload->file, &st) != 0 || !S_ISREG (st.st_mode))) {
    flux_error_from_errno (error, FLUX_ERROR_READ, errno, "Cannot read", upload->file);
    return FALSE;
  }
  item = g_new0 (FluxHubItem, 1);
  item->upload = upload;
  item->size =
      upload->bytes != NULL ? g_bytes_get_size (upload->bytes) : (guint64)st.st_size;
  g_ptr_array_add (self->items, item);
  return TRUE;
}

/* ---- requests ---- */

gboolean
flux_hub_push_refuse (FluxHubPushing *self, const char *fault, GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "What %s answers to a push to %s is not the Hub's (%s): check HF_ENDPOINT.",
      self->hub.endpoint, self->hub.ref.repo, fault);
  return FALSE;
}

GString *
flux_hub_post (FluxHubPushing *self, const char *url, const char *type,
    const GString *body, const char *what, FluxHubRequest *request, GError **error)
{
  FluxHubRequest own = {0}, *r = request != NULL ? request : &own;
  g_autoptr (GBytes) bytes = g_bytes_new (body->str, body->len);
  FluxHubAnswer answer;
  GString *text;
  GError *failure = NULL;

  r->method = "POST";
  r->last = -1;
  r->type = type;
  r->bytes = bytes;
  if (!flux_hub_send (self->session, url, r, what, &answer, error))
    return NULL;
  text = flux_hub_read_body (&self->hub, answer.body, &failure);
  flux_hub_answer_clear (&answer);
  r->bytes = NULL;
  if (text != NULL || failure == NULL || failure->domain == FLUX_ERROR) {
    if (failure != NULL)
      g_propagate_error (error, failure);
    return text;
  }
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
      "The Hub's answer to %s for %s broke off (%s): try again.", what,
      self->hub.ref.repo, failure->message);
  g_error_free (failure);
  return NULL;
}

/* ---- the whole ---- */

static gboolean
push_all (FluxHubPushing *self, GError **error)
{
  for (guint i = 0; i < self->push->files->len; i++)
    if (!add_item (self, self->push->files->pdata[i], error))
      return FALSE;
  if (!flux_hub_push_create (self, error) || !flux_hub_push_modes (self, error) ||
      !flux_hub_push_large (self, error) || !flux_hub_push_commit (self, error))
    return FALSE;
  self->page = flux_hub_page (&self->hub);
  return TRUE;
}

static void
run (gpointer data)
{
  FluxHubPushing *self = data;

  self->session = flux_hub_session_new (&self->hub);
  push_all (self, &self->error);
  flux_hub_session_free (self->session);
}

static void
ask_who (gpointer data)
{
  FluxHubPushing *self = data;
  g_autofree char *url = g_strconcat (self->hub.endpoint, "/api/whoami-v2", NULL);
  FluxHubRequest request = {.method = "GET", .last = -1};
  FluxHubAnswer answer;

  self->session = flux_hub_session_new (&self->hub);
  if (flux_hub_send (self->session, url, &request, NULL, &answer, &self->error))
    flux_hub_answer_clear (&answer);
  else if (!g_error_matches (self->error, FLUX_ERROR, FLUX_ERROR_READ) &&
           !g_error_matches (self->error, FLUX_ERROR, FLUX_ERROR_CANCELLED)) {
    g_clear_error (&self->error);
    g_set_error (&self->error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The Hub does not accept the token, so nothing could be pushed to %s: make one "
        "that may write at %s/settings/tokens and put it into HF_TOKEN.",
        self->hub.ref.repo, self->hub.endpoint);
  }
  flux_hub_session_free (self->session);
}

static gboolean
work (FluxHubPushing *self, const char *repo, FluxHubWorkFunc func,
    FluxProgressFunc progress, gpointer data, GError **error)
{
  self->items = g_ptr_array_new_with_free_func (item_free);
  if (init (&self->hub, repo, &self->error))
    flux_hub_work (&self->hub, func, self, progress, data, &self->error);
  if (g_cancellable_is_cancelled (self->hub.cancellable) && self->page == NULL) {
    g_clear_error (&self->error);
    flux_hub_cancelled (&self->error);
  }
  g_ptr_array_unref (self->items);
  flux_hub_clear (&self->hub);
  if (self->error == NULL)
    return TRUE;
  g_propagate_error (error, self->error);
  return FALSE;
}

gboolean
flux_hub_check_token (
    const char *repo, FluxProgressFunc progress, gpointer data, GError **error)
{
  FluxHubPushing self = {0};

  return work (&self, repo, ask_who, progress, data, error);
}

char *
flux_hub_push (
    const FluxHubPush *push, FluxProgressFunc progress, gpointer data, GError **error)
{
  FluxHubPushing self = {.push = push};

  work (&self, push->repo, run, progress, data, error);
  return self.page;
}
