/* flux/hub/push-lfs.c: large files. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * POST REPO.git/info/lfs/objects/batch says where each goes (git-lfs docs/api/batch.md;
 * huggingface_hub lfs.py post_lfs_batch_info): nowhere when its content is there; PUT
 * to "href"; or, when its header has "chunk_size", in parts to the addresses "1", "2",
 * ... there, and then POST {"oid", "parts": [{"partNumber", "etag"}]} to "href" (lfs.py
 * _upload_multi_part). Last, POST {"oid", "size"} to "verify" where there is such. */
#include <string.h>

#include "flux/hub/push-private.h"

#define LFS_JSON "application/vnd.git-lfs+json"
enum { MAX_PARTS = 10000, BUFFER = 1 << 16 };

/* What the batch says of one file. */
typedef struct {
  char *oid, *href, *verify, *fault;
  guint64 size, chunk;
  GHashTable *parts; /* number to address */
} Action;

static void
action_clear (Action *self)
{
  g_free (self->oid);
  g_free (self->href);
  g_free (self->verify);
  g_free (self->fault);
  g_hash_table_unref (self->parts);
}

/* ---- hashes ---- */

static gboolean
hash_item (FluxHubPushing *self, FluxHubItem *item, GError **error)
{
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_autofree guint8 *buffer = g_malloc (BUFFER);
  gboolean ok = TRUE;

  if (item->upload->bytes != NULL) {
    gsize length;
    gconstpointer data = g_bytes_get_data (item->upload->bytes, &length);

    g_checksum_update (sum, data, (gssize)length);
  } else {
    g_autoptr (GInputStream) in =
        flux_hub_part_new (&self->hub, item->upload->file, 0, item->size);
    gssize n;

    while (
        (n = g_input_stream_read (in, buffer, BUFFER, self->hub.cancellable, error)) > 0)
      g_checksum_update (sum, buffer, n);
    ok = n == 0;
  }
  if (ok)
    item->sha256 = g_strdup (g_checksum_get_string (sum));
  g_checksum_free (sum);
  return ok;
}

static gboolean
hash_all (FluxHubPushing *self, guint *n, GError **error)
{
  *n = 0;
  for (guint i = 0; i < self->items->len; i++) {
    FluxHubItem *item = self->items->pdata[i];

    if (!item->is_lfs || item->is_known)
      continue;
    if (!hash_item (self, item, error))
      return FALSE;
    item->is_known = g_strcmp0 (item->sha256, item->theirs) == 0;
    if (!item->is_known)
      (*n)++;
  }
  g_mutex_lock (&self->hub.lock);
  self->hub.done = self->hub.total = 0;
  g_mutex_unlock (&self->hub.lock);
  return TRUE;
}

/* ---- the batch ---- */

/* A number, in digits or in a string of them. */
static guint64
read_number (FluxJsonCursor *c)
{
  guint64 value = 0;

  if (flux_json_peek (c) == '"') {
    g_autofree char *text = flux_json_read_string (c);

    if (text != NULL &&
        !g_ascii_string_to_unsigned (text, 10, 1, G_MAXINT64, &value, NULL))
      flux_json_fail (c, "a size of parts that is no number");
  } else
    flux_json_read_size (c, &value);
  return value;
}

static void
read_header (FluxJsonCursor *c, Action *to)
{
  char *name = NULL;
  gboolean first = TRUE;
  guint64 number;

  flux_json_open (c, '{');
  while (flux_json_next_member (c, &first, &name)) {
    if (strcmp (name, "chunk_size") == 0)
      to->chunk = read_number (c);
    else if (g_ascii_string_to_unsigned (name, 10, 1, MAX_PARTS, &number, NULL)) {
      char *url = flux_json_read_string (c);

      if (url != NULL)
        g_hash_table_insert (to->parts, GUINT_TO_POINTER ((guint)number), url);
    } else
      flux_json_skip (c);
    g_clear_pointer (&name, g_free);
  }
}

/* {"href", "header"}. */
static void
read_place (FluxJsonCursor *c, char **href, Action *to)
{
  char *name = NULL;
  gboolean first = TRUE;

  flux_json_open (c, '{');
  while (flux_json_next_member (c, &first, &name)) {
    if (strcmp (name, "href") == 0 && *href == NULL)
      *href = flux_json_read_string (c);
    else if (to != NULL && strcmp (name, "header") == 0 && flux_json_peek (c) == '{')
      read_header (c, to);
    else
      flux_json_skip (c);
    g_clear_pointer (&name, g_free);
  }
}

