/* tests/elements/test-trainhttp.c: report-to=http of fluxtrainsink.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testtrain.h"
#include "tests/testhttp.h"

#define OWN "X-Flux-Page: 1\r\n"

/* The port of its page, from flux-report; 0: not told. */
static guint
port_of (TestRun *run)
{
  for (guint i = run->messages->len; i-- > 0;) {
    const GstStructure *s = g_ptr_array_index (run->messages, i);

    if (gst_structure_has_name (s, "flux-report") &&
        strcmp (gst_structure_get_string (s, "format"), "http") == 0)
      return test_http_port (gst_structure_get_string (s, "location"));
  }
  return 0;
}

static gboolean
is_paused (GstElement *sink)
{
  gboolean paused;

  g_object_get (sink, "paused", &paused, NULL);
  return paused;
}

/* The page's state has text in it, soon. */
static void
wait_for (guint port, const gchar *text)
{
  for (guint i = 0; i < 300; i++) {
    gchar *answer = test_http (port, "GET", "/state", NULL);
    gboolean has = answer != NULL && strstr (answer, text) != NULL;

    g_free (answer);
    if (has)
      return;
    g_usleep (G_USEC_PER_SEC / 10);
  }
  g_error ("%s has not come", text);
}

static void
test_buttons (gconstpointer source)
{
  TestRun run;
  GstElement *sink;
  guint port;
  guint64 step;
  gchar *text;

  begin ();
  init (&run, source,
      "max-steps=100000 checkpoint-interval=0 report-to=http "
      "http-port=0",
      at ("a.safetensors"));
  sink = sink_of (&run);
  test_run_play (&run);
  test_run_until_step (&run, 2);
  port = port_of (&run);
  wait_for (port, "\"state\":\"training\"");
  g_assert_cmpuint (test_http_ask (port, "POST", "/pause", NULL), ==, 403);
  g_assert_false (is_paused (sink));
  g_assert_cmpuint (test_http_ask (port, "POST", "/pause", OWN), ==, 204);
  wait_for (port, "\"state\":\"paused\"");
  g_assert_true (is_paused (sink));
  step = test_step_of (sink);
  g_usleep (G_USEC_PER_SEC / 2);
  g_assert_cmpuint (test_step_of (sink), ==, step);
  g_assert_cmpuint (test_http_ask (port, "POST", "/save", OWN), ==, 204);
  text = g_strdup_printf ("\"saved_step\":%" G_GUINT64_FORMAT, step);
  wait_for (port, text);
  g_free (text);
  text = g_strdup_printf ("a-checkpoints/checkpoint-%" G_GUINT64_FORMAT, step);
  g_assert_true (exists (at (text)));
  g_free (text);
  g_assert_cmpuint (test_http_ask (port, "POST", "/resume", OWN), ==, 204);
  wait_for (port, "\"state\":\"training\"");
  g_assert_cmpint (test_run_until_step (&run, step + 2), ==, 0);
  g_assert_false (exists (at ("a.safetensors")));
  g_assert_cmpuint (test_http_ask (port, "POST", "/stop", OWN), ==, 204);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  g_assert_cmpuint (run.n_final, ==, 1);
  g_assert_cmpuint (run.n_errors, ==, 0);
  gst_object_unref (sink);
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  end ();
}

/* There from PAUSED to READY, as often as that is. */
static void
test_cycles (void)
{
  TestRun run;

  begin ();
  init (&run, "", "max-steps=100000 report-to=http http-port=0", at ("a.safetensors"));
  for (guint i = 0; i < 3; i++) {
    guint port;

    test_run_play (&run);
    run.n_steps = 0;
    test_run_until_step (&run, 0);
    port = port_of (&run);
    g_assert_cmpuint (test_http_ask (port, "GET", "/", NULL), ==, 200);
    test_run_stop (&run);
    g_assert_cmpuint (test_http_ask (port, "GET", "/", NULL), ==, 0);
  }
  g_assert_cmpuint (run.n_errors, ==, 0);
  test_run_clear (&run);
  end ();
}

static void
test_port_taken (void)
{
  GSocketListener *other = g_socket_listener_new ();
  GSocketAddress *is = NULL;
  GInetAddress *loopback = g_inet_address_new_loopback (G_SOCKET_FAMILY_IPV4);
  GSocketAddress *any = g_inet_socket_address_new (loopback, 0);
  gchar *more;
  TestRun run;

  g_assert_true (g_socket_listener_add_address (
      other, any, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP, NULL, &is, NULL));
  begin ();
  more = g_strdup_printf ("max-steps=2 report-to=http http-port=%u",
      g_inet_socket_address_get_port (G_INET_SOCKET_ADDRESS (is)));
  init (&run, "", more, at ("a.safetensors"));
  g_assert_cmpint (gst_element_set_state (run.pipeline, GST_STATE_PLAYING), ==,
      GST_STATE_CHANGE_FAILURE);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  g_assert_nonnull (strstr (run.error, "http-port"));
  test_run_stop (&run);
  g_assert_cmpuint (run.n_errors, ==, 1);
  test_run_clear (&run);
  end ();
  g_free (more);
  g_object_unref (is);
  g_object_unref (any);
  g_object_unref (loopback);
  g_object_unref (other);
}

