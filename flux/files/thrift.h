/* flux/files/thrift.h: the part of the Thrift compact protocol that parquet needs.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Format:
 * https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef enum {
  FLUX_THRIFT_STOP = 0,
  FLUX_THRIFT_TRUE = 1,
  FLUX_THRIFT_FALSE = 2,
  FLUX_THRIFT_BYTE = 3,
  FLUX_THRIFT_I16 = 4,
  FLUX_THRIFT_I32 = 5,
  FLUX_THRIFT_I64 = 6,
  FLUX_THRIFT_DOUBLE = 7,
  FLUX_THRIFT_BINARY = 8,
  FLUX_THRIFT_LIST = 9,
  FLUX_THRIFT_SET = 10,
  FLUX_THRIFT_MAP = 11,
  FLUX_THRIFT_STRUCT = 12,
} FluxThriftType;

/* A bounded reader. After something malformed `bad` is set, nothing more is read, and
 * every call returns 0 or FALSE. */
typedef struct {
  const guint8 *p, *end;
  gboolean bad;
} FluxThrift;

guint64 flux_thrift_varint (FluxThrift *t);
/* Steps to the next field of a struct; FALSE at its end. *id must be 0 before the first
 * call, and the field's value must be read or skipped before the next. */
gboolean flux_thrift_next (FluxThrift *t, gint *id, FluxThriftType *type);
/* The value of a field of this type; another type than the one asked for is bad. */
gint64 flux_thrift_int (FluxThrift *t, FluxThriftType type);
gboolean flux_thrift_bool (FluxThrift *t, FluxThriftType type);
/* Bytes in the text itself, not terminated. */
const char *flux_thrift_binary (FluxThrift *t, FluxThriftType type, gsize *length);
/* The number of elements of a list; each of them takes a byte at least, so that it is at
 * most the number of bytes left. */
gsize flux_thrift_list (FluxThrift *t, FluxThriftType type, FluxThriftType *element);
/* Values nested more than 24 deep are bad. */
void flux_thrift_skip (FluxThrift *t, FluxThriftType type);

/* A writer into out; structs nest at most 16 deep. */
typedef struct {
  GByteArray *out;
  gint last[16]; /* field id of every open struct */
  guint depth;
} FluxThriftWriter;

void flux_thrift_put_varint (GByteArray *out, guint64 value);
/* Structs: begin (as a list's element or the whole message) or begin_field, then end. */
void flux_thrift_begin (FluxThriftWriter *w);
void flux_thrift_begin_field (FluxThriftWriter *w, gint id);
void flux_thrift_end (FluxThriftWriter *w);
void flux_thrift_put_i32 (FluxThriftWriter *w, gint id, gint32 value);
void flux_thrift_put_i64 (FluxThriftWriter *w, gint id, gint64 value);
void flux_thrift_put_string (FluxThriftWriter *w, gint id, const char *value);
/* The elements follow: structs, or bare values by the two calls below. */
void flux_thrift_put_list (FluxThriftWriter *w, gint id, FluxThriftType type, gsize n);
void flux_thrift_put_element_int (FluxThriftWriter *w, gint64 value);
void flux_thrift_put_element_string (FluxThriftWriter *w, const char *value);

G_END_DECLS
