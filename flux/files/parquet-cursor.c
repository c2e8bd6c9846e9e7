/* flux/files/parquet-cursor.c: from a row to its entries. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Which row a page starts with is known only after all pages before it in its row group
 * were looked at: at their headers when the column has no lists, else at their repetition
 * levels. What was found is kept for the row group that is being read. A list may run
 * over several pages (pyarrow ends pages of version 1 anywhere). */
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/parquet-private.h"

typedef struct {
  gsize offset;
  gint64 first_row, n_rows; /* in the row group; rows that start in this page */
} Place;

struct _FluxParquetCursor {
  FluxParquet *file;
  const FluxParquetLeaf *leaf;
  guint leaf_index;
  gint group; /* or -1 */
  gint64 group_rows;
  const FluxParquetChunk *chunk;
  FluxParquetDictionary dictionary;
  gboolean has_dictionary;
  GArray *places; /* Place */
  gsize next_offset;
  gint64 levels_known, rows_known; /* in all places */
  gint current;                    /* index of the place that is loaded, or -1 */
  gint64 passed;                   /* rows of it whose first entry was passed */
  FluxParquetPage page;
};

FluxParquetCursor *
flux_parquet_cursor_new (FluxParquet *self, guint leaf)
{
  FluxParquetCursor *c = g_new0 (FluxParquetCursor, 1);

  c->file = self;
  c->leaf = &g_array_index (self->leaves, FluxParquetLeaf, leaf);
  c->leaf_index = leaf;
  c->places = g_array_new (FALSE, FALSE, sizeof (Place));
  c->group = c->current = -1;
  return c;
}

void
flux_parquet_cursor_free (FluxParquetCursor *c)
{
  flux_parquet_page_clear (&c->page);
  flux_parquet_dictionary_clear (&c->dictionary);
  g_array_unref (c->places);
  g_free (c);
}

static void
enter_group (FluxParquetCursor *c, gint group)
{
  guint n = c->file->leaves->len;

  flux_parquet_page_clear (&c->page);
  flux_parquet_dictionary_clear (&c->dictionary);
  g_array_set_size (c->places, 0);
  c->has_dictionary = FALSE;
  c->levels_known = c->rows_known = 0;
  c->current = -1;
  c->group = group;
  c->group_rows = g_array_index (c->file->groups, FluxParquetGroup, group).n_rows;
  c->chunk = &g_array_index (
      c->file->chunks, FluxParquetChunk, (guint)group * n + c->leaf_index);
  c->next_offset = c->chunk->start;
}

static gboolean
bad_column (FluxParquetCursor *c, const char *what, GError **error)
{
  return flux_parquet_bad (c->file, error, "column '%s' %s", c->leaf->name, what);
}

static gboolean
load_header (
    FluxParquetCursor *c, gint index, const FluxParquetPageHeader *h, GError **error)
{
  c->current = -1;
  if (!flux_parquet_page_load (&c->page, c->file, c->leaf, c->chunk, h, error))
    return FALSE;
  if ((h->encoding == PARQUET_PLAIN_DICTIONARY ||
          h->encoding == PARQUET_RLE_DICTIONARY) &&
      !c->has_dictionary)
    return bad_column (c, "uses a dictionary that is not there", error);
  c->current = index;
  c->passed = 0;
  return TRUE;
}

static gboolean
load (FluxParquetCursor *c, gint index, GError **error)
{
  const Place *place = &g_array_index (c->places, Place, index);
  FluxParquetPageHeader h;

  return flux_parquet_page_header (c->file, c->chunk, place->offset, &h, error) &&
         load_header (c, index, &h, error);
}

/* The header of the next data page; takes the dictionary on the way. */
static gboolean
next_header (
    FluxParquetCursor *c, FluxParquetPageHeader *h, gsize *offset, GError **error)
{
  for (;;) {
    if (c->levels_known >= c->chunk->n_levels || c->next_offset >= c->chunk->end)
      return bad_column (c, "has fewer rows than its row group", error);
    *offset = c->next_offset;
    if (!flux_parquet_page_header (c->file, c->chunk, *offset, h, error))
      return FALSE;
    c->next_offset = h->next;
    if (h->type == PARQUET_DATA_PAGE || h->type == PARQUET_DATA_PAGE_V2)
      return TRUE;
    if (h->type != PARQUET_DICTIONARY_PAGE)
      continue; /* an index, or what later versions invent */
    if (c->has_dictionary || c->places->len > 0)
      return bad_column (
          c, "has two dictionaries, or one that is not at its front", error);
    if (!flux_parquet_read_dictionary (
            c->file, c->leaf, c->chunk, h, &c->dictionary, error))
      return FALSE;
    c->has_dictionary = TRUE;
  }
}

/* Finds the next page's place. A list's page is loaded by that. */
static gboolean
discover (FluxParquetCursor *c, GError **error)
{
  FluxParquetPageHeader h;
  Place place;

  if (!next_header (c, &h, &place.offset, error))
    return FALSE;
  if ((gint64)h.n_levels > c->chunk->n_levels - c->levels_known)
    return bad_column (c, "has more values than it says", error);
  place.first_row = c->rows_known;
  place.n_rows = (gint64)h.n_levels;
  if (c->leaf->max_rep > 0) {
    if (!load_header (c, (gint)c->places->len, &h, error))
      return FALSE;
    place.n_rows = (gint64)c->page.n_rows;
    if (c->levels_known == 0 && h.n_levels > 0 &&
        flux_parquet_rle_count_zeros (c->page.rep, 1) != 1)
      return bad_column (c, "starts in the middle of a row", error);
  }
  if (place.n_rows > c->group_rows - c->rows_known)
    return bad_column (c, "has more rows than its row group", error);
  c->rows_known += place.n_rows;
  c->levels_known += (gint64)h.n_levels;
  g_array_append_val (c->places, place);
  return TRUE;
}

