/* tests/hub/server.c: a small Hub on loopback, for tests. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "tests/hub/server.h"

#include <stdlib.h>
#include <string.h>

#include "tests/hub/server-private.h"

enum { MAX_BODY = 256 << 20 };

static void
file_free (gpointer data)
{
  TestHubFile *self = data;

  g_free (self->repo);
  g_free (self->path);
  g_free (self->etag);
  g_bytes_unref (self->bytes);
  g_free (self);
}

void
test_hub_add_to (TestHub *self, const char *repo, const char *path, gconstpointer data,
    gsize length, gboolean is_lfs)
{
  TestHubFile *file = g_new0 (TestHubFile, 1);
  GChecksum *sum = g_checksum_new (is_lfs ? G_CHECKSUM_SHA256 : G_CHECKSUM_SHA1);
  g_autofree char *head = g_strdup_printf ("blob %" G_GSIZE_FORMAT, length);

  if (!is_lfs)
    g_checksum_update (sum, (const guchar *)head, (gssize)strlen (head) + 1);
  g_checksum_update (sum, data, (gssize)length);
  file->repo = g_strdup (repo);
  file->path = g_strdup (path);
  file->bytes = g_bytes_new (data, length);
  file->is_lfs = is_lfs;
  file->etag = g_strdup (g_checksum_get_string (sum));
  g_checksum_free (sum);
  g_ptr_array_add (self->files, file);
}

void
test_hub_add (
    TestHub *self, const char *path, gconstpointer data, gsize length, gboolean is_lfs)
{
  test_hub_add_to (self, TEST_HUB_REPO, path, data, length, is_lfs);
}

static void
add_below (TestHub *self, const char *repo, const char *root, const char *inner)
{
  g_autofree char *folder = g_build_filename (root, inner, NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path =
        inner[0] != '\0' ? g_strconcat (inner, "/", name, NULL) : g_strdup (name);
    g_autofree char *full = g_build_filename (root, path, NULL), *data = NULL;
    gsize length;

    if (g_file_get_contents (full, &data, &length, NULL))
      test_hub_add_to (self, repo, path, data, length, length > 65536);
    else
      add_below (self, repo, root, path);
  }
}

void
test_hub_add_folder (TestHub *self, const char *repo, const char *folder)
{
  add_below (self, repo, folder, "");
}

static void
send_text (GOutputStream *out, const char *text)
{
  g_output_stream_write_all (out, text, strlen (text), NULL, NULL, NULL);
}

void
test_hub_answer (GOutputStream *out, const TestHubRequest *r, guint status,
    const char *headers, const char *body)
{
  g_autofree char *text = g_strdup_printf (
      "HTTP/1.1 %u X\r\nConnection: close\r\nContent-Length: %" G_GSIZE_FORMAT
      "\r\n%s\r\n%s",
      status, strlen (body), headers, strcmp (r->method, "HEAD") == 0 ? "" : body);

  send_text (out, text);
}

/* path NULL: the first at or after number `from`. */
static const TestHubFile *
find (TestHub *self, const char *repo, const char *path, guint from)
{
  for (guint i = from; i < self->files->len; i++) {
    const TestHubFile *file = self->files->pdata[i];

    if (strcmp (file->repo, repo) == 0 &&
        (path == NULL || strcmp (file->path, path) == 0))
      return file;
  }
  return NULL;
}

/* The bytes, with the faults that were asked for. */
static void
send_file (
    TestHub *self, GOutputStream *out, const TestHubRequest *r, const TestHubFile *file)
{
  gsize size = 0, first = 0, last, n;
  const guint8 *all = g_bytes_get_data (file->bytes, &size);
  gboolean part = r->range != NULL && !self->no_ranges;
  g_autoptr (GString) head = g_string_new ("HTTP/1.1 ");
  g_autofree guint8 *data = NULL;

  last = size - 1;
  if (part) {
    first = g_ascii_strtoull (r->range + strlen ("bytes="), NULL, 10);
    if (strchr (r->range, '-')[1] != '\0')
      last = MIN (last, g_ascii_strtoull (strchr (r->range, '-') + 1, NULL, 10));
  }
  n = size > 0 ? last - first + 1 : 0;
  data = g_malloc (n + 1);
  memcpy (data, all + first, n);
  if (self->corrupt && n > 0)
    data[n / 2] ^= 1;
  g_string_append_printf (head,
      "%s\r\nConnection: close\r\nETag: \"%s\"\r\nX-Repo-Commit: %s\r\n"
      "Content-Length: %" G_GSIZE_FORMAT "\r\n",
      part ? "206 Partial Content" : "200 OK", file->etag, TEST_HUB_COMMIT,
      n + (self->longer ? 1 : 0));
  if (part)
    g_string_append_printf (head,
        "Content-Range: bytes %" G_GSIZE_FORMAT "-%" G_GSIZE_FORMAT "/%" G_GSIZE_FORMAT
        "\r\n",
        first, last, size);
  g_string_append (head, "\r\n");
  send_text (out, head->str);
  if (strcmp (r->method, "HEAD") == 0)
    return;
  data[n] = 'x';
  if (n > self->cut_after && g_atomic_int_get (&self->n_cut) > 0) {
    g_atomic_int_add (&self->n_cut, -1);
    g_output_stream_write_all (out, data, self->cut_after, NULL, NULL, NULL);
    if (self->stall)
      g_usleep (3 * G_TIME_SPAN_SECOND);
    return;
  }
  g_output_stream_write_all (out, data, n + (self->longer ? 1 : 0), NULL, NULL, NULL);
}

