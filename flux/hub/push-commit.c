/* flux/hub/push-commit.c: the Hub's own requests for a push. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * POST /api/repos/create {"name", "organization", "type", "visibility"}: hf_api.py
 *   create_repo; 409 when it is there.
 * POST /api/models/REPO/preupload/main {"files": [{"path", "sample", "size"}]} gives
 *   {"files": [{"path", "uploadMode", "shouldIgnore", "oid"}]}: _commit_api.py
 *   _fetch_upload_modes; oid: of what the repository has under that name.
 * POST /api/models/REPO/commit/main, lines of JSON {"key", "value"}: header, file,
 *   lfsFile: _commit_api.py _prepare_commit_payload, _send_commit. */
#include <string.h>

#include "flux/hub/push-private.h"

#define JSON "application/json"
enum { SAMPLE = 512, MAX_REGULAR = 10 << 20 };

static void
append_member (GString *json, const char *name, const char *value)
{
  g_string_append_printf (json, "\"%s\": ", name);
  flux_json_append_string (json, value);
}

/* ---- the repository ---- */

/* Of GET /api/models/REPO: "private": true; TRUE in *is_private unless it says false. */
static gboolean
read_private (const GString *text, gboolean *is_private)
{
  FluxJsonCursor c;
  char *name = NULL;
  gboolean first = TRUE, said = FALSE;

  flux_json_cursor_init (&c, text->str, text->len);
  if (!flux_json_open (&c, '{'))
    return FALSE;
  while (flux_json_next_member (&c, &first, &name)) {
    if (strcmp (name, "private") == 0 && !said) {
      said = TRUE;
      *is_private = flux_json_peek (&c) != 'f';
    }
    flux_json_skip (&c);
    g_clear_pointer (&name, g_free);
  }
  return c.fault == NULL && said;
}

/* Also of one that was just made: nothing is sent to a place that others see. */
static gboolean
check_private (FluxHubPushing *self, GError **error)
{
  g_autofree char *url =
      g_strdup_printf ("%s/api/models/%s", self->hub.endpoint, self->hub.ref.repo);
  FluxHubRequest request = {.method = "GET", .last = -1};
  g_autoptr (GString) text = NULL;
  FluxHubAnswer answer;
  gboolean is_private = FALSE;

  if (!flux_hub_send (self->session, url, &request, NULL, &answer, error))
    return FALSE;
  text = flux_hub_read_body (&self->hub, answer.body, NULL);
  flux_hub_answer_clear (&answer);
  if (text == NULL || !read_private (text, &is_private))
    return flux_hub_push_refuse (self, "it does not say who may see it", error);
  if (is_private)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "%s is there already and everybody may see it: name another repository, or allow "
      "it (push-private=false in fluxtrainsink, private=false in gst-flux push).",
      self->hub.ref.repo);
  return FALSE;
}

gboolean
flux_hub_push_create (FluxHubPushing *self, GError **error)
{
  g_autofree char *url = g_strconcat (self->hub.endpoint, "/api/repos/create", NULL);
  g_auto (GStrv) names = g_strsplit (self->hub.ref.repo, "/", 2);
  g_autoptr (GString) body = g_string_new ("{"), text = NULL;
  FluxHubRequest request = {.may_conflict = TRUE};

  append_member (body, "name", names[1]);
  g_string_append (body, ", ");
  append_member (body, "organization", names[0]);
  g_string_append_printf (body, ", \"type\": \"model\", \"visibility\": \"%s\"}",
      self->push->is_private ? "private" : "public");
  text = flux_hub_post (self, url, JSON, body, "the new repository", &request, error);
  return text != NULL && (!self->push->is_private || check_private (self, error));
}

/* ---- which way each file goes ---- */

