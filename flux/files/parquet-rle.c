/* flux/files/parquet-rle.c: runs and bit-packed groups. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * https://github.com/apache/parquet-format/blob/master/Encodings.md#RLE */
#include "flux/files/parquet-private.h"

void
flux_parquet_rle_init (FluxParquetRle *r, const guint8 *p, const guint8 *end, guint bits)
{
  *r = (FluxParquetRle){.p = p, .end = end, .bits = bits};
}

static gboolean
read_varint (FluxParquetRle *r, guint64 *value)
{
  *value = 0;
  for (guint shift = 0; shift < 64 && r->p < r->end; shift += 7) {
    guint8 byte = *r->p++;

    *value |= (guint64)(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0)
      return TRUE;
  }
  return FALSE;
}

/* Some writers leave out the last bytes of the last group; what is there counts. */
static void
start_packed (FluxParquetRle *r, guint64 groups)
{
  gsize left = r->end - r->p;

  r->packed = TRUE;
  r->n_buffered = 0;
  r->buffer = 0;
  if (r->bits == 0 || groups <= left / r->bits) {
    r->run = MIN (groups, G_MAXUINT32) * 8;
    r->packed_end = r->p + (r->bits == 0 ? 0 : groups * r->bits);
  } else {
    r->run = (guint64)left * 8 / r->bits;
    r->packed_end = r->end;
  }
}

/* Makes `run` positive. */
static gboolean
next_run (FluxParquetRle *r)
{
  guint64 header;

  while (r->run == 0) {
    if (r->packed)
      r->p = r->packed_end;
    r->packed = FALSE;
    if (!read_varint (r, &header))
      return FALSE;
    if (header & 1) {
      start_packed (r, header >> 1);
      continue;
    }
    if ((gsize)(r->end - r->p) < (r->bits + 7) / 8)
      return FALSE;
    r->run = header >> 1;
    r->value = 0;
    for (guint i = 0; i < (r->bits + 7) / 8; i++)
      r->value |= (guint32)*r->p++ << 8 * i;
  }
  return TRUE;
}

/* At most n values of a packed run, whose bytes are known to be there. */
static void
unpack (FluxParquetRle *r, guint32 *out, gsize n)
{
  const guint64 mask = ((guint64)1 << r->bits) - 1;

  for (gsize i = 0; i < n; i++) {
    while (r->n_buffered < r->bits) {
      r->buffer |= (guint64)*r->p++ << r->n_buffered;
      r->n_buffered += 8;
    }
    out[i] = r->buffer & mask;
    r->buffer >>= r->bits;
    r->n_buffered -= r->bits;
  }
}

gboolean
flux_parquet_rle_get (FluxParquetRle *r, guint32 *out, gsize n)
{
  while (n > 0) {
    gsize take;

    if (!next_run (r))
      return FALSE;
    take = MIN (n, r->run);
    if (r->packed) {
      unpack (r, out, take);
    } else {
      for (gsize i = 0; i < take; i++)
        out[i] = r->value;
    }
    r->run -= take;
    out += take;
    n -= take;
  }
  return TRUE;
}

gint64
flux_parquet_rle_count_zeros (FluxParquetRle r, gint64 n)
{
  gint64 zeros = 0;
  guint32 block[256];

  while (n > 0) {
    gint64 take;

    if (!next_run (&r))
      return -1;
    take = MIN ((guint64)n, r.run);
    if (r.packed && r.bits > 0) {
      take = MIN (take, (gint64)G_N_ELEMENTS (block));
      unpack (&r, block, take);
      for (gint64 i = 0; i < take; i++)
        zeros += block[i] == 0;
    } else if (r.packed || r.value == 0) {
      zeros += take;
    }
    r.run -= take;
    n -= take;
  }
  return zeros;
}
