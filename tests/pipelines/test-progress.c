/* tests/pipelines/test-progress.c: the lines of gst-flux without a terminal.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>
#include <unistd.h>

#include "pipelines/progress.h"

static void
send (GstFluxProgress *progress, GstProgressType type, const char *text, int percent)
{
  GstMessage *message = gst_message_new_progress (NULL, type, "sample", text);

  gst_structure_set (
      gst_message_writable_structure (message), "percent", G_TYPE_INT, percent, NULL);
  gst_flux_progress_message (progress, message);
  gst_message_unref (message);
}

/* A picture of 100 steps, each of which took as long as pause. */
static void
draw (gint64 pause)
{
  GstFluxProgress progress;

  gst_flux_progress_init (&progress, STDERR_FILENO);
  send (&progress, GST_PROGRESS_TYPE_START, "step 1 of 100 (1 %)", 1);
  for (int i = 2; i <= 100; i++) {
    g_autofree char *text = g_strdup_printf ("step %d of 100 (%d %%)", i, i);

    progress.line_time -= pause;
    send (&progress, GST_PROGRESS_TYPE_CONTINUE, text, i);
  }
  send (&progress, GST_PROGRESS_TYPE_COMPLETE, "picture", 100);
}

static void
draw_fast (void)
{
  draw (0);
}

static void
draw_slowly (void)
{
  draw (G_TIME_SPAN_MINUTE);
}

/* An activity of two parts, the first of which is seen to its end. */
static void
load_two (void)
{
  GstFluxProgress progress;

  gst_flux_progress_init (&progress, STDERR_FILENO);
  send (&progress, GST_PROGRESS_TYPE_START, "CLIP (0 %)", 0);
  progress.line_time -= G_TIME_SPAN_MINUTE;
  send (&progress, GST_PROGRESS_TYPE_CONTINUE, "CLIP (100 %)", 100);
  send (&progress, GST_PROGRESS_TYPE_CONTINUE, "T5 (1 %)", 1);
  progress.line_time -= G_TIME_SPAN_MINUTE;
  send (&progress, GST_PROGRESS_TYPE_CONTINUE, "T5 (50 %)", 50);
  send (&progress, GST_PROGRESS_TYPE_COMPLETE, "encoders", 100);
}

/* What takes no time is one line. */
static void
test_fast (void)
{
  g_test_trap_subprocess ("/progress/fast/subprocess", 0, 0);
  g_test_trap_assert_passed ();
  g_test_trap_assert_stderr ("Drew picture\n");
}

/* What takes hours is a line every ten per cent. */
static void
test_slow (void)
{
  g_test_trap_subprocess ("/progress/slow/subprocess", 0, 0);
  g_test_trap_assert_passed ();
  g_test_trap_assert_stderr ("step 11 of 100 (11 %)\nstep 21 of 100 (21 %)\n*"
                             "step 91 of 100 (91 %)\nDrew picture\n");
  g_test_trap_assert_stderr_unmatched ("*(12 %)*");
}

static void
test_two_parts (void)
{
  g_test_trap_subprocess ("/progress/two-parts/subprocess", 0, 0);
  g_test_trap_assert_passed ();
  g_test_trap_assert_stderr ("CLIP (100 %)\nT5 (50 %)\nDrew encoders\n");
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/progress/fast", test_fast);
  g_test_add_func ("/progress/fast/subprocess", draw_fast);
  g_test_add_func ("/progress/slow", test_slow);
  g_test_add_func ("/progress/slow/subprocess", draw_slowly);
  g_test_add_func ("/progress/two-parts", test_two_parts);
  g_test_add_func ("/progress/two-parts/subprocess", load_two);
  return g_test_run ();
}
