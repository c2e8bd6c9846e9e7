/* pipelines/gst-flux.c: runs a pipeline file and shows how far it is.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *   gst-flux [OPTIONS] PIPELINE [element.property=value | property=value ...]
 *
 * PIPELINE is a launch line in a file, or the name of one that is installed (train,
 * sample, ...). The same files work with gst-launch-1.0 -e $(cat FILE). */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <errno.h>
#include <glib-unix.h>
#include <gst/gst.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pipelines/find.h"
#include "pipelines/overrides.h"
#include "pipelines/progress.h"
#include "pipelines/pull.h"
#include "pipelines/push.h"

typedef struct {
  GstElement *pipeline;
  GMainLoop *loop;
  GstFluxProgress progress;
  FILE *log; /* one JSON object a flux-step, or NULL */
  const char *log_path;
  guint n_signals, n_saved; /* Ctrl-C, flux-checkpoint */
  GstElement *trainer;      /* or NULL */
  gboolean ends;            /* another sink has failed, and the trainer saves */
  gboolean is_final;        /* it has saved the adapter; it may be pushing it */
  gint n_arrived;           /* atomic: sinks that have had something */
  gint status;
} Runner;

static void
say (Runner *self, const char *text)
{
  gst_flux_progress_break (&self->progress);
  fprintf (stderr, "%s\n", text);
}

static gboolean
trainer_is (Runner *self, const char *nick)
{
  GValue value = G_VALUE_INIT;
  gboolean is;

  g_object_get_property (G_OBJECT (self->trainer), "state", &value);
  is = strcmp (g_enum_get_value (
                   g_type_class_peek (G_VALUE_TYPE (&value)), g_value_get_enum (&value))
                   ->value_nick,
           nick) == 0;
  g_value_unset (&value);
  return is;
}

/* First: finish the step, save, end. Second: stop now; what is saved stays. */
static gboolean
on_signal (gpointer data)
{
  Runner *self = data;

  if (self->n_signals++ == 0) {
    say (self, "Stopping and saving (once more to stop at once).");
    gst_element_send_event (self->pipeline, gst_event_new_eos ());
  } else {
    self->status = 130;
    g_main_loop_quit (self->loop);
  }
  return G_SOURCE_CONTINUE;
}

/* A full disk is told once, and takes nothing along. */
static void
end_log (Runner *self, gboolean failed)
{
  int fault = errno;
  g_autofree char *line = NULL;

  if (self->log == NULL)
    return;
  if (fclose (self->log) != 0 && !failed) {
    fault = errno;
    failed = TRUE;
  }
  self->log = NULL;
  if (!failed)
    return;
  line = g_strdup_printf (
      "Could not write '%s', which ends here: %s.", self->log_path, g_strerror (fault));
  say (self, line);
}

static void
log_step (Runner *self, const GstStructure *s)
{
  guint64 step = 0;
  double loss = 0, learning_rate = 0, grad_norm = 0;
  char number[3][G_ASCII_DTOSTR_BUF_SIZE];

  if (self->log == NULL || s == NULL || !gst_structure_has_name (s, "flux-step"))
    return;
  gst_structure_get_uint64 (s, "step", &step);
  gst_structure_get_double (s, "loss", &loss);
  gst_structure_get_double (s, "learning-rate", &learning_rate);
  gst_structure_get_double (s, "grad-norm", &grad_norm);
  if (fprintf (self->log,
          "{\"step\": %" G_GUINT64_FORMAT
          ", \"loss\": %s, \"learning_rate\": %s, \"grad_norm\": %s}\n",
          step, g_ascii_dtostr (number[0], sizeof number[0], loss),
          g_ascii_dtostr (number[1], sizeof number[1], learning_rate),
          g_ascii_dtostr (number[2], sizeof number[2], grad_norm)) < 0 ||
      fflush (self->log) != 0)
    end_log (self, TRUE);
}

/* The window with the previews was closed, or their disk is full: what is trained is not
 * lost for that. */
static gboolean
is_of_another_sink (Runner *self, GstObject *source)
{
  return source != GST_OBJECT (self->trainer) && GST_IS_ELEMENT (source) &&
         GST_OBJECT_FLAG_IS_SET (source, GST_ELEMENT_FLAG_SINK);
}

