/* flux/report/report-private.h: a format, and what formats share.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *   report.c       hands events to the formats
 *   jsonl.c, tensorboard.c, wandb.c   a format each
 *   wandb-log.c    the record file of the last
 *   http*.c, page.*  the page; live.c: what it shows
 *   chunk.c        protobuf fields and checksums
 *   file.c         files that only grow
 *   png.c          a picture as PNG */
#pragma once

#include <json-glib/json-glib.h>

#include "flux/error.h"
#include "flux/report/report.h"

G_BEGIN_DECLS

/* A picture with its PNG, which all formats write. */
typedef struct {
  const FluxReportPicture *picture;
  GBytes *png;
} FluxReportImage;

typedef struct _FluxReporter FluxReporter;
struct _FluxReporter {
  FluxReportTo which;
  char *location;
  gboolean (*step) (FluxReporter *self, const FluxReportStep *step, GError **error);
  gboolean (*paired_loss) (FluxReporter *self, guint64 step, double loss, GError **error);
  /* These may be NULL. */
  gboolean (*image) (FluxReporter *self, const FluxReportImage *image, GError **error);
  void (*state) (FluxReporter *self, const char *state);
  void (*saved) (FluxReporter *self, guint64 step);
  const char *token;
  void (*free) (FluxReporter *self, gboolean finished); /* all but location */
};

/* run: a name for files, DATE_TIME-ID; id: its last part. */
typedef struct {
  const FluxReportConfig *config;
  const char *run, *id;
} FluxReportRun;

FluxReporter *flux_report_jsonl_new (const FluxReportRun *run, GError **error);
FluxReporter *flux_report_tensorboard_new (const FluxReportRun *run, GError **error);
FluxReporter *flux_report_wandb_new (const FluxReportRun *run, GError **error);
FluxReporter *flux_report_http_new (const FluxReportRun *run, GError **error);

/* ---- file.c ---- */

typedef struct {
  char *path;
  int fd;
} FluxReportFile;

/* Creates the file, which must not be there, and its folders. */
gboolean flux_report_file_open (FluxReportFile *self, const char *path, GError **error);
gboolean flux_report_file_write (
    FluxReportFile *self, gconstpointer data, gsize length, GError **error);
void flux_report_file_close (FluxReportFile *self);

/* ---- wandb-log.c ---- */

typedef struct {
  FluxReportFile file;
  guint64 length;
  gboolean torn; /* a write failed halfway: nothing more is appended */
} FluxWandbLog;

/* As flux_report_file_open(). */
gboolean flux_wandb_log_open (FluxWandbLog *self, const char *path, GError **error);
/* record: a protobuf message, not empty. */
gboolean
flux_wandb_log_append (FluxWandbLog *self, const GByteArray *record, GError **error);
void flux_wandb_log_close (FluxWandbLog *self);

/* ---- chunk.c: protobuf's wire format ---- */

void flux_chunk_uint (GByteArray *to, guint field, guint64 value);
void flux_chunk_double (GByteArray *to, guint field, double value);
void flux_chunk_float (GByteArray *to, guint field, float value);
void flux_chunk_string (GByteArray *to, guint field, const char *value);
void flux_chunk_bytes (GByteArray *to, guint field, gconstpointer data, gsize length);
/* A message; takes value. */
void flux_chunk_message (GByteArray *to, guint field, GByteArray *value);
void flux_chunk_le32 (GByteArray *to, guint32 value);

#define FLUX_CRC32C 0x82f63b78u /* of iSCSI */
/* crc: of the bytes before, 0 at first. */
guint32
flux_report_crc (guint32 polynomial, guint32 crc, gconstpointer data, gsize length);

/* ---- report.c ---- */

typedef struct {
  const char *name; /* group/name */
  double value;
} FluxReportScalar;

#define FLUX_REPORT_N_SCALARS 8
#define FLUX_REPORT_PAIRED_LOSS "train/paired_loss"
/* What a step is made of, in dashboards. Returns the number of scalars. */
guint flux_report_scalars (
    const FluxReportStep *step, FluxReportScalar scalars[FLUX_REPORT_N_SCALARS]);

void flux_report_json_integer (JsonBuilder *to, const char *name, guint64 value);
/* JSON has no NaN: null. name: NULL in an array. */
void flux_report_json_number (JsonBuilder *to, const char *name, double value);
/* What a step is made of, as members of the open object. */
void flux_report_json_step (JsonBuilder *to, const FluxReportStep *step);
/* Frees builder. */
char *flux_report_json_end (JsonBuilder *builder, gsize *length);

G_END_DECLS
