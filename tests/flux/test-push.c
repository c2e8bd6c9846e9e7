/* tests/flux/test-push.c: pushing to a Hub on loopback, and the model card.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/hub/card.h"
#include "flux/hub/push.h"
#include "flux/image/image.h"
#include "tests/hub/server.h"

#define TOKEN TEST_HUB_WRITE_TOKEN
#define REPO "tests/mucha"
#define WEIGHTS "pytorch_lora_weights.safetensors"
#define SIZE ((gsize)(5 << 20) + 321)

typedef struct {
  TestHub *hub;
  char *home, *weights;
  guint8 *bytes;
  GPtrArray *files;
  FluxHubPush push;
} Fixture;

static void
add (Fixture *f, const char *path, const char *file, const char *text)
{
  FluxHubUpload *upload = g_new0 (FluxHubUpload, 1);

  upload->path = g_strdup (path);
  upload->file = g_strdup (file);
  if (text != NULL)
    upload->bytes = g_bytes_new (text, strlen (text));
  g_ptr_array_add (f->files, upload);
}

static void
setup (Fixture *f, gconstpointer data)
{
  g_autofree char *endpoint = NULL;

  f->hub = test_hub_new ();
  f->home = g_dir_make_tmp ("push-XXXXXX", NULL);
  f->weights = g_build_filename (f->home, "mucha.safetensors", NULL);
  f->bytes = g_malloc (SIZE);
  for (gsize i = 0; i < SIZE; i++)
    f->bytes[i] = (guint8)((i * 2654435761u) >> 13);
  g_assert_true (g_file_set_contents (f->weights, (char *)f->bytes, SIZE, NULL));
  f->files = g_ptr_array_new_with_free_func ((GDestroyNotify)flux_hub_upload_free);
  add (f, WEIGHTS, f->weights, NULL);
  add (f, "README.md", NULL, "---\nlicense: other\n---\n\"quoted\" \xc3\xa4\n");
  add (f, "samples/empty.png", NULL, "");
  f->push = (FluxHubPush){REPO, TRUE, "A LoRA", f->files};
  endpoint = g_strdup_printf ("http://127.0.0.1:%u", f->hub->port);
  g_setenv ("HF_ENDPOINT", endpoint, TRUE);
  g_setenv ("HF_HOME", f->home, TRUE);
  g_setenv ("HF_TOKEN", TOKEN, TRUE);
  g_setenv ("HF_HUB_DOWNLOAD_TIMEOUT", "1", TRUE);
  g_unsetenv ("HF_HUB_OFFLINE");
}

static void
teardown (Fixture *f, gconstpointer data)
{
  test_hub_free (f->hub);
  g_ptr_array_unref (f->files);
  g_remove (f->weights);
  g_rmdir (f->home);
  g_free (f->weights);
  g_free (f->home);
  g_free (f->bytes);
}

static void
assert_there (Fixture *f, const char *path, gconstpointer data, gsize length)
{
  const TestHubFile *file = test_hub_find (f->hub, REPO, path);
  gsize n;
  gconstpointer there;

  g_assert_nonnull (file);
  there = g_bytes_get_data (file->bytes, &n);
  g_assert_cmpmem (there, n, data, length);
}

static void
assert_pushed (Fixture *f)
{
  GError *error = NULL;
  g_autofree char *page = flux_hub_push (&f->push, NULL, NULL, &error);
  g_autofree char *expected = g_strdup_printf ("http://127.0.0.1:%u/" REPO, f->hub->port);

  g_assert_no_error (error);
  g_assert_cmpstr (page, ==, expected);
  assert_there (f, WEIGHTS, f->bytes, SIZE);
  assert_there (f, "samples/empty.png", "", 0);
}

static void
assert_refused (Fixture *f, FluxError code, const char *words)
{
  GError *error = NULL;
  g_autofree char *page = flux_hub_push (&f->push, NULL, NULL, &error);

  g_assert_error (error, FLUX_ERROR, (gint)code);
  g_assert_null (page);
  if (strstr (error->message, words) == NULL)
    g_error ("'%s' does not say '%s'", error->message, words);
  g_assert_null (strstr (error->message, TOKEN));
  g_error_free (error);
  /* Nothing of it can be seen. */
  g_assert_null (test_hub_find (f->hub, f->push.repo, "README.md"));
}

