/* flux/report/wandb-log.c: the record file of a run of wandb. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Facts: wandb 0.19.11, sdk/internal/datastore.py: LevelDB's log (blocks of 32 KiB, each
 * piece with CRC, length and type) with a header of its own and the CRC-32 of zlib over
 * type and data, where LevelDB has a masked CRC32C. */
#include "flux/report/report-private.h"

#define BLOCK 32768u
#define PIECE_HEADER 7u
#define CRC32_ZLIB 0xedb88320u

enum { FULL = 1, FIRST, MIDDLE, LAST };

gboolean
flux_wandb_log_open (FluxWandbLog *self, const char *path, GError **error)
{
  /* Magic number and version, little-endian. */
  static const guint8 header[PIECE_HEADER] = {':', 'W', '&', 'B', 0xe1, 0xbe, 0};

  self->length = 0;
  self->torn = FALSE;
  if (!flux_report_file_open (&self->file, path, error))
    return FALSE;
  if (!flux_report_file_write (&self->file, header, sizeof header, error)) {
    flux_report_file_close (&self->file);
    return FALSE;
  }
  self->length = sizeof header;
  return TRUE;
}

static void
put_piece (GByteArray *to, guint8 type, const guint8 *data, guint length)
{
  const guint8 head[3] = {(guint8)length, (guint8)(length >> 8), type};
  guint32 crc = flux_report_crc (CRC32_ZLIB, 0, &type, 1);

  flux_chunk_le32 (to, flux_report_crc (CRC32_ZLIB, crc, data, length));
  g_byte_array_append (to, head, sizeof head);
  g_byte_array_append (to, data, length);
}

/* In one write(), so that who reads meanwhile, or after a kill, finds whole records. */
gboolean
flux_wandb_log_append (FluxWandbLog *self, const GByteArray *record, GError **error)
{
  static const guint8 zeros[PIECE_HEADER] = {0};
  GByteArray *to = g_byte_array_new ();
  guint done = 0;
  gboolean ok;

  do {
    guint room = BLOCK - (guint)((self->length + to->len) % BLOCK), n;
    gboolean first = done == 0, last;

    if (room < PIECE_HEADER) {
      g_byte_array_append (to, zeros, room);
      room = BLOCK;
    }
    n = MIN (room - PIECE_HEADER, record->len - done);
    last = done + n == record->len;
    put_piece (to, (guint8)(first ? (last ? FULL : FIRST) : (last ? LAST : MIDDLE)),
        record->data + done, n);
    done += n;
  } while (done < record->len);
  /* What follows half a record could not be read. */
  ok = !self->torn && flux_report_file_write (&self->file, to->data, to->len, error);
  self->torn = !ok;
  self->length += to->len;
  g_byte_array_unref (to);
  return ok;
}

void
flux_wandb_log_close (FluxWandbLog *self)
{
  flux_report_file_close (&self->file);
}
