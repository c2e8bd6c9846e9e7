/* flux/report/tensorboard.c: an event file. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Facts: tensorboard/compat/proto/{event,summary,tensor}.proto, summary/writer/
 * record_writer.py (TFRecord: length, its masked CRC32C, bytes, their masked CRC32C),
 * plugins/hparams/{plugin_data.proto,metadata.py,summary.py}, util/tensor_util.py. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "flux/report/report-private.h"

/* Field numbers of the messages. */
enum {
  EVENT_WALL_TIME = 1,
  EVENT_STEP = 2,
  EVENT_FILE_VERSION = 3,
  EVENT_SUMMARY = 5,
  SUMMARY_VALUE = 1,
  VALUE_TAG = 1,
  VALUE_SIMPLE = 2,
  VALUE_IMAGE = 4,
  VALUE_TENSOR = 8,
  VALUE_METADATA = 9,
  METADATA_PLUGIN = 1,
  PLUGIN_NAME = 1,
  PLUGIN_CONTENT = 2,
  HPARAMS_VERSION = 1,
  HPARAMS_START = 3,
  HPARAMS_END = 4,
  START_HPARAMS = 1,
  START_GROUP = 4,
  START_TIME = 5,
  END_STATUS = 1,
  END_TIME = 2,
};

typedef struct {
  FluxReporter base;
  FluxReportFile file;
} Board;

static double
now (void)
{
  return (double)g_get_real_time () / G_USEC_PER_SEC;
}

