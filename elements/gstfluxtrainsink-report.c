/* gstfluxtrainsink-report.c: what report-to asks for, and who else is told.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <stdio.h>
#include <unistd.h>

#include "elements/gstfluxtrainsink-private.h"

#define GST_CAT_DEFAULT gst_flux_train_sink_debug

static const GFlagsValue formats[] = {
    {FLUX_REPORT_JSONL, "A file with a line of JSON a step", "jsonl"},
    {FLUX_REPORT_TENSORBOARD, "An event file of TensorBoard", "tensorboard"},
    {FLUX_REPORT_WANDB, "A folder that wandb sync uploads", "wandb"},
    {FLUX_REPORT_HTTP, "A page with curves, pictures and buttons, while training runs",
        "http"},
    {0, NULL, NULL},
};

GType
gst_flux_report_to_get_type (void)
{
  static gsize type = 0;

  if (g_once_init_enter (&type))
    g_once_init_leave (&type, g_flags_register_static ("GstFluxReportTo", formats));
  return (GType)type;
}

/* A report that fails takes nothing along. Takes error. */
static void
warn (GstFluxTrainSink *self, GError *error)
{
  g_prefix_error (&error, "Training goes on without this report. ");
  gst_flux_post_warning (self, error);
}

/* ---- beginning and end ---- */

static gchar *
reports_folder (GstFluxTrainSink *self)
{
  g_autofree gchar *beside = NULL;

  if (self->report_dir != NULL)
    return g_strdup (self->report_dir);
  if (self->location == NULL)
    return g_build_filename (self->output, "reports", NULL);
  if (!g_str_has_suffix (self->location, ".safetensors"))
    return g_build_filename (self->location, "reports", NULL);
  beside = g_path_get_dirname (self->location);
  return g_build_filename (beside, "reports", NULL);
}

/* What is trained has the name of its file, or of the folder of a file that is always
 * called the same. */
static gchar *
run_name (GstFluxTrainSink *self)
{
  g_autofree gchar *path = gst_flux_train_sink_get_lora_path (self);
  gchar *name = g_path_get_basename (path);

  if (strcmp (name, FLUX_LORA_FILE) == 0) {
    g_autofree gchar *folder = g_path_get_dirname (path);

    g_free (name);
    return g_path_get_basename (folder);
  }
  name[strlen (name) - strlen (".safetensors")] = '\0';
  return name;
}

gboolean
gst_flux_train_sink_is_setting (const GParamSpec *spec)
{
  return (spec->flags & G_PARAM_READWRITE) == G_PARAM_READWRITE &&
         spec->owner_type == GST_TYPE_FLUX_TRAIN_SINK &&
         strcmp (spec->name, "paused") != 0;
}

/* FALSE: it has no value. */
static gboolean
setting_of (GstFluxTrainSink *self, GParamSpec *spec, FluxReportSetting *s)
{
  GValue value = G_VALUE_INIT, number = G_VALUE_INIT;
  gboolean has = TRUE;

  s->name = spec->name;
  s->text = NULL;
  g_value_init (&value, spec->value_type);
  g_value_init (&number, G_TYPE_DOUBLE);
  g_object_get_property (G_OBJECT (self), spec->name, &value);
  if (G_VALUE_HOLDS_STRING (&value))
    has = (s->text = g_value_dup_string (&value)) != NULL;
  else if (G_VALUE_HOLDS_ENUM (&value) || G_VALUE_HOLDS_FLAGS (&value) ||
           G_VALUE_HOLDS_BOOLEAN (&value) || !g_value_transform (&value, &number))
    has = (s->text = gst_value_serialize (&value)) != NULL;
  else
    s->number = g_value_get_double (&number);
  g_value_unset (&value);
  g_value_unset (&number);
  return has;
}

