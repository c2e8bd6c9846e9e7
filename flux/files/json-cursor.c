/* flux/files/json-cursor.c: a pull reader for JSON that comes from outside.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/files/json-cursor.h"

#include <string.h>

#define MAX_SKIP_DEPTH 64

gboolean
flux_json_fail (FluxJsonCursor *c, const char *fault)
{
  if (c->fault == NULL)
    c->fault = fault;
  return FALSE;
}

void
flux_json_cursor_init (FluxJsonCursor *c, const char *text, gsize length)
{
  c->start = c->p = text != NULL ? text : ""; /* an empty mapping is NULL */
  c->end = c->start + length;
  c->fault = NULL;
  if (!g_utf8_validate_len (c->start, length, NULL))
    flux_json_fail (c, "the text is not UTF-8");
}

char
flux_json_peek (FluxJsonCursor *c)
{
  if (c->fault != NULL)
    return 0;
  while (c->p < c->end && strchr (" \t\r\n", *c->p) != NULL)
    c->p++;
  return c->p < c->end ? *c->p : 0;
}

static gboolean
accept (FluxJsonCursor *c, char byte)
{
  if (flux_json_peek (c) != byte)
    return FALSE;
  c->p++;
  return TRUE;
}

gboolean
flux_json_open (FluxJsonCursor *c, char bracket)
{
  if (accept (c, bracket))
    return TRUE;
  return flux_json_fail (
      c, bracket == '{' ? "an object ({...}) is missing" : "a list ([...]) is missing");
}

/* Past the comma, or past the closing bracket (FALSE). */
static gboolean
next (FluxJsonCursor *c, gboolean *first, char bracket)
{
  if (accept (c, bracket))
    return FALSE;
  if (!*first && !accept (c, ','))
    return flux_json_fail (c, "a comma or a closing bracket is missing");
  *first = FALSE;
  return c->fault == NULL;
}

gboolean
flux_json_next_member (FluxJsonCursor *c, gboolean *first, char **name)
{
  *name = NULL;
  if (!next (c, first, '}'))
    return FALSE;
  *name = flux_json_read_string (c);
  if (*name == NULL)
    return FALSE;
  if (accept (c, ':'))
    return TRUE;
  g_clear_pointer (name, g_free);
  return flux_json_fail (c, "a colon is missing after a name");
}

gboolean
flux_json_next_element (FluxJsonCursor *c, gboolean *first)
{
  return next (c, first, ']');
}

static gboolean
read_hex4 (FluxJsonCursor *c, gunichar *code)
{
  *code = 0;
  if (c->end - c->p < 4)
    return flux_json_fail (c, "an escape in a string is cut short");
  for (int i = 0; i < 4; i++) {
    int digit = g_ascii_xdigit_value (*c->p++);

    if (digit < 0)
      return flux_json_fail (c, "an escape in a string is malformed");
    *code = *code * 16 + digit;
  }
  return TRUE;
}

/* After "\u". */
static gboolean
read_unicode (FluxJsonCursor *c, gunichar *code)
{
  gunichar low;

  if (!read_hex4 (c, code))
    return FALSE;
  if (*code >= 0xD800 && *code < 0xDC00) {
    if (c->end - c->p < 2 || c->p[0] != '\\' || c->p[1] != 'u')
      return flux_json_fail (c, "an escape in a string is malformed");
    c->p += 2;
    if (!read_hex4 (c, &low))
      return FALSE;
    if (low < 0xDC00 || low > 0xDFFF)
      return flux_json_fail (c, "an escape in a string is malformed");
    *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
  }
  if (*code == 0 || !g_unichar_validate (*code))
    return flux_json_fail (c, "an escape in a string is malformed");
  return TRUE;
}

static gboolean
read_escape (FluxJsonCursor *c, GString *out)
{
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  gunichar code;
  const char *at;
  char byte;

  if (c->p >= c->end)
    return flux_json_fail (c, "a string does not end");
  byte = *c->p++;
  if (byte == 'u') {
    if (!read_unicode (c, &code))
      return FALSE;
    g_string_append_unichar (out, code);
    return TRUE;
  }
  at = strchr (from, byte);
  if (at == NULL || byte == '\0')
    return flux_json_fail (c, "an escape in a string is malformed");
  g_string_append_c (out, to[at - from]);
  return TRUE;
}

