/* flux/report/wandb.c: an offline run of wandb. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 *   wandb/offline-run-DATE_TIME-ID/run-ID.wandb   records, see wandb-log.c
 *                                  files/         config.yaml, wandb-metadata.json,
 *                                                 wandb-summary.json at the end
 *                                  files/media/images/samples/  pictures
 *                                  logs/
 *
 * Facts: what wandb 0.19.11 and 0.31.0 themselves write with mode="offline", and their
 * wandb/proto/wandb_internal.proto. A row's place on the axis of steps is the metric
 * train/global_step, as in transformers' integration, since pictures of a step come
 * after those that follow it, and wandb's own _step may only rise. */
#include <errno.h>
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

#include "config.h"
#include "flux/files/replace.h"
#include "flux/report/report-private.h"

#define STEP_METRIC "train/global_step"
#define MAX_SLUG 64

/* Field numbers of the messages. */
enum {
  RECORD_NUM = 1,
  RECORD_HISTORY = 2,
  RECORD_SUMMARY = 3,
  RECORD_FILES = 6,
  RECORD_METRIC = 12,
  RECORD_RUN = 17,
  RECORD_EXIT = 18,
  RECORD_HEADER = 21,
  HEADER_VERSION = 1,
  VERSION_PRODUCER = 1,
  VERSION_MIN_CONSUMER = 2,
  RUN_ID = 1,
  RUN_PROJECT = 3,
  RUN_CONFIG = 4,
  RUN_GROUP = 6,
  RUN_DISPLAY_NAME = 8,
  RUN_START_TIME = 17,
  TIMESTAMP_SECONDS = 1,
  TIMESTAMP_NANOS = 2,
  METRIC_NAME = 1,
  METRIC_GLOB = 2,
  METRIC_STEP = 4,
  METRIC_OPTIONS = 6,
  OPTIONS_STEP_SYNC = 1,
  OPTIONS_DEFINED = 3,
  FILES_FILE = 1,
  FILE_PATH = 1,
  FILE_TYPE = 3,
  HISTORY_STEP = 2,
  STEP_NUM = 1,
  EXIT_CODE = 1,
  EXIT_RUNTIME = 2,
  /* Of configuration, history and summary alike. */
  ITEMS = 1,
  ITEM_KEY = 1,
  ITEM_NESTED_KEY = 2,
  ITEM_JSON = 16,
};

typedef struct {
  FluxReporter base;
  FluxWandbLog log;
  gint64 start; /* microseconds of the epoch */
  guint64 n_records, n_rows;
  JsonObject *summary; /* the last value of each */
} Wandb;

/* ---- records ---- */

/* Takes content. */
static gboolean
write_record (Wandb *self, guint type, GByteArray *content, GError **error)
{
  GByteArray *record = g_byte_array_new ();
  gboolean ok;

  flux_chunk_uint (record, RECORD_NUM, ++self->n_records);
  flux_chunk_message (record, type, content);
  ok = flux_wandb_log_append (&self->log, record, error);
  g_byte_array_unref (record);
  return ok;
}

/* JSON has no NaN; these strings are wandb's (util.make_safe_for_json). */
static JsonNode *
number_node (double value)
{
  if (isnan (value))
    return json_node_init_string (json_node_alloc (), "NaN");
  if (isinf (value))
    return json_node_init_string (
        json_node_alloc (), value > 0 ? "Infinity" : "-Infinity");
  if (fabs (value) < 0x1p53 && value == trunc (value))
    return json_node_init_int (json_node_alloc (), (gint64)value);
  return json_node_init_double (json_node_alloc (), value);
}

static JsonNode *
text_node (const char *text)
{
  return json_node_init_string (json_node_alloc (), text);
}

/* ---- rows ---- */

/* An item of history and summary, which are the same bytes. sub: NULL or a name below
 * name. Takes value. */
