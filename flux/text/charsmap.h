/* flux/text/charsmap.h: SentencePiece's precompiled normaliser, as the tokenizers
 * library applies it. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The table (little-endian guint32 size in bytes of a Darts double array of guint32
 * units; the array; NUL-terminated UTF-8 targets) is SentencePiece's; its application
 * differs: SentencePiece replaces the longest rule at each byte, the tokenizers library
 * (spm_precompiled, src/lib.rs) replaces a whole grapheme cluster under six bytes by the
 * target of its shortest prefix that has a rule, and otherwise goes character by
 * character. A fi ligature with an accent thus loses the accent. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxCharsmap FluxCharsmap;

/* table: kept. An empty one has no rules. NULL with FLUX_ERROR_FORMAT, naming path. */
FluxCharsmap *flux_charsmap_new (GBytes *table, const char *path, GError **error);
void flux_charsmap_free (FluxCharsmap *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxCharsmap, flux_charsmap_free)

/* Appends the normal form of valid UTF-8. */
void flux_charsmap_append (
    const FluxCharsmap *self, const char *text, gsize len, GString *out);

G_END_DECLS
