/* flux/report/jsonl.c: a line of JSON a step. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "flux/report/report-private.h"

typedef struct {
  FluxReporter base;
  FluxReportFile file;
} Jsonl;

static gboolean
write_line (Jsonl *self, JsonBuilder *b, GError **error)
{
  gsize length;
  char *line = flux_report_json_end (b, &length);
  gboolean ok;

  line[length] = '\n'; /* in place of the NUL: one write() a line */
  ok = flux_report_file_write (&self->file, line, length + 1, error);
  g_free (line);
  return ok;
}

static gboolean
jsonl_step (FluxReporter *base, const FluxReportStep *step, GError **error)
{
  JsonBuilder *b = json_builder_new ();

  json_builder_begin_object (b);
  flux_report_json_step (b, step);
  json_builder_end_object (b);
  return write_line ((Jsonl *)base, b, error);
}

static gboolean
jsonl_paired_loss (FluxReporter *base, guint64 step, double loss, GError **error)
{
  JsonBuilder *b = json_builder_new ();

  json_builder_begin_object (b);
  flux_report_json_integer (b, "step", step);
  flux_report_json_number (b, "paired_loss", loss);
  json_builder_end_object (b);
  return write_line ((Jsonl *)base, b, error);
}

static void
jsonl_free (FluxReporter *base, gboolean finished)
{
  Jsonl *self = (Jsonl *)base;

  (void)finished;
  flux_report_file_close (&self->file);
}

FluxReporter *
flux_report_jsonl_new (const FluxReportRun *run, GError **error)
{
  Jsonl *self = g_new0 (Jsonl, 1);
  g_autofree char *name = g_strconcat (run->run, ".jsonl", NULL);

  self->base.location = g_build_filename (run->config->folder, name, NULL);
  self->base.step = jsonl_step;
  self->base.paired_loss = jsonl_paired_loss;
  self->base.free = jsonl_free;
  if (flux_report_file_open (&self->file, self->base.location, error))
    return &self->base;
  g_free (self->base.location);
  g_free (self);
  return NULL;
}