static gboolean
append_sample (GString *json, const FluxHubItem *item, GError **error)
{
  guint8 bytes[SAMPLE];
  gsize n = 0;
  g_autofree char *encoded = NULL;

  if (item->upload->bytes != NULL) {
    gconstpointer all = g_bytes_get_data (item->upload->bytes, &n);

    n = MIN (n, SAMPLE);
    if (n > 0) /* an empty file has no bytes to point at */
      memcpy (bytes, all, n);
  } else {
    g_autoptr (GFile) file = g_file_new_for_path (item->upload->file);
    g_autoptr (GFileInputStream) in = g_file_read (file, NULL, NULL);

    if (in == NULL || !g_input_stream_read_all (
                          G_INPUT_STREAM (in), bytes, sizeof bytes, &n, NULL, NULL)) {
      g_set_error (
          error, FLUX_ERROR, FLUX_ERROR_READ, "'%s' cannot be read.", item->upload->file);
      return FALSE;
    }
  }
  encoded = g_base64_encode (bytes, n);
  append_member (json, "sample", encoded);
  return TRUE;
}

static FluxHubItem *
find_item (FluxHubPushing *self, const char *path)
{
  for (guint i = 0; i < self->items->len; i++) {
    FluxHubItem *item = self->items->pdata[i];

    if (strcmp (item->upload->path, path) == 0)
      return item;
  }
  return NULL;
}

/* Git's hash of a file that goes into the commit. */
static gboolean
is_same (const FluxHubItem *item, const char *oid)
{
  g_autoptr (GBytes) bytes = NULL;
  g_autofree char *head = g_strdup_printf ("blob %" G_GUINT64_FORMAT, item->size);
  GChecksum *sum;
  gboolean same;
  gsize length;
  gconstpointer data;

  if (!flux_hub_is_hex (oid, 40) || (bytes = flux_hub_item_read (item, NULL)) == NULL)
    return FALSE;
  sum = g_checksum_new (G_CHECKSUM_SHA1);
  data = g_bytes_get_data (bytes, &length);
  g_checksum_update (sum, (const guchar *)head, (gssize)strlen (head) + 1);
  g_checksum_update (sum, data, (gssize)length);
  same = strcmp (g_checksum_get_string (sum), oid) == 0;
  g_checksum_free (sum);
  return same;
}

/* true; anything else is skipped and false. */
static gboolean
read_true (FluxJsonCursor *c)
{
  gboolean yes = flux_json_peek (c) == 't';

  return flux_json_skip (c) && yes;
}

/* A string, or NULL for another value. */
static char *
read_optional (FluxJsonCursor *c)
{
  if (flux_json_peek (c) == '"')
    return flux_json_read_string (c);
  flux_json_skip (c);
  return NULL;
}

static gboolean
read_mode (FluxHubPushing *self, FluxJsonCursor *c)
{
  g_autofree char *path = NULL, *mode = NULL, *oid = NULL;
  char *name = NULL;
  gboolean first = TRUE, ignore = FALSE;
  FluxHubItem *item;

  flux_json_open (c, '{');
  while (flux_json_next_member (c, &first, &name)) {
    if (strcmp (name, "path") == 0 && path == NULL)
      path = flux_json_read_string (c);
    else if (strcmp (name, "uploadMode") == 0 && mode == NULL)
      mode = flux_json_read_string (c);
    else if (strcmp (name, "oid") == 0 && oid == NULL)
      oid = read_optional (c);
    else if (strcmp (name, "shouldIgnore") == 0)
      ignore = read_true (c);
    else
      flux_json_skip (c);
    g_clear_pointer (&name, g_free);
  }
  if (c->fault != NULL)
    return FALSE;
  item = path != NULL ? find_item (self, path) : NULL;
  if (item == NULL || mode == NULL)
    return flux_json_fail (c, "a file that was not asked about");
  /* An empty file is nothing that LFS takes. */
  item->is_lfs =
      item->size > 0 && (strcmp (mode, "lfs") == 0 || item->size > MAX_REGULAR);
  item->is_known = ignore || (!item->is_lfs && is_same (item, oid));
  if (item->is_lfs && item->theirs == NULL)
    item->theirs = g_steal_pointer (&oid);
  return TRUE;
}