/* Half a request each, and nothing read: what is learnt is what is learnt without. */
static void
test_slow_clients (void)
{
  TestRun run;
  GSocketConnection *slow[50];

  begin ();
  train ("", "max-steps=20", at ("a.safetensors"));
  init (&run, "", "max-steps=20 report-to=http http-port=0 paused=true",
      at ("b.safetensors"));
  test_run_play (&run);
  while (port_of (&run) == 0) {
    GstMessage *message =
        gst_bus_timed_pop_filtered (run.bus, TEST_TIMEOUT, GST_MESSAGE_ELEMENT);

    g_assert_nonnull (message);
    test_run_note (&run, message);
    gst_message_unref (message);
  }
  for (guint i = 0; i < G_N_ELEMENTS (slow); i++) {
    static const gchar whole[] = "GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
    gsize length = i % 2 == 0 ? strlen (whole) / 2 : strlen (whole);

    slow[i] = test_http_connect (port_of (&run));
    g_assert_nonnull (slow[i]);
    for (guint k = 0; k < (i % 2 == 0 ? 1 : 100); k++)
      g_output_stream_write_all (g_io_stream_get_output_stream (G_IO_STREAM (slow[i])),
          whole, length, NULL, NULL, NULL);
  }
  g_assert_cmpuint (test_http_ask (port_of (&run), "POST", "/resume", OWN), ==, 204);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  test_run_clear (&run);
  for (guint i = 0; i < G_N_ELEMENTS (slow); i++)
    g_object_unref (slow[i]);
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  end ();
}

/* ---- the token ---- */

static GMutex lock;
static GString *logged;
static gchar *told, *printed; /* by INFO: its message, and what gst-launch-1.0 prints */

static void
take_log (GstDebugCategory *category, GstDebugLevel level, const gchar *file,
    const gchar *function, gint line, GObject *object, GstDebugMessage *message,
    gpointer data)
{
  const gchar *text = gst_debug_message_get (message); /* which may log too */

  g_mutex_lock (&lock);
  g_string_append (logged, text);
  g_string_append_c (logged, '\n');
  g_mutex_unlock (&lock);
}

static GstBusSyncReply
take_info (GstBus *bus, GstMessage *message, gpointer data)
{
  GError *error = NULL;

  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_INFO) {
    gst_message_parse_info (message, &error, &printed);
    told = g_strdup (error->message);
    g_error_free (error);
  }
  return GST_BUS_PASS;
}

/* Told to the one who trains, and in no log, report or message besides. */
static void
test_token_is_secret (void)
{
  TestRun run;
  const gchar *token;
  gchar *headers;
  guint port;

  begin ();
  logged = g_string_new (NULL);
  init (&run, "",
      "max-steps=100000 report-to=jsonl+tensorboard+http http-address=0.0.0.0 "
      "http-port=0",
      at ("a.safetensors"));
  gst_bus_set_sync_handler (run.bus, take_info, NULL, NULL);
  gst_debug_add_log_function (take_log, NULL, NULL);
  gst_debug_set_threshold_for_name ("*", GST_LEVEL_LOG);
  test_run_play (&run);
  test_run_until_step (&run, 2);
  g_assert_nonnull (told);
  token = strstr (told, "?token=");
  g_assert_nonnull (token);
  token += strlen ("?token=");
  g_assert_true (g_str_has_prefix (printed, "Follow it at http://"));
  g_assert_null (strstr (printed, token));
  port = port_of (&run);
  g_assert_cmpuint (test_http_ask (port, "GET", "/state", NULL), ==, 401);
  headers = g_strdup_printf ("Authorization: Bearer %s\r\n" OWN, token);
  g_assert_cmpuint (test_http_ask (port, "GET", "/state", headers), ==, 200);
  g_assert_cmpuint (test_http_ask (port, "POST", "/stop", headers), ==, 204);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  test_run_stop (&run);
  gst_debug_set_threshold_for_name ("*", GST_LEVEL_NONE);
  gst_debug_remove_log_function (take_log);
  g_assert_nonnull (strstr (logged->str, "flux-report"));
  g_assert_null (strstr (logged->str, token));
  for (guint i = 0; i < run.messages->len; i++) {
    gchar *text = gst_structure_to_string (g_ptr_array_index (run.messages, i));
    const gchar *file =
        gst_structure_get_string (g_ptr_array_index (run.messages, i), "location");
    gchar *written = NULL;
    gsize n;

    g_assert_null (strstr (text, token));
    if (gst_structure_has_name (g_ptr_array_index (run.messages, i), "flux-report") &&
        g_file_get_contents (file, &written, &n, NULL))
      g_assert_null (memmem (written, n, token, strlen (token)));
    g_free (written);
    g_free (text);
  }
  g_free (headers);
  g_free (told);
  g_free (printed);
  g_string_free (logged, TRUE);
  test_run_clear (&run);
  end ();
}

static void
add_tests (void)
{
  g_test_add_data_func ("/trainhttp/buttons/one-shot", "", test_buttons);
  g_test_add_data_func ("/trainhttp/buttons/stream", "epochs=-1", test_buttons);
  g_test_add_func ("/trainhttp/cycles", test_cycles);
  g_test_add_func ("/trainhttp/port-taken", test_port_taken);
  g_test_add_func ("/trainhttp/slow-clients", test_slow_clients);
  g_test_add_func ("/trainhttp/token-is-secret", test_token_is_secret);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
