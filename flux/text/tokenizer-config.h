/* flux/text/tokenizer-config.h: what the small JSON files beside a vocabulary say.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * In the order of transformers 5 (tokenization_utils_base.py, _from_pretrained):
 * tokenizer_config.json; if that has no added_tokens_decoder, special_tokens_map.json
 * overrules its named tokens and tokenizer.json's added_tokens are the added ones. All
 * three may be absent. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef enum {
  FLUX_TOKEN_BOS,
  FLUX_TOKEN_EOS,
  FLUX_TOKEN_UNK,
  FLUX_TOKEN_PAD,
  FLUX_N_NAMED_TOKENS
} FluxNamedToken;

typedef struct {
  char *content;       /* NULL: not given */
  gint64 id;           /* -1: not given */
  gboolean normalized; /* compared with the normalised text */
  gboolean lstrip, rstrip, single_word;
} FluxTokenSpec;

typedef struct {
  FluxTokenSpec named[FLUX_N_NAMED_TOKENS];
  GArray *added; /* of FluxTokenSpec */
} FluxTokenizerConfig;

FluxTokenizerConfig *flux_tokenizer_config_read (const char *dir, GError **error);
void flux_tokenizer_config_free (FluxTokenizerConfig *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxTokenizerConfig, flux_tokenizer_config_free)

/* Names the tokens that the files do not (fallback[FLUX_N_NAMED_TOKENS], NULL: none), and
 * gives every named token the id and flags of the added token of the same content, else
 * those of the last named token of it: a plain "pad_token" undoes the flags of an equal
 * eos_token. */
void
flux_tokenizer_config_complete (FluxTokenizerConfig *self, const char *const *fallback);

/* A whole file of at most 64 MiB, NUL-terminated. */
char *flux_text_read_file (const char *path, gsize *len, GError **error);

G_END_DECLS