static void
read_actions (FluxJsonCursor *c, Action *to)
{
  char *name = NULL;
  gboolean first = TRUE;

  if (flux_json_peek (c) != '{') {
    flux_json_skip (c);
    return;
  }
  flux_json_open (c, '{');
  while (flux_json_next_member (c, &first, &name)) {
    if (strcmp (name, "upload") == 0)
      read_place (c, &to->href, to);
    else if (strcmp (name, "verify") == 0)
      read_place (c, &to->verify, NULL);
    else
      flux_json_skip (c);
    g_clear_pointer (&name, g_free);
  }
}

static void
read_object (FluxJsonCursor *c, Action *to)
{
  char *name = NULL;
  gboolean first = TRUE;

  flux_json_open (c, '{');
  while (flux_json_next_member (c, &first, &name)) {
    if (strcmp (name, "oid") == 0 && to->oid == NULL)
      to->oid = flux_json_read_string (c);
    else if (strcmp (name, "size") == 0)
      flux_json_read_size (c, &to->size);
    else if (strcmp (name, "actions") == 0)
      read_actions (c, to);
    else if (strcmp (name, "error") == 0 && to->fault == NULL)
      to->fault = flux_hub_read_member (c, "message");
    else
      flux_json_skip (c);
    g_clear_pointer (&name, g_free);
  }
}

/* ---- sending ---- */

static gboolean
is_allowed (FluxHubPushing *self, const char *url)
{
  return g_str_has_prefix (url, "https://") ||
         (g_str_has_prefix (url, "http://") &&
             g_str_has_prefix (self->hub.endpoint, "http://"));
}

/* *etag may be NULL. */
static gboolean
put_part (FluxHubPushing *self, const FluxHubItem *item, const char *url, guint64 first,
    guint64 length, char **etag, GError **error)
{
  FluxHubRequest request = {.method = "PUT", .last = -1};
  g_autoptr (GBytes) bytes = NULL;
  FluxHubAnswer answer;

  if (!is_allowed (self, url))
    return flux_hub_push_refuse (self, "an address that is not encrypted", error);
  if (item->upload->bytes != NULL) {
    bytes = g_bytes_new_from_bytes (item->upload->bytes, first, length);
    request.bytes = bytes;
  } else {
    request.file = item->upload->file;
    request.first = first;
    request.length = length;
  }
  if (!flux_hub_send (self->session, url, &request, item->upload->path, &answer, error))
    return FALSE;
  if (bytes != NULL)
    flux_hub_count (&self->hub, (gint64)length);
  if (etag != NULL)
    *etag = g_steal_pointer (&answer.etag);
  flux_hub_answer_clear (&answer);
  return TRUE;
}

static gboolean
put_parts (
    FluxHubPushing *self, const FluxHubItem *item, const Action *action, GError **error)
{
  guint64 n = (item->size + action->chunk - 1) / action->chunk;
  g_autoptr (GString) body = g_string_new ("{"), text = NULL;

  if (n > MAX_PARTS || g_hash_table_size (action->parts) != n)
    return flux_hub_push_refuse (self, "another number of parts", error);
  g_string_append_printf (body, "\"oid\": \"%s\", \"parts\": [", item->sha256);
  for (guint i = 0; i < n; i++) {
    const char *url = g_hash_table_lookup (action->parts, GUINT_TO_POINTER (i + 1));
    guint64 first = i * action->chunk;
    g_autofree char *etag = NULL;

    if (url == NULL)
      return flux_hub_push_refuse (self, "a part without address", error);
    if (!put_part (self, item, url, first, MIN (action->chunk, item->size - first), &etag,
            error))
      return FALSE;
    if (etag == NULL || !g_utf8_validate (etag, -1, NULL))
      return flux_hub_push_refuse (self, "a part without ETag", error);
    g_string_append_printf (
        body, "%s{\"partNumber\": %u, \"etag\": ", i > 0 ? ", " : "", i + 1);
    flux_json_append_string (body, etag);
    g_string_append_c (body, '}');
  }
  g_string_append (body, "]}");
  if (!is_allowed (self, action->href))
    return flux_hub_push_refuse (self, "an address that is not encrypted", error);
  text =
      flux_hub_post (self, action->href, LFS_JSON, body, item->upload->path, NULL, error);
  return text != NULL;
}

static gboolean
verify (
    FluxHubPushing *self, const FluxHubItem *item, const Action *action, GError **error)
{
  g_autoptr (GString) body = g_string_new (NULL), text = NULL;

  if (action->verify == NULL)
    return TRUE;
  if (!is_allowed (self, action->verify))
    return flux_hub_push_refuse (self, "an address that is not encrypted", error);
  g_string_printf (body, "{\"oid\": \"%s\", \"size\": %" G_GUINT64_FORMAT "}",
      item->sha256, item->size);
  text = flux_hub_post (
      self, action->verify, LFS_JSON, body, item->upload->path, NULL, error);
  return text != NULL;
}

