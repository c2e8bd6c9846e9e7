/* flux/text/added-tokens.c: tokens cut out of a text before the model sees it.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/added-tokens.h"

#include "flux/text/byte-trie.h"
#include "flux/text/unicode.h"

typedef struct {
  gint32 id;
  gboolean lstrip, rstrip;
} Token;

struct _FluxAddedTokens {
  FluxByteTrie *trie; /* content -> index in tokens */
  GArray *tokens;
};

FluxAddedTokens *
flux_added_tokens_new (void)
{
  FluxAddedTokens *self = g_new0 (FluxAddedTokens, 1);

  self->trie = flux_byte_trie_new ();
  self->tokens = g_array_new (FALSE, FALSE, sizeof (Token));
  return self;
}

void
flux_added_tokens_free (FluxAddedTokens *self)
{
  if (self == NULL)
    return;
  flux_byte_trie_free (self->trie);
  g_array_unref (self->tokens);
  g_free (self);
}

void
flux_added_tokens_add (FluxAddedTokens *self, const char *content, gsize len, gint32 id,
    gboolean lstrip, gboolean rstrip)
{
  Token token = {id, lstrip, rstrip};

  if (len == 0)
    return;
  flux_byte_trie_insert (self->trie, content, len, (gint32)self->tokens->len);
  g_array_append_val (self->tokens, token);
}

/* The longest token that begins at text[0]: its index, or -1. */
static gint32
match (const FluxAddedTokens *self, const char *text, gsize len, gsize *length)
{
  guint32 node = 0;
  gint32 best = -1;

  for (gsize i = 0; i < len; i++) {
    node = flux_byte_trie_step (self->trie, node, (guint8)text[i]);
    if (node == 0)
      break;
    if (flux_byte_trie_value (self->trie, node) >= 0) {
      best = flux_byte_trie_value (self->trie, node);
      *length = i + 1;
    }
  }
  return best;
}

FluxAddedMatch
flux_added_tokens_find (
    const FluxAddedTokens *self, const char *text, gsize len, gsize from)
{
  FluxAddedMatch m = {len, len, -1};

  if (self->tokens->len == 0)
    return m;
  for (gsize i = from; i < len; i++) {
    gsize length;
    gint32 index = match (self, text + i, len - i, &length);
    const Token *token;

    if (index < 0)
      continue;
    token = &g_array_index (self->tokens, Token, index);
    m.start = i;
    m.end = i + length;
    m.id = token->id;
    while (token->lstrip && m.start > from) {
      const char *p = g_utf8_find_prev_char (text + from, text + m.start);

      if (p == NULL || !flux_unicode_is_space (g_utf8_get_char (p)))
        break;
      m.start = p - text;
    }
    while (token->rstrip && m.end < len &&
           flux_unicode_is_space (g_utf8_get_char (text + m.end)))
      m.end += g_utf8_skip[(guchar)text[m.end]];
    break;
  }
  return m;
}

void
flux_added_tokens_walk (const FluxAddedTokens *self, const char *text, gsize len,
    guint limit, FluxPlainFunc plain, gconstpointer tokenizer, GArray *ids)
{
  gsize at = 0;

  while (at < len && ids->len < limit) {
    FluxAddedMatch m = flux_added_tokens_find (self, text, len, at);

    if (m.start > at)
      plain (tokenizer, text + at, m.start - at, limit, ids);
    if (m.id >= 0)
      g_array_append_val (ids, m.id);
    at = m.end;
  }
}
