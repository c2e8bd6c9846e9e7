/* flux/files/parquet-private.h: what the parts of the parquet reader share.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * parquet-footer.c (schema and where things are), parquet-codec.c (decompression),
 * parquet-rle.c (levels and dictionary indices), parquet-page.c (page headers and their
 * data), parquet-values.c (decoding), parquet-cursor.c (from row to page), parquet.c (the
 * public face). Names and numbers:
 * https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift */
#pragma once

#include <glib.h>

#include "flux/files/parquet.h"

G_BEGIN_DECLS

enum { /* Type */
  PARQUET_BOOLEAN = 0,
  PARQUET_INT32 = 1,
  PARQUET_INT64 = 2,
  PARQUET_INT96 = 3,
  PARQUET_FLOAT = 4,
  PARQUET_DOUBLE = 5,
  PARQUET_BYTE_ARRAY = 6,
  PARQUET_FIXED_LEN_BYTE_ARRAY = 7,
};

enum { PARQUET_REQUIRED = 0, PARQUET_OPTIONAL = 1, PARQUET_REPEATED = 2 };

enum { /* Encoding */
  PARQUET_PLAIN = 0,
  PARQUET_PLAIN_DICTIONARY = 2,
  PARQUET_RLE = 3,
  PARQUET_RLE_DICTIONARY = 8,
};

enum { /* PageType */
  PARQUET_DATA_PAGE = 0,
  PARQUET_INDEX_PAGE = 1,
  PARQUET_DICTIONARY_PAGE = 2,
  PARQUET_DATA_PAGE_V2 = 3,
};

enum { /* CompressionCodec */
  PARQUET_UNCOMPRESSED = 0,
  PARQUET_SNAPPY = 1,
  PARQUET_GZIP = 2,
  PARQUET_ZSTD = 6,
};

/* A list may not have more elements: runs let a few bytes claim billions. */
#define FLUX_PARQUET_MAX_LIST (1u << 24)

/* A primitive column of the schema. */
typedef struct {
  char *name; /* dotted; of a list, the path of the list */
  gint type;
  guint max_def, max_rep;
  guint list_def; /* definition level from which on a list has an element */
  gboolean is_unsigned;
  FluxParquetKind kind;
  const char *refused; /* why it cannot be read, or NULL */
} FluxParquetLeaf;

/* One column of one row group; lies within the file. */
typedef struct {
  gsize start, end;
  gint64 n_levels;
  gint codec;
} FluxParquetChunk;

typedef struct {
  gint64 first_row, n_rows;
} FluxParquetGroup;

typedef struct _FluxParquetCursor FluxParquetCursor;

struct _FluxParquet {
  char *path;
  GMappedFile *mapping;
  const guint8 *bytes;
  gsize length;
  gint64 n_rows;
  GArray *leaves;              /* FluxParquetLeaf */
  GArray *groups;              /* FluxParquetGroup */
  GArray *chunks;              /* FluxParquetChunk [groups, leaves] */
  FluxParquetCursor **cursors; /* one a leaf, made at first use */
};

/* Sets "'PATH' is not a valid parquet file: ..."; always FALSE. */
gboolean flux_parquet_bad (const FluxParquet *self, GError **error, const char *format,
    ...) G_GNUC_PRINTF (3, 4);

/* Fills leaves, groups and chunks from the footer. */
gboolean flux_parquet_read_footer (FluxParquet *self, GError **error);

/* Decompresses all of in to exactly n bytes at out; NULL, or why not. */
const char *flux_parquet_decompress (
    gint codec, const guint8 *in, gsize length, guint8 *out, gsize n);

/* The hybrid of runs and bit-packed groups. */
typedef struct {
  const guint8 *p, *end;
  guint bits;      /* of a value, 0 to 32 */
  guint64 run;     /* values left of this run */
  gboolean packed; /* else each is `value` */
  guint32 value;
  guint64 buffer; /* bits of a packed run that were read and not used */
  guint n_buffered;
  const guint8 *packed_end;
} FluxParquetRle;