static void
on_error (Runner *self, GstMessage *message)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *debug = NULL, *line = NULL;

  if (self->ends && GST_MESSAGE_SRC (message) != GST_OBJECT (self->trainer))
    return; /* what follows from the first */
  gst_message_parse_error (message, &error, &debug);
  line = g_strdup_printf (
      "%s: %s", GST_OBJECT_NAME (GST_MESSAGE_SRC (message)), error->message);
  say (self, line);
  if (debug != NULL && g_getenv ("GST_DEBUG") != NULL)
    say (self, debug);
  self->status = 1;
  if (self->trainer != NULL && is_of_another_sink (self, GST_MESSAGE_SRC (message)) &&
      trainer_is (self, "training")) {
    self->ends = TRUE;
    if (self->n_signals == 0 && !self->is_final)
      on_signal (self);
  } else {
    g_main_loop_quit (self->loop);
  }
}

/* The pipeline will never be at EOS when a sink has failed. */
static void
on_trainer_state (Runner *self)
{
  if (self->ends && !trainer_is (self, "training"))
    g_main_loop_quit (self->loop);
}

static void
on_warning (Runner *self, GstMessage *message)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *line = NULL;

  gst_message_parse_warning (message, &error, NULL);
  line = g_strdup_printf (
      "Warning from %s: %s", GST_OBJECT_NAME (GST_MESSAGE_SRC (message)), error->message);
  say (self, line);
}

/* Such as the address of the training's page. */
static void
on_info (Runner *self, GstMessage *message)
{
  g_autoptr (GError) error = NULL;

  gst_message_parse_info (message, &error, NULL);
  say (self, error->message);
}

static GstPadProbeReturn
on_buffer (GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  (void)pad, (void)info;
  g_atomic_int_inc (&((Runner *)data)->n_arrived);
  return GST_PAD_PROBE_REMOVE; /* one is enough */
}

/* A trainer has what it has saved; other sinks what they have taken. */
static void
watch_sinks (Runner *self)
{
  GstIterator *it = gst_bin_iterate_sinks (GST_BIN (self->pipeline));
  GValue item = G_VALUE_INIT;

  while (gst_iterator_next (it, &item) == GST_ITERATOR_OK) {
    GstElement *sink = g_value_get_object (&item);
    g_autoptr (GstPad) pad = gst_element_get_static_pad (sink, "sink");

    if (g_object_class_find_property (G_OBJECT_GET_CLASS (sink), "resume-from") != NULL)
      self->trainer = sink; /* the pipeline holds it */
    else if (pad != NULL)
      gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, on_buffer, self, NULL);
    g_value_reset (&item);
  }
  g_value_unset (&item);
  gst_iterator_free (it);
}

/* After Ctrl-C: nothing has come of it, and the exit status says so too. */
static void
tell_if_nothing_saved (Runner *self)
{
  gboolean has_result = self->n_saved > 0 || (self->trainer == NULL &&
                                                 g_atomic_int_get (&self->n_arrived) > 0);

  if (self->n_signals == 0 || self->status != 0 || has_result)
    return;
  say (self, "Stopped before there was anything to save.");
  self->status = 130;
}

static void
on_checkpoint (Runner *self, const GstStructure *s)
{
  gboolean is_final = FALSE;

  gst_structure_get_boolean (s, "final", &is_final);
  self->is_final |= is_final;
  self->n_saved++;
}

static gboolean
on_message (GstBus *bus, GstMessage *message, gpointer data)
{
  Runner *self = data;

  switch (GST_MESSAGE_TYPE (message)) {
    case GST_MESSAGE_EOS:
      g_main_loop_quit (self->loop);
      break;
    case GST_MESSAGE_ERROR:
      on_error (self, message);
      break;
    case GST_MESSAGE_WARNING:
      on_warning (self, message);
      break;
    case GST_MESSAGE_PROPERTY_NOTIFY:
      on_trainer_state (self);
      break;
    case GST_MESSAGE_INFO:
      on_info (self, message);
      break;
    default:
      if (gst_message_has_name (message, "flux-checkpoint"))
        on_checkpoint (self, gst_message_get_structure (message));
      log_step (self, gst_message_get_structure (message));
      gst_flux_progress_message (&self->progress, message);
      break;
  }
  return G_SOURCE_CONTINUE;
}

static GstElement *
build (char **words, GError **error)
{
  g_autofree char *text = gst_flux_pipelines_read (words[0], error);
  g_autoptr (GstElement) pipeline = NULL;

  if (text == NULL)
    return NULL;
  pipeline = gst_parse_launch_full (text, NULL, GST_PARSE_FLAG_FATAL_ERRORS, error);
  if (pipeline == NULL)
    return NULL;
  gst_object_ref_sink (pipeline);
  if (!GST_IS_PIPELINE (pipeline)) {
    g_set_error (error, GST_PARSE_ERROR, GST_PARSE_ERROR_EMPTY,
        "'%s' holds a single element, not a pipeline.", words[0]);
    return NULL;
  }
  for (guint i = 1; words[i] != NULL; i++) {
    if (!gst_flux_override (GST_BIN (pipeline), words[i], error))
      return NULL;
  }
  return g_steal_pointer (&pipeline);
}