static guint32
masked_crc (gconstpointer data, gsize length)
{
  guint32 crc = flux_report_crc (FLUX_CRC32C, 0, data, length);

  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

/* Takes event. */
static gboolean
write_record (Board *self, GByteArray *event, GError **error)
{
  GByteArray *record = g_byte_array_new ();
  gboolean ok;

  flux_chunk_le32 (record, event->len);
  flux_chunk_le32 (record, 0);
  flux_chunk_le32 (record, masked_crc (record->data, 8));
  g_byte_array_append (record, event->data, event->len);
  flux_chunk_le32 (record, masked_crc (event->data, event->len));
  ok = flux_report_file_write (&self->file, record->data, record->len, error);
  g_byte_array_unref (record);
  g_byte_array_unref (event);
  return ok;
}

static gboolean
write_summary (Board *self, guint64 step, GByteArray *summary, GError **error)
{
  GByteArray *event = g_byte_array_new ();

  flux_chunk_double (event, EVENT_WALL_TIME, now ());
  flux_chunk_uint (event, EVENT_STEP, step);
  flux_chunk_message (event, EVENT_SUMMARY, summary);
  return write_record (self, event, error);
}

static void
add_scalar (GByteArray *summary, const char *tag, double number)
{
  GByteArray *value = g_byte_array_new ();

  flux_chunk_string (value, VALUE_TAG, tag);
  flux_chunk_float (value, VALUE_SIMPLE, (float)number);
  flux_chunk_message (summary, SUMMARY_VALUE, value);
}

static gboolean
board_step (FluxReporter *base, const FluxReportStep *s, GError **error)
{
  GByteArray *summary = g_byte_array_new ();
  FluxReportScalar scalars[FLUX_REPORT_N_SCALARS];
  guint n = flux_report_scalars (s, scalars);

  for (guint i = 0; i < n; i++)
    add_scalar (summary, scalars[i].name, scalars[i].value);
  return write_summary ((Board *)base, s->step, summary, error);
}

static gboolean
board_paired_loss (FluxReporter *base, guint64 step, double loss, GError **error)
{
  GByteArray *summary = g_byte_array_new ();

  add_scalar (summary, FLUX_REPORT_PAIRED_LOSS, loss);
  return write_summary ((Board *)base, step, summary, error);
}

static gboolean
board_image (FluxReporter *base, const FluxReportImage *i, GError **error)
{
  GByteArray *summary = g_byte_array_new (), *value = g_byte_array_new ();
  GByteArray *image = g_byte_array_new ();
  const FluxReportPicture *p = i->picture;
  g_autofree char *tag = g_strconcat ("samples/", p->prompt, NULL);
  gsize size;
  gconstpointer png = g_bytes_get_data (i->png, &size);

  flux_chunk_uint (image, 1, p->height);
  flux_chunk_uint (image, 2, p->width);
  flux_chunk_uint (image, 3, 3); /* RGB */
  flux_chunk_bytes (image, 4, png, size);
  flux_chunk_string (value, VALUE_TAG, tag);
  flux_chunk_message (value, VALUE_IMAGE, image);
  flux_chunk_message (summary, SUMMARY_VALUE, value);
  return write_summary ((Board *)base, p->step, summary, error);
}

/* ---- hparams ---- */

/* content: HParamsPluginData without its version; taken. */
static gboolean
write_hparams (
    Board *self, const char *tag, guint field, GByteArray *content, GError **error)
{
  GByteArray *summary = g_byte_array_new (), *value = g_byte_array_new ();
  GByteArray *metadata = g_byte_array_new (), *plugin = g_byte_array_new ();
  GByteArray *data = g_byte_array_new (), *tensor = g_byte_array_new ();

  flux_chunk_uint (data, HPARAMS_VERSION, 0);
  flux_chunk_message (data, field, content);
  flux_chunk_string (plugin, PLUGIN_NAME, "hparams");
  flux_chunk_message (plugin, PLUGIN_CONTENT, data);
  flux_chunk_message (metadata, METADATA_PLUGIN, plugin);
  flux_chunk_uint (tensor, 1, 1);      /* DT_FLOAT */
  flux_chunk_bytes (tensor, 2, "", 0); /* of no dimensions */
  flux_chunk_string (value, VALUE_TAG, tag);
  flux_chunk_message (value, VALUE_TENSOR, tensor);
  flux_chunk_message (value, VALUE_METADATA, metadata);
  flux_chunk_message (summary, SUMMARY_VALUE, value);
  return write_summary (self, 0, summary, error);
}

static gboolean
write_start (Board *self, const FluxReportRun *run, GError **error)
{
  GByteArray *start = g_byte_array_new ();

  for (guint i = 0; i < run->config->n_settings; i++) {
    const FluxReportSetting *s = &run->config->settings[i];
    GByteArray *entry = g_byte_array_new (), *value = g_byte_array_new ();

    if (s->text != NULL)
      flux_chunk_string (value, 3, s->text);
    else
      flux_chunk_double (value, 2, s->number);
    flux_chunk_string (entry, 1, s->name);
    flux_chunk_message (entry, 2, value);
    flux_chunk_message (start, START_HPARAMS, entry);
  }
  flux_chunk_string (start, START_GROUP, run->run);
  flux_chunk_double (start, START_TIME, now ());
  return write_hparams (
      self, "_hparams_/session_start_info", HPARAMS_START, start, error);
}

static void
board_free (FluxReporter *base, gboolean finished)
{
  Board *self = (Board *)base;
  GByteArray *end = g_byte_array_new ();

  flux_chunk_uint (end, END_STATUS, finished ? 1 : 2); /* success, failure */
  flux_chunk_double (end, END_TIME, now ());
  /* What it says is not worth a message. */
  write_hparams (self, "_hparams_/session_end_info", HPARAMS_END, end, NULL);
  flux_report_file_close (&self->file);
}

static gboolean
write_version (Board *self, GError **error)
{
  GByteArray *event = g_byte_array_new ();

  flux_chunk_double (event, EVENT_WALL_TIME, now ());
  flux_chunk_string (event, EVENT_FILE_VERSION, "brain.Event:2");
  return write_record (self, event, error);
}

FluxReporter *
flux_report_tensorboard_new (const FluxReportRun *run, GError **error)
{
  Board *self = g_new0 (Board, 1);
  g_autofree char *name =
      g_strdup_printf ("events.out.tfevents.%010" G_GINT64_FORMAT ".gst-flux.%s",
          g_get_real_time () / G_USEC_PER_SEC, run->id);

  self->base.location =
      g_build_filename (run->config->folder, "tensorboard", run->run, name, NULL);
  self->base.step = board_step;
  self->base.paired_loss = board_paired_loss;
  self->base.image = board_image;
  self->base.free = board_free;
  if (flux_report_file_open (&self->file, self->base.location, error) &&
      write_version (self, error) && write_start (self, run, error))
    return &self->base;
  flux_report_file_close (&self->file);
  g_free (self->base.location);
  g_free (self);
  return NULL;
}
