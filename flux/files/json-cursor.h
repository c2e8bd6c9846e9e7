/* flux/files/json-cursor.h: a pull reader for JSON that comes from outside.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * json-glib builds a tree (fifty times the text for a list of small numbers), recurses,
 * and lets a second member of the same name silently replace the first. The header of a
 * safetensors file has a fixed shape and may be 100 MB of anything, so it is read member
 * by member instead: no recursion, nothing allocated but the strings asked for. Grammar:
 * RFC 8259, strictly. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct {
  const char *start, *p, *end;
  const char
      *fault; /* why reading stopped; the first fault stays; NULL while all is well */
} FluxJsonCursor;

/* The text must outlive the cursor. A fault is set at once when it is not UTF-8 or holds
 * a NUL. */
void flux_json_cursor_init (FluxJsonCursor *c, const char *text, gsize length);

/* The next byte that is not white space, or 0 at the end and after a fault: by it one
 * value of several types is told from another. */
char flux_json_peek (FluxJsonCursor *c);
/* Opens an object or array: '{' or '['. */
gboolean flux_json_open (FluxJsonCursor *c, char bracket);
/* Steps to the next member of an open object; *name is owned by the caller. FALSE after
 * the closing brace, and on a fault. *first must be TRUE before the first call. */
gboolean flux_json_next_member (FluxJsonCursor *c, gboolean *first, char **name);
/* The same for the elements of an array. */
gboolean flux_json_next_element (FluxJsonCursor *c, gboolean *first);
/* NULL on a fault; g_free() it. An escaped NUL is a fault. */
char *flux_json_read_string (FluxJsonCursor *c);
/* A whole number without sign, fraction and exponent, at most G_MAXINT64. */
gboolean flux_json_read_size (FluxJsonCursor *c, guint64 *value);
/* Any value, nested at most 64 deep. */
gboolean flux_json_skip (FluxJsonCursor *c);
/* Only white space may follow. */
gboolean flux_json_finish (FluxJsonCursor *c);
/* Sets the fault unless there is one; always FALSE. */
gboolean flux_json_fail (FluxJsonCursor *c, const char *fault);

/* Writing: s, which must be UTF-8, in quotes. */
void flux_json_append_string (GString *json, const char *s);

G_END_DECLS
