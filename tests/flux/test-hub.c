/* tests/flux/test-hub.c: the Hub client against a Hub on loopback.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/hub/hub.h"
#include "tests/hub/server.h"

#define TOKEN "hf_planted_secret"
#define WEIGHTS "vae/diffusion_pytorch_model.safetensors"
#define URI "hf://" TEST_HUB_REPO
#define SIZE ((gsize)(40 << 20) + 12345)

typedef struct {
  TestHub *hub;
  char *home, *folder;
  guint8 *weights;
} Fixture;

static void
setup (Fixture *f, gconstpointer data)
{
  g_autofree char *endpoint = NULL;

  f->hub = test_hub_new ();
  f->home = g_dir_make_tmp ("hub-XXXXXX", NULL);
  f->folder = g_build_filename (f->home, "hub", "models--tests--tiny", NULL);
  f->weights = g_malloc (SIZE);
  for (gsize i = 0; i < SIZE; i++)
    f->weights[i] = (guint8)((i * 2654435761u) >> 13);
  test_hub_add (f->hub, "model_index.json", "{}", 2, FALSE);
  test_hub_add (f->hub, "flux1-dev.safetensors", "a second copy", 13, TRUE);
  test_hub_add (f->hub, "vae/config.json", "{\"a\": 1}", 8, FALSE);
  test_hub_add (f->hub, "vae/diffusion_pytorch_model.fp16.safetensors", "half", 4, TRUE);
  test_hub_add (f->hub, WEIGHTS, f->weights, SIZE, TRUE);
  endpoint = g_strdup_printf ("http://127.0.0.1:%u", f->hub->port);
  g_setenv ("HF_ENDPOINT", endpoint, TRUE);
  g_setenv ("HF_HOME", f->home, TRUE);
  g_setenv ("HF_TOKEN", TOKEN, TRUE);
  g_setenv ("HF_HUB_DOWNLOAD_TIMEOUT", "1", TRUE);
  g_unsetenv ("HF_HUB_CACHE");
  g_unsetenv ("HUGGINGFACE_HUB_CACHE");
  g_unsetenv ("HF_HUB_OFFLINE");
}

static void
remove_tree (const char *path)
{
  GDir *dir =
      g_file_test (path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open (path, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *inner = g_build_filename (path, name, NULL);

    remove_tree (inner);
  }
  if (dir != NULL)
    g_dir_close (dir);
  g_remove (path);
}

static void
teardown (Fixture *f, gconstpointer data)
{
  test_hub_free (f->hub);
  remove_tree (f->home);
  g_free (f->home);
  g_free (f->folder);
  g_free (f->weights);
}

static void
assert_pulled (Fixture *f)
{
  GError *error = NULL;
  g_autofree char *path = flux_hub_resolve (URI, FLUX_HUB_VAE, NULL, NULL, &error);
  g_autofree char *expected =
      g_build_filename (f->folder, "snapshots", TEST_HUB_COMMIT, NULL);
  g_autofree char *file = NULL, *content = NULL;
  gsize length;

  g_assert_no_error (error);
  g_assert_cmpstr (path, ==, expected);
  file = g_build_filename (path, WEIGHTS, NULL);
  g_assert_true (g_file_get_contents (file, &content, &length, NULL));
  g_assert_cmpmem (content, length, f->weights, SIZE);
}

static void
assert_refused (Fixture *f, const char *uri, FluxError code, const char *words)
{
  GError *error = NULL;
  g_autofree char *path = flux_hub_resolve (uri, FLUX_HUB_VAE, NULL, NULL, &error);

  g_assert_error (error, FLUX_ERROR, (gint)code);
  g_assert_null (path);
  if (strstr (error->message, words) == NULL)
    g_error ("'%s' does not say '%s'", error->message, words);
  g_assert_null (strstr (error->message, TOKEN));
  g_error_free (error);
}

static char *
partial_path (Fixture *f)
{
  const TestHubFile *file = f->hub->files->pdata[4];
  g_autofree char *name = g_strconcat (file->etag, ".incomplete", NULL);

  return g_build_filename (f->folder, "blobs", name, NULL);
}

static void
test_pull (Fixture *f, gconstpointer data)
{
  g_autofree char *ref = g_build_filename (f->folder, "refs", "main", NULL);
  g_autofree char *link =
      g_build_filename (f->folder, "snapshots", TEST_HUB_COMMIT, WEIGHTS, NULL);
  const TestHubFile *file = f->hub->files->pdata[4];
  g_autofree char *target = NULL,
                  *expected = g_strconcat ("../../../blobs/", file->etag, NULL);
  g_autofree char *commit = NULL;
  guint n;

  assert_pulled (f);
  g_assert_true (g_file_get_contents (ref, &commit, NULL, NULL));
  g_assert_cmpstr (commit, ==, TEST_HUB_COMMIT);
  target = g_file_read_link (link, NULL);
  g_assert_cmpstr (target, ==, expected);
  /* Neither the second copy nor the variant. */
  g_assert_cmpuint (test_hub_count (f->hub, "flux1-dev"), ==, 0);
  g_assert_cmpuint (test_hub_count (f->hub, "fp16"), ==, 0);
  /* The token stays at home, and is used there. */
  g_assert_cmpuint (test_hub_count (f->hub, "cdn GET"), >, 4);
  n = test_hub_count (f->hub, "auth=Bearer " TOKEN);
  g_assert_cmpuint (n, ==, test_hub_count (f->hub, "hub GET"));
  /* A second time nothing is downloaded. */
  n = test_hub_count (f->hub, "/resolve/");
  assert_pulled (f);
  g_assert_cmpuint (test_hub_count (f->hub, "/resolve/"), ==, n);
}