/* Reads a string; out NULL only checks it. */
static gboolean
scan_string (FluxJsonCursor *c, GString *out)
{
  if (!accept (c, '"'))
    return flux_json_fail (c, "a string is missing");
  for (;;) {
    const char *run = c->p;

    while (c->p < c->end && *c->p != '"' && *c->p != '\\' && (guchar)*c->p >= 0x20)
      c->p++;
    g_string_append_len (out, run, c->p - run);
    if (c->p >= c->end)
      return flux_json_fail (c, "a string does not end");
    if ((guchar)*c->p < 0x20)
      return flux_json_fail (c, "a string holds a control character");
    if (*c->p++ == '"')
      return TRUE;
    if (!read_escape (c, out))
      return FALSE;
  }
}

char *
flux_json_read_string (FluxJsonCursor *c)
{
  GString *out = g_string_new (NULL);

  if (scan_string (c, out))
    return g_string_free (out, FALSE);
  g_string_free (out, TRUE);
  return NULL;
}

gboolean
flux_json_read_size (FluxJsonCursor *c, guint64 *value)
{
  guint64 v = 0;
  const char *digits;

  if (!g_ascii_isdigit (flux_json_peek (c)))
    return flux_json_fail (c, "a whole number is missing");
  digits = c->p;
  for (; c->p < c->end && g_ascii_isdigit (*c->p); c->p++) {
    if (!g_uint64_checked_mul (&v, v, 10) || !g_uint64_checked_add (&v, v, *c->p - '0') ||
        v > G_MAXINT64)
      return flux_json_fail (c, "a number is too large");
  }
  if (*digits == '0' && c->p - digits > 1)
    return flux_json_fail (c, "a number starts with 0");
  if (c->p < c->end && strchr (".eE", *c->p) != NULL)
    return flux_json_fail (c, "a number is not whole");
  *value = v;
  return TRUE;
}

static gboolean
skip_number (FluxJsonCursor *c)
{
  const char *from = c->p;
  gboolean digits = FALSE;

  for (; c->p < c->end && (g_ascii_isdigit (*c->p) || strchr ("+-.eE", *c->p)); c->p++)
    digits |= g_ascii_isdigit (*c->p);
  return digits && c->p > from ? TRUE : flux_json_fail (c, "a value is missing");
}

static gboolean
skip_scalar (FluxJsonCursor *c)
{
  static const char *const words[] = {"true", "false", "null"};
  char byte = flux_json_peek (c);

  if (byte == '"') {
    GString *out = g_string_new (NULL);
    gboolean ok = scan_string (c, out);

    g_string_free (out, TRUE);
    return ok;
  }
  for (guint i = 0; i < G_N_ELEMENTS (words); i++) {
    gsize n = strlen (words[i]);

    if ((gsize)(c->end - c->p) >= n && memcmp (c->p, words[i], n) == 0) {
      c->p += n;
      return TRUE;
    }
  }
  return skip_number (c);
}

gboolean
flux_json_skip (FluxJsonCursor *c)
{
  struct {
    gboolean object, first;
  } stack[MAX_SKIP_DEPTH];
  int depth = 0;
  gboolean more = TRUE;

  do {
    char byte = more ? flux_json_peek (c) : 0;

    if (byte == '{' || byte == '[') {
      if (depth == MAX_SKIP_DEPTH)
        return flux_json_fail (c, "values are nested too deeply");
      c->p++;
      stack[depth].object = byte == '{';
      stack[depth++].first = TRUE;
    } else if (more && !skip_scalar (c)) {
      return FALSE;
    }
    if (depth == 0)
      break;
    if (stack[depth - 1].object) {
      char *name;

      more = flux_json_next_member (c, &stack[depth - 1].first, &name);
      g_free (name);
    } else {
      more = flux_json_next_element (c, &stack[depth - 1].first);
    }
    if (!more)
      depth--;
  } while (c->fault == NULL && depth > 0);
  return c->fault == NULL;
}

gboolean
flux_json_finish (FluxJsonCursor *c)
{
  if (flux_json_peek (c) == 0 && c->fault == NULL && c->p == c->end)
    return TRUE;
  return flux_json_fail (c, "something follows the end");
}

void
flux_json_append_string (GString *json, const char *s)
{
  g_string_append_c (json, '"');
  for (; *s != '\0'; s++) {
    if (*s == '"' || *s == '\\')
      g_string_append_c (json, '\\');
    if (*s == '\n')
      g_string_append (json, "\\n");
    else if ((guchar)*s < 0x20)
      g_string_append_printf (json, "\\u%04x", *s);
    else
      g_string_append_c (json, *s);
  }
  g_string_append_c (json, '"');
}