static void
add_item (
    Wandb *self, GByteArray *items, const char *name, const char *sub, JsonNode *value)
{
  GByteArray *item = g_byte_array_new ();
  char *json = json_to_string (value, FALSE);

  flux_chunk_string (item, ITEM_NESTED_KEY, name);
  if (sub != NULL)
    flux_chunk_string (item, ITEM_NESTED_KEY, sub);
  flux_chunk_string (item, ITEM_JSON, json);
  flux_chunk_message (items, ITEMS, item);
  g_free (json);
  if (sub == NULL) {
    json_object_set_member (self->summary, name, value);
    return;
  }
  if (!json_object_has_member (self->summary, name))
    json_object_set_object_member (self->summary, name, json_object_new ());
  json_object_set_member (
      json_object_get_object_member (self->summary, name), sub, value);
}

static double
runtime (const Wandb *self)
{
  return (double)MAX (g_get_real_time () - self->start, 0) / G_USEC_PER_SEC;
}

static GByteArray *
begin_row (Wandb *self, guint64 step)
{
  GByteArray *items = g_byte_array_new ();

  add_item (self, items, "_step", NULL, number_node ((double)self->n_rows));
  add_item (self, items, "_timestamp", NULL,
      number_node ((double)g_get_real_time () / G_USEC_PER_SEC));
  add_item (self, items, "_runtime", NULL, number_node (runtime (self)));
  add_item (self, items, STEP_METRIC, NULL, number_node ((double)step));
  return items;
}

/* Takes items. */
static gboolean
end_row (Wandb *self, GByteArray *items, GError **error)
{
  GByteArray *summary = g_byte_array_new (), *step = g_byte_array_new ();

  g_byte_array_append (summary, items->data, items->len);
  flux_chunk_uint (step, STEP_NUM, self->n_rows++);
  flux_chunk_message (items, HISTORY_STEP, step);
  if (write_record (self, RECORD_HISTORY, items, error))
    return write_record (self, RECORD_SUMMARY, summary, error);
  g_byte_array_unref (summary);
  return FALSE;
}

static gboolean
wandb_step (FluxReporter *base, const FluxReportStep *step, GError **error)
{
  Wandb *self = (Wandb *)base;
  FluxReportScalar scalars[FLUX_REPORT_N_SCALARS];
  guint n = flux_report_scalars (step, scalars);
  GByteArray *items = begin_row (self, step->step);

  for (guint i = 0; i < n; i++)
    add_item (self, items, scalars[i].name, NULL, number_node (scalars[i].value));
  return end_row (self, items, error);
}

static gboolean
wandb_paired_loss (FluxReporter *base, guint64 step, double loss, GError **error)
{
  Wandb *self = (Wandb *)base;
  GByteArray *items = begin_row (self, step);

  add_item (self, items, FLUX_REPORT_PAIRED_LOSS, NULL, number_node (loss));
  return end_row (self, items, error);
}

/* ---- files ---- */

static gboolean
announce_file (Wandb *self, const char *path, guint type, GError **error)
{
  GByteArray *files = g_byte_array_new (), *file = g_byte_array_new ();

  flux_chunk_string (file, FILE_PATH, path);
  if (type != 0)
    flux_chunk_uint (file, FILE_TYPE, type);
  flux_chunk_message (files, FILES_FILE, file);
  return write_record (self, RECORD_FILES, files, error);
}

/* What wandb lets names of metrics and files have. */
static char *
slug_of (const char *prompt)
{
  char *slug = g_strndup (prompt[0] != '\0' ? prompt : "_", MAX_SLUG);

  for (char *c = slug; *c != '\0'; c++)
    if (!g_ascii_isalnum (*c))
      *c = '_';
  return slug;
}

