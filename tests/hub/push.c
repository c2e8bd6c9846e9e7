/* tests/hub/push.c: what the tests' Hub does with a push. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Endpoints, each as huggingface_hub (https://github.com/huggingface/huggingface_hub,
 * src/huggingface_hub/...) uses it:
 *
 *   GET  /api/whoami-v2            {"name", ...}                   hf_api.py whoami
 *   POST /api/repos/create         {"url"}; 409 when it is there   hf_api.py create_repo
 *   GET  /api/models/REPO          {"id", "private", "sha"}        hf_api.py model_info
 *   POST /api/validate-yaml        {"errors", "warnings"}     hf_api.py _validate_yaml
 *   POST /api/models/REPO/preupload/main   {"files": [{"path", "uploadMode",
 *        "shouldIgnore", "oid"}]}                  _commit_api.py _fetch_upload_modes
 *   POST /REPO.git/info/lfs/objects/batch  objects with actions   lfs.py
 *        post_lfs_batch_info; https://github.com/git-lfs/git-lfs docs/api/batch.md
 *   PUT  /upload/OID, /upload/OID/N on the second port: storage, which gives an ETag;
 *        no Authorization belongs there           lfs.py _upload_single_part,
 *        _upload_parts_iteratively
 *   POST /api/complete/OID         {"oid", "parts"}    lfs.py _get_completion_payload
 *   POST /REPO.git/info/lfs/objects/verify {"oid", "size"}        lfs.py lfs_upload
 *   POST /api/models/REPO/commit/main, lines of JSON   {"commitUrl", "commitOid"};
 *        _commit_api.py _prepare_commit_payload, _send_commit */
#include <json-glib/json-glib.h>
#include <string.h>

#include "tests/hub/server-private.h"

#define LFS_HEADERS "Content-Type: application/vnd.git-lfs+json\r\n"
#define JSON_HEADERS "Content-Type: application/json\r\n"

static gboolean
may_write (const TestHubRequest *r)
{
  return g_strcmp0 (r->authorization, "Bearer " TEST_HUB_WRITE_TOKEN) == 0;
}

static void
refuse (GOutputStream *out, const TestHubRequest *r, guint status, const char *why)
{
  g_autofree char *headers =
      g_strdup_printf (JSON_HEADERS "X-Error-Message: %s\r\n", why);
  g_autofree char *body = g_strdup_printf ("{\"error\": \"%s\"}", why);

  test_hub_answer (out, r, status, headers, body);
}

static JsonParser *
parse (const char *text, gssize length, JsonObject **root)
{
  JsonParser *parser = json_parser_new ();

  *root = NULL;
  if (json_parser_load_from_data (parser, text, length, NULL) &&
      JSON_NODE_HOLDS_OBJECT (json_parser_get_root (parser)))
    *root = json_node_get_object (json_parser_get_root (parser));
  return parser;
}

static JsonParser *
parse_body (const TestHubRequest *r, JsonObject **root)
{
  gsize length = 0;
  const char *text = r->body != NULL ? g_bytes_get_data (r->body, &length) : "";

  return parse (text, (gssize)length, root);
}

static char *
sha256_of (GBytes *bytes)
{
  return g_compute_checksum_for_bytes (G_CHECKSUM_SHA256, bytes);
}

/* ---- repositories ---- */

static gboolean
repo_is_there (TestHub *self, const char *repo)
{
  return g_hash_table_contains (self->repos, repo) ||
         test_hub_find (self, repo, NULL) != NULL;
}

