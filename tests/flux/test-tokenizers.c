/* tests/flux/test-tokenizers.c: token ids against transformers, and bad input.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/safetensors.h"
#include "flux/text/clip-tokenizer.h"
#include "flux/text/t5-tokenizer.h"
#include "tests/testdata.h"

/* The reference ids of one run (tests/reference/make_tokens.py). */
typedef struct {
  FluxSafetensors *file;
  const char *folder;
  gboolean clip;
  guint n, max_length;
  gint32 pad;
  const char *text;
  const gint32 *text_end, *ids_end;
  const guint16 *ids;
} Run;

static const char *
meta (FluxSafetensors *file, const char *run, const char *key)
{
  g_autofree char *name = g_strdup_printf ("%s.%s", run, key);
  const char *value = flux_safetensors_get_metadata (file, name);

  g_assert_nonnull (value);
  return value;
}

static gconstpointer
data_of (FluxSafetensors *file, const char *run, const char *key, guint *n)
{
  g_autofree char *name = g_strdup_printf ("%s.%s", run, key);
  const FluxTensor *t = flux_safetensors_lookup (file, name);

  g_assert_nonnull (t);
  if (n != NULL)
    *n = (guint)t->n_elements;
  return g_memdup2 (t->data, t->n_bytes);
}

static void
run_open (Run *run, const char *name)
{
  g_autofree char *path =
      g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "tokens.safetensors", NULL);
  g_autoptr (GError) error = NULL;

  run->file = flux_safetensors_open (path, &error);
  g_assert_no_error (error);
  run->text = flux_safetensors_lookup (run->file, "text")->data;
  run->text_end = data_of (run->file, "text", "end", &run->n);
  run->ids = data_of (run->file, name, "ids", NULL);
  run->ids_end = data_of (run->file, name, "end", NULL);
  run->folder = meta (run->file, name, "folder");
  run->clip = strcmp (meta (run->file, name, "kind"), "clip") == 0;
  run->max_length = (guint)atoi (meta (run->file, name, "max_length"));
  run->pad = atoi (meta (run->file, name, "pad"));
}

static void
run_close (Run *run)
{
  g_free ((gpointer)run->text_end);
  g_free ((gpointer)run->ids);
  g_free ((gpointer)run->ids_end);
  flux_safetensors_unref (run->file);
}

/* A checked-in copy of the tiny tokenisers, or shared data. NULL: a skip was reported. */
static char *
find_folder (const char *folder)
{
  g_autofree char *shared = flux_test_shared ();
  g_autofree char *copy = g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "..", "examples", "models", folder, NULL);
  g_autofree char *dir = NULL;
  g_autofree char *message = NULL;

  if (g_file_test (copy, G_FILE_TEST_IS_DIR))
    return g_steal_pointer (&copy);
  if (shared != NULL)
    dir = g_build_filename (shared, folder, NULL);
  if (dir != NULL && g_file_test (dir, G_FILE_TEST_IS_DIR))
    return g_steal_pointer (&dir);
  message = g_strdup_printf ("%s is absent", folder);
  g_test_skip (message);
  return NULL;
}

/* "12 (want 13 at token 4)" of the first difference, or NULL. */
static char *
difference (const Run *run, guint i, const gint32 *got)
{
  guint from = i > 0 ? (guint)run->ids_end[i - 1] : 0;
  guint n = (guint)run->ids_end[i] - from;

  for (guint j = 0; j < run->max_length; j++) {
    gint32 want = j < n ? run->ids[from + j] : run->pad;

    if (got[j] != want)
      return g_strdup_printf ("%d (want %d at token %u)", got[j], want, j);
  }
  return NULL;
}

