/* flux/files/parquet-page.c: the values of one page. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <string.h>

#include "flux/error.h"
#include "flux/files/parquet-private.h"
#include "flux/files/thrift.h"

/* A page that is small in the file may not ask for more than this, or than 1024 times its
 * size (deflate's limit). */
#define MAX_EXPANDED ((gsize)64 << 20)

/* ---- header ---- */

typedef struct {
  gint64 n_values, encoding, def_encoding, rep_encoding; /* v1 and dictionary */
  gint64 n_rows, def_length, rep_length;                 /* v2 */
  gboolean is_compressed;
} Sub;

/* The struct of fields that depends on the page's type; ids are those of DataPageHeader,
 * DictionaryPageHeader (the first two) or DataPageHeaderV2. */
static void
read_sub (FluxThrift *t, FluxThriftType type, gboolean v2, Sub *s)
{
  gint id = 0;
  gint64 *const v1_fields[] = {
      NULL, &s->n_values, &s->encoding, &s->def_encoding, &s->rep_encoding};
  gint64 *const v2_fields[] = {
      NULL, &s->n_values, NULL, &s->n_rows, &s->encoding, &s->def_length, &s->rep_length};
  guint n = v2 ? G_N_ELEMENTS (v2_fields) : G_N_ELEMENTS (v1_fields);

  if (type != FLUX_THRIFT_STRUCT)
    t->bad = TRUE;
  while (flux_thrift_next (t, &id, &type)) {
    gint64 *to = (guint)id >= n ? NULL : v2 ? v2_fields[id] : v1_fields[id];

    /* is_sorted of a dictionary is a boolean at the place of def_encoding */
    if (to != NULL && type != FLUX_THRIFT_TRUE && type != FLUX_THRIFT_FALSE)
      *to = flux_thrift_int (t, type);
    else if (v2 && id == 7)
      s->is_compressed = flux_thrift_bool (t, type);
    else
      flux_thrift_skip (t, type);
  }
}

static gboolean
fits (gint64 value)
{
  return value >= 0 && value <= G_MAXINT32;
}

gboolean
flux_parquet_bad_page (
    const FluxParquet *self, gsize offset, const char *what, GError **error)
{
  return flux_parquet_bad (
      self, error, "in the page at byte %" G_GSIZE_FORMAT ", %s", offset, what);
}

gboolean
flux_parquet_page_header (const FluxParquet *self, const FluxParquetChunk *chunk,
    gsize offset, FluxParquetPageHeader *h, GError **error)
{
  FluxThrift t = {self->bytes + offset, self->bytes + chunk->end, FALSE};
  Sub s = {.n_values = -1, .is_compressed = TRUE};
  gint64 page_type = -1, uncompressed = -1, compressed = -1;
  FluxThriftType type;
  gint id = 0;

  while (flux_thrift_next (&t, &id, &type)) {
    if (id == 1)
      page_type = flux_thrift_int (&t, type);
    else if (id == 2)
      uncompressed = flux_thrift_int (&t, type);
    else if (id == 3)
      compressed = flux_thrift_int (&t, type);
    else if (id == 5 || id == 7 || id == 8)
      read_sub (&t, type, id == 8, &s);
    else
      flux_thrift_skip (&t, type);
  }
  if (t.bad || !fits (page_type) || !fits (uncompressed) || !fits (compressed))
    return flux_parquet_bad_page (self, offset, "the header is malformed", error);
  if (page_type != PARQUET_INDEX_PAGE && (!fits (s.n_values) || !fits (s.encoding)))
    return flux_parquet_bad_page (self, offset, "the header is malformed", error);
  if (!fits (s.n_rows) || !fits (s.def_length) || !fits (s.rep_length))
    return flux_parquet_bad_page (self, offset, "the header is malformed", error);
  if (compressed > t.end - t.p)
    return flux_parquet_bad_page (
        self, offset, "the data would end past its column", error);
  *h = (FluxParquetPageHeader){
      .type = (gint)page_type,
      .encoding = (gint)s.encoding,
      .def_encoding = s.def_encoding == PARQUET_RLE ? PARQUET_RLE : -1,
      .rep_encoding = s.rep_encoding == PARQUET_RLE ? PARQUET_RLE : -1,
      .n_levels = page_type == PARQUET_INDEX_PAGE ? 0 : (gsize)s.n_values,
      .n_rows = (gsize)s.n_rows,
      .uncompressed = (gsize)uncompressed,
      .compressed = (gsize)compressed,
      .def_length = (gsize)s.def_length,
      .rep_length = (gsize)s.rep_length,
      .is_compressed = s.is_compressed,
      .body = (gsize)(t.p - self->bytes),
  };
  h->next = h->body + h->compressed;
  return TRUE;
}

