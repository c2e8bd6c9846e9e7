/* flux/text/t5-tokenizer.c: text to T5 token ids.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/t5-tokenizer.h"

#include <string.h>

#include "flux/error.h"
#include "flux/text/added-tokens.h"
#include "flux/text/charsmap.h"
#include "flux/text/check-text.h"
#include "flux/text/spiece.h"
#include "flux/text/tokenizer-config.h"
#include "flux/text/unicode.h"
#include "flux/text/unigram.h"

/* U+2581, in place of the space before a word */
#define MARK "\xE2\x96\x81"
#define MARK_LEN 3
#define N_EXTRA 100

struct _FluxT5Tokenizer {
  FluxUnigram *model;
  FluxCharsmap *charsmap;
  FluxAddedTokens *raw;        /* compared with the text as it is */
  FluxAddedTokens *normalised; /* compared with the normalised text */
  gint32 eos, pad;
};

/* An added token that the model file lacks is a piece of score 0 of the model too: the
 * text may come to hold it through normalisation. */
static gint32
add_token (FluxT5Tokenizer *self, const FluxTokenSpec *spec)
{
  gsize len = strlen (spec->content);
  gint32 id = flux_unigram_lookup (self->model, spec->content, len);

  if (id < 0 && (spec->id < 0 || spec->id == flux_unigram_size (self->model))) {
    id = (gint32)flux_unigram_size (self->model);
    flux_unigram_add (self->model, spec->content, len, 0.0);
  } else if (id < 0) {
    id = (gint32)spec->id;
  }
  if (spec->normalized) {
    g_autoptr (GString) s = g_string_new (NULL);

    flux_charsmap_append (self->charsmap, spec->content, len, s);
    flux_added_tokens_add (
        self->normalised, s->str, s->len, id, spec->lstrip, spec->rstrip);
  } else {
    flux_added_tokens_add (self->raw, spec->content, len, id, spec->lstrip, spec->rstrip);
  }
  return id;
}

static int
by_id (const void *a, const void *b)
{
  gint64 x = ((const FluxTokenSpec *)a)->id, y = ((const FluxTokenSpec *)b)->id;

  return x < y ? -1 : x > y;
}

static void
add_tokens (FluxT5Tokenizer *self, FluxTokenizerConfig *config)
{
  static const char *const fallback[FLUX_N_NAMED_TOKENS] = {
      NULL, "</s>", "<unk>", "<pad>"};

  g_array_sort (config->added, by_id);
  for (guint i = 0; i < config->added->len; i++)
    add_token (self, &g_array_index (config->added, FluxTokenSpec, i));
  for (guint i = 0; config->added->len == 0 && i < N_EXTRA; i++) {
    g_autofree char *content = g_strdup_printf ("<extra_id_%u>", N_EXTRA - 1 - i);
    FluxTokenSpec spec = {.content = content, .id = -1};

    add_token (self, &spec);
  }
  flux_tokenizer_config_complete (config, fallback);
  for (guint i = FLUX_TOKEN_EOS; i < FLUX_N_NAMED_TOKENS; i++) {
    gint32 id = add_token (self, &config->named[i]);

    if (i == FLUX_TOKEN_EOS)
      self->eos = id;
    else if (i == FLUX_TOKEN_PAD)
      self->pad = id;
  }
}

