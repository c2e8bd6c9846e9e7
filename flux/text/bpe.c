/* flux/text/bpe.c: byte-level byte-pair encoding with an end-of-word mark.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/bpe.h"

#include <string.h>

#include "flux/error.h"
#include "flux/files/json-cursor.h"
#include "flux/text/byte-trie.h"
#include "flux/text/tokenizer-config.h"

#define END_OF_WORD "</w>"

typedef struct {
  guint64 pair; /* left << 32 | right */
  guint32 rank;
  gint32 id; /* of the joined token; -1: the slot is free */
} Merge;

struct _FluxBpe {
  FluxByteTrie *vocab;
  gint32 byte[256], last_byte[256]; /* ids, or -1 */
  Merge *merges;                    /* a hash table of 1 << bits slots, half empty */
  guint bits;
};

static gboolean
is_printable (guint byte)
{
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
}

/* GPT-2's printable stand-in of a byte: itself where that is printable Latin-1, else
 * the next free one from U+0100 on. */
static gunichar
printable (guint byte)
{
  gunichar c = 0x100;

  if (is_printable (byte))
    return byte;
  for (guint b = 0; b < byte; b++)
    c += !is_printable (b);
  return c;
}

static Merge *
slot_of (const FluxBpe *self, guint64 pair)
{
  gsize mask = ((gsize)1 << self->bits) - 1;
  gsize slot = (pair * G_GUINT64_CONSTANT (0x9E3779B97F4A7C15)) >> (64 - self->bits);

  while (self->merges[slot].id >= 0 && self->merges[slot].pair != pair)
    slot = (slot + 1) & mask;
  return &self->merges[slot];
}

static const Merge *
merge_of (const FluxBpe *self, gint32 left, gint32 right)
{
  const Merge *m = slot_of (self, (guint64)(guint32)left << 32 | (guint32)right);

  return m->id >= 0 ? m : NULL;
}

static gboolean
read_vocab (FluxBpe *self, const char *path, GError **error)
{
  g_autofree char *text = NULL;
  FluxJsonCursor c;
  gboolean first = TRUE;
  char *token;
  guint64 id;
  gsize len;

  text = flux_text_read_file (path, &len, error);
  if (text == NULL)
    return FALSE;
  flux_json_cursor_init (&c, text, len);
  flux_json_open (&c, '{');
  while (flux_json_next_member (&c, &first, &token)) {
    if (flux_json_read_size (&c, &id) && id > G_MAXINT32)
      flux_json_fail (&c, "an id is too large");
    if (c.fault == NULL)
      flux_byte_trie_insert (self->vocab, token, strlen (token), (gint32)id);
    g_free (token);
  }
  if (flux_json_finish (&c))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is no vocabulary at byte %" G_GSIZE_FORMAT ": %s; fetch the file again.",
      path, (gsize)(c.p - c.start), c.fault);
  return FALSE;
}

static void
find_bytes (FluxBpe *self)
{
  for (guint b = 0; b < 256; b++) {
    char s[6 + sizeof END_OF_WORD];
    int n = g_unichar_to_utf8 (printable (b), s);

    self->byte[b] = flux_byte_trie_lookup (self->vocab, s, n);
    memcpy (s + n, END_OF_WORD, strlen (END_OF_WORD));
    self->last_byte[b] = flux_byte_trie_lookup (self->vocab, s, n + strlen (END_OF_WORD));
  }
}

/* One line "left right". */
static gboolean
read_merge (FluxBpe *self, const char *line, gsize len, guint32 rank)
{
  const char *space = memchr (line, ' ', len);
  g_autofree char *joined = NULL;
  gint32 left, right, id;
  guint64 pair;
  gsize n;

  if (space == NULL)
    return FALSE;
  n = space - line;
  joined = g_malloc (len);
  memcpy (joined, line, n);
  memcpy (joined + n, space + 1, len - n - 1);
  left = flux_byte_trie_lookup (self->vocab, line, n);
  right = flux_byte_trie_lookup (self->vocab, space + 1, len - n - 1);
  id = flux_byte_trie_lookup (self->vocab, joined, len - 1);
  if (left < 0 || right < 0 || id < 0)
    return FALSE;
  pair = (guint64)(guint32)left << 32 | (guint32)right;
  *slot_of (self, pair) = (Merge){pair, rank, id};
  return TRUE;
}