static void
run (Runner *self)
{
  GstBus *bus = gst_element_get_bus (self->pipeline);
  guint sigint, sigterm;

  self->loop = g_main_loop_new (NULL, FALSE);
  gst_flux_progress_init (&self->progress, STDERR_FILENO);
  gst_bus_add_watch (bus, on_message, self);
  watch_sinks (self);
  if (self->trainer != NULL)
    gst_element_add_property_notify_watch (self->trainer, "state", FALSE);
  sigint = g_unix_signal_add (SIGINT, on_signal, self);
  sigterm = g_unix_signal_add (SIGTERM, on_signal, self);

  if (gst_element_set_state (self->pipeline, GST_STATE_PLAYING) ==
      GST_STATE_CHANGE_FAILURE)
    self->status = 1; /* the element has posted why: the loop shows it and ends */
  g_main_loop_run (self->loop);

  gst_element_set_state (self->pipeline, GST_STATE_NULL);
  gst_flux_progress_break (&self->progress);
  g_source_remove (sigint);
  g_source_remove (sigterm);
  gst_bus_remove_watch (bus);
  gst_object_unref (bus);
  g_main_loop_unref (self->loop);
}

/* "gst-flux pull --help" */
static gboolean
wants_help (int argc, char **argv, const char *command)
{
  gboolean wants = FALSE;

  for (int i = 2; i < argc; i++)
    wants |= strcmp (argv[i], "--help") == 0 || strcmp (argv[i], "-h") == 0;
  return wants && strcmp (argv[1], command) == 0;
}

/* What --help says below the options. */
static char *
describe (void)
{
  g_autofree char *folder = gst_flux_pipelines_folder ();
  g_autofree char *names = gst_flux_pipelines_names (folder);

  return g_strdup_printf ("Pipelines in %s:\n  %s\n\n"
                          "\"gst-flux pull --help\" and \"gst-flux push --help\" say "
                          "more of those; \"man gst-flux\" of all.",
      folder, names[0] != '\0' ? names : "none");
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *log = NULL, *description = describe ();
  g_auto (GStrv) words = NULL;
  gboolean version = FALSE;
  GOptionEntry entries[] = {{"log", 'l', 0, G_OPTION_ARG_FILENAME, &log,
                                "Write each step's loss, learning rate and gradient norm "
                                "to FILE, one JSON object a line",
                                "FILE"},
      {"version", 'v', 0, G_OPTION_ARG_NONE, &version, "Print the version", NULL},
      {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &words, NULL,
          "PIPELINE [element.property=value ...] | pull hf://user/name | push FOLDER "
          "user/name"},
      {NULL}};
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  Runner self = {0};

  if (wants_help (argc, argv, "pull"))
    return gst_flux_pull_help ();
  if (wants_help (argc, argv, "push"))
    return gst_flux_push_help ();
  g_option_context_set_summary (context,
      "Runs a gst-flux pipeline file and shows how far it is. Ctrl-C saves and ends.");
  g_option_context_set_description (context, description);
  g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_add_group (context, gst_init_get_option_group ());
  if (!g_option_context_parse (context, &argc, &argv, &error))
    goto failed;
  if (version) {
    printf ("gst-flux %s\n", VERSION);
    return 0;
  }
  if (words == NULL || words[0] == NULL) {
    g_autofree char *help = g_option_context_get_help (context, TRUE, NULL);

    fputs (help, stderr);
    return 2;
  }
  if (strcmp (words[0], "pull") == 0)
    return gst_flux_pull (words);
  if (strcmp (words[0], "push") == 0)
    return gst_flux_push (words);
  self.pipeline = build (words, &error);
  if (self.pipeline == NULL)
    goto failed;
  if (log != NULL && (self.log = fopen (log, "w")) == NULL) {
    fprintf (stderr, "gst-flux: cannot write '%s': %s.\n", log, g_strerror (errno));
    gst_object_unref (self.pipeline);
    return 1;
  }
  self.log_path = log;
  run (&self);
  tell_if_nothing_saved (&self);
  gst_object_unref (self.pipeline);
  end_log (&self, FALSE);
  return self.status;

failed:
  fprintf (stderr, "gst-flux: %s\n", error->message);
  return 2;
}
