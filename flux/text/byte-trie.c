/* flux/text/byte-trie.c: a trie whose edges are a hash table.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/byte-trie.h"

typedef struct {
  guint64 key;   /* node << 8 | byte */
  guint32 child; /* 0: the slot is free */
} Edge;

struct _FluxByteTrie {
  Edge *edges;
  guint bits;     /* 1 << bits slots, at most half of them taken */
  GArray *values; /* [nodes] */
};

static guint
slot_of (const Edge *edges, guint bits, guint64 key)
{
  guint mask = (1u << bits) - 1;
  guint slot = (guint)((key * G_GUINT64_CONSTANT (0x9E3779B97F4A7C15)) >> (64 - bits));

  while (edges[slot].child != 0 && edges[slot].key != key)
    slot = (slot + 1) & mask;
  return slot;
}

static void
grow (FluxByteTrie *self)
{
  guint bits = self->bits + 1;
  Edge *edges = g_new0 (Edge, (gsize)1 << bits);

  for (gsize i = 0; i < (gsize)1 << self->bits; i++) {
    if (self->edges[i].child != 0)
      edges[slot_of (edges, bits, self->edges[i].key)] = self->edges[i];
  }
  g_free (self->edges);
  self->edges = edges;
  self->bits = bits;
}

FluxByteTrie *
flux_byte_trie_new (void)
{
  FluxByteTrie *self = g_new0 (FluxByteTrie, 1);
  gint32 none = -1;

  self->bits = 8;
  self->edges = g_new0 (Edge, (gsize)1 << self->bits);
  self->values = g_array_new (FALSE, FALSE, sizeof (gint32));
  g_array_append_val (self->values, none);
  return self;
}

void
flux_byte_trie_free (FluxByteTrie *self)
{
  if (self == NULL)
    return;
  g_array_unref (self->values);
  g_free (self->edges);
  g_free (self);
}

guint32
flux_byte_trie_step (const FluxByteTrie *self, guint32 node, guint8 byte)
{
  guint64 key = (guint64)node << 8 | byte;

  return self->edges[slot_of (self->edges, self->bits, key)].child;
}

gint32
flux_byte_trie_value (const FluxByteTrie *self, guint32 node)
{
  return g_array_index (self->values, gint32, node);
}

void
flux_byte_trie_insert (FluxByteTrie *self, const char *bytes, gsize len, gint32 value)
{
  guint32 node = 0;

  for (gsize i = 0; i < len; i++) {
    guint64 key = (guint64)node << 8 | (guint8)bytes[i];
    Edge *edge = &self->edges[slot_of (self->edges, self->bits, key)];
    gint32 none = -1;

    if (edge->child == 0) {
      edge->key = key;
      edge->child = self->values->len;
      g_array_append_val (self->values, none);
      node = edge->child;
      if (self->values->len > 1u << (self->bits - 1))
        grow (self);
    } else {
      node = edge->child;
    }
  }
  g_array_index (self->values, gint32, node) = value;
}

gint32
flux_byte_trie_lookup (const FluxByteTrie *self, const char *bytes, gsize len)
{
  guint32 node = 0;

  for (gsize i = 0; i < len; i++) {
    node = flux_byte_trie_step (self, node, (guint8)bytes[i]);
    if (node == 0)
      return -1;
  }
  return flux_byte_trie_value (self, node);
}
