/* flux/files/thrift.c: the Thrift compact protocol, bounded. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/files/thrift.h"

#include <string.h>

#define MAX_DEPTH 24

static gsize
left (const FluxThrift *t)
{
  return t->bad ? 0 : (gsize)(t->end - t->p);
}

static guint8
read_byte (FluxThrift *t)
{
  if (left (t) == 0) {
    t->bad = TRUE;
    return 0;
  }
  return *t->p++;
}

guint64
flux_thrift_varint (FluxThrift *t)
{
  guint64 value = 0;

  for (guint shift = 0; shift < 64; shift += 7) {
    guint8 byte = read_byte (t);

    value |= (guint64)(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0)
      return t->bad ? 0 : value;
  }
  t->bad = TRUE;
  return 0;
}

static gint64
zigzag (guint64 v)
{
  return (gint64)(v >> 1) ^ -(gint64)(v & 1);
}

gboolean
flux_thrift_next (FluxThrift *t, gint *id, FluxThriftType *type)
{
  guint8 byte = read_byte (t);
  gint64 next;

  *type = byte & 15;
  if (t->bad || *type == FLUX_THRIFT_STOP)
    return FALSE;
  next = byte >> 4 ? *id + (byte >> 4) : zigzag (flux_thrift_varint (t));
  if (next < 0 || next > G_MAXINT16)
    t->bad = TRUE;
  *id = (gint)next;
  return !t->bad;
}

gint64
flux_thrift_int (FluxThrift *t, FluxThriftType type)
{
  switch (type) {
    case FLUX_THRIFT_BYTE:
      return (gint8)read_byte (t);
    case FLUX_THRIFT_I16:
    case FLUX_THRIFT_I32:
    case FLUX_THRIFT_I64:
      return zigzag (flux_thrift_varint (t));
    default:
      t->bad = TRUE;
      return 0;
  }
}

gboolean
flux_thrift_bool (FluxThrift *t, FluxThriftType type)
{
  if (type != FLUX_THRIFT_TRUE && type != FLUX_THRIFT_FALSE)
    t->bad = TRUE;
  return type == FLUX_THRIFT_TRUE;
}

const char *
flux_thrift_binary (FluxThrift *t, FluxThriftType type, gsize *length)
{
  guint64 n = type == FLUX_THRIFT_BINARY ? flux_thrift_varint (t) : 0;
  const char *bytes = (const char *)t->p;

  *length = 0;
  if (type != FLUX_THRIFT_BINARY || n > left (t)) {
    t->bad = TRUE;
    return "";
  }
  t->p += n;
  *length = n;
  return bytes;
}

gsize
flux_thrift_list (FluxThrift *t, FluxThriftType type, FluxThriftType *element)
{
  guint8 byte;
  guint64 n;

  *element = FLUX_THRIFT_STOP;
  if (type != FLUX_THRIFT_LIST && type != FLUX_THRIFT_SET) {
    t->bad = TRUE;
    return 0;
  }
  byte = read_byte (t);
  *element = byte & 15;
  n = byte >> 4;
  if (n == 15)
    n = flux_thrift_varint (t);
  if (n > left (t))
    t->bad = TRUE;
  return t->bad ? 0 : n;
}

static void skip (FluxThrift *t, FluxThriftType type, gboolean element, guint depth);

static void
skip_struct (FluxThrift *t, guint depth)
{
  gint id = 0;
  FluxThriftType type;

  while (flux_thrift_next (t, &id, &type))
    skip (t, type, FALSE, depth);
}

static void
skip_list (FluxThrift *t, FluxThriftType type, guint depth)
{
  FluxThriftType element;
  gsize n = flux_thrift_list (t, type, &element);

  for (gsize i = 0; i < n && !t->bad; i++)
    skip (t, element, TRUE, depth);
}

static void
skip_map (FluxThrift *t, guint depth)
{
  guint64 n = flux_thrift_varint (t);
  guint8 types = n > 0 ? read_byte (t) : 0;

  if (n > left (t))
    t->bad = TRUE;
  for (guint64 i = 0; i < n && !t->bad; i++) {
    skip (t, types >> 4, TRUE, depth);
    skip (t, types & 15, TRUE, depth);
  }
}

/* Recursion ends at MAX_DEPTH. A boolean has a byte of its own only as an element. */
static void
skip (FluxThrift *t, FluxThriftType type, gboolean element, guint depth)
{
  gsize length;

  if (depth == MAX_DEPTH) {
    t->bad = TRUE;
    return;
  }
  switch (type) {
    case FLUX_THRIFT_TRUE:
    case FLUX_THRIFT_FALSE:
      if (element)
        read_byte (t);
      break;
    case FLUX_THRIFT_DOUBLE:
      if (left (t) < 8)
        t->bad = TRUE;
      else
        t->p += 8;
      break;
    case FLUX_THRIFT_BINARY:
      flux_thrift_binary (t, type, &length);
      break;
    case FLUX_THRIFT_LIST:
    case FLUX_THRIFT_SET:
      skip_list (t, type, depth + 1);
      break;
    case FLUX_THRIFT_MAP:
      skip_map (t, depth + 1);
      break;
    case FLUX_THRIFT_STRUCT:
      skip_struct (t, depth + 1);
      break;
    default:
      flux_thrift_int (t, type);
  }
}