static void
agrees (gconstpointer data)
{
  g_autoptr (FluxClipTokenizer) clip = NULL;
  g_autoptr (FluxT5Tokenizer) t5 = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree char *dir = NULL;
  g_autofree gint32 *ids = NULL;
  guint bad = 0;
  Run run;

  run_open (&run, data);
  dir = find_folder (run.folder);
  if (dir == NULL) {
    run_close (&run);
    return;
  }
  if (run.clip)
    clip = flux_clip_tokenizer_new (dir, &error);
  else
    t5 = flux_t5_tokenizer_new (dir, &error);
  g_assert_no_error (error);
  ids = g_new (gint32, run.max_length);
  g_assert_cmpuint (run.n, >=, 1000);
  for (guint i = 0; i < run.n; i++) {
    gsize from = i > 0 ? run.text_end[i - 1] : 0, len = run.text_end[i] - from;
    guint n = 0;
    g_autofree char *wrong = NULL;

    if (run.clip)
      flux_clip_tokenizer_encode (
          clip, run.text + from, len, run.max_length, ids, &n, &error);
    else
      flux_t5_tokenizer_encode (
          t5, run.text + from, len, run.max_length, ids, &n, &error);
    g_assert_no_error (error);
    wrong = difference (&run, i, ids);
    if (wrong != NULL && bad++ < 20) {
      g_autofree char *shown = g_strndup (run.text + from, MIN (len, 60));
      g_autofree char *escaped = g_strescape (shown, NULL);

      g_test_message ("string %u \"%s\": %s", i, escaped, wrong);
    }
    /* CLIP's is the first end token, T5's the number of tokens. */
    if (run.clip)
      g_assert_cmpint (ids[n], ==, run.pad);
    else
      g_assert_cmpint (n, ==, run.ids_end[i] - (i > 0 ? run.ids_end[i - 1] : 0));
    for (guint j = 0; run.clip && j < n; j++)
      g_assert_cmpint (ids[j], !=, ids[run.max_length - 1]);
  }
  run_close (&run);
  g_assert_cmpuint (bad, ==, 0);
}

/* The pooled output is taken at the first end token, which a text can hold itself. */
static void
first_end_token_of_the_text_counts (void)
{
  g_autofree char *dir = find_folder ("tiny-flux-emoji/tokenizer");
  g_autoptr (FluxClipTokenizer) clip = NULL;
  g_autoptr (GError) error = NULL;
  gint32 ids[16];
  guint eos;

  if (dir == NULL)
    return;
  clip = flux_clip_tokenizer_new (dir, &error);
  g_assert_no_error (error);
  g_assert_true (flux_clip_tokenizer_encode (clip, "", -1, 16, ids, &eos, &error));
  g_assert_cmpuint (eos, ==, 1);
  g_assert_true (flux_clip_tokenizer_encode (clip, "a a a", -1, 16, ids, &eos, &error));
  g_assert_cmpuint (eos, ==, 4);
  g_assert_true (
      flux_clip_tokenizer_encode (clip, "a<|endoftext|>a", -1, 16, ids, &eos, &error));
  g_assert_cmpuint (eos, ==, 2);
  /* The shortest sequence keeps both ends. */
  g_assert_true (flux_clip_tokenizer_encode (clip, "a a a", -1, 2, ids, &eos, &error));
  g_assert_cmpuint (eos, ==, 1);
}

static void
check_refused (FluxClipTokenizer *clip, FluxT5Tokenizer *t5, const char *text, gssize len,
    guint max_length, FluxError code, const char *says)
{
  g_autoptr (GError) one = NULL;
  g_autoptr (GError) two = NULL;
  gint32 ids[16];

  g_assert_false (
      flux_clip_tokenizer_encode (clip, text, len, max_length, ids, NULL, &one));
  g_assert_error (one, FLUX_ERROR, (int)code);
  g_assert_nonnull (strstr (one->message, says));
  g_assert_false (flux_t5_tokenizer_encode (t5, text, len, max_length, ids, NULL, &two));
  g_assert_error (two, FLUX_ERROR, (int)code);
  g_assert_nonnull (strstr (two->message, says));
}

