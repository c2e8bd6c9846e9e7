/* flux/text/t5-tokenizer.h: text to T5 token ids.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The ids of transformers' fast T5Tokenizer (models/t5/tokenization_t5.py with the
 * tokenizers library below it), for any text: added tokens cut out, the model's
 * normalisation table, split at white space, unigram. Not SentencePiece's own ids, which
 * differ: it normalises otherwise (charsmap.h), breaks ties otherwise (unigram.h), and
 * takes </s> and <extra_id_0> for text. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxT5Tokenizer FluxT5Tokenizer;

/* dir: holds spiece.model, and may hold tokenizer_config.json or tokenizer.json, whose
 * added tokens count (without them: <pad>, </s>, <unk> and a hundred <extra_id_N>). NULL
 * on error: FLUX_ERROR_NOT_FOUND, _READ, _FORMAT or _MISMATCH. */
FluxT5Tokenizer *flux_t5_tokenizer_new (const char *dir, GError **error);
void flux_t5_tokenizer_free (FluxT5Tokenizer *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxT5Tokenizer, flux_t5_tokenizer_free)

/* text: UTF-8 of len bytes (-1: up to the NUL), at most FLUX_TEXT_MAX of
 * clip-tokenizer.h; it may hold NUL. max_length >= 1 (512 in FLUX.1-dev). ids
 * [max_length]: the text's tokens cut to max_length - 1, the end token, and padding.
 * *n_tokens: those before the padding, the end token included; may be NULL. FALSE on
 * error: FLUX_ERROR_FORMAT (not UTF-8) or _SETTINGS (text too long, max_length 0). An
 * encode changes nothing: threads may share a tokenizer. */
gboolean flux_t5_tokenizer_encode (const FluxT5Tokenizer *self, const char *text,
    gssize len, guint max_length, gint32 *ids, guint *n_tokens, GError **error);

G_END_DECLS
