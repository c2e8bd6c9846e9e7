/* tests/elements/test-samplerstop.c: EOS that is sent to fluxsamplersrc, alone and as a
 * preview, while text encoders load or encode. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "tests/elements/testtrain.h"

#define TEXTS "prompt=apple max-sequence-length=32 steps=2 text-quantization=none "
#define SHOW " ! video/x-raw,width=64,height=48 ! fakesink sync=false"

/* When EOS is sent, and what was seen. */
typedef struct {
  GstElement *pipeline;
  GstProgressType type;                /* of the "open" message */
  const gchar *what;                   /* that its text starts with */
  gint sent, cancelled, loaded, drawn; /* atomic; messages */
} Stop;

/* In the thread that posts. */
static GstBusSyncReply
stop_at (GstBus *bus, GstMessage *message, gpointer data)
{
  Stop *stop = data;
  g_autofree gchar *code = NULL, *text = NULL;
  GstProgressType type;

  if (gst_message_has_name (message, "flux-sample"))
    g_atomic_int_inc (&stop->drawn);
  if (GST_MESSAGE_TYPE (message) != GST_MESSAGE_PROGRESS ||
      strncmp (GST_MESSAGE_SRC_NAME (message), "source", 6) != 0)
    return GST_BUS_PASS;
  gst_message_parse_progress (message, &type, &code, &text);
  if (strcmp (code, "open") != 0)
    return GST_BUS_PASS;
  if (type == GST_PROGRESS_TYPE_CANCELED)
    g_atomic_int_inc (&stop->cancelled);
  if (type == GST_PROGRESS_TYPE_COMPLETE && strcmp (text, "T5") == 0)
    g_atomic_int_inc (&stop->loaded);
  if (type == stop->type && stop->what != NULL && g_str_has_prefix (text, stop->what) &&
      g_atomic_int_compare_and_exchange (&stop->sent, FALSE, TRUE))
    gst_element_send_event (stop->pipeline, gst_event_new_eos ());
  return GST_BUS_PASS;
}

/* What the source was stopped in. */
static void
keep_reason (GstDebugCategory *category, GstDebugLevel level, const gchar *file,
    const gchar *function, gint line, GObject *object, GstDebugMessage *message,
    gpointer data)
{
  if (g_str_has_prefix (gst_debug_message_get (message), "stopped: "))
    g_string_append (data, gst_debug_message_get (message));
}

typedef struct {
  GstProgressType type;
  const gchar *what, *reason; /* what NULL: not stopped */
} Case;

static const Case in_clip = {GST_PROGRESS_TYPE_START, "CLIP", "Loading was cancelled."};
static const Case in_t5 = {GST_PROGRESS_TYPE_START, "T5", "Loading was cancelled."};
static const Case in_encoding = {
    GST_PROGRESS_TYPE_COMPLETE, "T5", "Encoding with CLIP was cancelled."};
static const Case nowhere = {0};

/* Plays to EOS. */
static void
check (TestRun *run, const Case *c)
{
  Stop stop = {.pipeline = run->pipeline, .type = c->type, .what = c->what};
  g_autoptr (GString) reasons = g_string_new (NULL);
  gboolean loads = c->what == NULL || c->type == GST_PROGRESS_TYPE_COMPLETE;

  gst_debug_set_threshold_for_name ("fluxsamplersrc", GST_LEVEL_DEBUG);
  gst_debug_add_log_function (keep_reason, reasons, NULL);
  gst_bus_set_sync_handler (run->bus, stop_at, &stop, NULL);
  test_run_all (run);
  gst_bus_set_sync_handler (run->bus, NULL, NULL, NULL);
  test_run_clear (run);
  gst_debug_remove_log_function (keep_reason);
  g_assert_cmpuint (run->n_errors, ==, 0);
  g_assert_cmpint (stop.sent, ==, c->what != NULL);
  g_assert_cmpint (stop.loaded, ==, loads);
  g_assert_cmpint (stop.cancelled, ==, !loads);
  g_assert_cmpint (stop.drawn > 0, ==, c->what == NULL);
  if (c->reason == NULL)
    g_assert_cmpstr (reasons->str, ==, "");
  else
    g_assert_nonnull (strstr (reasons->str, c->reason));
}

static void
test_sampler (gconstpointer data)
{
  TestRun run;

  test_run_init (
      &run, "fluxsamplersrc name=source model=%s num-buffers=1 " TEXTS SHOW, model);
  check (&run, data);
}

/* Training saves what it has, and both branches end. */
static void
test_preview (gconstpointer data)
{
  TestRun run;

  begin ();
  test_run_init (&run,
      "fluxcachesrc location=%s ! fluxtrainsink model=%s location=%s max-steps=4 "
      "fluxsamplersrc name=source every-steps=2 " TEXTS SHOW,
      cache, model, at ("a.safetensors"));
  check (&run, data);
  end ();
}

static void
add_tests (void)
{
  g_test_add_data_func ("/samplerstop/not-stopped", &nowhere, test_sampler);
  g_test_add_data_func ("/samplerstop/loads-clip", &in_clip, test_sampler);
  g_test_add_data_func ("/samplerstop/loads-t5", &in_t5, test_sampler);
  g_test_add_data_func ("/samplerstop/encodes", &in_encoding, test_sampler);
  g_test_add_data_func ("/samplerstop/preview/not-stopped", &nowhere, test_preview);
  g_test_add_data_func ("/samplerstop/preview/loads-t5", &in_t5, test_preview);
  g_test_add_data_func ("/samplerstop/preview/encodes", &in_encoding, test_preview);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
