/* flux/text/unigram.c: the most probable split of a word into pieces.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/unigram.h"

#include "flux/text/byte-trie.h"

/* What an unknown character costs beyond the least probable piece. */
#define UNKNOWN_PENALTY 10.0

struct _FluxUnigram {
  FluxByteTrie *trie; /* text -> id */
  GArray *scores;     /* of double */
  double least;
  gint32 unknown;
};

FluxUnigram *
flux_unigram_new (void)
{
  FluxUnigram *self = g_new0 (FluxUnigram, 1);

  self->trie = flux_byte_trie_new ();
  self->scores = g_array_new (FALSE, FALSE, sizeof (double));
  return self;
}

void
flux_unigram_free (FluxUnigram *self)
{
  if (self == NULL)
    return;
  flux_byte_trie_free (self->trie);
  g_array_unref (self->scores);
  g_free (self);
}

void
flux_unigram_add (FluxUnigram *self, const char *text, gsize len, double score)
{
  if (len > 0)
    flux_byte_trie_insert (self->trie, text, len, (gint32)self->scores->len);
  if (self->scores->len == 0 || score < self->least)
    self->least = score;
  g_array_append_val (self->scores, score);
}

void
flux_unigram_set_unknown (FluxUnigram *self, gint32 id)
{
  self->unknown = id;
}

gint32
flux_unigram_lookup (const FluxUnigram *self, const char *text, gsize len)
{
  return flux_byte_trie_lookup (self->trie, text, len);
}

guint
flux_unigram_size (const FluxUnigram *self)
{
  return self->scores->len;
}

/* The best way to end a piece at a byte. */
typedef struct {
  double score;  /* of the whole path */
  guint32 start; /* of the last piece */
  gint32 id;     /* of the last piece; -1: no path ends here */
} Node;

static void
offer (Node *node, double score, gsize start, gint32 id)
{
  if (node->id < 0 || score > node->score)
    *node = (Node){score, (guint32)start, id};
}

static void
find_paths (const FluxUnigram *self, const char *text, gsize len, Node *nodes)
{
  double unknown_score = self->least - UNKNOWN_PENALTY;
  gsize size;

  for (gsize at = 0; at < len; at += size) {
    double score = nodes[at].score;
    gboolean single = FALSE;
    guint32 trie = 0;

    size = g_utf8_skip[(guchar)text[at]];
    for (gsize end = at; end < len;) {
      gint32 id;

      trie = flux_byte_trie_step (self->trie, trie, (guint8)text[end++]);
      if (trie == 0)
        break;
      id = flux_byte_trie_value (self->trie, trie);
      if (id < 0)
        continue;
      offer (&nodes[end], g_array_index (self->scores, double, id) + score, at, id);
      single |= end - at == size;
    }
    if (!single)
      offer (&nodes[at + size], unknown_score + score, at, self->unknown);
  }
}

void
flux_unigram_append_word (
    const FluxUnigram *self, const char *text, gsize len, GArray *ids)
{
  g_autofree Node *nodes = NULL;
  guint first = ids->len;

  if (len == 0 || len > G_MAXINT32)
    return;
  nodes = g_new (Node, len + 1);
  for (gsize i = 0; i <= len; i++)
    nodes[i] = (Node){0.0, 0, -1};
  find_paths (self, text, len, nodes);
  /* Backwards; then turned round. */
  for (gsize end = len; end > 0; end = nodes[end].start) {
    gint32 id = nodes[end].id;

    if (id != self->unknown || ids->len == first ||
        g_array_index (ids, gint32, ids->len - 1) != self->unknown)
      g_array_append_val (ids, id);
  }
  for (guint i = first, j = ids->len - 1; i < j; i++, j--) {
    gint32 swap = g_array_index (ids, gint32, i);

    g_array_index (ids, gint32, i) = g_array_index (ids, gint32, j);
    g_array_index (ids, gint32, j) = swap;
  }
}
