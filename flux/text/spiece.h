/* flux/text/spiece.h: reader of a SentencePiece model file.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The few fields of sentencepiece_model.proto that a unigram model needs. Bounded: reads
 * at most 64 MiB, nothing recursive, every length checked against what contains it. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct {
  const char *text; /* UTF-8, not NUL-terminated; in data */
  guint32 len;
  float score; /* log probability */
} FluxPiece;

typedef struct {
  char *data;
  GArray *pieces; /* of FluxPiece; the index is the id */
  gint32 unk;     /* the id of the piece of type UNKNOWN */
  const char *charsmap;
  gsize charsmap_len;
} FluxSpiece;

/* NULL: FLUX_ERROR_NOT_FOUND, _READ, _FORMAT, or _MISMATCH for a model other than
 * unigram. */
FluxSpiece *flux_spiece_read (const char *path, GError **error);
void flux_spiece_free (FluxSpiece *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxSpiece, flux_spiece_free)

G_END_DECLS
