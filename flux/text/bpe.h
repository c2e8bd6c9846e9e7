/* flux/text/bpe.h: byte-level byte-pair encoding with an end-of-word mark.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vocab.json and merges.txt of GPT-2's layout, its bytes written as printable
 * characters and "</w>" after the last of a word, as CLIP uses them. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxBpe FluxBpe;

FluxBpe *flux_bpe_new (const char *dir, GError **error);
void flux_bpe_free (FluxBpe *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxBpe, flux_bpe_free)

/* The id of a whole vocabulary entry, or -1. */
gint32 flux_bpe_lookup (const FluxBpe *self, const char *token);
/* Appends the ids (gint32) of one word; bytes the vocabulary lacks become unk.
 * O(len log len). */
void flux_bpe_append_word (
    const FluxBpe *self, const char *bytes, gsize len, gint32 unk, GArray *ids);

G_END_DECLS