const TestHubFile *
test_hub_find (TestHub *self, const char *repo, const char *path)
{
  return find (self, repo, path, 0);
}

static gboolean
is_dataset (const char *repo)
{
  return g_str_has_prefix (repo, "datasets/");
}

static void
send_tree (TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *repo)
{
  const char *cursor = strstr (r->path, "cursor=");
  guint i = cursor != NULL ? (guint)g_ascii_strtoull (cursor + 7, NULL, 10) : 0;
  const TestHubFile *file = find (self, repo, NULL, i);
  g_autofree char *link = NULL, *lfs = g_strdup ("");
  g_autofree char *body = NULL;
  gsize size = g_bytes_get_size (file->bytes);

  g_ptr_array_find (self->files, file, &i);
  link =
      find (self, repo, NULL, i + 1) != NULL
          ? g_strdup_printf ("Link: <http://127.0.0.1:%u/api/%s%s/tree/" TEST_HUB_COMMIT
                             "?recursive=true&cursor=%u>; rel=\"next\"\r\n",
                self->port, is_dataset (repo) ? "" : "models/", repo, i + 1)
          : g_strdup ("");
  if (file->is_lfs) {
    g_free (lfs);
    lfs = g_strdup_printf (",\"lfs\":{\"oid\":\"%s\",\"size\":%" G_GSIZE_FORMAT
                           ",\"pointerSize\":134}",
        file->etag, size);
  }
  body = g_strdup_printf (
      "[{\"type\":\"directory\",\"oid\":\"%s\",\"size\":0,\"path\":\"d\"},"
      "{\"type\":\"file\",\"oid\":\"%s\",\"size\":%" G_GSIZE_FORMAT
      ",\"path\":\"%s\"%s}]",
      TEST_HUB_COMMIT, file->is_lfs ? TEST_HUB_COMMIT : file->etag, size, file->path,
      lfs);
  test_hub_answer (out, r, 200, link, body);
}

static void
send_resolved (TestHub *self, GOutputStream *out, const TestHubRequest *r,
    const char *repo, const char *path)
{
  const TestHubFile *file = find (self, repo, path, 0);
  g_autofree char *headers = NULL;

  if (self->status != 0 && g_atomic_int_get (&self->n_status) != 0) {
    g_autofree char *code =
        self->error_code != NULL
            ? g_strdup_printf ("X-Error-Code: %s\r\n", self->error_code)
            : g_strdup ("");
    g_autofree char *retry =
        self->retry_after != NULL
            ? g_strdup_printf ("Retry-After: %s\r\n", self->retry_after)
            : g_strdup ("");

    if (g_atomic_int_get (&self->n_status) > 0)
      g_atomic_int_add (&self->n_status, -1);
    headers = g_strconcat (code, retry, NULL);
    test_hub_answer (out, r, self->status, headers, "no");
  } else if (file == NULL) {
    test_hub_answer (out, r, 404,
        "X-Error-Code: EntryNotFound\r\nX-Repo-Commit: " TEST_HUB_COMMIT "\r\n", "no");
  } else if (!file->is_lfs) {
    send_file (self, out, r, file);
  } else {
    headers = g_strdup_printf (
        "X-Repo-Commit: %s\r\nX-Linked-Etag: \"%s\"\r\nX-Linked-Size: %" G_GSIZE_FORMAT
        "\r\nLocation: http://127.0.0.1:%u/cdn/%s?signature=s\r\n",
        TEST_HUB_COMMIT, file->etag, g_bytes_get_size (file->bytes), self->cdn_port,
        file->etag);
    test_hub_answer (out, r, 302, headers, "");
  }
}

