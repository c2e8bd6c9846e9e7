/* tests/elements/testlaunch.h: Ctrl-C under gst-launch-1.0. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gst/gst.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A plugin built with AddressSanitizer cannot be loaded by a program built without. */
static inline gchar *
find_gst_launch (void)
{
#ifdef __SANITIZE_ADDRESS__
  return NULL;
#else
  return g_find_program_in_path ("gst-launch-1.0");
#endif
}

/* Runs gst-launch-1.0 until it has said word, then SIGINT; its exit status. */
static inline gint
interrupt_launch (const gchar *option, const gchar *line, const gchar *word)
{
  gchar *command = g_strdup_printf ("gst-launch-1.0 -m %s %s", option, line);
  gchar **argv;
  GPid pid;
  gint out, status;
  GString *text = g_string_new (NULL);
  GError *error = NULL;

  g_assert_true (g_shell_parse_argv (command, NULL, &argv, NULL));
  g_spawn_async_with_pipes (NULL, argv, NULL,
      G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid, NULL, &out, NULL,
      &error);
  g_assert_no_error (error);
  for (gboolean sent = FALSE;;) {
    gchar buffer[4096];
    gssize n = read (out, buffer, sizeof buffer);

    if (n <= 0)
      break;
    g_string_append_len (text, buffer, n);
    if (!sent && strstr (text->str, word) != NULL) {
      sent = TRUE;
      g_assert_cmpint (kill (pid, SIGINT), ==, 0);
    }
  }
  close (out);
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  g_assert_nonnull (strstr (text->str, word));
  g_assert_null (strstr (text->str, "ERROR"));
  g_assert_true (WIFEXITED (status));
  g_string_free (text, TRUE);
  g_strfreev (argv);
  g_free (command);
  return WEXITSTATUS (status);
}
