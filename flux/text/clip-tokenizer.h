/* flux/text/clip-tokenizer.h: text to CLIP token ids.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The ids of transformers' fast CLIPTokenizer (models/clip/tokenization_clip.py with the
 * tokenizers library below it), for any text: NFC, white space to one space, lower case,
 * CLIP's split into words, byte-level BPE. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxClipTokenizer FluxClipTokenizer;

/* The longest text that the tokenisers take, in bytes. */
#define FLUX_TEXT_MAX (4 * 1024 * 1024)

/* dir: holds vocab.json and merges.txt, and may hold tokenizer_config.json or
 * special_tokens_map.json (without them every special token is CLIP's own). NULL on
 * error: FLUX_ERROR_NOT_FOUND, _READ, _FORMAT or _MISMATCH. */
FluxClipTokenizer *flux_clip_tokenizer_new (const char *dir, GError **error);
void flux_clip_tokenizer_free (FluxClipTokenizer *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxClipTokenizer, flux_clip_tokenizer_free)

/* text: UTF-8 of len bytes (-1: up to the NUL), at most FLUX_TEXT_MAX; it may hold NUL.
 * max_length >= 2 (77 in FLUX.1). ids [max_length]: begin, the text's tokens cut to
 * max_length - 2, end, and padding. *eos_position: the index of the first end token,
 * where the pooled output is taken (a text may hold one itself); may be NULL.
 * FALSE on error: FLUX_ERROR_FORMAT (not UTF-8) or _SETTINGS (text too long, max_length
 * too small). An encode changes nothing: threads may share a tokenizer. */
gboolean flux_clip_tokenizer_encode (const FluxClipTokenizer *self, const char *text,
    gssize len, guint max_length, gint32 *ids, guint *eos_position, GError **error);

G_END_DECLS