static void
text_that_is_not_utf8_is_refused (void)
{
  g_autofree char *clip_dir = find_folder ("tiny-flux-emoji/tokenizer");
  g_autofree char *t5_dir = find_folder ("tiny-flux-emoji/tokenizer_2");
  g_autofree char *huge = g_malloc (FLUX_TEXT_MAX + 1);
  g_autoptr (FluxClipTokenizer) clip = NULL;
  g_autoptr (FluxT5Tokenizer) t5 = NULL;

  if (clip_dir == NULL || t5_dir == NULL)
    return;
  clip = flux_clip_tokenizer_new (clip_dir, NULL);
  t5 = flux_t5_tokenizer_new (t5_dir, NULL);
  g_assert_true (clip != NULL && t5 != NULL);
  check_refused (clip, t5, "caf\xE9", -1, 16, FLUX_ERROR_FORMAT, "byte 3");
  check_refused (clip, t5, "a\0b\xFFz", 5, 16, FLUX_ERROR_FORMAT, "byte 3");
  check_refused (clip, t5, "ab\xC3", -1, 16, FLUX_ERROR_FORMAT, "byte 2");
  check_refused (clip, t5, "\xED\xA0\x80", -1, 16, FLUX_ERROR_FORMAT, "byte 0");
  check_refused (clip, t5, "a", -1, 0, FLUX_ERROR_SETTINGS, "room");
  memset (huge, 'a', FLUX_TEXT_MAX + 1);
  check_refused (clip, t5, huge, FLUX_TEXT_MAX + 1, 16, FLUX_ERROR_SETTINGS, "shorten");
}

/* A megabyte of each: one word, many words, marks, special tokens. */
static void
a_megabyte_takes_linear_time (void)
{
  static const char *const parts[] = {"a", "ab ", " ", "\xCC\x81", "\xCC\xA3\xCC\x81",
      "!", "<", "<extra_id_", "<|endoftext", "\xE6\x97\xA5", "'s", "\xF0\x9F\x87\xA9"};
  g_autofree char *clip_dir = find_folder ("tiny-flux-emoji/tokenizer");
  g_autofree char *t5_dir = find_folder ("tiny-flux-emoji/tokenizer_2");
  g_autoptr (FluxClipTokenizer) clip = NULL;
  g_autoptr (FluxT5Tokenizer) t5 = NULL;
  gint32 ids[77];

  if (clip_dir == NULL || t5_dir == NULL)
    return;
  clip = flux_clip_tokenizer_new (clip_dir, NULL);
  t5 = flux_t5_tokenizer_new (t5_dir, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++) {
    g_autoptr (GString) text = g_string_new (NULL);
    gint64 start;
    double ms;

    while (text->len < 1 << 20)
      g_string_append (text, parts[i]);
    start = g_get_monotonic_time ();
    g_assert_true (
        flux_clip_tokenizer_encode (clip, text->str, text->len, 77, ids, NULL, NULL));
    g_assert_true (
        flux_t5_tokenizer_encode (t5, text->str, text->len, 77, ids, NULL, NULL));
    ms = (g_get_monotonic_time () - start) / 1000.0;
    g_test_message ("1 MiB of \"%s\": %.0f ms", parts[i], ms);
    /* Quadratic work would be an hour. */
    g_assert_cmpfloat (ms, <, 20000);
  }
}

typedef struct {
  const char *file;
  const char *content; /* NULL: the file is removed */
  int code;
  const char *says;
} Damage;

static void
copy_files (const char *from, const char *to, const char *const *names)
{
  for (; *names != NULL; names++) {
    g_autofree char *source = g_build_filename (from, *names, NULL);
    g_autofree char *target = g_build_filename (to, *names, NULL);
    g_autofree char *data = NULL;
    gsize n;

    if (!g_file_get_contents (source, &data, &n, NULL))
      g_remove (target);
    else
      g_assert_true (g_file_set_contents (target, data, n, NULL));
  }
}

