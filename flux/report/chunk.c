/* flux/report/chunk.c: protobuf fields and checksums. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Facts: protobuf.dev/programming-guides/encoding. */
#include <string.h>

#include "flux/report/report-private.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void
varint (GByteArray *to, guint64 value)
{
  guint8 bytes[10];
  guint n = 0;

  do {
    bytes[n++] = (guint8)((value & 127) | (value > 127 ? 128 : 0));
    value >>= 7;
  } while (value != 0);
  g_byte_array_append (to, bytes, n);
}

static void
key (GByteArray *to, guint field, guint type)
{
  varint (to, (guint64)field << 3 | type);
}

void
flux_chunk_uint (GByteArray *to, guint field, guint64 value)
{
  key (to, field, VARINT);
  varint (to, value);
}

void
flux_chunk_double (GByteArray *to, guint field, double value)
{
  guint64 bits;

  memcpy (&bits, &value, sizeof bits);
  bits = GUINT64_TO_LE (bits);
  key (to, field, FIXED64);
  g_byte_array_append (to, (const guint8 *)&bits, sizeof bits);
}

void
flux_chunk_le32 (GByteArray *to, guint32 value)
{
  value = GUINT32_TO_LE (value);
  g_byte_array_append (to, (const guint8 *)&value, sizeof value);
}

void
flux_chunk_float (GByteArray *to, guint field, float value)
{
  guint32 bits;

  memcpy (&bits, &value, sizeof bits);
  key (to, field, FIXED32);
  flux_chunk_le32 (to, bits);
}

void
flux_chunk_bytes (GByteArray *to, guint field, gconstpointer data, gsize length)
{
  key (to, field, BYTES);
  varint (to, length);
  g_byte_array_append (to, data, (guint)length);
}

void
flux_chunk_string (GByteArray *to, guint field, const char *value)
{
  flux_chunk_bytes (to, field, value, strlen (value));
}

void
flux_chunk_message (GByteArray *to, guint field, GByteArray *value)
{
  flux_chunk_bytes (to, field, value->data, value->len);
  g_byte_array_unref (value);
}

guint32
flux_report_crc (guint32 polynomial, guint32 crc, gconstpointer data, gsize length)
{
  const guint8 *p = data;

  crc = ~crc;
  for (gsize i = 0; i < length; i++) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; bit++)
      crc = (crc >> 1) ^ (crc & 1 ? polynomial : 0);
  }
  return ~crc;
}