static gboolean
read_merges (FluxBpe *self, const char *path, GError **error)
{
  g_autofree char *text = NULL;
  const char *p, *end;
  gsize len, lines = 1;
  guint32 rank = 0;

  text = flux_text_read_file (path, &len, error);
  if (text == NULL)
    return FALSE;
  end = text + len;
  for (p = text; p < end; p++)
    lines += *p == '\n';
  self->bits = g_bit_storage (2 * lines);
  self->merges = g_new (Merge, (gsize)1 << self->bits);
  for (gsize i = 0; i < (gsize)1 << self->bits; i++)
    self->merges[i].id = -1;
  lines = 0;
  for (p = text; p < end;) {
    const char *newline = memchr (p, '\n', end - p);
    const char *stop = newline != NULL ? newline : end;
    gsize n = stop - p;

    lines++;
    if (n > 0 && p[n - 1] == '\r')
      n--;
    if (n > 0 && !(n >= 8 && memcmp (p, "#version", 8) == 0) &&
        !read_merge (self, p, n, rank++)) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
          "Line %" G_GSIZE_FORMAT " of '%s' joins no two tokens of the vocabulary beside "
          "it; fetch both files again.",
          lines, path);
      return FALSE;
    }
    p = newline != NULL ? newline + 1 : end;
  }
  return TRUE;
}

FluxBpe *
flux_bpe_new (const char *dir, GError **error)
{
  g_autofree char *vocab = g_build_filename (dir, "vocab.json", NULL);
  g_autofree char *merges = g_build_filename (dir, "merges.txt", NULL);
  g_autoptr (FluxBpe) self = g_new0 (FluxBpe, 1);

  self->vocab = flux_byte_trie_new ();
  if (!read_vocab (self, vocab, error) || !read_merges (self, merges, error))
    return NULL;
  find_bytes (self);
  return g_steal_pointer (&self);
}

void
flux_bpe_free (FluxBpe *self)
{
  if (self == NULL)
    return;
  flux_byte_trie_free (self->vocab);
  g_free (self->merges);
  g_free (self);
}

gint32
flux_bpe_lookup (const FluxBpe *self, const char *token)
{
  return flux_byte_trie_lookup (self->vocab, token, strlen (token));
}

/* A symbol of the word that is being joined, in a doubly linked list. */
typedef struct {
  gint32 id; /* -1: joined to the one before */
  gint32 previous, next;
} Symbol;

/* A join that was possible when it was queued. */
typedef struct {
  guint32 rank;
  gint32 position, id;
} Join;

static gboolean
before (const Join *a, const Join *b)
{
  return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void
push (GArray *heap, Join join)
{
  guint i = heap->len;
  Join *v;

  g_array_append_val (heap, join);
  v = (Join *)(gpointer)heap->data;
  for (; i > 0 && before (&join, &v[(i - 1) / 2]); i = (i - 1) / 2)
    v[i] = v[(i - 1) / 2];
  v[i] = join;
}

static Join
pop (GArray *heap)
{
  Join *v = (Join *)(gpointer)heap->data;
  Join top = v[0], moved = v[--heap->len];
  guint i = 0, child;

  while ((child = 2 * i + 1) < heap->len) {
    if (child + 1 < heap->len && before (&v[child + 1], &v[child]))
      child++;
    if (!before (&v[child], &moved))
      break;
    v[i] = v[child];
    i = child;
  }
  v[i] = moved;
  return top;
}

static void
queue_pair (const FluxBpe *self, const Symbol *s, gint32 left, GArray *heap)
{
  const Merge *m;

  if (left < 0 || s[left].next < 0)
    return;
  m = merge_of (self, s[left].id, s[s[left].next].id);
  if (m != NULL)
    push (heap, (Join){m->rank, left, m->id});
}

/* Joins the lowest-ranked pair, leftmost first, until there is none. */
static void
join_all (const FluxBpe *self, Symbol *s, gint32 n)
{
  g_autoptr (GArray) heap = g_array_sized_new (FALSE, FALSE, sizeof (Join), n);

  for (gint32 i = 0; i < n; i++)
    queue_pair (self, s, i, heap);
  while (heap->len > 0) {
    Join join = pop (heap);
    gint32 left = join.position, right = s[left].next;
    const Merge *m;

    if (s[left].id < 0 || right < 0)
      continue;
    m = merge_of (self, s[left].id, s[right].id);
    if (m == NULL || m->id != join.id) /* one of the two has been joined since */
      continue;
    s[left].id = join.id;
    s[left].next = s[right].next;
    s[right].id = -1;
    if (s[left].next >= 0)
      s[s[left].next].previous = left;
    queue_pair (self, s, s[left].previous, heap);
    queue_pair (self, s, left, heap);
  }
}

void
flux_bpe_append_word (
    const FluxBpe *self, const char *bytes, gsize len, gint32 unk, GArray *ids)
{
  g_autofree Symbol *s = NULL;
  gint32 n = (gint32)len;

  if (len == 0 || len > G_MAXINT32)
    return;
  s = g_new (Symbol, n);
  for (gint32 i = 0; i < n; i++) {
    const gint32 *table = i == n - 1 ? self->last_byte : self->byte;

    s[i].id = table[(guint8)bytes[i]];
    if (s[i].id < 0)
      s[i].id = unk;
    s[i].previous = i - 1;
    s[i].next = i == n - 1 ? -1 : i + 1;
  }
  join_all (self, s, n);
  for (gint32 i = 0; i >= 0; i = s[i].next)
    g_array_append_val (ids, s[i].id);
}
