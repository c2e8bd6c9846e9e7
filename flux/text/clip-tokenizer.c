/* flux/text/clip-tokenizer.c: text to CLIP token ids.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/clip-tokenizer.h"

#include <string.h>

#include "flux/error.h"
#include "flux/text/added-tokens.h"
#include "flux/text/bpe.h"
#include "flux/text/check-text.h"
#include "flux/text/tokenizer-config.h"
#include "flux/text/unicode.h"

struct _FluxClipTokenizer {
  FluxBpe *bpe;
  FluxAddedTokens *raw;        /* compared with the text as it is */
  FluxAddedTokens *normalised; /* compared with the normalised text */
  gint32 named[FLUX_N_NAMED_TOKENS];
};

/* NFC, each run of white space to one space, lower case. */
static GString *
normalise (const char *text, gsize len)
{
  g_autoptr (GString) nfc = g_string_sized_new (len + 1);
  GString *out = g_string_sized_new (len + 1);
  gboolean in_space = FALSE;
  const char *end;

  flux_unicode_append_nfc (nfc, text, len);
  end = nfc->str + nfc->len;
  for (const char *p = nfc->str; p < end; p = g_utf8_next_char (p)) {
    gunichar c = g_utf8_get_char (p);
    gboolean space = flux_unicode_is_space (c);

    if (!space)
      flux_unicode_append_lower (out, c);
    else if (!in_space)
      g_string_append_c (out, ' ');
    in_space = space;
  }
  return out;
}

static gboolean
add_token (FluxClipTokenizer *self, FluxTokenSpec spec, const char *dir, gint32 *id,
    GError **error)
{
  gint32 found = flux_bpe_lookup (self->bpe, spec.content);

  if (found < 0)
    found = (gint32)spec.id;
  if (found < 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "The vocabulary in '%s' lacks the special token '%s'; use the vocab.json that "
        "belongs to its tokenizer_config.json.",
        dir, spec.content);
    return FALSE;
  }
  if (spec.normalized) {
    g_autoptr (GString) s = normalise (spec.content, strlen (spec.content));

    flux_added_tokens_add (
        self->normalised, s->str, s->len, found, spec.lstrip, spec.rstrip);
  } else {
    flux_added_tokens_add (
        self->raw, spec.content, strlen (spec.content), found, spec.lstrip, spec.rstrip);
  }
  if (id != NULL)
    *id = found;
  return TRUE;
}

FluxClipTokenizer *
flux_clip_tokenizer_new (const char *dir, GError **error)
{
  static const char *const fallback[FLUX_N_NAMED_TOKENS] = {
      "<|startoftext|>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"};
  g_autoptr (FluxTokenizerConfig) config = flux_tokenizer_config_read (dir, error);
  g_autoptr (FluxClipTokenizer) self = g_new0 (FluxClipTokenizer, 1);

  if (config == NULL)
    return NULL;
  self->raw = flux_added_tokens_new ();
  self->normalised = flux_added_tokens_new ();
  self->bpe = flux_bpe_new (dir, error);
  if (self->bpe == NULL)
    return NULL;
  for (guint i = 0; i < config->added->len; i++) {
    if (!add_token (
            self, g_array_index (config->added, FluxTokenSpec, i), dir, NULL, error))
      return NULL;
  }
  flux_tokenizer_config_complete (config, fallback);
  for (guint i = 0; i < FLUX_N_NAMED_TOKENS; i++) {
    if (!add_token (self, config->named[i], dir, &self->named[i], error))
      return NULL;
  }
  return g_steal_pointer (&self);
}

void
flux_clip_tokenizer_free (FluxClipTokenizer *self)
{
  if (self == NULL)
    return;
  flux_bpe_free (self->bpe);
  flux_added_tokens_free (self->raw);
  flux_added_tokens_free (self->normalised);
  g_free (self);
}

typedef enum { SPACE, LETTER, NUMBER, OTHER } Kind;

static Kind
kind_of (gunichar c)
{
  if (flux_unicode_is_letter (c))
    return LETTER;
  if (flux_unicode_is_number (c))
    return NUMBER;
  return flux_unicode_is_space (c) ? SPACE : OTHER;
}

/* Bytes of the first of words that text begins with, or 0. */
static gsize
begins_with (const char *text, gsize len, const char *const *words)
{
  for (; *words != NULL; words++) {
    gsize n = strlen (*words);

    if (len >= n && memcmp (text, *words, n) == 0)
      return n;
  }
  return 0;
}

/* Bytes of the word at text, which does not begin with a space:
 * 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ */
static gsize
word_length (const char *text, gsize len)
{
  static const char *const contractions[] = {
      "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", NULL};
  const char *p = text, *end = text + len;
  gsize n = begins_with (text, len, contractions);
  Kind kind;

  if (n > 0)
    return n;
  kind = kind_of (g_utf8_get_char (p));
  do
    p = g_utf8_next_char (p);
  while (p < end && kind != NUMBER && kind_of (g_utf8_get_char (p)) == kind);
  return p - text;
}

/* Words of normalised text, until ids holds limit. */
static void
encode_words (
    gconstpointer tokenizer, const char *text, gsize len, guint limit, GArray *ids)
{
  const FluxClipTokenizer *self = tokenizer;
  /* The split takes these whole where they are not special tokens (upper case in the
   * text), so that what follows does not stick to the "|>". The byte-level split then
   * parts them again. */
  static const char *const whole[] = {"<|startoftext|>", "<|endoftext|>", NULL};
  gsize at = 0, fence = 0; /* fence: the end of such a token */

  while (at < len && ids->len < limit) {
    gsize n;

    if (flux_unicode_is_space (g_utf8_get_char (text + at))) {
      at = g_utf8_next_char (text + at) - text;
      continue;
    }
    if (at >= fence) {
      n = begins_with (text + at, len - at, whole);
      fence = n > 0 ? at + n : len;
    }
    n = word_length (text + at, fence - at);
    flux_bpe_append_word (self->bpe, text + at, n, self->named[FLUX_TOKEN_UNK], ids);
    at += n;
    if (fence == len)
      fence = 0;
  }
}

/* Text between raw tokens. */
static void
encode_plain (
    gconstpointer tokenizer, const char *text, gsize len, guint limit, GArray *ids)
{
  const FluxClipTokenizer *self = tokenizer;
  g_autoptr (GString) s = normalise (text, len);

  flux_added_tokens_walk (
      self->normalised, s->str, s->len, limit, encode_words, self, ids);
}

gboolean
flux_clip_tokenizer_encode (const FluxClipTokenizer *self, const char *text, gssize len,
    guint max_length, gint32 *ids, guint *eos_position, GError **error)
{
  g_autoptr (GArray) found = g_array_new (FALSE, FALSE, sizeof (gint32));
  gsize n;
  guint used;

  if (!flux_check_text (text, len, max_length, 2, &n, error))
    return FALSE;
  flux_added_tokens_walk (self->raw, text, n, max_length - 2, encode_plain, self, found);
  used = MIN (found->len, max_length - 2);
  ids[0] = self->named[FLUX_TOKEN_BOS];
  for (guint i = 0; i < used; i++)
    ids[1 + i] = g_array_index (found, gint32, i);
  ids[1 + used] = self->named[FLUX_TOKEN_EOS];
  for (guint i = used + 2; i < max_length; i++)
    ids[i] = self->named[FLUX_TOKEN_PAD];
  if (eos_position != NULL) {
    *eos_position = 0;
    while (ids[*eos_position] != self->named[FLUX_TOKEN_EOS])
      ++*eos_position;
  }
  return TRUE;
}