/* The page in which a known row starts: the last one that does not start after it. */
static gint
find_place (FluxParquetCursor *c, gint64 row)
{
  guint low = 0, high = c->places->len;

  while (high - low > 1) {
    guint middle = low + (high - low) / 2;

    if (g_array_index (c->places, Place, middle).first_row <= row)
      low = middle;
    else
      high = middle;
  }
  return (gint)low;
}

static gint
find_group (FluxParquet *file, gint64 row)
{
  guint low = 0, high = file->groups->len;

  while (high - low > 1) {
    guint middle = low + (high - low) / 2;

    if (g_array_index (file->groups, FluxParquetGroup, middle).first_row <= row)
      low = middle;
    else
      high = middle;
  }
  return (gint)low;
}

static void
step (FluxParquetCursor *c)
{
  FluxParquetPage *page = &c->page;

  if (page->rep_levels[page->pos] == 0)
    c->passed++;
  if (page->def_levels[page->pos] == c->leaf->max_def)
    page->value_pos++;
  page->pos++;
}

/* To the first entry of the row that is the target-th to start in the loaded page. */
static gboolean
advance (FluxParquetCursor *c, gint64 target, GError **error)
{
  FluxParquetPage *page = &c->page;

  for (;;) {
    if (page->pos == page->n) {
      if (!flux_parquet_page_fill (page, c->file, c->leaf, &c->dictionary, error))
        return FALSE;
      if (page->n == 0)
        return bad_column (c, "ends too early", error);
    }
    if (page->rep_levels[page->pos] == 0 && c->passed == target)
      return TRUE;
    step (c);
  }
}

static gboolean
seek_in_group (FluxParquetCursor *c, gint64 row, GError **error)
{
  gint64 target;
  gint index;

  while (c->rows_known <= row) {
    if (!discover (c, error))
      return FALSE;
  }
  index = find_place (c, row);
  target = row - g_array_index (c->places, Place, index).first_row;
  if (c->current != index) {
    if (!load (c, index, error))
      return FALSE;
  } else if (c->passed > target) {
    flux_parquet_page_restart (&c->page, c->leaf);
    c->passed = 0;
  }
  return advance (c, target, error);
}

gboolean
flux_parquet_cursor_seek (
    FluxParquetCursor *c, gint64 row, FluxParquetPage **page, GError **error)
{
  const FluxParquetGroup *group;
  gint index;

  if (row < 0 || row >= c->file->n_rows) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "'%s' has no row %" G_GINT64_FORMAT ": it has %" G_GINT64_FORMAT " rows.",
        c->file->path, row, c->file->n_rows);
    return FALSE;
  }
  index = find_group (c->file, row);
  group = &g_array_index (c->file->groups, FluxParquetGroup, index);
  if (c->group != index)
    enter_group (c, index);
  *page = &c->page;
  if (seek_in_group (c, row - group->first_row, error))
    return TRUE;
  c->group = -1; /* start over next time */
  return FALSE;
}

/* Makes page.pos an entry if there is one left in the row group. */
static gboolean
next_entry (FluxParquetCursor *c, gboolean *more, GError **error)
{
  FluxParquetPage *page = &c->page;

  *more = TRUE;
  while (page->pos == page->n) {
    if (!flux_parquet_page_fill (page, c->file, c->leaf, &c->dictionary, error))
      return FALSE;
    if (page->n > 0)
      break;
    if (c->current + 1 < (gint)c->places->len) {
      if (!load (c, c->current + 1, error))
        return FALSE;
    } else if (c->levels_known < c->chunk->n_levels) {
      if (!discover (c, error))
        return FALSE;
    } else {
      *more = FALSE;
      return TRUE;
    }
  }
  return TRUE;
}

static gboolean
collect (FluxParquetCursor *c, GArray *out, GError **error)
{
  FluxParquetPage *page = &c->page;
  gboolean more = TRUE;

  do {
    guint def = page->def_levels[page->pos];

    if (def >= c->leaf->list_def) {
      double value = def == c->leaf->max_def ? page->numbers[page->value_pos] : NAN;

      if (out->len == FLUX_PARQUET_MAX_LIST)
        return flux_parquet_bad (c->file, error,
            "column '%s' has a list of more than %u elements", c->leaf->name,
            FLUX_PARQUET_MAX_LIST);
      g_array_append_val (out, value);
    }
    step (c);
    if (!next_entry (c, &more, error))
      return FALSE;
  } while (more && page->rep_levels[page->pos] != 0);
  return TRUE;
}

GArray *
flux_parquet_cursor_list (FluxParquetCursor *c, GError **error)
{
  g_autoptr (GArray) out = NULL;

  /* Below the level of an empty list, the list itself or what holds it is null. */
  if (c->page.def_levels[c->page.pos] + 1u < c->leaf->list_def)
    return NULL;
  out = g_array_new (FALSE, FALSE, sizeof (double));
  if (collect (c, out, error))
    return g_steal_pointer (&out);
  c->group = -1;
  return NULL;
}