static gboolean
send_item (
    FluxHubPushing *self, const FluxHubItem *item, const Action *action, GError **error)
{
  if (action->chunk > 0
          ? !put_parts (self, item, action, error)
          : !put_part (self, item, action->href, 0, item->size, NULL, error))
    return FALSE;
  return verify (self, item, action, error);
}

static const FluxHubItem *
find_oid (FluxHubPushing *self, const Action *action)
{
  for (guint i = 0; i < self->items->len; i++) {
    const FluxHubItem *item = self->items->pdata[i];

    if (item->sha256 != NULL && strcmp (item->sha256, action->oid) == 0)
      return item;
  }
  return NULL;
}

static gboolean
check_action (FluxHubPushing *self, const Action *action, GError **error)
{
  const FluxHubItem *item;

  if (action->oid == NULL || (item = find_oid (self, action)) == NULL ||
      action->size != item->size)
    return flux_hub_push_refuse (self, "a file that was not asked about", error);
  if (action->fault == NULL)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_WRITE, "The Hub does not take '%s': %.200s",
      item->upload->path, action->fault);
  return FALSE;
}

/* All of them, before anything is sent: then the sum is known. */
static GArray *
read_batch (FluxHubPushing *self, const GString *text, GError **error)
{
  GArray *actions = g_array_new (FALSE, FALSE, sizeof (Action));
  FluxJsonCursor c;
  char *name = NULL;
  gboolean first = TRUE, ok = TRUE;

  g_array_set_clear_func (actions, (GDestroyNotify)action_clear);
  flux_json_cursor_init (&c, text->str, text->len);
  flux_json_open (&c, '{');
  while (flux_json_next_member (&c, &first, &name)) {
    gboolean first_object = TRUE;

    if (strcmp (name, "objects") == 0 && actions->len == 0) {
      flux_json_open (&c, '[');
      while (flux_json_next_element (&c, &first_object)) {
        Action action = {
            .parts = g_hash_table_new_full (g_direct_hash, g_direct_equal, NULL, g_free)};

        read_object (&c, &action);
        g_array_append_val (actions, action);
      }
    } else
      flux_json_skip (&c);
    g_clear_pointer (&name, g_free);
  }
  if (c.fault != NULL)
    ok = flux_hub_push_refuse (self, c.fault, error);
  for (guint i = 0; ok && i < actions->len; i++)
    ok = check_action (self, &g_array_index (actions, Action, i), error);
  if (!ok)
    g_clear_pointer (&actions, g_array_unref);
  return actions;
}

static GString *
ask_batch (FluxHubPushing *self, GError **error)
{
  g_autofree char *page = flux_hub_page (&self->hub);
  g_autofree char *url = g_strconcat (page, ".git/info/lfs/objects/batch", NULL);
  g_autoptr (GString) body = g_string_new (
      "{\"operation\": \"upload\", \"transfers\": [\"basic\", \"multipart\"], "
      "\"hash_algo\": \"sha256\", \"ref\": {\"name\": \"main\"}, \"objects\": [");
  FluxHubRequest request = {.accept = LFS_JSON};
  guint n = 0;

  for (guint i = 0; i < self->items->len; i++) {
    const FluxHubItem *item = self->items->pdata[i];

    if (item->sha256 != NULL && !item->is_known)
      g_string_append_printf (body,
          "%s{\"oid\": \"%s\", \"size\": %" G_GUINT64_FORMAT "}", n++ > 0 ? ", " : "",
          item->sha256, item->size);
  }
  g_string_append (body, "]}");
  return flux_hub_post (
      self, url, LFS_JSON, body, "the list of large files", &request, error);
}

gboolean
flux_hub_push_large (FluxHubPushing *self, GError **error)
{
  g_autoptr (GString) text = NULL;
  g_autoptr (GArray) actions = NULL;
  guint64 total = 0;
  guint n;
  gboolean ok = TRUE;

  if (!hash_all (self, &n, error))
    return FALSE;
  if (n == 0)
    return TRUE;
  text = ask_batch (self, error);
  if (text == NULL || (actions = read_batch (self, text, error)) == NULL)
    return FALSE;
  for (guint i = 0; i < actions->len; i++) {
    const Action *action = &g_array_index (actions, Action, i);

    total += action->href != NULL ? MIN (action->size, G_MAXUINT64 - total) : 0;
  }
  g_mutex_lock (&self->hub.lock);
  self->hub.total = total;
  g_mutex_unlock (&self->hub.lock);
  for (guint i = 0; ok && i < actions->len; i++) {
    const Action *action = &g_array_index (actions, Action, i);

    if (action->href != NULL)
      ok = send_item (self, find_oid (self, action), action, error);
  }
  return ok;
}