static void
damaged_files_are_refused (gconstpointer which)
{
  static const char *const files[] = {"vocab.json", "merges.txt", "spiece.model",
      "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", NULL};
  static const Damage clip[] = {
      {"vocab.json", NULL, FLUX_ERROR_NOT_FOUND, "put the file there"},
      {"merges.txt", NULL, FLUX_ERROR_NOT_FOUND, "put the file there"},
      {"vocab.json", "{\"a\": 1, \"b\": ", FLUX_ERROR_FORMAT, "vocab.json"},
      {"vocab.json", "{\"a\": 99999999999}", FLUX_ERROR_FORMAT, "too large"},
      {"vocab.json", "[[[[[[[[", FLUX_ERROR_FORMAT, "vocab.json"},
      {"vocab.json", "{\"a\": 1}", FLUX_ERROR_MISMATCH, "merges.txt"},
      {"merges.txt", "#version: 0.2\nl zzzz\n", FLUX_ERROR_MISMATCH, "Line 2"},
      {"merges.txt", "word", FLUX_ERROR_MISMATCH, "Line 1"},
      {"special_tokens_map.json", "{\"eos_token\": \"<gone>\"}", FLUX_ERROR_MISMATCH,
          "<gone>"},
      {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"1\": {}}}",
          FLUX_ERROR_FORMAT, "tokenizer_config.json"},
      {"tokenizer_config.json",
          "{\"added_tokens_decoder\": {\"1\": {\"content\": \"a\", \"single_word\": "
          "true}}}",
          FLUX_ERROR_MISMATCH, "single word"},
  };
  static const Damage t5[] = {
      {"spiece.model", NULL, FLUX_ERROR_NOT_FOUND, "put the file there"},
      {"spiece.model", "", FLUX_ERROR_FORMAT, "spiece.model"},
      {"spiece.model", "\x0a\xff\xff\xff\xff\x0f", FLUX_ERROR_FORMAT, "damaged"},
      {"spiece.model", "not a model", FLUX_ERROR_FORMAT, "spiece.model"},
      /* one piece, of type unknown; model type 2 */
      {"spiece.model", "\x0a\x05\x0a\x01u\x18\x02\x12\x02\x18\x02", FLUX_ERROR_MISMATCH,
          "unigram"},
      /* the same, but a table of 100 bytes in 4 */
      {"spiece.model", "\x0a\x05\x0a\x01u\x18\x02\x1a\x06\x12\x04zzzz", FLUX_ERROR_FORMAT,
          "normalisation table"},
      {"tokenizer_config.json", "{", FLUX_ERROR_FORMAT, "tokenizer_config.json"},
  };
  gboolean is_clip = strcmp (which, "clip") == 0;
  g_autofree char *source =
      find_folder (is_clip ? "tiny-flux-emoji/tokenizer" : "tiny-flux-emoji/tokenizer_2");
  g_autofree char *dir = g_dir_make_tmp ("flux-tokenizer-XXXXXX", NULL);
  const Damage *damage = is_clip ? clip : t5;
  guint n = is_clip ? G_N_ELEMENTS (clip) : G_N_ELEMENTS (t5);

  for (guint i = 0; source != NULL && i <= n; i++) {
    g_autoptr (FluxClipTokenizer) a = NULL;
    g_autoptr (FluxT5Tokenizer) b = NULL;
    g_autoptr (GError) error = NULL;

    copy_files (source, dir, files);
    if (i < n && strcmp (damage[i].file, "special_tokens_map.json") == 0) {
      /* only read where tokenizer_config.json has no added tokens */
      g_autofree char *config = g_build_filename (dir, "tokenizer_config.json", NULL);

      g_remove (config);
    }
    if (i < n) {
      g_autofree char *path = g_build_filename (dir, damage[i].file, NULL);

      g_remove (path);
      if (damage[i].content != NULL)
        g_file_set_contents (path, damage[i].content, -1, NULL);
    }
    if (is_clip)
      a = flux_clip_tokenizer_new (dir, &error);
    else
      b = flux_t5_tokenizer_new (dir, &error);
    if (i == n) { /* whole again */
      g_assert_no_error (error);
      break;
    }
    g_assert_error (error, FLUX_ERROR, damage[i].code);
    if (strstr (error->message, damage[i].says) == NULL)
      g_error ("'%s' does not say '%s'", error->message, damage[i].says);
  }
  for (guint i = 0; files[i] != NULL; i++) {
    g_autofree char *path = g_build_filename (dir, files[i], NULL);

    g_remove (path);
  }
  g_rmdir (dir);
}

/* Tokens compared after normalisation match in upper case; a plain pad_token of the same
 * text undoes that, as in transformers. */
