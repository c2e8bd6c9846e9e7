/* pipelines/progress.c: the progress line of gst-flux. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "pipelines/progress.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_WIDTH 24
#define LOG_PAUSE (2 * G_TIME_SPAN_SECOND) /* between lines of an activity */

void
gst_flux_progress_init (GstFluxProgress *self, int fd)
{
  struct winsize size;

  *self = (GstFluxProgress){.tty = isatty (fd), .columns = 80};
  if (ioctl (fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
    self->columns = size.ws_col;
}

void
gst_flux_progress_break (GstFluxProgress *self)
{
  if (self->line_open)
    fputc ('\n', stderr);
  self->line_open = FALSE;
}

static void
show (GstFluxProgress *self, const char *line)
{
  if (self->tty) {
    fprintf (stderr, "\r%.*s\033[K", self->columns - 1, line);
    self->line_open = TRUE;
  } else {
    fprintf (stderr, "%s\n", line);
  }
  fflush (stderr);
}

static void
append_duration (GString *line, double seconds)
{
  guint64 s = (guint64)(seconds + 0.5);

  if (s >= 3600)
    g_string_append_printf (line, "%" G_GUINT64_FORMAT ":%02u:%02u", s / 3600,
        (guint)(s / 60 % 60), (guint)(s % 60));
  else
    g_string_append_printf (line, "%u:%02u", (guint)(s / 60), (guint)(s % 60));
}

/* `done` of `total`, at most that. */
static void
append_bar (GString *line, guint64 done, guint64 total)
{
  guint filled = (guint)(MIN (done, total) * BAR_WIDTH / total);

  g_string_append_c (line, '[');
  for (guint i = 0; i < BAR_WIDTH; i++)
    g_string_append_c (line, i < filled ? '#' : '.');
  g_string_append_c (line, ']');
}

/* The rate is over all steps since the first one seen, which holds warm-up and
 * allocation. */
static void
show_step (GstFluxProgress *self, const GstStructure *s)
{
  g_autoptr (GString) line = g_string_new (NULL);
  guint64 step = 0, max_steps = 0;
  double loss = 0;
  gint64 now = g_get_monotonic_time ();

  if (!gst_structure_get_uint64 (s, "step", &step) ||
      !gst_structure_get_uint64 (s, "max-steps", &max_steps) || max_steps == 0)
    return;
  gst_structure_get_double (s, "loss", &loss);
  if (self->first_time == 0) {
    self->first_time = now;
    self->first_step = step;
  }
  if (!self->tty) {
    if (step < max_steps && step * 10 / max_steps == self->last_tenth)
      return;
    self->last_tenth = step * 10 / max_steps;
  }
  append_bar (line, step, max_steps);
  g_string_append_printf (line, " %" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT "  loss %.4f",
      step, max_steps, loss);
  if (step > self->first_step && now > self->first_time) {
    double rate = (step - self->first_step) * 1e6 / (double)(now - self->first_time);

    g_string_append_printf (
        line, rate >= 1 ? "  %.1f steps/s  " : "  %.2f steps/s  ", rate);
    append_duration (line, step < max_steps ? (max_steps - step) / rate : 0);
    g_string_append (line, " left");
  }
  show (self, line->str);
}

/* The second reading is compared with the first. */
static void
show_meter (GstFluxProgress *self, const GstStructure *s)
{
  double loss = 0;
  guint triples = 0;

  gst_structure_get_double (s, "loss", &loss);
  gst_structure_get_uint (s, "triples", &triples);
  gst_flux_progress_break (self);
  fprintf (stderr, "Loss over %u fixed triples of image, noise and sigma: %.4f", triples,
      loss);
  if (self->first_reading > 0)
    fprintf (stderr, " (%+.1f %%)", 100 * (loss / self->first_reading - 1));
  fputc ('\n', stderr);
  self->first_reading = loss;
}

/* What an activity of the elements was, once it is done; NULL for those that are shown in
 * another way. */
static const char *
done_word (const char *code)
{
  static const char *const words[][2] = {{"open", "Loaded"}, {"encode", "Encoded"},
      {"sample", "Drew"}, {"download", "Downloaded"}, {"push", "Pushed"}};

  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    if (g_strcmp0 (code, words[i][0]) == 0)
      return words[i][1];
  return NULL;
}

/* A log wants no line for each percent, and none at all for what takes no time. A
 * percentage that is less than before is of the activity's next part: T5 after CLIP. */
static gboolean
is_due (GstFluxProgress *self, GstProgressType type, int percent)
{
  gint64 now = g_get_monotonic_time ();

  if (type == GST_PROGRESS_TYPE_START || percent < self->line_percent) {
    self->line_time = now;
    self->line_percent = percent;
  }
  if (self->tty)
    return TRUE;
  if (percent < self->line_percent + 10 || now < self->line_time + LOG_PAUSE)
    return FALSE;
  self->line_time = now;
  self->line_percent = percent;
  return TRUE;
}

gboolean
gst_flux_progress_transfer (const char *what, gint percent, gpointer data)
{
  GstFluxProgress *self = data;
  g_autoptr (GString) line = g_string_new (NULL);

  if (percent < 0 || percent == self->line_percent)
    return TRUE;
  if (!self->tty && self->line_time != 0 && percent < 100 &&
      !is_due (self, GST_PROGRESS_TYPE_CONTINUE, percent))
    return TRUE;
  self->line_percent = percent;
  self->line_time = g_get_monotonic_time ();
  append_bar (line, (guint64)percent, 100);
  g_string_append_printf (line, " %d %%  %s", percent, what);
  show (self, line->str);
  return TRUE;
}

static void
show_activity (GstFluxProgress *self, GstMessage *message)
{
  g_autofree char *code = NULL, *text = NULL, *line = NULL;
  GstProgressType type;
  int percent = 0;
  const char *word;

  gst_message_parse_progress (message, &type, &code, &text);
  gst_structure_get_int (gst_message_get_structure (message), "percent", &percent);
  word = done_word (code);
  if (word == NULL) /* steps have a bar, and what is saved is told by its message */
    return;
  if (type == GST_PROGRESS_TYPE_START || type == GST_PROGRESS_TYPE_CONTINUE) {
    if (is_due (self, type, percent))
      show (self, text);
    return;
  }
  if (type != GST_PROGRESS_TYPE_COMPLETE) /* the error, or who stopped it, is shown */
    return;
  line = g_strdup_printf ("%s %s", word, text);
  show (self, line);
  gst_flux_progress_break (self);
}

void
gst_flux_progress_message (GstFluxProgress *self, GstMessage *message)
{
  const GstStructure *s = gst_message_get_structure (message);

  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_PROGRESS) {
    show_activity (self, message);
    return;
  }
  if (GST_MESSAGE_TYPE (message) != GST_MESSAGE_ELEMENT || s == NULL)
    return;
  if (gst_structure_has_name (s, "flux-meter")) {
    show_meter (self, s);
  } else if (gst_structure_has_name (s, "flux-step")) {
    show_step (self, s);
  } else if (gst_structure_has_name (s, "flux-checkpoint")) {
    gst_flux_progress_break (self);
    fprintf (stderr, "Saved %s\n", gst_structure_get_string (s, "location"));
  }
}