/* wandb/sdk/data_types/image.py: to_json. */
static gboolean
wandb_image (FluxReporter *base, const FluxReportImage *image, GError **error)
{
  Wandb *self = (Wandb *)base;
  const FluxReportPicture *p = image->picture;
  g_autofree char *slug = slug_of (p->prompt);
  g_autofree char *key = g_strconcat ("samples/", slug, NULL);
  g_autofree char *sha256 = g_compute_checksum_for_bytes (G_CHECKSUM_SHA256, image->png);
  g_autofree char *path = g_strdup_printf (
      "media/images/%s_%" G_GUINT64_FORMAT "_%.20s.png", key, self->n_rows, sha256);
  g_autofree char *full = g_build_filename (base->location, "files", path, NULL);
  FluxReportFile file;
  GByteArray *items;
  gsize size;
  gconstpointer png = g_bytes_get_data (image->png, &size);
  gboolean ok;

  if (!flux_report_file_open (&file, full, error))
    return FALSE;
  ok = flux_report_file_write (&file, png, size, error);
  flux_report_file_close (&file);
  if (!ok || !announce_file (self, path, 0, error))
    return FALSE;
  items = begin_row (self, p->step);
  add_item (self, items, key, "_type", text_node ("image-file"));
  add_item (self, items, key, "sha256", text_node (sha256));
  add_item (self, items, key, "size", number_node ((double)size));
  add_item (self, items, key, "path", text_node (path));
  add_item (self, items, key, "format", text_node ("png"));
  add_item (self, items, key, "width", number_node (p->width));
  add_item (self, items, key, "height", number_node (p->height));
  add_item (self, items, key, "caption", text_node (p->prompt));
  return end_row (self, items, error);
}

static gboolean
replace_file (Wandb *self, const char *name, const char *text, gsize n, GError **error)
{
  g_autofree char *path = g_build_filename (self->base.location, "files", name, NULL);

  return flux_file_replace (path, text, n, error);
}

static gboolean
write_metadata (Wandb *self, GError **error)
{
  static const char name[] = "wandb-metadata.json";
  g_autoptr (GDateTime) start =
      g_date_time_new_from_unix_utc (self->start / G_USEC_PER_SEC);
  g_autofree char *started = g_date_time_format_iso8601 (start), *text = NULL;
  JsonBuilder *b = json_builder_new ();
  gsize n;

  json_builder_begin_object (b);
  json_builder_set_member_name (b, "program");
  json_builder_add_string_value (b, PACKAGE " " VERSION);
  json_builder_set_member_name (b, "startedAt");
  json_builder_add_string_value (b, started);
  json_builder_end_object (b);
  text = flux_report_json_end (b, &n);
  return replace_file (self, name, text, n, error) &&
         announce_file (self, name, 1 /* WANDB */, error);
}

/* ---- beginning and end ---- */

static gboolean
write_header (Wandb *self, GError **error)
{
  GByteArray *header = g_byte_array_new (), *version = g_byte_array_new ();

  flux_chunk_string (version, VERSION_PRODUCER, PACKAGE " " VERSION);
  flux_chunk_string (version, VERSION_MIN_CONSUMER, "0.40.0");
  flux_chunk_message (header, HEADER_VERSION, version);
  return write_record (self, RECORD_HEADER, header, error);
}

/* The record's config, and the same as config.yaml: JSON is YAML. */
static GByteArray *
make_config (const FluxReportConfig *config, GString *yaml)
{
  GByteArray *to = g_byte_array_new ();

  for (guint i = 0; i < config->n_settings; i++) {
    const FluxReportSetting *s = &config->settings[i];
    JsonNode *node = s->text != NULL ? text_node (s->text) : number_node (s->number);
    char *json = json_to_string (node, FALSE);
    GByteArray *item = g_byte_array_new ();

    flux_chunk_string (item, ITEM_KEY, s->name);
    flux_chunk_string (item, ITEM_JSON, json);
    flux_chunk_message (to, ITEMS, item);
    g_string_append_printf (yaml, "%s:\n    value: %s\n", s->name, json);
    g_free (json);
    json_node_unref (node);
  }
  return to;
}

static gboolean
write_run (Wandb *self, const FluxReportRun *run, GError **error)
{
  const char *name = run->config->name;
  GByteArray *record = g_byte_array_new (), *time = g_byte_array_new ();
  GString *yaml = g_string_new (NULL);
  gboolean ok;

  flux_chunk_string (record, RUN_ID, run->id);
  flux_chunk_string (record, RUN_PROJECT, PACKAGE);
  flux_chunk_message (record, RUN_CONFIG, make_config (run->config, yaml));
  if (name != NULL) {
    flux_chunk_string (record, RUN_GROUP, name);
    flux_chunk_string (record, RUN_DISPLAY_NAME, name);
  }
  flux_chunk_uint (time, TIMESTAMP_SECONDS, (guint64)(self->start / G_USEC_PER_SEC));
  flux_chunk_uint (time, TIMESTAMP_NANOS, (guint64)(self->start % G_USEC_PER_SEC) * 1000);
  flux_chunk_message (record, RUN_START_TIME, time);
  ok = write_record (self, RECORD_RUN, record, error) &&
       replace_file (self, "config.yaml", yaml->str, yaml->len, error);
  g_string_free (yaml, TRUE);
  return ok;
}