FluxT5Tokenizer *
flux_t5_tokenizer_new (const char *dir, GError **error)
{
  g_autofree char *path = g_build_filename (dir, "spiece.model", NULL);
  g_autoptr (FluxT5Tokenizer) self = g_new0 (FluxT5Tokenizer, 1);
  g_autoptr (FluxTokenizerConfig) config = NULL;
  g_autoptr (FluxSpiece) spiece = NULL;
  g_autoptr (GBytes) table = NULL;

  spiece = flux_spiece_read (path, error);
  if (spiece == NULL)
    return NULL;
  config = flux_tokenizer_config_read (dir, error);
  if (config == NULL)
    return NULL;
  table = g_bytes_new (spiece->charsmap, spiece->charsmap_len);
  self->charsmap = flux_charsmap_new (table, path, error);
  if (self->charsmap == NULL)
    return NULL;
  self->raw = flux_added_tokens_new ();
  self->normalised = flux_added_tokens_new ();
  self->model = flux_unigram_new ();
  for (guint i = 0; i < spiece->pieces->len; i++) {
    const FluxPiece *piece = &g_array_index (spiece->pieces, FluxPiece, i);

    flux_unigram_add (self->model, piece->text, piece->len, piece->score);
  }
  flux_unigram_set_unknown (self->model, spiece->unk);
  add_tokens (self, config);
  return g_steal_pointer (&self);
}

void
flux_t5_tokenizer_free (FluxT5Tokenizer *self)
{
  if (self == NULL)
    return;
  flux_unigram_free (self->model);
  flux_charsmap_free (self->charsmap);
  flux_added_tokens_free (self->raw);
  flux_added_tokens_free (self->normalised);
  g_free (self);
}

/* One word with its mark; a mark inside begins another. */
static void
encode_word (const FluxT5Tokenizer *self, const char *text, gsize len, guint limit,
    GString *word, GArray *ids)
{
  gsize at = 0;

  g_string_truncate (word, 0);
  if (len < MARK_LEN || memcmp (text, MARK, MARK_LEN) != 0)
    g_string_append (word, MARK);
  g_string_append_len (word, text, len);
  while (at < word->len && ids->len < limit) {
    const char *from = word->str + at;
    const char *next =
        memmem (from + MARK_LEN, word->len - at - MARK_LEN, MARK, MARK_LEN);
    gsize n = next != NULL ? (gsize)(next - from) : word->len - at;

    flux_unigram_append_word (self->model, from, n, ids);
    at += n;
  }
}

/* Words of normalised text, until ids holds limit. */
static void
encode_words (
    gconstpointer tokenizer, const char *text, gsize len, guint limit, GArray *ids)
{
  const FluxT5Tokenizer *self = tokenizer;
  g_autoptr (GString) word = g_string_new (NULL);
  const char *p = text, *end = text + len;

  while (p < end && ids->len < limit) {
    const char *from = p;

    while (p < end && !flux_unicode_is_space (g_utf8_get_char (p)))
      p = g_utf8_next_char (p);
    if (p > from)
      encode_word (self, from, p - from, limit, word, ids);
    else
      p = g_utf8_next_char (p);
  }
}

/* Text between raw tokens. */
static void
encode_plain (
    gconstpointer tokenizer, const char *text, gsize len, guint limit, GArray *ids)
{
  const FluxT5Tokenizer *self = tokenizer;
  g_autoptr (GString) s = g_string_sized_new (len + 1);

  flux_charsmap_append (self->charsmap, text, len, s);
  flux_added_tokens_walk (
      self->normalised, s->str, s->len, limit, encode_words, self, ids);
}

gboolean
flux_t5_tokenizer_encode (const FluxT5Tokenizer *self, const char *text, gssize len,
    guint max_length, gint32 *ids, guint *n_tokens, GError **error)
{
  g_autoptr (GArray) found = g_array_new (FALSE, FALSE, sizeof (gint32));
  gsize n;
  guint used;

  if (!flux_check_text (text, len, max_length, 1, &n, error))
    return FALSE;
  flux_added_tokens_walk (self->raw, text, n, max_length - 1, encode_plain, self, found);
  used = MIN (found->len, max_length - 1);
  for (guint i = 0; i < used; i++)
    ids[i] = g_array_index (found, gint32, i);
  ids[used] = self->eos;
  for (guint i = used + 1; i < max_length; i++)
    ids[i] = self->pad;
  if (n_tokens != NULL)
    *n_tokens = used + 1;
  return TRUE;
}