static void
test_offline (Fixture *f, gconstpointer data)
{
  g_setenv ("HF_HUB_OFFLINE", "1", TRUE);
  assert_refused (f, URI, FLUX_ERROR_NOT_FOUND, "HF_HUB_OFFLINE");
  g_unsetenv ("HF_HUB_OFFLINE");
  assert_pulled (f);
  g_ptr_array_set_size (f->hub->log, 0);
  g_setenv ("HF_HUB_OFFLINE", "1", TRUE);
  assert_pulled (f);
  g_assert_cmpuint (f->hub->log->len, ==, 0);
}

static void
test_cut (Fixture *f, gconstpointer data)
{
  f->hub->n_cut = 3;
  f->hub->cut_after = 1 << 20;
  assert_pulled (f);
  g_assert_cmpint (f->hub->n_cut, ==, 0);
}

static void
test_stall (Fixture *f, gconstpointer data)
{
  f->hub->n_cut = 1;
  f->hub->cut_after = 1 << 20;
  f->hub->stall = TRUE;
  assert_pulled (f);
}

static void
test_resume (Fixture *f, gconstpointer data)
{
  g_autofree char *partial = partial_path (f), *blobs = g_path_get_dirname (partial);

  g_mkdir_with_parents (blobs, 0777);
  g_assert_true (g_file_set_contents (partial, (char *)f->weights, 30 << 20, NULL));
  assert_pulled (f);
  g_assert_cmpuint (test_hub_count (f->hub, "cdn GET"), ==, 2);
  g_assert_cmpuint (test_hub_count (f->hub, "range=bytes=31457280-"), >, 0);
}

static void
test_resume_of_other_bytes (Fixture *f, gconstpointer data)
{
  g_autofree char *partial = partial_path (f), *blobs = g_path_get_dirname (partial);

  g_mkdir_with_parents (blobs, 0777);
  g_assert_true (g_file_set_contents (partial, "something else", -1, NULL));
  assert_pulled (f);
}

static void
test_no_ranges (Fixture *f, gconstpointer data)
{
  f->hub->no_ranges = TRUE;
  assert_pulled (f);
}

