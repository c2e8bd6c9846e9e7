/* tests/elements/testtrain.h: pipelines that train. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <glib/gstdio.h>

#include "flux/model.h"
#include "flux/transformer/lora.h"
#include "tests/elements/testsamples.h"

#define TEST_TIMEOUT (120 * GST_SECOND)

/* A pipeline from a launch line, and what came on its bus. */
typedef struct {
  GstElement *pipeline;
  GstBus *bus;
  guint64 last_step; /* of flux-step */
  guint n_steps, n_checkpoints, n_final, n_errors, n_warnings, n_meters;
  gdouble last_loss;
  gchar *error;  /* the first one's text */
  GObject *from; /* and its element, not owned */
  gint error_code;
  GQuark error_domain;
  GstStructure *error_details; /* or NULL */
  GPtrArray *messages;         /* GstStructure of element messages */
} TestRun;

static inline void
test_run_init (TestRun *run, const gchar *format, ...) G_GNUC_PRINTF (2, 3);

static inline void
test_run_init (TestRun *run, const gchar *format, ...)
{
  va_list args;
  gchar *line;
  GError *error = NULL;

  va_start (args, format);
  line = g_strdup_vprintf (format, args);
  va_end (args);
  memset (run, 0, sizeof *run);
  run->pipeline = gst_parse_launch (line, &error);
  g_assert_no_error (error);
  run->bus = gst_element_get_bus (run->pipeline);
  run->messages = g_ptr_array_new_with_free_func ((GDestroyNotify)gst_structure_free);
  g_free (line);
}

static inline void
test_run_note (TestRun *run, GstMessage *message)
{
  const GstStructure *s = gst_message_get_structure (message), *details = NULL;
  GError *error = NULL;

  switch (GST_MESSAGE_TYPE (message)) {
    case GST_MESSAGE_ERROR:
      gst_message_parse_error (message, &error, NULL);
      if (run->n_errors == 0) {
        run->error = g_strdup (error->message);
        run->from = G_OBJECT (GST_MESSAGE_SRC (message));
        run->error_code = error->code;
        run->error_domain = error->domain;
        gst_message_parse_error_details (message, &details);
        run->error_details = details != NULL ? gst_structure_copy (details) : NULL;
      }
      /* GstBaseSrc and queues add an "Internal data stream error." of their own to
       * whatever stopped them. */
      if (!g_error_matches (error, GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED) ||
          strstr (error->message, "Internal") == NULL)
        run->n_errors++;
      g_error_free (error);
      break;
    case GST_MESSAGE_WARNING:
      run->n_warnings++;
      break;
    case GST_MESSAGE_ELEMENT:
      g_ptr_array_add (run->messages, gst_structure_copy (s));
      if (gst_structure_has_name (s, "flux-step")) {
        run->n_steps++;
        gst_structure_get (s, "step", G_TYPE_UINT64, &run->last_step, "loss",
            G_TYPE_DOUBLE, &run->last_loss, NULL);
      } else if (gst_structure_has_name (s, "flux-checkpoint")) {
        gboolean final;

        gst_structure_get (s, "final", G_TYPE_BOOLEAN, &final, NULL);
        final ? run->n_final++ : run->n_checkpoints++;
      } else if (gst_structure_has_name (s, "flux-meter")) {
        run->n_meters++;
      }
      break;
    default:
      break;
  }
}

/* Until a step is done (0: any), or EOS or an error comes; its message type, or 0 for the
 * step. */
static inline GstMessageType
test_run_until_step (TestRun *run, guint64 step)
{
  for (;;) {
    GstMessage *message = gst_bus_timed_pop_filtered (run->bus, TEST_TIMEOUT,
        GST_MESSAGE_EOS | GST_MESSAGE_ERROR | GST_MESSAGE_ELEMENT | GST_MESSAGE_WARNING);
    GstMessageType type;

    g_assert_nonnull (message);
    type = GST_MESSAGE_TYPE (message);
    test_run_note (run, message);
    gst_message_unref (message);
    if (type == GST_MESSAGE_EOS || type == GST_MESSAGE_ERROR)
      return type;
    if (run->n_steps > 0 && run->last_step >= step)
      return 0;
  }
}

static inline GstMessageType
test_run_until_end (TestRun *run)
{
  return test_run_until_step (run, G_MAXUINT64);
}

static inline void
test_run_play (TestRun *run)
{
  gst_element_set_state (run->pipeline, GST_STATE_PLAYING);
}

/* Down to NULL, with everything that is still on the bus. */
static inline void
test_run_stop (TestRun *run)
{
  GstMessage *message;

  gst_element_set_state (run->pipeline, GST_STATE_READY);
  while ((message = gst_bus_pop (run->bus)) != NULL) {
    test_run_note (run, message);
    gst_message_unref (message);
  }
  g_assert_cmpint (gst_element_set_state (run->pipeline, GST_STATE_NULL), ==,
      GST_STATE_CHANGE_SUCCESS);
}

static inline void
test_run_clear (TestRun *run)
{
  test_run_stop (run);
  gst_object_unref (run->bus);
  gst_object_unref (run->pipeline);
  g_ptr_array_unref (run->messages);
  g_clear_pointer (&run->error_details, gst_structure_free);
  g_free (run->error);
}

