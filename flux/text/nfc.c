/* flux/text/nfc.c: canonical composition. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The pairs and classes are GLib's, asked only about characters that the reference's
 * older Unicode knows too: what is assigned never changes (Unicode's stability policy),
 * so the outcome is the same with every GLib. g_utf8_normalize() knows newer
 * characters, stops at NUL and takes quadratic time for a long run of marks. */
#include "flux/text/unicode.h"

#include <stdlib.h>

#include "flux/text/unicode-tables.h"

/* One character: class << 56 | position << 24 | code point, so that sorting the marks of
 * a run by value orders them by class and keeps equal ones in place. */
#define MAKE(class, position, c)                                                         \
  ((guint64)(class) << 56 | (guint64)(guint32)(position) << 24 | (c))
#define CODE(x) ((gunichar)((x)&0xFFFFFF))
#define CLASS(x) ((int)((x) >> 56))

static gboolean
normalisable (gunichar c)
{
  return c >= 0xC0 &&
         flux_unicode_in (flux_unicode_normalisable, flux_unicode_normalisable_n, c);
}

static void
append_decomposed (GArray *run, gunichar c)
{
  gunichar tail[8], a, b;
  guint n = 0;
  guint64 x;

  /* Only the first of a pair can be a pair again, four deep at most. */
  while (n < G_N_ELEMENTS (tail) && normalisable (c) && g_unichar_decompose (c, &a, &b)) {
    c = a;
    if (b != 0)
      tail[n++] = b;
  }
  x = MAKE (normalisable (c) ? g_unichar_combining_class (c) : 0, run->len, c);
  g_array_append_val (run, x);
  while (n > 0) {
    c = tail[--n];
    x = MAKE (normalisable (c) ? g_unichar_combining_class (c) : 0, run->len, c);
    g_array_append_val (run, x);
  }
}

static int
compare (const void *a, const void *b)
{
  guint64 x = *(const guint64 *)a, y = *(const guint64 *)b;

  return x < y ? -1 : x > y;
}

static void
reorder (GArray *run)
{
  guint64 *v = (guint64 *)(gpointer)run->data;
  guint i = 0, from;

  while (i < run->len) {
    if (CLASS (v[i]) == 0) {
      i++;
      continue;
    }
    for (from = i; i < run->len && CLASS (v[i]) != 0; i++)
      ;
    if (i - from > 1)
      qsort (v + from, i - from, sizeof *v, compare);
  }
}

static void
compose (GArray *run)
{
  guint64 *v = (guint64 *)(gpointer)run->data;
  int starter = -1, last = -1; /* last: class after the starter, -1: nothing is there */
  guint n = 0;

  for (guint i = 0; i < run->len; i++) {
    int class = CLASS (v[i]);
    gunichar c;

    if (starter >= 0 && last < class &&
        g_unichar_compose (CODE (v[starter]), CODE (v[i]), &c) && normalisable (c)) {
      v[starter] = MAKE (0, 0, c);
      continue;
    }
    if (class == 0) {
      starter = n;
      last = -1;
    } else {
      last = class;
    }
    v[n++] = v[i];
  }
  run->len = n;
}

void
flux_unicode_append_nfc (GString *out, const char *text, gsize len)
{
  const char *p = text, *end = text + len, *copied = text;
  const char *before = NULL; /* the character before p, when nothing changes it */
  g_autoptr (GArray) run = g_array_new (FALSE, FALSE, sizeof (guint64));

  while (p < end) {
    if ((guchar)*p < 0xC3 || !normalisable (g_utf8_get_char (p))) { /* below U+00C0 */
      before = p;
      p = g_utf8_next_char (p);
      continue;
    }
    g_array_set_size (run, 0);
    if (before != NULL) {
      guint64 x = MAKE (0, 0, g_utf8_get_char (before));

      g_array_append_val (run, x);
    } else {
      before = p;
    }
    g_string_append_len (out, copied, before - copied);
    for (; p < end && normalisable (g_utf8_get_char (p)); p = g_utf8_next_char (p))
      append_decomposed (run, g_utf8_get_char (p));
    reorder (run);
    compose (run);
    for (guint i = 0; i < run->len; i++)
      g_string_append_unichar (out, CODE (g_array_index (run, guint64, i)));
    copied = p;
    before = NULL;
  }
  g_string_append_len (out, copied, end - copied);
}