void
flux_thrift_skip (FluxThrift *t, FluxThriftType type)
{
  skip (t, type, FALSE, 0);
}

void
flux_thrift_put_varint (GByteArray *out, guint64 value)
{
  do {
    guint8 byte = (value & 0x7f) | (value > 0x7f ? 0x80 : 0);

    g_byte_array_append (out, &byte, 1);
    value >>= 7;
  } while (value > 0);
}

static void
put_zigzag (GByteArray *out, gint64 value)
{
  flux_thrift_put_varint (out, ((guint64)value << 1) ^ (guint64)(value >> 63));
}

/* Ids rise by less than 16 in everything that is written, so a field's head is a byte. */
static void
put_field (FluxThriftWriter *w, gint id, FluxThriftType type)
{
  gint *last = &w->last[w->depth - 1];
  guint8 byte = (guint8)((id - *last) << 4 | type);

  g_byte_array_append (w->out, &byte, 1);
  *last = id;
}

void
flux_thrift_begin (FluxThriftWriter *w)
{
  g_return_if_fail (w->depth < G_N_ELEMENTS (w->last));
  w->last[w->depth++] = 0;
}

void
flux_thrift_begin_field (FluxThriftWriter *w, gint id)
{
  put_field (w, id, FLUX_THRIFT_STRUCT);
  flux_thrift_begin (w);
}

void
flux_thrift_end (FluxThriftWriter *w)
{
  const guint8 stop = FLUX_THRIFT_STOP;

  g_byte_array_append (w->out, &stop, 1);
  w->depth--;
}

void
flux_thrift_put_i32 (FluxThriftWriter *w, gint id, gint32 value)
{
  put_field (w, id, FLUX_THRIFT_I32);
  put_zigzag (w->out, value);
}

void
flux_thrift_put_i64 (FluxThriftWriter *w, gint id, gint64 value)
{
  put_field (w, id, FLUX_THRIFT_I64);
  put_zigzag (w->out, value);
}

void
flux_thrift_put_string (FluxThriftWriter *w, gint id, const char *value)
{
  put_field (w, id, FLUX_THRIFT_BINARY);
  flux_thrift_put_element_string (w, value);
}

void
flux_thrift_put_list (FluxThriftWriter *w, gint id, FluxThriftType type, gsize n)
{
  guint8 byte = (guint8)((n < 15 ? n : 15) << 4 | type);

  put_field (w, id, FLUX_THRIFT_LIST);
  g_byte_array_append (w->out, &byte, 1);
  if (n >= 15)
    flux_thrift_put_varint (w->out, n);
}

void
flux_thrift_put_element_int (FluxThriftWriter *w, gint64 value)
{
  put_zigzag (w->out, value);
}

void
flux_thrift_put_element_string (FluxThriftWriter *w, const char *value)
{
  gsize n = strlen (value);

  flux_thrift_put_varint (w->out, n);
  g_byte_array_append (w->out, (const guint8 *)value, n);
}
