/* flux/text/unicode-tables.h: code point tables read off the reference tokenisers.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Sorted. Spans are pairs first, last (both inside); *_n counts numbers, not pairs.
 * Data: tests/reference/make_unicode.py. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Oniguruma's \p{L}, \p{N} and \s */
extern const guint32 flux_unicode_letters[], flux_unicode_numbers[],
    flux_unicode_spaces[];
extern const guint flux_unicode_letters_n, flux_unicode_numbers_n, flux_unicode_spaces_n;
/* What NFC may decompose, reorder, or compose with the character before it. */
extern const guint32 flux_unicode_normalisable[];
extern const guint flux_unicode_normalisable_n;
/* first, last, step, delta: every step-th code point of the span moves by delta. */
extern const gint32 flux_unicode_lower[];
extern const guint flux_unicode_lower_n;
/* Grapheme_Cluster_Break (UAX #29), Extend without the linkers; InCB; ExtPict. */
extern const guint32 flux_unicode_extend[], flux_unicode_linker[], flux_unicode_spacing[],
    flux_unicode_prepend[], flux_unicode_consonant[], flux_unicode_picture[],
    flux_unicode_control[];
extern const guint flux_unicode_extend_n, flux_unicode_linker_n, flux_unicode_spacing_n,
    flux_unicode_prepend_n, flux_unicode_consonant_n, flux_unicode_picture_n,
    flux_unicode_control_n;

G_END_DECLS