/* ---- what works ---- */

static void
test_push (Fixture *f, gconstpointer data)
{
  guint n;

  assert_pushed (f);
  g_assert_cmpstr (g_hash_table_lookup (f->hub->repos, REPO), ==, "private");
  g_assert_cmpuint (test_hub_count (f->hub, "cdn PUT"), ==, 1);
  g_assert_cmpuint (test_hub_count (f->hub, "/commit/main"), ==, 1);
  /* The token stays at home. */
  n = test_hub_count (f->hub, "auth=Bearer " TOKEN);
  g_assert_cmpuint (n, ==, test_hub_count (f->hub, "hub "));
  /* Again: nothing has changed, and nothing is sent. */
  assert_pushed (f);
  g_assert_cmpuint (test_hub_count (f->hub, "cdn PUT"), ==, 1);
  g_assert_cmpuint (test_hub_count (f->hub, "/commit/main"), ==, 1);
  /* One file has. */
  ((FluxHubUpload *)f->files->pdata[1])->path[0] = 'r';
  assert_pushed (f);
  g_assert_cmpuint (test_hub_count (f->hub, "cdn PUT"), ==, 1);
  g_assert_cmpuint (test_hub_count (f->hub, "/commit/main"), ==, 2);
}

static void
test_parts (Fixture *f, gconstpointer data)
{
  f->hub->part_size = 1 << 20;
  assert_pushed (f);
  g_assert_cmpuint (test_hub_count (f->hub, "cdn PUT"), ==, 6);
  g_assert_cmpuint (test_hub_count (f->hub, "/api/complete/"), ==, 1);
}

static void
test_public (Fixture *f, gconstpointer data)
{
  f->push.is_private = FALSE;
  assert_pushed (f);
  g_assert_cmpstr (g_hash_table_lookup (f->hub->repos, REPO), ==, "public");
}