static void
create (TestHub *self, GOutputStream *out, const TestHubRequest *r)
{
  JsonObject *o;
  g_autoptr (JsonParser) parser = parse_body (r, &o);
  g_autofree char *repo = NULL, *body = NULL;
  const char *space, *visibility;

  if (o == NULL || !json_object_has_member (o, "name")) {
    refuse (out, r, 400, "no name");
    return;
  }
  space = json_object_get_string_member_with_default (o, "organization", "tests");
  visibility = json_object_get_string_member_with_default (o, "visibility", "public");
  repo = g_strdup_printf ("%s/%s", space, json_object_get_string_member (o, "name"));
  if (strcmp (space, "tests") != 0) {
    refuse (out, r, 403, "no rights to create a model under this namespace");
    return;
  }
  body = g_strdup_printf (
      "{\"url\": \"http://127.0.0.1:%u/%s\", \"name\": \"%s\"}", self->port, repo, repo);
  if (repo_is_there (self, repo)) {
    test_hub_answer (out, r, 409, JSON_HEADERS, body);
    return;
  }
  g_hash_table_insert (self->repos, g_strdup (repo),
      strcmp (visibility, "private") == 0 && !self->always_public ? "private" : "public");
  test_hub_answer (out, r, 200, JSON_HEADERS, body);
}

static void
describe (TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *repo)
{
  const char *visibility = g_hash_table_lookup (self->repos, repo);
  g_autofree char *body = g_strdup_printf (
      "{\"id\": \"%s\", \"private\": %s, \"sha\": \"" TEST_HUB_COMMIT "\"}", repo,
      g_strcmp0 (visibility, "private") == 0 ? "true" : "false");

  test_hub_answer (out, r, 200, JSON_HEADERS, body);
}

/* ---- a commit ---- */

static void
preupload (TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *repo)
{
  JsonObject *o;
  g_autoptr (JsonParser) parser = parse_body (r, &o);
  JsonArray *files = o != NULL ? json_object_get_array_member (o, "files") : NULL;
  g_autoptr (GString) body = g_string_new ("{\"files\": [");

  for (guint i = 0; files != NULL && i < json_array_get_length (files); i++) {
    JsonObject *file = json_array_get_object_element (files, i);
    const char *path = json_object_get_string_member (file, "path");
    const TestHubFile *old = test_hub_find (self, repo, path);
    gboolean is_lfs =
        g_str_has_suffix (path, ".safetensors") || g_str_has_suffix (path, ".png");

    g_string_append_printf (body,
        "%s{\"path\": \"%s\", \"uploadMode\": \"%s\", \"shouldIgnore\": false, "
        "\"oid\": %s%s%s}",
        i > 0 ? ", " : "", path, is_lfs ? "lfs" : "regular", old != NULL ? "\"" : "",
        old != NULL ? old->etag : "null", old != NULL ? "\"" : "");
  }
  g_string_append (body, "]}");
  test_hub_answer (out, r, 200, JSON_HEADERS, body->str);
}

static void
put_file (TestHub *self, const char *repo, const char *path, GBytes *bytes, gboolean lfs)
{
  gsize length;
  gconstpointer data = g_bytes_get_data (bytes, &length);
  const TestHubFile *old = test_hub_find (self, repo, path);

  if (old != NULL)
    g_ptr_array_remove (self->files, (gpointer)old);
  test_hub_add_to (self, repo, path, data, length, lfs);
}

/* One line; NULL, or what is wrong with it. */
static const char *
commit_line (TestHub *self, const char *repo, const char *line)
{
  JsonObject *o, *value;
  g_autoptr (JsonParser) parser = parse (line, -1, &o);
  const char *key = o != NULL ? json_object_get_string_member (o, "key") : "";
  GBytes *bytes;

  if (o == NULL)
    return "no JSON";
  value = json_object_get_object_member (o, "value");
  if (strcmp (key, "header") == 0)
    return json_object_get_string_member (value, "summary")[0] != '\0' ? NULL
                                                                       : "no summary";
  if (strcmp (key, "file") == 0) {
    gsize length;
    guchar *data =
        g_base64_decode (json_object_get_string_member (value, "content"), &length);
    g_autoptr (GBytes) content = g_bytes_new_take (data, length);

    put_file (self, repo, json_object_get_string_member (value, "path"), content, FALSE);
    return NULL;
  }
  if (strcmp (key, "lfsFile") != 0)
    return "an operation that is not known";
  bytes = g_hash_table_lookup (self->store, json_object_get_string_member (value, "oid"));
  if (bytes == NULL)
    return "an LFS object that was not uploaded";
  put_file (self, repo, json_object_get_string_member (value, "path"), bytes, TRUE);
  return NULL;
}

