/* flux/text/byte-trie.h: strings of bytes and the numbers they stand for.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxByteTrie FluxByteTrie;

FluxByteTrie *flux_byte_trie_new (void);
void flux_byte_trie_free (FluxByteTrie *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxByteTrie, flux_byte_trie_free)

/* value >= 0; replaces the value of an equal string. */
void
flux_byte_trie_insert (FluxByteTrie *self, const char *bytes, gsize len, gint32 value);
/* The node one byte further, or 0. Node 0 is the root: the empty string. */
guint32 flux_byte_trie_step (const FluxByteTrie *self, guint32 node, guint8 byte);
/* -1 where no string ends. */
gint32 flux_byte_trie_value (const FluxByteTrie *self, guint32 node);
/* The value of a whole string, or -1. */
gint32 flux_byte_trie_lookup (const FluxByteTrie *self, const char *bytes, gsize len);

G_END_DECLS