/* ---- bytes ---- */

const guint8 *
flux_parquet_expand (const FluxParquet *self, gint codec, const FluxParquetPageHeader *h,
    const guint8 *in, gsize length, gsize n, guint8 **owned, GError **error)
{
  const char *why;

  *owned = NULL;
  if (codec == PARQUET_UNCOMPRESSED && length == n)
    return in;
  if (n > MAX_EXPANDED && n / 1024 > length) {
    flux_parquet_bad_page (
        self, h->body, "the data claims to expand more than a thousandfold", error);
    return NULL;
  }
  *owned = g_try_malloc (MAX (n, 1));
  if (*owned == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "There is no memory for a page of %" G_GSIZE_FORMAT " bytes of '%s'.", n,
        self->path);
    return NULL;
  }
  why = n == 0 && length == 0 ? NULL
                              : flux_parquet_decompress (codec, in, length, *owned, n);
  if (why == NULL)
    return *owned;
  flux_parquet_bad_page (self, h->body, why, error);
  g_clear_pointer (owned, g_free);
  return NULL;
}

/* ---- data pages ---- */

static guint
bits_for (guint level)
{
  return level == 0 ? 0 : g_bit_storage (level);
}

/* Takes a length and so many bytes of levels off the front of v1 data. */
static gboolean
take_levels (const guint8 **p, const guint8 *end, const guint8 **levels)
{
  guint32 length;

  if ((gsize)(end - *p) < sizeof length)
    return FALSE;
  memcpy (&length, *p, sizeof length);
  length = GUINT32_FROM_LE (length);
  if (length > (gsize)(end - *p) - sizeof length)
    return FALSE;
  *levels = *p + sizeof length;
  *p = *levels + length;
  return TRUE;
}

static const char *
split_v1 (FluxParquetPage *page, const FluxParquetLeaf *leaf,
    const FluxParquetPageHeader *h, const guint8 *p)
{
  if ((leaf->max_rep > 0 && h->rep_encoding != PARQUET_RLE) ||
      (leaf->max_def > 0 && h->def_encoding != PARQUET_RLE))
    return "the levels are of the BIT_PACKED encoding, which is not read";
  page->rep_start = page->def_start = p;
  if (leaf->max_rep > 0 && !take_levels (&p, page->end, &page->rep_start))
    return "the levels are cut short";
  page->rep_end = page->def_start = p;
  if (leaf->max_def > 0 && !take_levels (&p, page->end, &page->def_start))
    return "the levels are cut short";
  page->def_end = page->values_start = p;
  return NULL;
}

/* The reference's names, for messages. */
static const char *
encoding_name (gint encoding)
{
  static const char *const names[] = {"PLAIN", "GROUP_VAR_INT", "PLAIN_DICTIONARY", "RLE",
      "BIT_PACKED", "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY",
      "RLE_DICTIONARY", "BYTE_STREAM_SPLIT"};

  return (guint)encoding < G_N_ELEMENTS (names) ? names[encoding] : "unknown";
}

static gboolean
is_dictionary (gint encoding)
{
  return encoding == PARQUET_PLAIN_DICTIONARY || encoding == PARQUET_RLE_DICTIONARY;
}

void
flux_parquet_page_restart (FluxParquetPage *page, const FluxParquetLeaf *leaf)
{
  const guint8 *p = page->values_start;

  flux_parquet_rle_init (
      &page->rep, page->rep_start, page->rep_end, bits_for (leaf->max_rep));
  flux_parquet_rle_init (
      &page->def, page->def_start, page->def_end, bits_for (leaf->max_def));
  page->values = p;
  page->bit = 0;
  page->levels_left = page->n_levels;
  page->n = page->pos = page->value_pos = 0;
  if (is_dictionary (page->encoding) && p < page->end)
    flux_parquet_rle_init (&page->indices, p + 1, page->end, *p);
  else if (page->encoding == PARQUET_RLE && page->end - p >= 4)
    flux_parquet_rle_init (&page->indices, p + 4, page->end, 1);
  else
    flux_parquet_rle_init (&page->indices, p, p, 0);
}