static gboolean
read_modes (FluxHubPushing *self, const GString *text, GError **error)
{
  FluxJsonCursor c;
  char *name = NULL;
  gboolean first = TRUE, first_file = TRUE;
  guint n = 0;

  flux_json_cursor_init (&c, text->str, text->len);
  flux_json_open (&c, '{');
  while (flux_json_next_member (&c, &first, &name)) {
    if (strcmp (name, "files") == 0 && n == 0) {
      flux_json_open (&c, '[');
      while (flux_json_next_element (&c, &first_file) && read_mode (self, &c))
        n++;
    } else
      flux_json_skip (&c);
    g_clear_pointer (&name, g_free);
  }
  if (c.fault == NULL && n != self->items->len)
    flux_json_fail (&c, "not all files");
  return c.fault == NULL || flux_hub_push_refuse (self, c.fault, error);
}

gboolean
flux_hub_push_modes (FluxHubPushing *self, GError **error)
{
  g_autofree char *url = g_strdup_printf (
      "%s/api/models/%s/preupload/main", self->hub.endpoint, self->hub.ref.repo);
  g_autoptr (GString) body = g_string_new ("{\"files\": ["), text = NULL;

  for (guint i = 0; i < self->items->len; i++) {
    const FluxHubItem *item = self->items->pdata[i];

    g_string_append (body, i > 0 ? ", {" : "{");
    append_member (body, "path", item->upload->path);
    g_string_append (body, ", ");
    if (!append_sample (body, item, error))
      return FALSE;
    g_string_append_printf (body, ", \"size\": %" G_GUINT64_FORMAT "}", item->size);
  }
  g_string_append (body, "]}");
  text = flux_hub_post (self, url, JSON, body, "the names of the files", NULL, error);
  return text != NULL && read_modes (self, text, error);
}

/* ---- the commit ---- */

static gboolean
append_file (GString *lines, const FluxHubItem *item, GError **error)
{
  g_autofree char *encoded = NULL;

  g_string_append_printf (
      lines, "{\"key\": \"%s\", \"value\": {", item->is_lfs ? "lfsFile" : "file");
  append_member (lines, "path", item->upload->path);
  if (item->is_lfs) {
    g_string_append_printf (lines,
        ", \"algo\": \"sha256\", \"oid\": \"%s\", \"size\": %" G_GUINT64_FORMAT "}}\n",
        item->sha256, item->size);
    return TRUE;
  } else {
    g_autoptr (GBytes) bytes = flux_hub_item_read (item, error);
    gsize length;
    gconstpointer data;

    if (bytes == NULL)
      return FALSE;
    if (lines->len + g_bytes_get_size (bytes) > FLUX_HUB_MAX_COMMIT) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "There are more than %d MiB of small files to push: push fewer of them.",
          FLUX_HUB_MAX_COMMIT >> 20);
      return FALSE;
    }
    data = g_bytes_get_data (bytes, &length);
    encoded = g_base64_encode (data, length);
  }
  g_string_append_printf (
      lines, ", \"encoding\": \"base64\", \"content\": \"%s\"}}\n", encoded);
  return TRUE;
}

gboolean
flux_hub_push_commit (FluxHubPushing *self, GError **error)
{
  g_autofree char *url = g_strdup_printf (
      "%s/api/models/%s/commit/main", self->hub.endpoint, self->hub.ref.repo);
  g_autoptr (GString) lines = g_string_new ("{\"key\": \"header\", \"value\": {"),
                      text = NULL;
  FluxHubRequest request = {.once = TRUE};
  g_autofree char *commit = NULL;
  FluxJsonCursor c;
  guint64 regular = 0;
  guint n = 0;

  append_member (lines, "summary", self->push->message);
  g_string_append (lines, ", \"description\": \"\"}}\n");
  for (guint i = 0; i < self->items->len; i++) {
    const FluxHubItem *item = self->items->pdata[i];

    if (item->is_known)
      continue;
    if (!append_file (lines, item, error))
      return FALSE;
    regular += item->is_lfs ? 0 : item->size;
    n++;
  }
  if (n == 0)
    return TRUE;
  text = flux_hub_post (
      self, url, "application/x-ndjson", lines, "the commit", &request, error);
  if (text == NULL)
    return FALSE;
  flux_json_cursor_init (&c, text->str, text->len);
  commit = flux_hub_read_member (&c, "commitOid");
  if (commit == NULL)
    return flux_hub_push_refuse (self, "no commit", error);
  flux_hub_count (&self->hub, (gint64)regular);
  return TRUE;
}