static void
send_revision (TestHub *self, GOutputStream *out, const TestHubRequest *r,
    const char *repo, const char *revision)
{
  g_autofree char *body =
      g_strdup_printf ("{\"id\":\"%s\",\"sha\":\"" TEST_HUB_COMMIT "\",\"siblings\":[]}",
          is_dataset (repo) ? repo + strlen ("datasets/") : repo);

  if (strcmp (revision, "main") == 0 || strcmp (revision, TEST_HUB_COMMIT) == 0)
    test_hub_answer (out, r, 200, "", body);
  else
    test_hub_answer (out, r, 404, "X-Error-Code: RevisionNotFound\r\n", "no");
}

static void
send_by_etag (
    TestHub *self, GOutputStream *out, const TestHubRequest *r, const char *etag)
{
  for (guint i = 0; i < self->files->len; i++) {
    const TestHubFile *file = self->files->pdata[i];

    if (strcmp (file->etag, etag) == 0) {
      send_file (self, out, r, file);
      return;
    }
  }
  test_hub_answer (out, r, 404, "", "no");
}

/* [datasets/]USER/NAME/VERB/rest, of path with or without models/ before it. */
static gboolean
split_path (const char *path, char **repo, char **verb, char **rest)
{
  guint n = g_str_has_prefix (path, "datasets/") ? 3 : 2;
  g_auto (GStrv) parts =
      g_strsplit (g_str_has_prefix (path, "models/") ? path + strlen ("models/") : path,
          "/", (gint)n + 2);

  if (g_strv_length (parts) < n + 1)
    return FALSE;
  *verb = g_strdup (parts[n]);
  *rest = g_strdup (parts[n + 1] != NULL ? parts[n + 1] : "");
  g_clear_pointer (&parts[n + 1], g_free);
  g_clear_pointer (&parts[n], g_free);
  *repo = g_strjoinv ("/", parts);
  return TRUE;
}

static void
answer (TestHub *self, GOutputStream *out, const TestHubRequest *r, guint16 port)
{
  g_autofree char *path = g_strdup (r->path), *repo = NULL, *verb = NULL, *rest = NULL;
  gboolean api = g_str_has_prefix (path, "/api/");

  if (strchr (path, '?') != NULL)
    *strchr (path, '?') = '\0';
  if (test_hub_push (self, out, r, port))
    return;
  if (port == self->cdn_port) {
    send_by_etag (
        self, out, r, g_str_has_prefix (path, "/cdn/") ? path + strlen ("/cdn/") : "");
    return;
  }
  if (split_path (path + (api ? strlen ("/api/") : 1), &repo, &verb, &rest) &&
      find (self, repo, NULL, 0) != NULL) {
    const char *slash = strchr (rest, '/');

    if (!api && strcmp (verb, "resolve") == 0 && slash != NULL) {
      send_resolved (self, out, r, repo, slash + 1);
      return;
    }
    if (api && strcmp (verb, "revision") == 0) {
      send_revision (self, out, r, repo, rest);
      return;
    }
    if (api && strcmp (verb, "tree") == 0) {
      send_tree (self, out, r, repo);
      return;
    }
  }
  test_hub_answer (out, r, r->authorization != NULL ? 404 : 401,
      "X-Error-Code: RepoNotFound\r\n", "no");
}

/* The body: Content-Length, or chunked (RFC 9112 7.1). */
static void
read_body (TestHub *self, GDataInputStream *in, gsize length, gboolean chunked,
    gboolean may_cut, TestHubRequest *r)
{
  GByteArray *body = g_byte_array_new ();
  gsize n = 0;

  if (may_cut && length > 1 && g_atomic_int_get (&self->n_cut_put) > 0) {
    g_atomic_int_add (&self->n_cut_put, -1);
    length /= 2;
    r->is_cut = TRUE;
  }
  do {
    if (chunked) {
      g_autofree char *size = g_data_input_stream_read_line (in, NULL, NULL, NULL);

      length = size != NULL ? strtoul (size, NULL, 16) : 0;
    }
    if (length == 0 || body->len + length > MAX_BODY)
      break;
    g_byte_array_set_size (body, (guint)(body->len + length));
    g_input_stream_read_all (
        G_INPUT_STREAM (in), body->data + body->len - length, length, &n, NULL, NULL);
    if (chunked)
      g_free (g_data_input_stream_read_line (in, NULL, NULL, NULL));
  } while (chunked && n == length);
  r->body = g_byte_array_free_to_bytes (body);
}

