/* flux/files/parquet-values.c: the values of dictionaries and data pages.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "flux/files/parquet-private.h"

/* ---- PLAIN ---- */

static guint
value_size (gint type)
{
  return type == PARQUET_INT32 || type == PARQUET_FLOAT ? 4 : 8;
}

static double
read_number (const guint8 *p, const FluxParquetLeaf *leaf)
{
  union {
    guint32 u;
    float f;
  } four;
  union {
    guint64 u;
    double d;
  } eight;

  if (value_size (leaf->type) == 4) {
    memcpy (&four, p, sizeof four);
    four.u = GUINT32_FROM_LE (four.u);
    if (leaf->type == PARQUET_FLOAT)
      return four.f;
    return leaf->is_unsigned ? (double)four.u : (double)(gint32)four.u;
  }
  memcpy (&eight, p, sizeof eight);
  eight.u = GUINT64_FROM_LE (eight.u);
  if (leaf->type == PARQUET_DOUBLE)
    return eight.d;
  return leaf->is_unsigned ? (double)eight.u : (double)(gint64)eight.u;
}

/* n numbers at *p, which moves on. */
static gboolean
plain_numbers (const guint8 **p, const guint8 *end, const FluxParquetLeaf *leaf,
    double *out, gsize n)
{
  guint size = value_size (leaf->type);

  if ((gsize)(end - *p) / size < n)
    return FALSE;
  for (gsize i = 0; i < n; i++)
    out[i] = read_number (*p + i * size, leaf);
  *p += n * size;
  return TRUE;
}

static gboolean
plain_slices (const guint8 **p, const guint8 *end, FluxParquetSlice *out, gsize n)
{
  for (gsize i = 0; i < n; i++) {
    guint32 length;

    if ((gsize)(end - *p) < sizeof length)
      return FALSE;
    memcpy (&length, *p, sizeof length);
    length = GUINT32_FROM_LE (length);
    *p += sizeof length;
    if (length > (gsize)(end - *p))
      return FALSE;
    out[i] = (FluxParquetSlice){*p, length};
    *p += length;
  }
  return TRUE;
}

static gboolean
plain_booleans (FluxParquetPage *page, double *out, gsize n)
{
  if (n > (gsize)(page->end - page->values_start) * 8 - page->bit)
    return FALSE;
  for (gsize i = 0; i < n; i++, page->bit++)
    out[i] = page->values_start[page->bit / 8] >> page->bit % 8 & 1;
  return TRUE;
}

/* ---- dictionaries ---- */

gboolean
flux_parquet_read_dictionary (const FluxParquet *self, const FluxParquetLeaf *leaf,
    const FluxParquetChunk *chunk, const FluxParquetPageHeader *h,
    FluxParquetDictionary *d, GError **error)
{
  const guint8 *p, *end;
  gboolean bytes = leaf->type == PARQUET_BYTE_ARRAY, ok;
  gsize smallest = bytes ? 4 : value_size (leaf->type);

  if ((h->encoding != PARQUET_PLAIN && h->encoding != PARQUET_PLAIN_DICTIONARY) ||
      leaf->type == PARQUET_BOOLEAN)
    return flux_parquet_bad_page (
        self, h->body, "the dictionary is of an unknown form", error);
  p = flux_parquet_expand (self, chunk->codec, h, self->bytes + h->body, h->compressed,
      h->uncompressed, &d->owned, error);
  if (p == NULL)
    return FALSE;
  end = p + h->uncompressed;
  if (h->n_levels > h->uncompressed / smallest)
    return flux_parquet_bad_page (self, h->body, "the dictionary is cut short", error);
  d->n = h->n_levels;
  if (bytes) {
    d->slices = g_new (FluxParquetSlice, d->n);
    ok = plain_slices (&p, end, d->slices, d->n);
  } else {
    d->numbers = g_new (double, d->n);
    ok = plain_numbers (&p, end, leaf, d->numbers, d->n);
  }
  return ok ? TRUE
            : flux_parquet_bad_page (self, h->body, "the dictionary is cut short", error);
}

void
flux_parquet_dictionary_clear (FluxParquetDictionary *d)
{
  g_free (d->owned);
  g_free (d->numbers);
  g_free (d->slices);
  *d = (FluxParquetDictionary){0};
}

/* ---- blocks ---- */

static gboolean
read_levels (FluxParquetRle *r, guint max, guint8 *out, gsize n)
{
  guint32 levels[FLUX_PARQUET_BLOCK];

  if (max == 0) {
    memset (out, 0, n);
    return TRUE;
  }
  if (!flux_parquet_rle_get (r, levels, n))
    return FALSE;
  for (gsize i = 0; i < n; i++) {
    if (levels[i] > max)
      return FALSE;
    out[i] = (guint8)levels[i];
  }
  return TRUE;
}

static gboolean
look_up (FluxParquetPage *page, const FluxParquetDictionary *d, gsize n)
{
  guint32 indices[FLUX_PARQUET_BLOCK];

  if (!flux_parquet_rle_get (&page->indices, indices, n))
    return FALSE;
  for (gsize i = 0; i < n; i++) {
    if (indices[i] >= d->n)
      return FALSE;
    if (d->numbers != NULL)
      page->numbers[i] = d->numbers[indices[i]];
    else
      page->slices[i] = d->slices[indices[i]];
  }
  return TRUE;
}

static gboolean
rle_booleans (FluxParquetPage *page, gsize n)
{
  guint32 values[FLUX_PARQUET_BLOCK];

  if (!flux_parquet_rle_get (&page->indices, values, n))
    return FALSE;
  for (gsize i = 0; i < n; i++)
    page->numbers[i] = values[i];
  return TRUE;
}

static gboolean
read_values (FluxParquetPage *page, const FluxParquetLeaf *leaf,
    const FluxParquetDictionary *d, gsize n)
{
  if (n == 0)
    return TRUE;
  switch (page->encoding) {
    case PARQUET_PLAIN:
      if (leaf->type == PARQUET_BYTE_ARRAY)
        return plain_slices (&page->values, page->end, page->slices, n);
      if (leaf->type == PARQUET_BOOLEAN)
        return plain_booleans (page, page->numbers, n);
      return plain_numbers (&page->values, page->end, leaf, page->numbers, n);
    case PARQUET_RLE:
      return rle_booleans (page, n);
    default:
      return look_up (page, d, n);
  }
}

gboolean
flux_parquet_page_fill (FluxParquetPage *page, const FluxParquet *self,
    const FluxParquetLeaf *leaf, const FluxParquetDictionary *d, GError **error)
{
  gsize n = MIN (page->levels_left, FLUX_PARQUET_BLOCK), n_values = 0;

  page->n = page->pos = page->value_pos = 0;
  if (!read_levels (&page->rep, leaf->max_rep, page->rep_levels, n) ||
      !read_levels (&page->def, leaf->max_def, page->def_levels, n))
    return flux_parquet_bad (
        self, error, "the levels of column '%s' are cut short or wrong", leaf->name);
  for (gsize i = 0; i < n; i++)
    n_values += page->def_levels[i] == leaf->max_def;
  if (!read_values (page, leaf, d, n_values))
    return flux_parquet_bad (
        self, error, "the values of column '%s' are cut short or wrong", leaf->name);
  page->levels_left -= n;
  page->n = (guint)n;
  return TRUE;
}
