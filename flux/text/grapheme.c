/* flux/text/grapheme.c: extended grapheme clusters, UAX #29.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/unicode.h"

#include "flux/text/unicode-tables.h"

typedef enum {
  OTHER,
  CR,
  LF,
  CONTROL,
  EXTEND, /* EXTEND to SPACING never begin a cluster */
  LINKER,
  JOINER,
  SPACING,
  PREPEND,
  FLAG, /* a regional indicator */
  HANGUL_L,
  HANGUL_V,
  HANGUL_T,
  HANGUL_LV,
  HANGUL_LVT,
  CONSONANT,
  PICTURE,
} Class;

#define IN(table, c) flux_unicode_in (flux_unicode_##table, flux_unicode_##table##_n, c)

static Class
hangul (gunichar c)
{
  if (c >= 0xAC00 && c <= 0xD7A3)
    return (c - 0xAC00) % 28 == 0 ? HANGUL_LV : HANGUL_LVT;
  if ((c >= 0x1100 && c <= 0x115F) || (c >= 0xA960 && c <= 0xA97C))
    return HANGUL_L;
  if ((c >= 0x1160 && c <= 0x11A7) || (c >= 0xD7B0 && c <= 0xD7C6))
    return HANGUL_V;
  if ((c >= 0x11A8 && c <= 0x11FF) || (c >= 0xD7CB && c <= 0xD7FB))
    return HANGUL_T;
  return OTHER;
}

static Class
classify (gunichar c)
{
  if (c >= 0x20 && c < 0x7F)
    return OTHER;
  if (c == '\r')
    return CR;
  if (c == '\n')
    return LF;
  if (c == 0x200D)
    return JOINER;
  if (c >= 0x1F1E6 && c <= 0x1F1FF)
    return FLAG;
  if (hangul (c) != OTHER)
    return hangul (c);
  if (IN (extend, c))
    return EXTEND;
  if (IN (linker, c))
    return LINKER;
  if (IN (spacing, c))
    return SPACING;
  if (IN (prepend, c))
    return PREPEND;
  if (IN (consonant, c))
    return CONSONANT;
  if (IN (picture, c))
    return PICTURE;
  return IN (control, c) ? CONTROL : OTHER;
}

static gboolean
joins_hangul (Class a, Class b)
{
  if (a == HANGUL_L)
    return b == HANGUL_L || b == HANGUL_V || b == HANGUL_LV || b == HANGUL_LVT;
  if (a == HANGUL_LV || a == HANGUL_V)
    return b == HANGUL_V || b == HANGUL_T;
  return (a == HANGUL_LVT || a == HANGUL_T) && b == HANGUL_T;
}

/* What of the cluster so far the rules look back at. */
typedef struct {
  Class last;
  gboolean odd_flags;         /* GB12: an odd number of regional indicators */
  gboolean picture, joined;   /* GB11: a picture and marks; then a joiner */
  gboolean consonant, linked; /* GB9c: a consonant and marks; a linker among them */
} Cluster;

static void
extend (Cluster *s, Class c)
{
  gboolean mark = c == EXTEND || c == LINKER;

  s->odd_flags = c == FLAG && !s->odd_flags;
  s->joined = c == JOINER && s->picture;
  s->picture = c == PICTURE || (s->picture && mark);
  s->linked = s->consonant && (c == LINKER || (s->linked && (mark || c == JOINER)));
  s->consonant = c == CONSONANT || (s->consonant && (mark || c == JOINER));
  s->last = c;
}

static gboolean
joins (const Cluster *s, Class c)
{
  if (s->last == CR)
    return c == LF;
  if (s->last == LF || s->last == CONTROL || (c >= CR && c <= CONTROL))
    return FALSE;
  if ((c >= EXTEND && c <= SPACING) || s->last == PREPEND)
    return TRUE;
  if (c == CONSONANT)
    return s->linked;
  if (c == PICTURE)
    return s->joined;
  if (c == FLAG)
    return s->odd_flags;
  return joins_hangul (s->last, c);
}

gsize
flux_unicode_grapheme_length (const char *text, gsize len)
{
  const char *p = g_utf8_next_char (text), *end = text + len;
  Cluster s = {.last = OTHER};

  if (p < end && (guchar)*text < 0x80 && (guchar)*p < 0x80 && *text != '\r')
    return 1;
  extend (&s, classify (g_utf8_get_char (text)));
  for (; p < end; p = g_utf8_next_char (p)) {
    Class c = classify (g_utf8_get_char (p));

    if (!joins (&s, c))
      break;
    extend (&s, c);
  }
  return p - text;
}