static void
commit (TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *repo)
{
  gsize length = 0;
  const char *text = r->body != NULL ? g_bytes_get_data (r->body, &length) : "";
  g_autofree char *copy = g_strndup (text, length), *body = NULL;
  g_auto (GStrv) lines = g_strsplit (copy, "\n", -1);
  const char *fault = NULL;

  g_mutex_lock (&self->lock);
  if (lines[0] == NULL || strstr (lines[0], "\"header\"") == NULL)
    fault = "no header";
  for (guint i = 0; fault == NULL && lines[i] != NULL; i++)
    if (lines[i][0] != '\0')
      fault = commit_line (self, repo, lines[i]);
  g_mutex_unlock (&self->lock);
  if (fault != NULL) {
    refuse (out, r, 400, fault);
    return;
  }
  body = g_strdup_printf (
      "{\"success\": true, \"commitOid\": \"" TEST_HUB_COMMIT
      "\", \"commitUrl\": \"http://127.0.0.1:%u/%s/commit/" TEST_HUB_COMMIT "\"}",
      self->port, repo);
  test_hub_answer (out, r, 200, JSON_HEADERS, body);
}

/* ---- large files ---- */

static void
append_upload (TestHub *self, GString *to, const char *repo, const char *oid, gint64 size)
{
  gint64 parts = self->part_size > 0 && size > (gint64)self->part_size
                     ? (size + (gint64)self->part_size - 1) / (gint64)self->part_size
                     : 0;

  if (parts == 0)
    g_string_append_printf (to,
        ", \"actions\": {\"upload\": {\"href\": \"http://127.0.0.1:%u/upload/%s?s=s\"}",
        self->cdn_port, oid);
  else
    g_string_append_printf (to,
        ", \"actions\": {\"upload\": {\"href\": \"http://127.0.0.1:%u/api/complete/%s\", "
        "\"header\": {\"chunk_size\": \"%" G_GSIZE_FORMAT "\"",
        self->port, oid, self->part_size);
  for (gint64 i = 1; i <= parts; i++)
    g_string_append_printf (to,
        ", \"%05" G_GINT64_FORMAT "\": \"http://127.0.0.1:%u/upload/%s/%" G_GINT64_FORMAT
        "?s=s\"",
        i, self->cdn_port, oid, i);
  g_string_append_printf (to,
      "%s, \"verify\": {\"href\": "
      "\"http://127.0.0.1:%u/%s.git/info/lfs/objects/verify\"}}",
      parts > 0 ? "}}" : "", self->port, repo);
}

/* A repository has what was verified for it. */
static gboolean
is_verified (TestHub *self, const char *repo, const char *oid)
{
  g_autofree char *key = g_strdup_printf ("%s %s", repo, oid);

  return g_hash_table_contains (self->store, key);
}

static void
batch (TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *repo)
{
  JsonObject *o;
  g_autoptr (JsonParser) parser = parse_body (r, &o);
  JsonArray *objects = o != NULL ? json_object_get_array_member (o, "objects") : NULL;
  g_autoptr (GString) body = g_string_new ("{\"transfer\": \"basic\", \"objects\": [");

  if (objects == NULL ||
      strcmp (json_object_get_string_member_with_default (o, "hash_algo", ""),
          "sha256") != 0) {
    refuse (out, r, 422, "no objects");
    return;
  }
  g_mutex_lock (&self->lock);
  for (guint i = 0; i < json_array_get_length (objects); i++) {
    JsonObject *object = json_array_get_object_element (objects, i);
    const char *oid = json_object_get_string_member (object, "oid");
    gint64 size = json_object_get_int_member (object, "size");

    g_string_append_printf (body, "%s{\"oid\": \"%s\", \"size\": %" G_GINT64_FORMAT,
        i > 0 ? ", " : "", oid, size);
    if (!is_verified (self, repo, oid))
      append_upload (self, body, repo, oid, size);
    g_string_append_c (body, '}');
  }
  g_mutex_unlock (&self->lock);
  g_string_append (body, "]}");
  test_hub_answer (out, r, 200, LFS_HEADERS, body->str);
}

