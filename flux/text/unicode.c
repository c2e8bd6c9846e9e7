/* flux/text/unicode.c: character classes and lower case.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/unicode.h"

#include "flux/text/unicode-tables.h"

gboolean
flux_unicode_validate (const char *text, gsize len, gsize *bad)
{
  const char *p = text, *end = text + len;

  /* g_utf8_validate_len() stops at a NUL. */
  while (p < end && !g_utf8_validate_len (p, end - p, &p)) {
    if (*p != '\0') {
      *bad = p - text;
      return FALSE;
    }
    p++;
  }
  return TRUE;
}

gboolean
flux_unicode_in (const guint32 *spans, guint n, gunichar c)
{
  guint low = 0, high = n / 2;

  while (low < high) {
    guint middle = (low + high) / 2;

    if (c < spans[2 * middle])
      high = middle;
    else if (c > spans[2 * middle + 1])
      low = middle + 1;
    else
      return TRUE;
  }
  return FALSE;
}

gboolean
flux_unicode_is_letter (gunichar c)
{
  if (c < 0x80)
    return g_ascii_isalpha ((char)c);
  return flux_unicode_in (flux_unicode_letters, flux_unicode_letters_n, c);
}

gboolean
flux_unicode_is_number (gunichar c)
{
  if (c < 0x80)
    return g_ascii_isdigit ((char)c);
  return flux_unicode_in (flux_unicode_numbers, flux_unicode_numbers_n, c);
}

gboolean
flux_unicode_is_space (gunichar c)
{
  if (c < 0x80)
    return c == ' ' || (c >= '\t' && c <= '\r');
  return flux_unicode_in (flux_unicode_spaces, flux_unicode_spaces_n, c);
}

static gunichar
to_lower (gunichar c)
{
  guint low = 0, high = flux_unicode_lower_n / 4;

  while (low < high) {
    guint middle = (low + high) / 2;
    const gint32 *rule = flux_unicode_lower + 4 * middle;

    if (c < (gunichar)rule[0])
      high = middle;
    else if (c > (gunichar)rule[1])
      low = middle + 1;
    else
      return (c - rule[0]) % rule[2] == 0 ? c + rule[3] : c;
  }
  return c;
}

void
flux_unicode_append_lower (GString *out, gunichar c)
{
  if (c < 0x80)
    g_string_append_c (out, g_ascii_tolower ((char)c));
  else if (c == 0x130) /* capital I with a dot above */
    g_string_append (out, "i\xCC\x87");
  else
    g_string_append_unichar (out, to_lower (c));
}
