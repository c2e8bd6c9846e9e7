/* flux/text/spiece.c: reader of a SentencePiece model file.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/spiece.h"

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/text/tokenizer-config.h"
#include "flux/text/unicode.h"

/* sentencepiece_model.proto */
enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL_TYPE = 3 };
enum { NORMALIZER_CHARSMAP = 2 };
enum { TYPE_UNKNOWN = 2 };
enum { MODEL_UNIGRAM = 1 };

/* Protocol-buffer wire format. */
typedef struct {
  const char *p, *end;
} Reader;

typedef struct {
  guint32 number;
  guint wire;       /* 0 varint, 1 fixed64, 2 bytes, 5 fixed32 */
  guint64 value;    /* of a varint */
  const char *data; /* of the others */
  gsize len;
} Field;

static gboolean
read_varint (Reader *r, guint64 *value)
{
  *value = 0;
  for (guint shift = 0; shift < 64; shift += 7) {
    guint8 byte;

    if (r->p >= r->end)
      return FALSE;
    byte = (guint8)*r->p++;
    *value |= (guint64)(byte & 0x7F) << shift;
    if (byte < 0x80)
      return TRUE;
  }
  return FALSE;
}

static gboolean
read_field (Reader *r, Field *f)
{
  guint64 tag, len = 0;

  memset (f, 0, sizeof *f);
  if (!read_varint (r, &tag) || tag >> 3 > G_MAXUINT32)
    return FALSE;
  f->number = (guint32)(tag >> 3);
  f->wire = tag & 7;
  if (f->wire == 0)
    return read_varint (r, &f->value);
  if (f->wire == 1 || f->wire == 5)
    len = f->wire == 1 ? 8 : 4;
  else if (f->wire != 2 || !read_varint (r, &len))
    return FALSE;
  if (len > (gsize)(r->end - r->p))
    return FALSE;
  f->data = r->p;
  f->len = len;
  r->p += len;
  return TRUE;
}

static gboolean
read_piece (FluxSpiece *self, Reader r)
{
  FluxPiece piece = {"", 0, 0};
  guint64 type = 1;
  gsize bad;
  Field f;

  while (r.p < r.end) {
    if (!read_field (&r, &f))
      return FALSE;
    if (f.number == PIECE_TEXT && f.wire == 2) {
      piece.text = f.data;
      piece.len = (guint32)f.len;
    } else if (f.number == PIECE_SCORE && f.wire == 5) {
      guint32 bits;

      memcpy (&bits, f.data, 4);
      bits = GUINT32_FROM_LE (bits);
      memcpy (&piece.score, &bits, 4);
    } else if (f.number == PIECE_TYPE && f.wire == 0) {
      type = f.value;
    }
  }
  if (!flux_unicode_validate (piece.text, piece.len, &bad) || !isfinite (piece.score))
    return FALSE;
  if (type == TYPE_UNKNOWN && self->unk < 0)
    self->unk = (gint32)self->pieces->len;
  g_array_append_val (self->pieces, piece);
  return TRUE;
}

/* The last occurrence of a field wins, as in the format. */
static gboolean
read_model (FluxSpiece *self, Reader r, guint64 *model_type)
{
  Field f, g;

  while (r.p < r.end) {
    Reader sub;

    if (!read_field (&r, &f))
      return FALSE;
    if (f.wire != 2)
      continue;
    sub = (Reader){f.data, f.data + f.len};
    if (f.number == MODEL_PIECES && !read_piece (self, sub))
      return FALSE;
    if (f.number != MODEL_TRAINER && f.number != MODEL_NORMALIZER)
      continue;
    while (sub.p < sub.end) {
      if (!read_field (&sub, &g))
        return FALSE;
      if (f.number == MODEL_TRAINER && g.number == TRAINER_MODEL_TYPE && g.wire == 0)
        *model_type = g.value;
      if (f.number == MODEL_NORMALIZER && g.number == NORMALIZER_CHARSMAP &&
          g.wire == 2) {
        self->charsmap = g.data;
        self->charsmap_len = g.len;
      }
    }
  }
  return self->pieces->len > 0 && self->unk >= 0;
}

FluxSpiece *
flux_spiece_read (const char *path, GError **error)
{
  g_autoptr (FluxSpiece) self = g_new0 (FluxSpiece, 1);
  guint64 model_type = MODEL_UNIGRAM;
  gsize len;

  self->unk = -1;
  self->data = flux_text_read_file (path, &len, error);
  if (self->data == NULL)
    return NULL;
  self->pieces = g_array_new (FALSE, FALSE, sizeof (FluxPiece));
  self->charsmap = "";
  if (!read_model (self, (Reader){self->data, self->data + len}, &model_type)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is no SentencePiece model, or a damaged one; fetch the file again.", path);
    return NULL;
  }
  if (model_type != MODEL_UNIGRAM) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "'%s' is a SentencePiece model of type %" G_GUINT64_FORMAT ", but T5 has a "
        "unigram model (1); use the model's own tokenizer.",
        path, model_type);
    return NULL;
  }
  return g_steal_pointer (&self);
}

void
flux_spiece_free (FluxSpiece *self)
{
  if (self == NULL)
    return;
  if (self->pieces != NULL)
    g_array_unref (self->pieces);
  g_free (self->data);
  g_free (self);
}
