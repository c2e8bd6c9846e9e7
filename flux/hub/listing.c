/* flux/hub/listing.c: which files a repository has. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * GET /api/models/REPO/revision/REVISION gives {"sha": COMMIT, ...}; GET
 * /api/models/REPO/tree/COMMIT?recursive=true gives pages of [{"type": "file", "path",
 * "size", "oid", "lfs": {"oid", "size"}}], linked by a Link header (huggingface_hub
 * hf_api.py repo_info, list_repo_tree; utils/_pagination.py). */
#include <string.h>

#include "flux/hub/hub-private.h"

enum { MAX_PAGES = 1000 };

void
flux_hub_file_free (FluxHubFile *self)
{
  g_free (self->path);
  g_free (self->etag);
  g_free (self);
}

void
flux_hub_listing_clear (FluxHubListing *self)
{
  g_clear_pointer (&self->commit, g_free);
  g_clear_pointer (&self->files, g_ptr_array_unref);
}

GString *
flux_hub_read_body (FluxHub *hub, GInputStream *body, GError **error)
{
  g_autoptr (GString) text = g_string_new (NULL);
  g_autofree char *buffer = g_malloc (1 << 16);
  gssize n;

  while ((n = g_input_stream_read (body, buffer, 1 << 16, hub->cancellable, error)) > 0) {
    if (text->len + (gsize)n > FLUX_HUB_MAX_JSON) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
          "The Hub's description of %s is larger than %d MiB: it is not what it should "
          "be.",
          hub->ref.repo, FLUX_HUB_MAX_JSON >> 20);
      return NULL;
    }
    g_string_append_len (text, buffer, n);
  }
  return n == 0 ? g_steal_pointer (&text) : NULL;
}

/* The text of an answer; a connection that broke while it came is tried again. */
static GString *
get_text (
    FluxHubSession *session, FluxHub *hub, const char *url, char **next, GError **error)
{
  guint tries = 0;

  for (;;) {
    FluxHubAnswer answer;
    GString *text;
    GError *failure = NULL;

    if (!flux_hub_get (session, url, NULL, 0, -1, &answer, error))
      return NULL;
    text = flux_hub_read_body (hub, answer.body, &failure);
    /* A body that stops early is not always an error of the stream. */
    if (text != NULL && answer.total >= 0 && (gint64)text->len != answer.total) {
      g_string_free (text, TRUE);
      text = NULL;
      g_set_error (&failure, G_IO_ERROR, G_IO_ERROR_PARTIAL_INPUT, "it stopped early");
    }
    if (text != NULL && next != NULL)
      *next = g_steal_pointer (&answer.next);
    flux_hub_answer_clear (&answer);
    if (text != NULL)
      return text;
    if (failure->domain == FLUX_ERROR || !flux_hub_wait_retry (hub, &tries, &failure)) {
      if (failure->domain == FLUX_ERROR)
        g_propagate_error (error, failure);
      else {
        g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ,
            "The Hub's description of %s does not arrive (%s): try again later.",
            hub->ref.repo, failure->message);
        g_error_free (failure);
      }
      return NULL;
    }
  }
}

static gboolean
refuse (FluxHub *hub, const char *fault, GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "The description of %s at %s is not the Hub's (%s): check HF_ENDPOINT.",
      hub->ref.repo, hub->endpoint, fault);
  return FALSE;
}

char *
flux_hub_read_member (FluxJsonCursor *c, const char *member)
{
  char *name = NULL, *value = NULL;
  gboolean first = TRUE;

  if (!flux_json_open (c, '{'))
    return NULL;
  while (flux_json_next_member (c, &first, &name)) {
    if (strcmp (name, member) == 0 && value == NULL)
      value = flux_json_read_string (c);
    else
      flux_json_skip (c);
    g_clear_pointer (&name, g_free);
  }
  return value;
}

static char *
get_commit (FluxHubSession *session, FluxHub *hub, const char *api, GError **error)
{
  g_autofree char *revision = g_uri_escape_string (hub->ref.revision, NULL, FALSE);
  g_autofree char *url = g_strdup_printf ("%s/revision/%s", api, revision);
  g_autofree char *commit = NULL;
  g_autoptr (GString) text = get_text (session, hub, url, NULL, error);
  FluxJsonCursor c;

  if (text == NULL)
    return NULL;
  flux_json_cursor_init (&c, text->str, text->len);
  commit = flux_hub_read_member (&c, "sha");
  if (c.fault != NULL || !flux_hub_is_hex (commit, FLUX_HUB_COMMIT_DIGITS)) {
    refuse (hub, c.fault != NULL ? c.fault : "no commit", error);
    return NULL;
  }
  return g_steal_pointer (&commit);
}

/* "lfs": {"oid", "size", ...}, or null. */
static void
read_lfs (FluxJsonCursor *c, FluxHubFile *file, gboolean *is_lfs)
{
  char *name = NULL;
  gboolean first = TRUE;

  if (flux_json_peek (c) != '{') {
    flux_json_skip (c);
    return;
  }
  flux_json_open (c, '{');
  *is_lfs = TRUE;
  while (flux_json_next_member (c, &first, &name)) {
    if (strcmp (name, "oid") == 0) {
      g_free (file->etag);
      file->etag = flux_json_read_string (c);
    } else if (strcmp (name, "size") == 0)
      flux_json_read_size (c, &file->size);
    else
      flux_json_skip (c);
    g_clear_pointer (&name, g_free);
  }
}