static gboolean
read_request (TestHub *self, GDataInputStream *in, TestHubRequest *r)
{
  char *line = g_data_input_stream_read_line (in, NULL, NULL, NULL);
  gsize length = 0;
  gboolean chunked = FALSE;

  if (line != NULL) {
    g_auto (GStrv) words = g_strsplit (line, " ", 3);

    r->method = g_strdup (words[0]);
    r->path = g_strdup (words[0] != NULL && words[1] != NULL ? words[1] : "/");
  }
  while (line != NULL && line[0] != '\0') {
    if (g_ascii_strncasecmp (line, "Range: ", 7) == 0)
      r->range = g_strdup (line + 7);
    if (g_ascii_strncasecmp (line, "Authorization: ", 15) == 0)
      r->authorization = g_strdup (line + 15);
    if (g_ascii_strncasecmp (line, "Content-Length: ", 16) == 0)
      length = g_ascii_strtoull (line + 16, NULL, 10);
    if (g_ascii_strncasecmp (line, "Transfer-Encoding: chunked", 26) == 0)
      chunked = TRUE;
    g_free (line);
    line = g_data_input_stream_read_line (in, NULL, NULL, NULL);
  }
  g_free (line);
  if (r->method != NULL && (length > 0 || chunked))
    read_body (self, in, length, chunked, strcmp (r->method, "PUT") == 0, r);
  return r->method != NULL;
}

static gboolean
on_run (GThreadedSocketService *service, GSocketConnection *connection, GObject *source,
    gpointer user)
{
  TestHub *self = user;
  g_autoptr (GDataInputStream) in =
      g_data_input_stream_new (g_io_stream_get_input_stream (G_IO_STREAM (connection)));
  g_autoptr (GSocketAddress) address =
      g_socket_connection_get_local_address (connection, NULL);
  guint16 port = g_inet_socket_address_get_port (G_INET_SOCKET_ADDRESS (address));
  TestHubRequest r = {0};

  g_data_input_stream_set_newline_type (in, G_DATA_STREAM_NEWLINE_TYPE_CR_LF);
  if (read_request (self, in, &r)) {
    g_mutex_lock (&self->lock);
    g_ptr_array_add (self->log, g_strdup_printf ("%s %s %s range=%s auth=%s",
                                    port == self->cdn_port ? "cdn" : "hub", r.method,
                                    r.path, r.range != NULL ? r.range : "-",
                                    r.authorization != NULL ? r.authorization : "-"));
    g_mutex_unlock (&self->lock);
    if (!r.is_cut)
      answer (self, g_io_stream_get_output_stream (G_IO_STREAM (connection)), &r, port);
    else if (self->stall_put)
      g_usleep (3 * G_TIME_SPAN_SECOND);
  }
  g_free (r.method);
  g_free (r.path);
  g_free (r.range);
  g_free (r.authorization);
  g_clear_pointer (&r.body, g_bytes_unref);
  return TRUE;
}

static gpointer
run (gpointer data)
{
  TestHub *self = data;

  g_main_context_push_thread_default (self->context);
  self->service = g_threaded_socket_service_new (64);
  self->port =
      g_socket_listener_add_any_inet_port (G_SOCKET_LISTENER (self->service), NULL, NULL);
  self->cdn_port =
      g_socket_listener_add_any_inet_port (G_SOCKET_LISTENER (self->service), NULL, NULL);
  g_signal_connect (self->service, "run", G_CALLBACK (on_run), self);
  g_socket_service_start (self->service);
  g_main_loop_run (self->loop);
  g_socket_service_stop (self->service);
  g_socket_listener_close (G_SOCKET_LISTENER (self->service));
  g_object_unref (self->service);
  g_main_context_pop_thread_default (self->context);
  return NULL;
}

TestHub *
test_hub_new (void)
{
  TestHub *self = g_new0 (TestHub, 1);

  g_mutex_init (&self->lock);
  self->files = g_ptr_array_new_with_free_func (file_free);
  self->log = g_ptr_array_new_with_free_func (g_free);
  self->context = g_main_context_new ();
  self->loop = g_main_loop_new (self->context, FALSE);
  self->n_status = self->n_push_status = -1;
  self->repos = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  self->store = g_hash_table_new_full (
      g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
  self->thread = g_thread_new ("hub", run, self);
  while (((volatile TestHub *)self)->cdn_port == 0)
    g_usleep (1000);
  g_usleep (10000);
  return self;
}

void
test_hub_free (TestHub *self)
{
  g_main_loop_quit (self->loop);
  g_thread_join (self->thread);
  g_main_loop_unref (self->loop);
  g_main_context_unref (self->context);
  g_ptr_array_unref (self->files);
  g_ptr_array_unref (self->log);
  g_hash_table_unref (self->repos);
  g_hash_table_unref (self->store);
  g_mutex_clear (&self->lock);
  g_free (self);
}

guint
test_hub_count (TestHub *self, const char *text)
{
  guint n = 0;

  g_mutex_lock (&self->lock);
  for (guint i = 0; i < self->log->len; i++)
    n += strstr (self->log->pdata[i], text) != NULL;
  g_mutex_unlock (&self->lock);
  return n;
}