void
flux_parquet_rle_init (FluxParquetRle *r, const guint8 *p, const guint8 *end, guint bits);
/* The next n values; FALSE when there are fewer. */
gboolean flux_parquet_rle_get (FluxParquetRle *r, guint32 *out, gsize n);
/* How many of the next n are 0, or -1 when there are fewer. */
gint64 flux_parquet_rle_count_zeros (FluxParquetRle r, gint64 n);

typedef struct {
  const guint8 *p;
  gsize n;
} FluxParquetSlice;

typedef struct {
  guint8 *owned; /* decompressed page, or NULL */
  gsize n;
  double *numbers;          /* [n], or */
  FluxParquetSlice *slices; /* [n] */
} FluxParquetDictionary;

void flux_parquet_dictionary_clear (FluxParquetDictionary *d);

typedef struct {
  gint type, encoding, def_encoding, rep_encoding;
  gsize n_levels, n_rows; /* n_rows: v2 only */
  gsize uncompressed, compressed, def_length, rep_length;
  gboolean is_compressed;
  gsize body, next; /* offsets in the file */
} FluxParquetPageHeader;

/* Reads the header at offset; the page lies within the chunk. */
gboolean flux_parquet_page_header (const FluxParquet *self, const FluxParquetChunk *chunk,
    gsize offset, FluxParquetPageHeader *h, GError **error);
/* "... in the page at byte OFFSET, WHAT"; always FALSE. */
gboolean flux_parquet_bad_page (
    const FluxParquet *self, gsize offset, const char *what, GError **error);
/* The n bytes that `length` bytes at `in` expand to: in the file itself, or in *owned. */
const guint8 *
flux_parquet_expand (const FluxParquet *self, gint codec, const FluxParquetPageHeader *h,
    const guint8 *in, gsize length, gsize n, guint8 **owned, GError **error);
gboolean flux_parquet_read_dictionary (const FluxParquet *self,
    const FluxParquetLeaf *leaf, const FluxParquetChunk *chunk,
    const FluxParquetPageHeader *h, FluxParquetDictionary *d, GError **error);

enum { FLUX_PARQUET_BLOCK = 1024 };

/* A data page, decoded a block of entries at a time (an entry is a pair of levels, and a
 * value when def is the leaf's max_def). */
typedef struct {
  guint8 *owned;          /* decompressed page, or NULL */
  gsize n_levels, n_rows; /* n_rows: rows that start here */
  gint encoding;
  const guint8 *rep_start, *rep_end, *def_start, *def_end, *values_start, *end;
  /* where decoding is */
  FluxParquetRle rep, def, indices;
  const guint8 *values;
  gsize bit; /* of PLAIN booleans */
  gsize levels_left;
  /* the current block */
  guint n, pos, value_pos;
  guint8 rep_levels[FLUX_PARQUET_BLOCK], def_levels[FLUX_PARQUET_BLOCK];
  double numbers[FLUX_PARQUET_BLOCK];
  FluxParquetSlice slices[FLUX_PARQUET_BLOCK];
} FluxParquetPage;

gboolean flux_parquet_page_load (FluxParquetPage *page, const FluxParquet *self,
    const FluxParquetLeaf *leaf, const FluxParquetChunk *chunk,
    const FluxParquetPageHeader *h, GError **error);
/* Back to the first entry. */
void flux_parquet_page_restart (FluxParquetPage *page, const FluxParquetLeaf *leaf);
/* Decodes the next block: n becomes 0 at the end of the page. */
gboolean flux_parquet_page_fill (FluxParquetPage *page, const FluxParquet *self,
    const FluxParquetLeaf *leaf, const FluxParquetDictionary *d, GError **error);
void flux_parquet_page_clear (FluxParquetPage *page);

/* Reads one row of a leaf. */
FluxParquetCursor *flux_parquet_cursor_new (FluxParquet *self, guint leaf);
void flux_parquet_cursor_free (FluxParquetCursor *c);
/* Goes to the first entry of the row; page->pos is there, *page is valid until the next
 * call. */
gboolean flux_parquet_cursor_seek (
    FluxParquetCursor *c, gint64 row, FluxParquetPage **page, GError **error);
/* All elements of the row that was sought, over as many pages as it has. NULL with error
 * unset for a null list. */
GArray *flux_parquet_cursor_list (FluxParquetCursor *c, GError **error);

G_END_DECLS
