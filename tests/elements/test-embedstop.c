/* tests/elements/test-embedstop.c: fluxembed is stopped while text encoders load or
 * encode. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testembed.h"

/* When an event is sent, and to whom. */
typedef struct {
  GstElement *element;
  GstHarness *h;
  GstProgressType type; /* of the message */
  const gchar *what;    /* that its text starts with */
  GstEvent *event;      /* NULL once it is sent */
} Interrupt;

/* In the thread that posts: while the encoders load, or just before they encode. */
static GstBusSyncReply
interrupt (GstBus *bus, GstMessage *message, gpointer data)
{
  Interrupt *i = data;
  GstProgressType type;
  gchar *text;

  if (GST_MESSAGE_TYPE (message) != GST_MESSAGE_PROGRESS || i->event == NULL)
    return GST_BUS_PASS;
  gst_message_parse_progress (message, &type, NULL, &text);
  if (type == i->type && g_str_has_prefix (text, i->what)) {
    GstEvent *event = g_steal_pointer (&i->event);

    if (GST_EVENT_TYPE (event) == GST_EVENT_EOS)
      g_assert_true (gst_element_send_event (i->element, event));
    else
      g_assert_true (gst_harness_push_event (i->h, event));
  }
  g_free (text);
  return GST_BUS_PASS;
}

/* Neither EOS that is sent to the element nor a flush waits for a caption's end; after a
 * flush it goes on. Activities are of CLIP and T5 together. */
static void
test_stopped_at (GstProgressType type, const gchar *what, GstEvent *event)
{
  gboolean flushes = GST_EVENT_TYPE (event) == GST_EVENT_FLUSH_START;
  GstSegment segment;
  Interrupt i = {.type = type, .what = what, .event = event};
  Fixture f;

  if (!test_need_model (&model)) {
    gst_event_unref (event);
    return;
  }
  setup (&f, ".parquet");
  g_object_set (f.element, "text-model", model, NULL);
  gst_util_set_object_arg (G_OBJECT (f.element), "text-quantization", "none");
  play (&f);
  i.element = f.element;
  i.h = f.h;
  gst_bus_set_sync_handler (f.bus, interrupt, &i, NULL);
  g_assert_cmpint (gst_harness_push (f.h, latent (0, 2, 2, "red apple")), ==,
      flushes ? GST_FLOW_FLUSHING : GST_FLOW_EOS);
  gst_bus_set_sync_handler (f.bus, NULL, NULL, NULL);
  g_assert_null (i.event);
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, 0);
  g_assert_cmpuint (test_count_errors (f.bus, NULL), ==, 0);
  g_assert_false (GST_OBJECT_FLAG_IS_SET (f.element, GST_ELEMENT_FLAG_SOURCE));
  gst_harness_push_event (
      f.h, flushes ? gst_event_new_flush_stop (FALSE) : gst_event_new_eos ());
  if (flushes) {
    gst_segment_init (&segment, GST_FORMAT_TIME);
    gst_harness_push_event (f.h, gst_event_new_segment (&segment));
    gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, "red apple")));
  } else {
    g_assert_false (g_file_test (f.table, G_FILE_TEST_EXISTS));
  }
  g_free (model);
  teardown (&f);
}

static void
test_stopped_while_loading (void)
{
  test_stopped_at (GST_PROGRESS_TYPE_START, "CLIP", gst_event_new_eos ());
  test_stopped_at (GST_PROGRESS_TYPE_CONTINUE, "T5", gst_event_new_eos ());
}

static void
test_stopped_while_encoding (void)
{
  test_stopped_at (GST_PROGRESS_TYPE_COMPLETE, "text encoders", gst_event_new_eos ());
}

static void
test_flushed (void)
{
  test_stopped_at (GST_PROGRESS_TYPE_CONTINUE, "T5", gst_event_new_flush_start ());
  test_stopped_at (
      GST_PROGRESS_TYPE_COMPLETE, "text encoders", gst_event_new_flush_start ());
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/embedstop/stopped-while-loading", test_stopped_while_loading);
  g_test_add_func ("/embedstop/stopped-while-encoding", test_stopped_while_encoding);
  g_test_add_func ("/embedstop/flushed", test_flushed);
  return g_test_run ();
}