static gboolean
check_encoding (const FluxParquet *self, const FluxParquetLeaf *leaf,
    const FluxParquetPage *page, GError **error)
{
  gint e = page->encoding;

  if (e != PARQUET_PLAIN && !(is_dictionary (e) && leaf->type != PARQUET_BOOLEAN) &&
      !(e == PARQUET_RLE && leaf->type == PARQUET_BOOLEAN)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "Column '%s' of '%s' is of the %s encoding, which is not read; write it again "
        "with plain or dictionary encoding.",
        leaf->name, self->path, encoding_name (e));
    return FALSE;
  }
  if (is_dictionary (e) && page->values_start<page->end && * page->values_start> 32)
    return flux_parquet_bad (
        self, error, "an index of column '%s' has more than 32 bits", leaf->name);
  return TRUE;
}

static const char *
load_v1 (FluxParquetPage *page, const FluxParquet *self, const FluxParquetLeaf *leaf,
    const FluxParquetChunk *chunk, const FluxParquetPageHeader *h, GError **error)
{
  const guint8 *p = flux_parquet_expand (self, chunk->codec, h, self->bytes + h->body,
      h->compressed, h->uncompressed, &page->owned, error);

  if (p == NULL)
    return "";
  page->end = p + h->uncompressed;
  return split_v1 (page, leaf, h, p);
}

static const char *
load_v2 (FluxParquetPage *page, const FluxParquet *self, const FluxParquetLeaf *leaf,
    const FluxParquetChunk *chunk, const FluxParquetPageHeader *h, GError **error)
{
  const guint8 *body = self->bytes + h->body;
  gsize levels = h->rep_length + h->def_length;

  if (levels > h->compressed || levels > h->uncompressed)
    return "the levels are longer than the page";
  page->rep_start = body;
  page->rep_end = page->def_start = body + h->rep_length;
  page->def_end = body + levels;
  page->values_start = flux_parquet_expand (self,
      h->is_compressed ? chunk->codec : PARQUET_UNCOMPRESSED, h, body + levels,
      h->compressed - levels, h->uncompressed - levels, &page->owned, error);
  if (page->values_start == NULL)
    return "";
  page->end = page->values_start + (h->uncompressed - levels);
  return NULL;
}

gboolean
flux_parquet_page_load (FluxParquetPage *page, const FluxParquet *self,
    const FluxParquetLeaf *leaf, const FluxParquetChunk *chunk,
    const FluxParquetPageHeader *h, GError **error)
{
  const char *why;
  gint64 rows;

  flux_parquet_page_clear (page);
  why = h->type == PARQUET_DATA_PAGE ? load_v1 (page, self, leaf, chunk, h, error)
                                     : load_v2 (page, self, leaf, chunk, h, error);
  if (why != NULL)
    return *why == '\0' ? FALSE : flux_parquet_bad_page (self, h->body, why, error);
  page->n_levels = h->n_levels;
  page->encoding = h->encoding;
  if (!check_encoding (self, leaf, page, error))
    return FALSE;
  flux_parquet_page_restart (page, leaf);
  rows = leaf->max_rep == 0
             ? (gint64)h->n_levels
             : flux_parquet_rle_count_zeros (page->rep, (gint64)h->n_levels);
  if (rows < 0)
    return flux_parquet_bad_page (self, h->body, "the levels are cut short", error);
  if (h->type == PARQUET_DATA_PAGE_V2 && (gsize)rows != h->n_rows)
    return flux_parquet_bad_page (self, h->body, "the number of rows is wrong", error);
  page->n_rows = (gsize)rows;
  return TRUE;
}

void
flux_parquet_page_clear (FluxParquetPage *page)
{
  g_clear_pointer (&page->owned, g_free);
  page->n_levels = page->n_rows = page->levels_left = 0;
  page->n = page->pos = page->value_pos = 0;
}