/* One element; *file NULL for folders. */
static gboolean
read_entry (FluxJsonCursor *c, FluxHubFile **out)
{
  FluxHubFile *file = g_new0 (FluxHubFile, 1);
  g_autofree char *type = NULL, *oid = NULL;
  char *name = NULL;
  guint64 size = 0;
  gboolean first = TRUE, is_lfs = FALSE;

  *out = NULL;
  flux_json_open (c, '{');
  while (flux_json_next_member (c, &first, &name)) {
    if (strcmp (name, "type") == 0 && type == NULL)
      type = flux_json_read_string (c);
    else if (strcmp (name, "oid") == 0 && oid == NULL)
      oid = flux_json_read_string (c);
    else if (strcmp (name, "path") == 0 && file->path == NULL)
      file->path = flux_json_read_string (c);
    else if (strcmp (name, "size") == 0)
      flux_json_read_size (c, &size);
    else if (strcmp (name, "lfs") == 0)
      read_lfs (c, file, &is_lfs);
    else
      flux_json_skip (c);
    g_clear_pointer (&name, g_free);
  }
  if (c->fault == NULL && g_strcmp0 (type, "file") == 0) {
    if (!is_lfs) {
      file->etag = g_steal_pointer (&oid);
      file->size = size;
    }
    if (file->path == NULL || !flux_hub_is_safe_path (file->path))
      return flux_json_fail (c, "a file name that leads out of its folder"),
             flux_hub_file_free (file), FALSE;
    if (!flux_hub_is_hex (file->etag, is_lfs ? 64 : 40))
      return flux_json_fail (c, "a file without a hash"), flux_hub_file_free (file),
             FALSE;
    *out = file;
    return TRUE;
  }
  flux_hub_file_free (file);
  return c->fault == NULL;
}

static gboolean
read_page (FluxHub *hub, const GString *text, FluxHubListing *out, GError **error)
{
  FluxJsonCursor c;
  gboolean first = TRUE;

  flux_json_cursor_init (&c, text->str, text->len);
  flux_json_open (&c, '[');
  while (flux_json_next_element (&c, &first)) {
    FluxHubFile *file;

    if (!read_entry (&c, &file))
      break;
    if (file != NULL)
      g_ptr_array_add (out->files, file);
    if (out->files->len > FLUX_HUB_MAX_FILES) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
          "%s has more than %d files: download it by hand.", hub->ref.repo,
          FLUX_HUB_MAX_FILES);
      return FALSE;
    }
  }
  if (c.fault == NULL)
    flux_json_finish (&c);
  return c.fault == NULL || refuse (hub, c.fault, error);
}

static gint
compare_paths (gconstpointer a, gconstpointer b)
{
  const FluxHubFile *const *x = a, *const *y = b;

  return strcmp ((*x)->path, (*y)->path);
}

gboolean
flux_hub_list (FluxHubSession *session, FluxHub *hub, FluxHubListing *out, GError **error)
{
  g_autofree char *api = g_strdup_printf ("%s/api/%s/%s", hub->endpoint,
      hub->ref.is_dataset ? "datasets" : "models", hub->ref.repo);
  g_autofree char *url = NULL;

  out->commit = get_commit (session, hub, api, error);
  if (out->commit == NULL)
    return FALSE;
  out->files = g_ptr_array_new_with_free_func ((GDestroyNotify)flux_hub_file_free);
  url = g_strdup_printf ("%s/tree/%s?recursive=true", api, out->commit);
  for (guint page = 0; url != NULL; page++) {
    char *next = NULL;
    g_autoptr (GString) text = get_text (session, hub, url, &next, error);

    g_free (url);
    url = next;
    if (text == NULL || !read_page (hub, text, out, error))
      return FALSE;
    if (page >= MAX_PAGES)
      return refuse (hub, "a listing without end", error);
  }
  g_ptr_array_sort (out->files, compare_paths);
  return TRUE;
}

/* ---- what the cache has ---- */

static gboolean
walk (FluxHubListing *out, const char *folder, const char *prefix, guint depth)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;
  gboolean ok = TRUE;

  if (dir == NULL)
    return FALSE;
  while (ok && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_autofree char *relative =
        prefix[0] != '\0' ? g_strconcat (prefix, "/", name, NULL) : g_strdup (name);

    if (g_file_test (path, G_FILE_TEST_IS_DIR)) {
      if (depth < FLUX_HUB_MAX_DEPTH && !g_file_test (path, G_FILE_TEST_IS_SYMLINK))
        ok = walk (out, path, relative, depth + 1);
    } else if (g_file_test (path, G_FILE_TEST_IS_REGULAR)) {
      FluxHubFile *file = g_new0 (FluxHubFile, 1);

      file->path = g_steal_pointer (&relative);
      g_ptr_array_add (out->files, file);
      ok = out->files->len <= FLUX_HUB_MAX_FILES;
    }
  }
  g_dir_close (dir);
  return ok;
}

gboolean
flux_hub_list_cached (FluxHub *hub, FluxHubListing *out, GError **error)
{
  g_autofree char *snapshot = NULL;

  out->files = g_ptr_array_new_with_free_func ((GDestroyNotify)flux_hub_file_free);
  out->commit = flux_hub_store_read_ref (hub);
  if (out->commit != NULL)
    snapshot = flux_hub_snapshot_path (hub, out->commit, NULL);
  if (snapshot == NULL || !walk (out, snapshot, "", 0)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "%s is not in the cache '%s', and HF_HUB_OFFLINE is set: unset it to download.",
        hub->ref.repo, hub->cache);
    return FALSE;
  }
  g_ptr_array_sort (out->files, compare_paths);
  return TRUE;
}