static void
flags_of_special_tokens_count (void)
{
#define NORMALIZED "{\"content\": \"<|endoftext|>\", \"normalized\": true}"
  static const char *const maps[] = {"{\"eos_token\": " NORMALIZED
                                     ", \"unk_token\": " NORMALIZED
                                     ", \"pad_token\": " NORMALIZED "}",
      "{\"eos_token\": " NORMALIZED ", \"unk_token\": " NORMALIZED
      ", \"pad_token\": \"<|endoftext|>\"}"};
  static const char *const files[] = {"vocab.json", "merges.txt", NULL};
  g_autofree char *source = find_folder ("tiny-flux-emoji/tokenizer");
  g_autofree char *dir = g_dir_make_tmp ("flux-tokenizer-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "special_tokens_map.json", NULL);

  if (source == NULL)
    return;
  copy_files (source, dir, files);
  for (guint i = 0; i < G_N_ELEMENTS (maps); i++) {
    g_autoptr (FluxClipTokenizer) clip = NULL;
    gint32 ids[32];
    guint lower, upper;

    g_assert_true (g_file_set_contents (path, maps[i], -1, NULL));
    clip = flux_clip_tokenizer_new (dir, NULL);
    g_assert_true (
        flux_clip_tokenizer_encode (clip, "a<|endoftext|>", -1, 32, ids, &lower, NULL));
    g_assert_true (
        flux_clip_tokenizer_encode (clip, "a<|EndOfText|>", -1, 32, ids, &upper, NULL));
    g_assert_cmpuint (lower, ==, 2);
    if (i == 0)
      g_assert_cmpuint (upper, ==, 2);
    else
      g_assert_cmpuint (upper, >, 2);
  }
  g_remove (path);
  for (guint i = 0; files[i] != NULL; i++) {
    g_autofree char *file = g_build_filename (dir, files[i], NULL);

    g_remove (file);
  }
  g_rmdir (dir);
}

/* Without tokenizer.json and the like, T5's added tokens are the usual ones. */
static void
the_model_file_alone_is_enough (void)
{
  static const char *const one[] = {"spiece.model", NULL};
  g_autofree char *source = find_folder ("tiny-flux-emoji/tokenizer_2");
  g_autofree char *dir = g_dir_make_tmp ("flux-tokenizer-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "spiece.model", NULL);
  g_autoptr (FluxT5Tokenizer) whole = NULL;
  g_autoptr (FluxT5Tokenizer) bare = NULL;
  gint32 a[32], b[32];
  const char *text = "a cat <extra_id_7></s> <extra_id_99><pad> \xEF\xBC\x9C/s>";

  if (source == NULL)
    return;
  copy_files (source, dir, one);
  whole = flux_t5_tokenizer_new (source, NULL);
  bare = flux_t5_tokenizer_new (dir, NULL);
  g_assert_true (whole != NULL && bare != NULL);
  g_assert_true (flux_t5_tokenizer_encode (whole, text, -1, 32, a, NULL, NULL));
  g_assert_true (flux_t5_tokenizer_encode (bare, text, -1, 32, b, NULL, NULL));
  g_assert_cmpmem (a, sizeof a, b, sizeof b);
  g_remove (path);
  g_rmdir (dir);
}

int
main (int argc, char **argv)
{
  static const char *const runs[] = {
      "clip", "t5", "t5_short", "tiny_clip", "tiny_t5", "tiny_t5_short"};

  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (runs); i++) {
    g_autofree char *name = g_strdup_printf ("/tokenizers/agree/%s", runs[i]);

    g_test_add_data_func (name, runs[i], agrees);
  }
  g_test_add_func (
      "/tokenizers/first-end-token-counts", first_end_token_of_the_text_counts);
  g_test_add_func ("/tokenizers/not-utf8-is-refused", text_that_is_not_utf8_is_refused);
  g_test_add_func ("/tokenizers/megabyte", a_megabyte_takes_linear_time);
  g_test_add_data_func (
      "/tokenizers/damaged-files-are-refused/clip", "clip", damaged_files_are_refused);
  g_test_add_data_func (
      "/tokenizers/damaged-files-are-refused/t5", "t5", damaged_files_are_refused);
  g_test_add_func ("/tokenizers/flags-of-special-tokens", flags_of_special_tokens_count);
  g_test_add_func ("/tokenizers/model-file-alone", the_model_file_alone_is_enough);
  return g_test_run ();
}
