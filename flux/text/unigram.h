/* flux/text/unigram.h: the most probable split of a word into pieces.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Kudo 2018 (arXiv:1804.10959), with the ties, the double precision and the unknown
 * characters of the tokenizers library (models/unigram/model.rs, encode_optimized).
 * libsentencepiece adds up floats and so breaks ties otherwise. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxUnigram FluxUnigram;

FluxUnigram *flux_unigram_new (void);
void flux_unigram_free (FluxUnigram *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxUnigram, flux_unigram_free)

/* Pieces are added in the order of their ids, from 0; score: log probability. */
void flux_unigram_add (FluxUnigram *self, const char *text, gsize len, double score);
void flux_unigram_set_unknown (FluxUnigram *self, gint32 id);
/* The id of a piece (the last one of that text), or -1. */
gint32 flux_unigram_lookup (const FluxUnigram *self, const char *text, gsize len);
/* Pieces so far. */
guint flux_unigram_size (const FluxUnigram *self);

/* Appends the ids (gint32) of one word of valid UTF-8; unknown characters in a row are
 * one unknown token. O(len * longest piece). */
void flux_unigram_append_word (
    const FluxUnigram *self, const char *text, gsize len, GArray *ids);

G_END_DECLS