static void
test_checksum (Fixture *f, gconstpointer data)
{
  f->hub->corrupt = TRUE;
  assert_refused (f, URI, FLUX_ERROR_FORMAT, "checksum");
  f->hub->corrupt = FALSE;
  assert_pulled (f);
}

static void
test_too_much (Fixture *f, gconstpointer data)
{
  f->hub->longer = TRUE;
  assert_refused (f, URI, FLUX_ERROR_FORMAT, "more of");
}

static void
test_statuses (Fixture *f, gconstpointer data)
{
  f->hub->status = 403;
  f->hub->error_code = "GatedRepo";
  assert_refused (f, URI, FLUX_ERROR_SETTINGS, "accept its conditions at http");
  f->hub->status = 401;
  f->hub->error_code = NULL;
  assert_refused (f, URI, FLUX_ERROR_SETTINGS, "does not accept the token");
  f->hub->status = 429;
  f->hub->retry_after = "100000";
  assert_refused (f, URI, FLUX_ERROR_READ, "in 100000 seconds");
  f->hub->status = 400;
  f->hub->retry_after = NULL;
  assert_refused (f, URI, FLUX_ERROR_READ, "answered 400 when it was asked for '");
  f->hub->status = 0;
  assert_refused (f, "hf://tests/other", FLUX_ERROR_NOT_FOUND, "no model tests/other");
  assert_refused (f, URI "@v9", FLUX_ERROR_NOT_FOUND, "no revision 'v9'");
  assert_refused (f, URI "/none", FLUX_ERROR_NOT_FOUND, "'none'");
  assert_refused (f, "hf://../tiny", FLUX_ERROR_SETTINGS, "names nothing on the Hub");
}

static void
test_retry_after (Fixture *f, gconstpointer data)
{
  gint64 start = g_get_monotonic_time ();

  f->hub->status = 429;
  f->hub->retry_after = "1";
  f->hub->n_status = 1;
  assert_pulled (f);
  g_assert_cmpint (g_get_monotonic_time () - start, >=, G_TIME_SPAN_SECOND);
}

static void
test_evil_name (Fixture *f, gconstpointer data)
{
  test_hub_add (f->hub, "../../../evil", "x", 1, FALSE);
  assert_refused (f, URI, FLUX_ERROR_FORMAT, "leads out of its folder");
}

static gboolean
stop_soon (const char *what, gint percent, gpointer data)
{
  return percent < 2;
}

static void
test_cancel (Fixture *f, gconstpointer data)
{
  gint64 start = g_get_monotonic_time ();
  g_autofree char *partial = partial_path (f), *path = NULL;
  GError *error = NULL;

  g_setenv ("HF_HUB_DOWNLOAD_TIMEOUT", "60", TRUE);
  f->hub->n_cut = 1000;
  f->hub->cut_after = 1 << 20;
  f->hub->stall = TRUE;
  path = flux_hub_resolve (URI, FLUX_HUB_VAE, stop_soon, NULL, &error);
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
  g_error_free (error);
  g_assert_cmpint (g_get_monotonic_time () - start, <, G_TIME_SPAN_SECOND);
  g_assert_true (g_file_test (partial, G_FILE_TEST_IS_REGULAR));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define ADD(name, test) g_test_add ("/hub/" name, Fixture, NULL, setup, test, teardown)
  ADD ("what is needed is pulled once", test_pull);
  ADD ("offline", test_offline);
  ADD ("a cut connection is gone on with", test_cut);
  ADD ("a silent server times out", test_stall);
  ADD ("a partial file is gone on with", test_resume);
  ADD ("a partial file of other bytes is replaced", test_resume_of_other_bytes);
  ADD ("a server without ranges", test_no_ranges);
  ADD ("a wrong checksum", test_checksum);
  ADD ("too much", test_too_much);
  ADD ("statuses have a sentence each", test_statuses);
  ADD ("Retry-After is waited for", test_retry_after);
  ADD ("a name that leads out of the folder", test_evil_name);
  ADD ("cancelling is quick and keeps the partial file", test_cancel);
  return g_test_run ();
}