/* What was pushed can be pulled. */
static void
test_and_pull (Fixture *f, gconstpointer data)
{
  g_autofree char *path = NULL, *content = NULL,
                  *cache = g_build_filename (f->home, "hub", NULL);
  g_autofree char *command = g_strdup_printf ("rm -rf '%s'", cache);
  GError *error = NULL;
  gsize length;

  assert_pushed (f);
  path = flux_hub_resolve ("hf://" REPO, FLUX_HUB_LORA, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_true (g_file_get_contents (path, &content, &length, NULL));
  g_assert_cmpmem (content, length, f->bytes, SIZE);
  g_assert_true (g_spawn_command_line_sync (command, NULL, NULL, NULL, NULL));
}

static void
test_cut (Fixture *f, gconstpointer data)
{
  f->hub->n_cut_put = 2;
  f->hub->part_size = GPOINTER_TO_SIZE (data);
  assert_pushed (f);
  g_assert_cmpint (f->hub->n_cut_put, ==, 0);
}

static void
test_busy (Fixture *f, gconstpointer data)
{
  static const char *const places[] = {
      "/repos/create", "/preupload", "/objects/batch", "/upload/", "/verify", "/commit"};

  for (guint i = 0; i < G_N_ELEMENTS (places); i++) {
    f->hub->push_status = 503;
    f->hub->push_at = places[i];
    f->hub->n_push_status = 1;
    g_hash_table_remove_all (f->hub->repos);
    g_hash_table_remove_all (f->hub->store);
    g_ptr_array_set_size (f->hub->files, 0);
    assert_pushed (f);
    g_assert_cmpint (f->hub->n_push_status, ==, 0);
  }
}

/* ---- what does not ---- */

static void
test_tokens (Fixture *f, gconstpointer data)
{
  GError *error = NULL;

  g_setenv ("HF_TOKEN", "hf_not_mine", TRUE);
  assert_refused (f, FLUX_ERROR_SETTINGS, "does not accept the token");
  g_assert_false (flux_hub_check_token (REPO, NULL, NULL, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_assert_null (strstr (error->message, "hf_not_mine"));
  g_clear_error (&error);
  g_unsetenv ("HF_TOKEN");
  g_ptr_array_set_size (f->hub->log, 0);
  assert_refused (f, FLUX_ERROR_SETTINGS, "needs a token");
  g_assert_false (flux_hub_check_push (REPO, &error));
  g_clear_error (&error);
  g_setenv ("HF_TOKEN", TOKEN, TRUE);
  g_setenv ("HF_HUB_OFFLINE", "1", TRUE);
  assert_refused (f, FLUX_ERROR_SETTINGS, "HF_HUB_OFFLINE");
  g_unsetenv ("HF_HUB_OFFLINE");
  f->push.repo = "mucha";
  assert_refused (f, FLUX_ERROR_SETTINGS, "names nothing");
  f->push.repo = "tests/mucha/weights";
  assert_refused (f, FLUX_ERROR_SETTINGS, "write user/name");
  /* None of these asked anybody. */
  g_assert_cmpuint (f->hub->log->len, ==, 0);
  g_assert_true (flux_hub_check_token (REPO, NULL, NULL, &error));
  g_assert_no_error (error);
}

static void
test_statuses (Fixture *f, gconstpointer data)
{
  f->push.repo = "others/mucha";
  assert_refused (f, FLUX_ERROR_SETTINGS, "may not write to others/mucha");
  f->push.repo = REPO;
  f->hub->push_at = "/objects/batch";
  f->hub->push_status = 402;
  assert_refused (f, FLUX_ERROR_NO_SPACE, "no room");
  f->hub->push_at = "/preupload";
  f->hub->push_status = 403;
  assert_refused (f, FLUX_ERROR_SETTINGS, "may not write");
  f->hub->push_at = "/commit";
  f->hub->push_status = 400;
  assert_refused (f, FLUX_ERROR_WRITE, "answered 400");
}

/* A place that others see is not where something private goes. */
static void
test_exists_public (Fixture *f, gconstpointer data)
{
  test_hub_add_to (f->hub, REPO, "old.txt", "x", 1, FALSE);
  assert_refused (f, FLUX_ERROR_SETTINGS, "is there already and everybody may see it");
  g_assert_cmpuint (test_hub_count (f->hub, "/preupload"), ==, 0);
  f->push.is_private = FALSE;
  assert_pushed (f);
  assert_there (f, "old.txt", "x", 1);
}

static void
test_made_public (Fixture *f, gconstpointer data)
{
  f->hub->always_public = TRUE;
  assert_refused (f, FLUX_ERROR_SETTINGS, "everybody may see it");
  g_assert_cmpuint (test_hub_count (f->hub, "/preupload"), ==, 0);
}

static void
test_always_cut (Fixture *f, gconstpointer data)
{
  f->hub->n_cut_put = 1000;
  assert_refused (f, FLUX_ERROR_READ, "broke off");
  g_assert_cmpuint (test_hub_count (f->hub, "/commit"), ==, 0);
}

static void
test_wrong_size (Fixture *f, gconstpointer data)
{
  f->hub->lose_byte = TRUE;
  f->hub->part_size = GPOINTER_TO_SIZE (data);
  assert_refused (f, FLUX_ERROR_WRITE, "answered 422");
  g_assert_cmpuint (test_hub_count (f->hub, "/commit"), ==, 0);
  f->hub->lose_byte = FALSE;
  assert_pushed (f);
}

static void
test_missing_file (Fixture *f, gconstpointer data)
{
  add (f, "more.safetensors", "/nowhere/more.safetensors", NULL);
  assert_refused (f, FLUX_ERROR_NOT_FOUND, "/nowhere/more.safetensors");
  g_assert_cmpuint (f->hub->log->len, ==, 0);
}

static gboolean
stop_soon (const char *what, gint percent, gpointer data)
{
  return percent < 0;
}

static void
test_cancel (Fixture *f, gconstpointer data)
{
  GError *error = NULL;
  gint64 start = g_get_monotonic_time ();

  g_setenv ("HF_HUB_DOWNLOAD_TIMEOUT", "60", TRUE);
  f->hub->n_cut_put = 1000;
  f->hub->stall_put = TRUE;
  g_assert_null (flux_hub_push (&f->push, stop_soon, NULL, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
  g_error_free (error);
  g_assert_cmpint (g_get_monotonic_time () - start, <, 2 * G_TIME_SPAN_SECOND);
  g_assert_cmpuint (test_hub_count (f->hub, "/commit"), ==, 0);
}

/* ---- the card ---- */

static const FluxHubUpload *
find (GPtrArray *files, const char *path)
{
  for (guint i = 0; i < files->len; i++) {
    const FluxHubUpload *upload = files->pdata[i];

    if (strcmp (upload->path, path) == 0)
      return upload;
  }
  return NULL;
}

static char *
card_text (FluxCard *card, const FluxCardText *text, GPtrArray *files)
{
  const FluxHubUpload *readme;

  g_ptr_array_set_size (files, 0);
  flux_card_finish (card, text, files);
  readme = find (files, "README.md");
  g_assert_nonnull (readme);
  return g_strndup (
      g_bytes_get_data (readme->bytes, NULL), g_bytes_get_size (readme->bytes));
}

static void
assert_has (const char *text, const char *part)
{
  if (strstr (text, part) == NULL)
    g_error ("no '%s' in:\n%s", part, text);
}

static void
assert_png (const FluxHubUpload *upload, int width, int height)
{
  GError *error = NULL;
  FluxImage *image;

  g_assert_nonnull (upload);
  image = flux_image_decode (g_bytes_get_data (upload->bytes, NULL),
      g_bytes_get_size (upload->bytes), "card", 1 << 24, &error);
  g_assert_no_error (error);
  g_assert_cmpint (image->width, ==, width);
  g_assert_cmpint (image->height, ==, height);
  flux_image_free (image);
}

static void
test_card (void)
{
  g_autoptr (FluxCard) card = flux_card_new ();
  g_autoptr (GPtrArray) files =
      g_ptr_array_new_with_free_func ((GDestroyNotify)flux_hub_upload_free);
  guint8 rgb[2 * 3 * 3] = {255, 0, 0};
  FluxReportPicture picture = {50, "a \"fox\": `x` | y", rgb, 3, 2, 9};
  FluxCardText text = {REPO, "black-forest-labs/FLUX.1-dev", NULL, WEIGHTS};
  g_autofree char *readme = NULL, *plain = NULL;

  flux_card_add_caption (card, "a fox in snow, alphonse mucha style");
  flux_card_add_caption (card, "two owls, alphonse mucha style");
  for (guint i = 1; i <= 100; i++)
    flux_card_add_step (card, i, 1.0 / i);
  flux_card_add_paired_loss (card, 0, 0.5);
  flux_card_add_paired_loss (card, 50, 0.45);
  flux_card_add_paired_loss (card, 100, 0.25);
  flux_card_add_setting (card, "rank", "4");
  g_assert_true (flux_card_add_picture (card, &picture, NULL));
  g_assert_true (flux_card_add_picture (card, &picture, NULL));
  readme = card_text (card, &text, files);
  g_assert_true (g_str_has_prefix (readme, "---\n"));
  assert_has (readme, "\nbase_model: \"black-forest-labs/FLUX.1-dev\"\n");
  assert_has (readme, "\nlicense_name: flux-1-dev-non-commercial-license\n");
  assert_has (readme, "\n- lora\n");
  assert_has (readme, "\ninstance_prompt: \"alphonse mucha style\"\n");
  assert_has (readme,
      "\n- text: \"a \\\"fox\\\": `x` | y\"\n  output:\n    url: \"samples/1.png\"\n");
  assert_has (readme, "| 91 to 100 | 0.0105 |");
  assert_has (readme, "the lowest line is at 0.0100, the highest at 1.0000.");
  assert_has (readme, "0.5000 before, 0.2500 after");
  assert_has (readme, "| `rank` | `4` |");
  assert_has (readme, "weight_name=\"" WEIGHTS "\"");
  assert_png (find (files, "loss.png"), 960, 360);
  assert_png (find (files, "samples/1.png"), 3, 2);
  g_assert_null (find (files, "samples/2.png"));
  /* One that nothing is known of says no more than it can. */
  {
    g_autoptr (FluxCard) empty = flux_card_new ();
    FluxCardText bare = {REPO, NULL, "sks", NULL};

    plain = card_text (empty, &bare, files);
    g_assert_null (strstr (plain, "base_model"));
    g_assert_null (strstr (plain, "license"));
    g_assert_null (strstr (plain, "## Loss"));
    assert_has (plain, "instance_prompt: \"sks\"");
    g_assert_cmpuint (files->len, ==, 1);
  }
}

static void
test_trigger_words (void)
{
  static const struct {
    const char *captions[3], *words;
  } cases[] = {{{"sks", "sks"}, NULL},
      {{"a photo of sks dog", "a photo of sks dog"}, "a photo of sks dog"},
      {{"a dog", "a cat"}, NULL},
      {{"in the style of TOK, a dog", "in the style of TOK, a cat"},
          "in the style of TOK, a"},
      {{"a dog , openmoji style", "owls, openmoji style.", "x openmoji style"}, NULL},
      {{"fox, openmoji style", "owls,  openmoji style"}, "openmoji style"},
      {{"", "x"}, NULL}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (FluxCard) card = flux_card_new ();
    g_autoptr (GPtrArray) files =
        g_ptr_array_new_with_free_func ((GDestroyNotify)flux_hub_upload_free);
    FluxCardText text = {REPO, NULL, NULL, NULL};
    g_autofree char *readme = NULL, *line = NULL;

    for (guint k = 0; k < 3 && cases[i].captions[k] != NULL; k++)
      flux_card_add_caption (card, cases[i].captions[k]);
    readme = card_text (card, &text, files);
    if (cases[i].words == NULL) {
      g_assert_null (strstr (readme, "instance_prompt"));
      continue;
    }
    line = g_strdup_printf ("\ninstance_prompt: \"%s\"\n", cases[i].words);
    assert_has (readme, line);
  }
}

static void
test_base_model (void)
{
  g_autofree char *dir = g_dir_make_tmp ("card-XXXXXX", NULL);
  g_autofree char *index = g_build_filename (dir, "model_index.json", NULL);
  g_autofree char *uri = flux_card_base_model ("hf://a/b@main/part");
  g_autofree char *snapshot = flux_card_base_model ("/x/hub/models--a--b/snapshots/c");
  g_autofree char *none = flux_card_base_model (dir), *named = NULL, *path = NULL;

  g_assert_cmpstr (uri, ==, "a/b");
  g_assert_cmpstr (snapshot, ==, "a/b");
  g_assert_null (none);
  g_file_set_contents (index, "{\"_name_or_path\": \"a/c\"}", -1, NULL);
  named = flux_card_base_model (dir);
  g_assert_cmpstr (named, ==, "a/c");
  g_file_set_contents (index, "{\"_name_or_path\": \"/home/me/model\"}", -1, NULL);
  path = flux_card_base_model (dir);
  g_assert_null (path);
  g_remove (index);
  g_rmdir (dir);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define ADD(name, test, data)                                                            \
  g_test_add ("/push/" name, Fixture, GSIZE_TO_POINTER (data), setup, test, teardown)
  ADD ("files go into one commit", test_push, 0);
  ADD ("in parts", test_parts, 0);
  ADD ("public when that is asked for", test_public, 0);
  ADD ("what was pushed can be pulled", test_and_pull, 0);
  ADD ("a cut upload is tried again", test_cut, 0);
  ADD ("a cut part is tried again", test_cut, 2 << 20);
  ADD ("a busy Hub is asked again", test_busy, 0);
  ADD ("tokens", test_tokens, 0);
  ADD ("statuses have a sentence each", test_statuses, 0);
  ADD ("a public repository that is there", test_exists_public, 0);
  ADD ("a repository that is made public", test_made_public, 0);
  ADD ("an upload that is always cut", test_always_cut, 0);
  ADD ("a wrong size", test_wrong_size, 0);
  ADD ("a wrong size of a part", test_wrong_size, 2 << 20);
  ADD ("a file that is not there", test_missing_file, 0);
  ADD ("cancelling is quick", test_cancel, 0);
  g_test_add_func ("/push/card", test_card);
  g_test_add_func ("/push/trigger words", test_trigger_words);
  g_test_add_func ("/push/base model", test_base_model);
  return g_test_run ();
}