static void
put (TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *key)
{
  g_autofree char *etag = NULL, *headers = NULL;
  GBytes *bytes = r->body != NULL ? g_bytes_ref (r->body) : g_bytes_new (NULL, 0);

  /* S3 refuses a signed address with another authorization. */
  if (r->authorization != NULL) {
    g_bytes_unref (bytes);
    refuse (out, r, 400, "only one auth mechanism allowed");
    return;
  }
  if (self->lose_byte && g_bytes_get_size (bytes) > 0) {
    GBytes *less = g_bytes_new_from_bytes (bytes, 0, g_bytes_get_size (bytes) - 1);

    g_bytes_unref (bytes);
    bytes = less;
  }
  etag = g_compute_checksum_for_bytes (G_CHECKSUM_MD5, bytes);
  headers = g_strdup_printf ("ETag: \"%s\"\r\n", etag);
  g_mutex_lock (&self->lock);
  g_hash_table_insert (self->store, g_strdup (key), bytes);
  g_mutex_unlock (&self->lock);
  test_hub_answer (out, r, 200, headers, "");
}

/* The parts, by their ETags, become the file. */
static gboolean
join_parts (TestHub *self, const char *oid, JsonArray *parts)
{
  GByteArray *all = g_byte_array_new ();
  g_autoptr (GBytes) whole = NULL;
  gboolean ok = parts != NULL;

  for (guint i = 0; ok && i < json_array_get_length (parts); i++) {
    JsonObject *part = json_array_get_object_element (parts, i);
    g_autofree char *key = g_strdup_printf (
        "%s/%" G_GINT64_FORMAT, oid, json_object_get_int_member (part, "partNumber"));
    GBytes *bytes = g_hash_table_lookup (self->store, key);
    g_autofree char *sum =
        bytes != NULL ? g_compute_checksum_for_bytes (G_CHECKSUM_MD5, bytes) : NULL;
    g_autofree char *etag = g_strdup_printf ("\"%s\"", sum != NULL ? sum : "");

    ok =
        bytes != NULL && strcmp (etag, json_object_get_string_member (part, "etag")) == 0;
    if (ok)
      g_byte_array_append (
          all, g_bytes_get_data (bytes, NULL), (guint)g_bytes_get_size (bytes));
  }
  whole = g_byte_array_free_to_bytes (all);
  if (ok)
    g_hash_table_insert (self->store, g_strdup (oid), g_bytes_ref (whole));
  return ok;
}

static void
complete (TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *oid)
{
  JsonObject *o;
  g_autoptr (JsonParser) parser = parse_body (r, &o);
  gboolean ok;

  g_mutex_lock (&self->lock);
  ok = o != NULL &&
       strcmp (json_object_get_string_member_with_default (o, "oid", ""), oid) == 0 &&
       join_parts (self, oid, json_object_get_array_member (o, "parts"));
  g_mutex_unlock (&self->lock);
  if (ok)
    test_hub_answer (out, r, 200, JSON_HEADERS, "{}");
  else
    refuse (out, r, 400, "the parts are not those that were sent");
}

static void
verify (TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *repo)
{
  JsonObject *o;
  g_autoptr (JsonParser) parser = parse_body (r, &o);
  const char *oid =
      o != NULL ? json_object_get_string_member_with_default (o, "oid", "") : "";
  g_autofree char *sum = NULL;
  GBytes *bytes;
  gboolean ok;

  g_mutex_lock (&self->lock);
  bytes = g_hash_table_lookup (self->store, oid);
  sum = bytes != NULL ? sha256_of (bytes) : NULL;
  ok = g_strcmp0 (sum, oid) == 0 &&
       (gint64)g_bytes_get_size (bytes) == json_object_get_int_member (o, "size");
  if (!ok)
    g_hash_table_remove (self->store, oid);
  else
    g_hash_table_insert (
        self->store, g_strdup_printf ("%s %s", repo, oid), g_bytes_new (NULL, 0));
  g_mutex_unlock (&self->lock);
  if (ok)
    test_hub_answer (out, r, 200, LFS_HEADERS, "{}");
  else
    refuse (out, r, 422, "size or hash are not those of the object");
}