/* Plays to EOS. */
static inline void
test_run_all (TestRun *run)
{
  GstMessageType end;

  test_run_play (run);
  end = test_run_until_end (run);
  if (end != GST_MESSAGE_EOS)
    g_test_message ("error: %s", run->error);
  g_assert_cmpint (end, ==, GST_MESSAGE_EOS);
}

/* An adapter that can be loaded, with finite values. */
static inline void
test_check_lora (const gchar *model, const gchar *path)
{
  fx_backend *backend = flux_backend_new (FLUX_DEVICE_CPU, FX_N_DTYPES, NULL);
  FluxConfig config;
  GError *error = NULL;
  FluxLora *lora;

  g_assert_true (flux_config_read (model, &config, NULL));
  lora = flux_lora_load (&config, backend, path, FALSE, &error);
  g_assert_no_error (error);
  g_assert_nonnull (lora);
  flux_lora_free (lora);
  fx_backend_free (backend);
}

static inline void
test_same_file (const gchar *a, const gchar *b)
{
  gchar *x, *y;
  gsize n, m;

  g_assert_true (g_file_get_contents (a, &x, &n, NULL));
  g_assert_true (g_file_get_contents (b, &y, &m, NULL));
  g_assert_cmpuint (n, ==, m);
  g_assert_cmpint (memcmp (x, y, n), ==, 0);
  g_free (x);
  g_free (y);
}

static inline gboolean
test_files_differ (const gchar *a, const gchar *b)
{
  gchar *x, *y;
  gsize n, m;
  gboolean differ;

  g_assert_true (g_file_get_contents (a, &x, &n, NULL));
  g_assert_true (g_file_get_contents (b, &y, &m, NULL));
  differ = n != m || memcmp (x, y, n) != 0;
  g_free (x);
  g_free (y);
  return differ;
}

/* ---- on a cache of samples made of noise, of three sizes ---- */

enum { N = 10 }; /* windows of 4, 4 and 2 samples an epoch */

static gchar *model, *cache;

/* Where a test writes; `at (NAME)` is a path in it until the next test. */
static gchar *folder;
static GPtrArray *paths;

static inline const gchar *
at (const gchar *name)
{
  g_ptr_array_add (paths, g_build_filename (folder, name, NULL));
  return g_ptr_array_index (paths, paths->len - 1);
}

static inline void
begin (void)
{
  folder = test_folder ();
  paths = g_ptr_array_new_with_free_func (g_free);
}

static inline void
end (void)
{
  test_remove (folder);
  g_free (folder);
  g_ptr_array_unref (paths);
}

static inline gboolean
exists (const gchar *path)
{
  return g_file_test (path, G_FILE_TEST_EXISTS);
}

/* A training of the cache's samples, with these properties of source and sink. */
static inline void
init (TestRun *run, const gchar *source, const gchar *sink, const gchar *location)
{
  test_run_init (run,
      "fluxcachesrc location=%s %s ! fluxtrainsink name=train model=%s location=%s "
      "learning-rate=1e-3 seed=7 %s",
      cache, source, model, location, sink);
}

static inline void
train (const gchar *source, const gchar *sink, const gchar *location)
{
  TestRun run;

  init (&run, source, sink, location);
  test_run_all (&run);
  g_assert_cmpuint (run.n_errors, ==, 0);
  test_run_clear (&run);
}

static inline GstElement *
sink_of (TestRun *run)
{
  return gst_bin_get_by_name (GST_BIN (run->pipeline), "train");
}

static inline guint64
test_step_of (GstElement *sink)
{
  guint64 step;

  g_object_get (sink, "step", &step, NULL);
  return step;
}

/* A data set of n pictures of the style set with captions "a NAME": its folder. */
static inline gchar *
test_style_pictures (const gchar *const *names, guint n)
{
  gchar *folder = test_folder (), *metadata;
  GString *lines = g_string_new (NULL);

  for (guint i = 0; i < n; i++) {
    gchar *name = g_strconcat (names[i], ".png", NULL), *data;
    gchar *from = g_build_filename (g_getenv ("FLUX_TEST_SRC"), "..", "examples", "data",
        "style-openmoji", name, NULL);
    gchar *to = g_build_filename (folder, name, NULL);
    gsize length;

    g_assert_true (g_file_get_contents (from, &data, &length, NULL));
    g_assert_true (g_file_set_contents (to, data, (gssize)length, NULL));
    g_string_append_printf (
        lines, "{\"file_name\": \"%s\", \"text\": \"a %s\"}\n", name, names[i]);
    g_free (data);
    g_free (to);
    g_free (from);
    g_free (name);
  }
  metadata = g_build_filename (folder, "metadata.jsonl", NULL);
  g_assert_true (g_file_set_contents (metadata, lines->str, -1, NULL));
  g_string_free (lines, TRUE);
  g_free (metadata);
  return folder;
}

/* Runs the tests that add_tests adds, with model and cache. */
static inline gint
test_main (int argc, char **argv, void (*add_tests) (void))
{
  gint ret;

  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  model = test_model ();
  if (model == NULL) {
    g_print (
        "1..0 # SKIP no tiny model (examples/models, FLUX_TEST_MODEL or ../shared)\n");
    return 0;
  }
  cache = test_folder ();
  test_write_cache (model, cache, N);
  add_tests ();
  ret = g_test_run ();
  test_remove (cache);
  g_free (cache);
  g_free (model);
  return ret;
}