static GArray *
collect_settings (GstFluxTrainSink *self)
{
  GArray *settings = g_array_new (FALSE, TRUE, sizeof (FluxReportSetting));
  guint n;
  GParamSpec **specs = g_object_class_list_properties (G_OBJECT_GET_CLASS (self), &n);

  for (guint i = 0; i < n; i++) {
    FluxReportSetting s = {0};

    if (gst_flux_train_sink_is_setting (specs[i]) && setting_of (self, specs[i], &s))
      g_array_append_val (settings, s);
  }
  g_free (specs);
  return settings;
}

static void
free_settings (GArray *settings)
{
  for (guint i = 0; i < settings->len; i++)
    g_free ((gchar *)g_array_index (settings, FluxReportSetting, i).text);
  g_array_unref (settings);
}

/* A button of the page was pressed; in its thread, which a change of state waits for. */
static void
take_command (FluxReportCommand command, gpointer data)
{
  GstFluxTrainSink *self = data;

  switch (command) {
    case FLUX_REPORT_PAUSE:
    case FLUX_REPORT_RESUME:
      GST_OBJECT_LOCK (self);
      self->paused = command == FLUX_REPORT_PAUSE;
      g_cond_signal (&self->unpaused);
      GST_OBJECT_UNLOCK (self);
      break;
    case FLUX_REPORT_SAVE:
      g_atomic_int_set (&self->want_checkpoint, TRUE);
      break;
    case FLUX_REPORT_STOP:
      gst_flux_train_sink_end_early (self);
      break;
  }
}

/* To the one who trains, with the token; not by GST_ELEMENT_INFO, which logs. The debug
 * string is what gst-launch-1.0 prints, and what logs of messages have: without. */
static void
announce_page (GstFluxTrainSink *self)
{
  const gchar *url = flux_report_get_location (self->report, FLUX_REPORT_HTTP);
  const gchar *token = flux_report_get_token (self->report);
  GError *info =
      g_error_new (GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "Follow it at %s%s%s",
          url, token != NULL ? "?token=" : "", token != NULL ? token : "");
  g_autofree gchar *debug = g_strdup_printf ("Follow it at %s%s", url,
      token != NULL ? " with its token (set http-token to know it)" : "");

  gst_element_post_message (
      GST_ELEMENT (self), gst_message_new_info (GST_OBJECT (self), info, debug));
  g_error_free (info);
}

static void
announce (GstFluxTrainSink *self)
{
  for (const GFlagsValue *f = formats; f->value_nick != NULL; f++) {
    const gchar *location =
        flux_report_get_location (self->report, (FluxReportTo)f->value);

    if (location == NULL)
      continue;
    GST_INFO_OBJECT (self, "%s report: %s", f->value_nick, location);
    gst_element_post_message (GST_ELEMENT (self),
        gst_message_new_element (GST_OBJECT (self),
            gst_structure_new ("flux-report", "format", G_TYPE_STRING, f->value_nick,
                "location", G_TYPE_STRING, location, NULL)));
    if (f->value == FLUX_REPORT_HTTP)
      announce_page (self);
  }
}

static gboolean
start_report (GstFluxTrainSink *self, GError **error)
{
  FluxReportConfig config = {0};
  g_autofree gchar *folder = NULL, *name = NULL;
  GArray *settings;

  if (self->report_to == 0)
    return TRUE;
  folder = reports_folder (self);
  settings = collect_settings (self);
  config.to = (FluxReportTo)self->report_to;
  name = run_name (self);
  config.folder = folder;
  config.name = name;
  config.settings = (const FluxReportSetting *)(gpointer)settings->data;
  config.n_settings = settings->len;
  config.http.address = self->http_address != NULL ? self->http_address : "localhost";
  config.http.port = self->http_port;
  config.http.token = self->http_token;
  config.http.command = take_command;
  config.http.data = self;
  self->report = flux_report_new (&config, error);
  free_settings (settings);
  if (self->report == NULL)
    return FALSE;
  announce (self);
  return TRUE;
}

