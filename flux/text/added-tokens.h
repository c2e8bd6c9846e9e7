/* flux/text/added-tokens.h: tokens cut out of a text before the model sees it.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Such as <|endoftext|> and <extra_id_0>. The leftmost match wins, then the longest, as
 * in the tokenizers library (tokenizers/src/tokenizer/added_vocabulary.rs). */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxAddedTokens FluxAddedTokens;

FluxAddedTokens *flux_added_tokens_new (void);
void flux_added_tokens_free (FluxAddedTokens *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxAddedTokens, flux_added_tokens_free)

/* lstrip, rstrip: the token swallows the white space on that side. An empty content is
 * ignored. */
void flux_added_tokens_add (FluxAddedTokens *self, const char *content, gsize len,
    gint32 id, gboolean lstrip, gboolean rstrip);

typedef struct {
  gsize start, end; /* bytes of the text that the token takes */
  gint32 id;        /* -1: none; then start and end are the length of the text */
} FluxAddedMatch;

/* The next token at or after from. */
FluxAddedMatch flux_added_tokens_find (
    const FluxAddedTokens *self, const char *text, gsize len, gsize from);

/* What stands between added tokens; appends to ids, and may stop at limit. */
typedef void (*FluxPlainFunc) (
    gconstpointer tokenizer, const char *text, gsize len, guint limit, GArray *ids);
/* Walks over text until ids holds limit: plain for what lies between, the tokens' own
 * ids. */
void flux_added_tokens_walk (const FluxAddedTokens *self, const char *text, gsize len,
    guint limit, FluxPlainFunc plain, gconstpointer tokenizer, GArray *ids);

G_END_DECLS