/* Every metric, and the one that is the axis of all others. */
static gboolean
write_metrics (Wandb *self, GError **error)
{
  GByteArray *axis = g_byte_array_new (), *all = g_byte_array_new ();
  GByteArray *defined = g_byte_array_new (), *synced = g_byte_array_new ();

  flux_chunk_uint (defined, OPTIONS_DEFINED, 1);
  flux_chunk_string (axis, METRIC_NAME, STEP_METRIC);
  flux_chunk_message (axis, METRIC_OPTIONS, defined);
  flux_chunk_uint (synced, OPTIONS_STEP_SYNC, 1);
  flux_chunk_uint (synced, OPTIONS_DEFINED, 1);
  flux_chunk_string (all, METRIC_GLOB, "*");
  flux_chunk_string (all, METRIC_STEP, STEP_METRIC);
  flux_chunk_message (all, METRIC_OPTIONS, synced);
  if (write_record (self, RECORD_METRIC, axis, error))
    return write_record (self, RECORD_METRIC, all, error);
  g_byte_array_unref (all);
  return FALSE;
}

/* What these say is not worth a message. */
static void
write_end (Wandb *self, gboolean finished)
{
  GByteArray *items = g_byte_array_new (), *end = g_byte_array_new ();
  const double seconds = floor (runtime (self));
  JsonNode *summary = json_node_new (JSON_NODE_OBJECT);
  char *json;

  add_item (self, items, "_wandb", "runtime", number_node (seconds));
  write_record (self, RECORD_SUMMARY, items, NULL);
  flux_chunk_uint (end, EXIT_CODE, finished ? 0 : 1);
  flux_chunk_uint (end, EXIT_RUNTIME, (guint64)seconds);
  write_record (self, RECORD_EXIT, end, NULL);
  json_node_set_object (summary, self->summary);
  json = json_to_string (summary, FALSE);
  replace_file (self, "wandb-summary.json", json, strlen (json), NULL);
  g_free (json);
  json_node_unref (summary);
}

static void
wandb_free (FluxReporter *base, gboolean finished)
{
  Wandb *self = (Wandb *)base;

  write_end (self, finished);
  flux_wandb_log_close (&self->log);
  json_object_unref (self->summary);
}

static gboolean
make_folder (Wandb *self, const char *name, GError **error)
{
  g_autofree char *path = g_build_filename (self->base.location, name, NULL);

  if (g_mkdir (path, 0777) == 0)
    return TRUE;
  flux_error_from_errno (
      error, FLUX_ERROR_WRITE, errno, "Could not create the folder of a report", path);
  return FALSE;
}

FluxReporter *
flux_report_wandb_new (const FluxReportRun *run, GError **error)
{
  Wandb *self = g_new0 (Wandb, 1);
  g_autofree char *folder = g_strconcat ("offline-run-", run->run, NULL);
  g_autofree char *name = g_strdup_printf ("run-%s.wandb", run->id), *path = NULL;

  self->base.location = g_build_filename (run->config->folder, "wandb", folder, NULL);
  self->base.step = wandb_step;
  self->base.paired_loss = wandb_paired_loss;
  self->base.image = wandb_image;
  self->base.free = wandb_free;
  self->start = g_get_real_time ();
  self->summary = json_object_new ();
  path = g_build_filename (self->base.location, name, NULL);
  if (flux_wandb_log_open (&self->log, path, error) &&
      make_folder (self, "files", error) && make_folder (self, "logs", error) &&
      write_header (self, error) && write_run (self, run, error) &&
      write_metrics (self, error) && write_metadata (self, error))
    return &self->base;
  flux_wandb_log_close (&self->log);
  json_object_unref (self->summary);
  g_free (self->base.location);
  g_free (self);
  return NULL;
}