static void
end_report (GstFluxTrainSink *self)
{
  if (self->report != NULL)
    flux_report_free (self->report, self->state == STATE_FINISHED);
  self->report = NULL;
}

/* ---- events ---- */

/* Of /proc/self/statm: pages in main memory; 0 where there is none. */
static guint64
resident_bytes (void)
{
  FILE *f = fopen ("/proc/self/statm", "re");
  unsigned long pages = 0;
  long page = sysconf (_SC_PAGESIZE);
  gchar line[128] = "";
  gchar **fields;

  if (f == NULL)
    return 0;
  if (fgets (line, sizeof line, f) != NULL) {
    fields = g_strsplit (line, " ", 3);
    if (fields[0] != NULL && fields[1] != NULL)
      pages = strtoul (fields[1], NULL, 10);
    g_strfreev (fields);
  }
  fclose (f);
  return page > 0 ? (guint64)pages * (guint64)page : 0;
}

void
gst_flux_train_sink_report_step (GstFluxTrainSink *self, const FluxStepResult *result,
    FluxSample *const *samples, guint n)
{
  FluxReportStep s = {0};
  GError *error = NULL;

  if (self->report == NULL)
    return;
  s.step = result->step;
  s.max_steps = gst_flux_train_sink_get_max_steps (self);
  s.epoch = self->epoch;
  s.loss = result->loss;
  s.learning_rate = result->learning_rate;
  s.grad_norm = result->grad_norm;
  s.seconds = (gdouble)self->step_time / GST_SECOND;
  s.images = n;
  for (guint i = 0; i < n; i++)
    s.tokens += (guint64)samples[i]->text_tokens +
                (guint64)(samples[i]->width / 2) * (guint64)(samples[i]->height / 2);
  s.memory = resident_bytes ();
  if (!flux_report_step (self->report, &s, &error))
    warn (self, error);
}

void
gst_flux_train_sink_report_paired_loss (
    GstFluxTrainSink *self, guint64 step, gdouble loss)
{
  GError *error = NULL;

  if (self->report != NULL && !flux_report_paired_loss (self->report, step, loss, &error))
    warn (self, error);
}

void
gst_flux_train_sink_report_state (GstFluxTrainSink *self, const gchar *state)
{
  if (self->report != NULL)
    flux_report_state (self->report, state);
}

void
gst_flux_train_sink_report_saved (GstFluxTrainSink *self, guint64 step)
{
  if (self->report != NULL)
    flux_report_saved (self->report, step);
}

static void
report_picture (GstFluxTrainSink *self, const FluxReportPicture *picture)
{
  GError *error = NULL;

  if (self->report != NULL && !flux_report_picture (self->report, picture, &error))
    warn (self, error);
}

/* ---- all who tell of the training ---- */

/* Of a preview, in its thread. */
static void
take_picture (guint64 step, const gchar *prompt, const guint8 *rgb, guint width,
    guint height, guint stride, gpointer data)
{
  FluxReportPicture picture = {step, prompt, rgb, width, height, stride};

  report_picture (data, &picture);
  gst_flux_train_sink_note_picture (data, &picture);
}

/* Who tells of the training: reports and the card of what is pushed. */
void
gst_flux_train_sink_end_telling (GstFluxTrainSink *self)
{
  if (self->report != NULL || self->card != NULL)
    gst_flux_training_set_picture_func (self->training, NULL, NULL);
  end_report (self);
  gst_flux_train_sink_end_push (self);
}

gboolean
gst_flux_train_sink_start_telling (GstFluxTrainSink *self, GError **error)
{
  if (!start_report (self, error) || !gst_flux_train_sink_start_push (self, error)) {
    gst_flux_train_sink_end_telling (self);
    return FALSE;
  }
  if (self->report != NULL || self->card != NULL)
    gst_flux_training_set_picture_func (self->training, take_picture, self);
  return TRUE;
}