/* ---- which is meant ---- */

/* before REPO after: the repository, or NULL. */
static char *
repo_between (const char *path, const char *before, const char *after)
{
  gsize n = strlen (path), a = strlen (before), b = strlen (after);
  g_autofree char *repo = NULL;

  if (!g_str_has_prefix (path, before) || !g_str_has_suffix (path, after) || n <= a + b)
    return NULL;
  repo = g_strndup (path + a, n - a - b);
  if (strchr (repo, '/') == NULL || strchr (repo, '/') != strrchr (repo, '/'))
    return NULL;
  return g_steal_pointer (&repo);
}

static gboolean
for_repo (TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *path)
{
  static const struct {
    const char *method, *before, *after;
    void (*handle) (
        TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *repo);
  } routes[] = {{"GET", "/api/models/", "", describe},
      {"POST", "/api/models/", "/preupload/main", preupload},
      {"POST", "/api/models/", "/commit/main", commit},
      {"POST", "/", ".git/info/lfs/objects/batch", batch},
      {"POST", "/", ".git/info/lfs/objects/verify", verify}};

  for (guint i = 0; i < G_N_ELEMENTS (routes); i++) {
    g_autofree char *repo = strcmp (r->method, routes[i].method) == 0
                                ? repo_between (path, routes[i].before, routes[i].after)
                                : NULL;

    if (repo == NULL)
      continue;
    if (!repo_is_there (self, repo) ||
        (!may_write (r) && strcmp (r->method, "POST") == 0))
      test_hub_answer (out, r, r->authorization != NULL ? 404 : 401,
          "X-Error-Code: RepoNotFound\r\n", "no");
    else
      routes[i].handle (self, out, r, repo);
    return TRUE;
  }
  return FALSE;
}

gboolean
test_hub_push (TestHub *self, GOutputStream *out, const TestHubRequest *r, guint16 port)
{
  g_autofree char *path = g_strdup (r->path);
  gboolean is_post = strcmp (r->method, "POST") == 0;

  if (strchr (path, '?') != NULL)
    *strchr (path, '?') = '\0';
  if (self->push_status != 0 && strstr (path, self->push_at) != NULL &&
      g_atomic_int_get (&self->n_push_status) != 0) {
    if (g_atomic_int_get (&self->n_push_status) > 0)
      g_atomic_int_add (&self->n_push_status, -1);
    refuse (out, r, self->push_status, "as the test wants it");
    return TRUE;
  }
  if (port == self->cdn_port) {
    if (strcmp (r->method, "PUT") != 0 || !g_str_has_prefix (path, "/upload/"))
      return FALSE;
    put (self, out, r, path + strlen ("/upload/"));
    return TRUE;
  }
  if (strcmp (path, "/api/whoami-v2") == 0 ||
      (is_post && strcmp (path, "/api/repos/create") == 0)) {
    if (!may_write (r))
      refuse (out, r, 401, "Invalid credentials in Authorization header");
    else if (is_post)
      create (self, out, r);
    else
      test_hub_answer (out, r, 200, JSON_HEADERS, "{\"name\": \"tests\"}");
  } else if (is_post && strcmp (path, "/api/validate-yaml") == 0)
    test_hub_answer (out, r, 200, JSON_HEADERS, "{\"errors\": [], \"warnings\": []}");
  else if (is_post && g_str_has_prefix (path, "/api/complete/"))
    complete (self, out, r, path + strlen ("/api/complete/"));
  else
    return for_repo (self, out, r, path);
  return TRUE;
}
