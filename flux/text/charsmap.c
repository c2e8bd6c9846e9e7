/* flux/text/charsmap.c: SentencePiece's precompiled normaliser.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/charsmap.h"

#include <string.h>

#include "flux/error.h"
#include "flux/text/unicode.h"

/* A longer cluster is taken character by character. */
#define SHORT_CLUSTER 6

struct _FluxCharsmap {
  GBytes *table;
  const char *units; /* [n_units] of guint32, little-endian and unaligned */
  guint32 n_units;
  const char *targets;
  gsize targets_size;
};

FluxCharsmap *
flux_charsmap_new (GBytes *table, const char *path, GError **error)
{
  g_autoptr (FluxCharsmap) self = g_new0 (FluxCharsmap, 1);
  gsize size, bad;
  const char *data = g_bytes_get_data (table, &size);
  guint32 units_size;

  self->table = g_bytes_ref (table);
  if (size == 0)
    return g_steal_pointer (&self);
  if (size >= sizeof units_size) {
    memcpy (&units_size, data, sizeof units_size);
    units_size = GUINT32_FROM_LE (units_size) & ~3u;
    if (units_size <= size - sizeof units_size) {
      self->units = data + sizeof units_size;
      self->n_units = units_size / 4;
      self->targets = self->units + units_size;
      self->targets_size = size - sizeof units_size - units_size;
      if (flux_unicode_validate (self->targets, self->targets_size, &bad))
        return g_steal_pointer (&self);
    }
  }
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "The normalisation table in '%s' is damaged; fetch the file again.", path);
  return NULL;
}

void
flux_charsmap_free (FluxCharsmap *self)
{
  if (self == NULL)
    return;
  g_bytes_unref (self->table);
  g_free (self);
}

/* A unit of the double array (Darts-clone): offset to the children in bits 10 to 30,
 * times 256 if bit 9 is set; bit 8: a value is among the children; bits 0 to 7: the
 * byte that leads here; a unit with bit 31 set holds a value. */
static gboolean
unit_at (const FluxCharsmap *self, guint32 index, guint32 *unit)
{
  if (index >= self->n_units)
    return FALSE;
  memcpy (unit, self->units + 4 * (gsize)index, 4);
  *unit = GUINT32_FROM_LE (*unit);
  return TRUE;
}

static guint32
children (guint32 unit)
{
  return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* The target of the shortest prefix of text that has a rule, or NULL. */
static const char *
target_of (const FluxCharsmap *self, const char *text, gsize len, gsize *target_len)
{
  guint32 node, unit;

  if (!unit_at (self, 0, &unit))
    return NULL;
  node = children (unit);
  for (gsize i = 0; i < len && text[i] != '\0'; i++) {
    guint8 byte = (guint8)text[i];

    node ^= byte;
    if (!unit_at (self, node, &unit) || (unit & (1u << 31 | 0xFF)) != byte)
      return NULL;
    node ^= children (unit);
    if ((unit >> 8 & 1) != 0) {
      guint32 at;

      if (!unit_at (self, node, &at))
        return NULL;
      at &= ~(1u << 31);
      if (at >= self->targets_size || (self->targets[at] & 0xC0) == 0x80)
        return NULL;
      *target_len = strnlen (self->targets + at, self->targets_size - at);
      return self->targets + at;
    }
  }
  return NULL;
}

void
flux_charsmap_append (const FluxCharsmap *self, const char *text, gsize len, GString *out)
{
  gsize at = 0, n, target_len;
  const char *target;

  while (at < len) {
    gsize cluster = flux_unicode_grapheme_length (text + at, len - at),
          end = at + cluster;

    if (cluster < SHORT_CLUSTER) {
      target = target_of (self, text + at, cluster, &target_len);
      if (target != NULL) {
        g_string_append_len (out, target, target_len);
        at = end;
      }
    }
    for (; at < end; at += n) {
      n = g_utf8_skip[(guchar)text[at]];
      target = target_of (self, text + at, n, &target_len);
      if (target != NULL)
        g_string_append_len (out, target, target_len);
      else
        g_string_append_len (out, text + at, n);
    }
  }
}
