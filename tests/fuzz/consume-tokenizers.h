/* tests/fuzz/consume-tokenizers.h: gives bytes that may be anything to the tokenisers.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The first byte chooses: 'c', tokenizer_config.json, vocab.json and merges.txt, parted
 * by bytes 0xFF; 's', tokenizer_config.json, a byte 0xFF, and spiece.model; anything
 * else, text for the tiny model's tokenisers. An empty part is no file.
 *
 * Shared by the fuzzer and by test-tokenizer-mutations. */
#pragma once

#include <stdio.h>
#include <string.h>

#include <glib/gstdio.h>

#include "flux/error.h"
#include "flux/text/clip-tokenizer.h"
#include "flux/text/t5-tokenizer.h"
#include "flux/text/unicode.h"

#define CONSUME_SHORT 12
#define CONSUME_LONG 40

typedef struct {
  char *folder; /* for the files, temporary */
  FluxClipTokenizer *clip;
  FluxT5Tokenizer *t5;
} Consumer;

static const char *const consumed_files[] = {
    "tokenizer_config.json", "vocab.json", "merges.txt", "spiece.model"};

/* model: the folder with tokenizer and tokenizer_2. */
static inline void
consumer_init (Consumer *self, const char *model)
{
  g_autofree char *one = g_build_filename (model, "tokenizer", NULL);
  g_autofree char *two = g_build_filename (model, "tokenizer_2", NULL);

  self->folder = g_dir_make_tmp ("flux-tokenizers-XXXXXX", NULL);
  self->clip = flux_clip_tokenizer_new (one, NULL);
  self->t5 = flux_t5_tokenizer_new (two, NULL);
  g_assert_true (self->folder != NULL && self->clip != NULL && self->t5 != NULL);
}

static inline void
consumer_clear (Consumer *self)
{
  for (guint i = 0; i < G_N_ELEMENTS (consumed_files); i++) {
    g_autofree char *path = g_build_filename (self->folder, consumed_files[i], NULL);

    g_remove (path);
  }
  g_rmdir (self->folder);
  g_free (self->folder);
  flux_clip_tokenizer_free (self->clip);
  flux_t5_tokenizer_free (self->t5);
}

static inline void
check_error (const GError *error)
{
  g_assert_true (error != NULL && error->domain == FLUX_ERROR);
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
}

/* A shorter sequence is the beginning of a longer one. */
static inline gboolean
consume_with_clip (const FluxClipTokenizer *clip, const char *text, gsize len)
{
  g_autoptr (GError) error = NULL;
  gint32 a[CONSUME_SHORT], b[CONSUME_LONG];
  guint eos;

  if (!flux_clip_tokenizer_encode (clip, text, len, CONSUME_SHORT, a, &eos, &error)) {
    check_error (error);
    return FALSE;
  }
  g_assert_cmpuint (eos, <, CONSUME_SHORT);
  g_assert_true (
      flux_clip_tokenizer_encode (clip, text, len, CONSUME_LONG, b, &eos, NULL));
  for (guint i = 0; eos >= CONSUME_SHORT && i < CONSUME_SHORT - 1; i++)
    g_assert_cmpint (a[i], ==, b[i]);
  return TRUE;
}

static inline gboolean
consume_with_t5 (const FluxT5Tokenizer *t5, const char *text, gsize len)
{
  g_autoptr (GError) error = NULL;
  gint32 a[CONSUME_SHORT], b[CONSUME_LONG];
  guint n, m;

  if (!flux_t5_tokenizer_encode (t5, text, len, CONSUME_SHORT, a, &n, &error)) {
    check_error (error);
    return FALSE;
  }
  g_assert_true (flux_t5_tokenizer_encode (t5, text, len, CONSUME_LONG, b, &m, NULL));
  g_assert_true (n >= 1 && n <= CONSUME_SHORT && m >= n && m <= CONSUME_LONG);
  for (guint i = 0; i < n - 1; i++)
    g_assert_cmpint (a[i], ==, b[i]);
  return TRUE;
}

static inline gboolean
consume_text (const Consumer *self, const char *text, gsize len)
{
  g_autoptr (GString) once = g_string_new (NULL);
  g_autoptr (GString) twice = g_string_new (NULL);
  gboolean one = consume_with_clip (self->clip, text, len);
  gboolean two = consume_with_t5 (self->t5, text, len);
  gsize bad, at = 0;

  g_assert_true (one == two && one == flux_unicode_validate (text, len, &bad));
  if (!one) {
    g_assert_cmpuint (bad, <, len);
    return FALSE;
  }
  flux_unicode_append_nfc (once, text, len);
  flux_unicode_append_nfc (twice, once->str, once->len);
  g_assert_cmpmem (once->str, once->len, twice->str, twice->len);
  while (at < len)
    at += flux_unicode_grapheme_length (text + at, len - at);
  g_assert_cmpuint (at, ==, len);
  return TRUE;
}

/* Writes the parts of data to the files numbered by which, in order. */
static inline void
write_parts (
    const Consumer *self, const guint8 *data, gsize size, const guint *which, guint n)
{
  for (guint i = 0; i < n; i++) {
    const guint8 *end = i < n - 1 ? memchr (data, 0xFF, size) : NULL;
    gsize part = end != NULL ? (gsize)(end - data) : size;
    g_autofree char *path =
        g_build_filename (self->folder, consumed_files[which[i]], NULL);

    FILE *f;

    g_remove (path); /* a file cut to nothing is flushed to the disk on some systems */
    f = part > 0 ? g_fopen (path, "wb") : NULL;
    g_assert_true (part == 0 || (f != NULL && fwrite (data, 1, part, f) == part));
    if (f != NULL)
      fclose (f);
    part += end != NULL;
    data += part;
    size -= part;
  }
}

static inline gboolean
consume_files (const Consumer *self, gboolean clip, const guint8 *data, gsize size)
{
  static const guint clip_files[] = {0, 1, 2}, t5_files[] = {0, 3};
  static const char text[] = "ab ba <x> \xEF\xBC\x9Cx> </s> \xC3\xA9 e\xCC\x81 1\0z";
  g_autoptr (FluxClipTokenizer) c = NULL;
  g_autoptr (FluxT5Tokenizer) t = NULL;
  g_autoptr (GError) error = NULL;

  if (clip) {
    write_parts (self, data, size, clip_files, 3);
    c = flux_clip_tokenizer_new (self->folder, &error);
  } else {
    write_parts (self, data, size, t5_files, 2);
    t = flux_t5_tokenizer_new (self->folder, &error);
  }
  if (c == NULL && t == NULL) {
    check_error (error);
    return FALSE;
  }
  g_assert_no_error (error);
  return c != NULL ? consume_with_clip (c, text, sizeof text)
                   : consume_with_t5 (t, text, sizeof text);
}

/* TRUE when the bytes were taken. */
static inline gboolean
consume_for_tokenizers (const Consumer *self, const guint8 *data, gsize size)
{
  if (size == 0)
    return FALSE;
  if (data[0] == 'c' || data[0] == 's')
    return consume_files (self, data[0] == 'c', data + 1, size - 1);
  return consume_text (self, (const char *)data + 1, size - 1);
}
