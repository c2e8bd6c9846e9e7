/* flux/text/unicode.h: Unicode as the reference tokenisers know it.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * GLib's own answers depend on the version installed, and are of another Unicode version
 * than each of the four that transformers' fast tokenisers are built from; token ids
 * must not depend on either. All text is valid UTF-8 that may hold NUL bytes. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* TRUE where every character is valid; unlike g_utf8_validate_len() it accepts NUL.
 * Otherwise *bad is the offset of the first bad byte. */
gboolean flux_unicode_validate (const char *text, gsize len, gsize *bad);

/* Whether c is in spans (see unicode-tables.h). */
gboolean flux_unicode_in (const guint32 *spans, guint n, gunichar c);
gboolean flux_unicode_is_letter (gunichar c);
gboolean flux_unicode_is_number (gunichar c);
gboolean flux_unicode_is_space (gunichar c);

/* Appends the lower case of c, context-free (a final sigma is an ordinary one): the
 * lower case of U+0130 is two characters. */
void flux_unicode_append_lower (GString *out, gunichar c);

/* Appends the composed normal form (NFC, UAX #15) of text. */
void flux_unicode_append_nfc (GString *out, const char *text, gsize len);

/* Bytes of the first extended grapheme cluster (UAX #29) of text; len > 0. */
gsize flux_unicode_grapheme_length (const char *text, gsize len);

G_END_DECLS
