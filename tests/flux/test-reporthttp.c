/* tests/flux/test-reporthttp.c: the page of a training. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <json-glib/json-glib.h>

#include "flux/report/http-private.h"
#include "tests/testhttp.h"

#define OWN "X-Flux-Page: 1\r\n"
#define TOKEN "abcdefgh-IJKLMNOP_0123"

static gint pressed; /* atomic: 10 ** command each */

static void
on_command (FluxReportCommand command, gpointer data)
{
  static const gint of[] = {1, 10, 100, 1000};

  g_assert_true (data == &pressed);
  g_atomic_int_add (&pressed, of[command]);
}

static FluxReport *
open_at (const char *address, guint port, const char *token, GError **error)
{
  static const FluxReportSetting settings[] = {{"rank", NULL, 4},
      {"location", "/a/\"b\".safetensors", 0}, {"epsilon", NULL, 1e-8}};
  FluxReportConfig config = {0};

  config.to = FLUX_REPORT_HTTP;
  config.settings = settings;
  config.n_settings = G_N_ELEMENTS (settings);
  config.http = (FluxReportHttp){address, port, token, on_command, &pressed};
  return flux_report_new (&config, error);
}

static FluxReport *
open_page (guint *port)
{
  GError *error = NULL;
  FluxReport *r = open_at ("127.0.0.1", 0, NULL, &error);

  g_assert_no_error (error);
  *port = test_http_port (flux_report_get_location (r, FLUX_REPORT_HTTP));
  g_assert_cmpuint (*port, >, 0);
  g_assert_null (flux_report_get_token (r));
  return r;
}

static void
tell_step (FluxReport *r, guint64 step)
{
  FluxReportStep s = {
      step, 10000, 0, 1.0 / (double)step, 1e-4, 0.5, 0.25, 2, 64, 1 << 30};

  g_assert_true (flux_report_step (r, &s, NULL));
}

static JsonNode *
json_at (guint port, const gchar *path)
{
  gchar *answer = test_http (port, "GET", path, NULL);
  GError *error = NULL;
  JsonNode *node = json_from_string (test_http_body (answer), &error);

  g_assert_no_error (error);
  g_assert_cmpuint (test_http_status (answer), ==, 200);
  g_free (answer);
  return node;
}

static void
test_page (void)
{
  guint port;
  FluxReport *r = open_page (&port);
  gchar *answer = test_http (port, "GET", "/", NULL);
  JsonNode *settings = json_at (port, "/settings");

  g_assert_cmpuint (test_http_status (answer), ==, 200);
  g_assert_nonnull (strstr (answer, "Content-Security-Policy: default-src 'none'"));
  g_assert_nonnull (strstr (answer, "<!doctype html>"));
  g_assert_null (strstr (answer, "https://"));
  g_free (answer);
  g_assert_cmpuint (test_http_ask (port, "GET", "/page.css", NULL), ==, 200);
  g_assert_cmpuint (test_http_ask (port, "GET", "/page.js", NULL), ==, 200);
  g_assert_cmpuint (test_http_ask (port, "HEAD", "/", NULL), ==, 200);
  g_assert_cmpuint (test_http_ask (port, "GET", "/other", NULL), ==, 404);
  g_assert_cmpuint (test_http_ask (port, "POST", "/", OWN), ==, 405);
  g_assert_cmpstr (
      json_object_get_string_member (json_node_get_object (settings), "location"), ==,
      "/a/\"b\".safetensors");
  json_node_unref (settings);
  flux_report_free (r, TRUE);
  g_assert_cmpuint (test_http_ask (port, "GET", "/", NULL), ==, 0);
}

static void
test_state (void)
{
  guint port;
  FluxReport *r = open_page (&port);
  JsonNode *node = json_at (port, "/state");
  JsonObject *o = json_node_get_object (node), *curve;
  JsonArray *paired;

  g_assert_false (json_object_has_member (o, "step"));
  json_node_unref (node);
  flux_report_state (r, "training");
  g_assert_true (flux_report_paired_loss (r, 0, 0.75, NULL));
  for (guint64 step = 1; step <= 3; step++)
    tell_step (r, step);
  flux_report_saved (r, 2);
  node = json_at (port, "/state?stride=1&from=2");
  o = json_node_get_object (node);
  g_assert_cmpstr (json_object_get_string_member (o, "state"), ==, "training");
  g_assert_cmpint (json_object_get_int_member (o, "step"), ==, 3);
  g_assert_cmpint (json_object_get_int_member (o, "saved_step"), ==, 2);
  g_assert_cmpfloat (json_object_get_double_member (o, "loss"), ==, 1.0 / 3);
  g_assert_cmpint (json_object_get_int_member (o, "memory_bytes"), ==, 1 << 30);
  g_assert_true (json_object_has_member (o, "seconds_left"));
  paired = json_array_get_array_element (json_object_get_array_member (o, "paired"), 0);
  g_assert_cmpfloat (json_array_get_double_element (paired, 1), ==, 0.75);
  curve = json_object_get_object_member (o, "curve");
  g_assert_cmpint (json_object_get_int_member (curve, "from"), ==, 2);
  g_assert_cmpuint (
      json_array_get_length (json_object_get_array_member (curve, "loss")), ==, 1);
  json_node_unref (node);
  flux_report_free (r, TRUE);
}

/* However long it goes on: a bounded number of points, which are means. */
static void
test_bounded (void)
{
  guint port, n;
  FluxReport *r = open_page (&port);
  JsonNode *node;
  JsonObject *curve;
  JsonArray *step;
  gint64 stride;

  for (guint64 i = 1; i <= 10000; i++)
    tell_step (r, i);
  for (guint64 i = 0; i < 500; i++)
    g_assert_true (flux_report_paired_loss (r, i, 1, NULL));
  node = json_at (port, "/state?stride=1&from=77");
  curve = json_object_get_object_member (json_node_get_object (node), "curve");
  stride = json_object_get_int_member (curve, "stride");
  step = json_object_get_array_member (curve, "step");
  n = json_array_get_length (step);
  g_assert_cmpint (json_object_get_int_member (curve, "from"), ==, 0);
  g_assert_cmpint (stride, ==, 16);
  g_assert_cmpuint (n, ==, 10000 / 16);
  g_assert_cmpint (json_array_get_int_element (step, 0), ==, 16);
  g_assert_cmpint (json_array_get_int_element (step, n - 1), ==, 10000);
  g_assert_cmpfloat_with_epsilon (
      json_array_get_double_element (json_object_get_array_member (curve, "loss"), 0),
      3.380728993228993 / 16, 1e-12); /* the sum of 1/1 ... 1/16 */
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (
                        json_node_get_object (node), "paired")),
      ==, FLUX_LIVE_PAIRED);
  json_node_unref (node);
  flux_report_free (r, TRUE);
}

static void
test_pictures (void)
{
  static const guint8 rgb[12] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 1, 2, 3};
  FluxReportPicture picture = {5, "a \"red\" <fox>", rgb, 2, 2, 6};
  guint port;
  FluxReport *r = open_page (&port);
  JsonNode *node;
  JsonArray *pictures;
  JsonObject *last;
  gchar *answer, *path;
  const gchar *run;

  for (guint i = 0; i < FLUX_LIVE_PICTURES + 5; i++)
    g_assert_true (flux_report_picture (r, &picture, NULL));
  node = json_at (port, "/state");
  pictures = json_object_get_array_member (json_node_get_object (node), "pictures");
  g_assert_cmpuint (json_array_get_length (pictures), ==, FLUX_LIVE_PICTURES);
  last = json_array_get_object_element (pictures, FLUX_LIVE_PICTURES - 1);
  g_assert_cmpstr (json_object_get_string_member (last, "prompt"), ==, "a \"red\" <fox>");
  g_assert_cmpint (json_object_get_int_member (last, "step"), ==, 5);
  answer = test_http (port, "GET", "/state", NULL);
  run = strstr (answer, "X-Flux-Run: ") + strlen ("X-Flux-Run: ");
  path = g_strdup_printf ("/picture/%.*s/%" G_GINT64_FORMAT ".png",
      (int)strcspn (run, "\r"), run, json_object_get_int_member (last, "id"));
  g_free (answer);
  answer = test_http (port, "GET", path, NULL);
  g_assert_cmpuint (test_http_status (answer), ==, 200);
  g_assert_nonnull (strstr (answer, "Content-Type: image/png"));
  g_assert_true (g_str_has_prefix (test_http_body (answer), "\x89PNG"));
  g_free (answer);
  *strrchr (path, '/') = '\0';
  answer = g_strconcat (path, "/0.png", NULL); /* made room for others */
  g_assert_cmpuint (test_http_ask (port, "GET", answer, NULL), ==, 404);
  g_free (answer);
  g_assert_cmpuint (test_http_ask (port, "GET", "/picture/x/1.png", NULL), ==, 404);
  g_assert_cmpuint (test_http_ask (port, "GET", path, NULL), ==, 404);
  g_free (path);
  json_node_unref (node);
  flux_report_free (r, TRUE);
}

static void
test_buttons (void)
{
  static const gchar *const paths[] = {"/pause", "/resume", "/save", "/stop"};
  guint port;
  FluxReport *r = open_page (&port);
  gchar *own = NULL;

  g_atomic_int_set (&pressed, 0);
  own = g_strdup_printf (OWN "Origin: http://127.0.0.1:%u\r\n", port);
  for (guint i = 0; i < G_N_ELEMENTS (paths); i++) {
    g_assert_cmpuint (test_http_ask (port, "GET", paths[i], OWN), ==, 405);
    g_assert_cmpuint (test_http_ask (port, "OPTIONS", paths[i], OWN), ==, 405);
    g_assert_cmpuint (test_http_ask (port, "POST", paths[i], NULL), ==, 403);
    g_assert_cmpuint (
        test_http_ask (port, "POST", paths[i], OWN "Origin: http://evil.example\r\n"), ==,
        403);
    g_assert_cmpuint (
        test_http_ask (port, "POST", paths[i], OWN "Origin: null\r\n"), ==, 403);
  }
  g_assert_cmpint (g_atomic_int_get (&pressed), ==, 0);
  for (guint i = 0; i < G_N_ELEMENTS (paths); i++)
    g_assert_cmpuint (test_http_ask (port, "POST", paths[i], own), ==, 204);
  g_assert_cmpint (g_atomic_int_get (&pressed), ==, 1111);
  g_free (own);
  flux_report_free (r, TRUE);
}

/* A site that gave its name our address (DNS rebinding). */
static void
test_other_names (void)
{
  guint port;
  FluxReport *r = open_page (&port);

  g_assert_cmpuint (
      test_http_ask (port, "GET", "/state", "Host: evil.example\r\n"), ==, 403);
  g_assert_cmpuint (
      test_http_ask (port, "GET", "/state", "Host: evil.example:80\r\n"), ==, 403);
  g_assert_cmpuint (
      test_http_ask (port, "POST", "/stop", "Host: evil.example\r\n" OWN), ==, 403);
  g_assert_cmpuint (
      test_http_ask (port, "GET", "/state", "Host: localhost:9000\r\n"), ==, 200);
  g_assert_true (flux_http_is_local_host ("[::1]:7070"));
  g_assert_true (flux_http_is_local_host ("LOCALHOST"));
  g_assert_false (flux_http_is_local_host ("[::1].evil.example"));
  g_assert_false (flux_http_is_local_host ("127.0.0.1.evil.example"));
  g_assert_false (flux_http_is_local_host ("[::1"));
  g_assert_false (flux_http_is_local_host (NULL));
  flux_report_free (r, TRUE);
}

/* Any other address needs the token: in the address once, then as a cookie. */
static void
test_token (gconstpointer given)
{
  GError *error = NULL;
  FluxReport *r = open_at ("0.0.0.0", 0, given, &error);
  guint port;
  const gchar *token;
  gchar *path, *answer, *headers;

  g_assert_no_error (error);
  port = test_http_port (flux_report_get_location (r, FLUX_REPORT_HTTP));
  token = flux_report_get_token (r);
  g_assert_cmpuint (strlen (token), >=, 20);
  if (given != NULL)
    g_assert_cmpstr (token, ==, given);
  g_assert_null (strstr (flux_report_get_location (r, FLUX_REPORT_HTTP), token));
  g_assert_null (strstr (flux_report_get_location (r, FLUX_REPORT_HTTP), "0.0.0.0"));

  g_assert_cmpuint (test_http_ask (port, "GET", "/", NULL), ==, 401);
  g_assert_cmpuint (test_http_ask (port, "GET", "/state", NULL), ==, 401);
  g_assert_cmpuint (test_http_ask (port, "GET", "/other", NULL), ==, 401);
  g_assert_cmpuint (test_http_ask (port, "POST", "/stop", OWN), ==, 401);
  g_assert_cmpuint (test_http_ask (port, "GET", "/?token=", NULL), ==, 401);
  path = g_strdup_printf ("/?token=%sx", token);
  g_assert_cmpuint (test_http_ask (port, "GET", path, NULL), ==, 401);
  path[strlen (path) - 2] = '\0';
  g_assert_cmpuint (test_http_ask (port, "GET", path, NULL), ==, 401);
  g_free (path);

  path = g_strdup_printf ("/?token=%s", token);
  answer = test_http (port, "GET", path, NULL);
  g_assert_cmpuint (test_http_status (answer), ==, 303);
  headers = g_strdup_printf ("Set-Cookie: gst-flux-%u=%s; Path=/; HttpOnly", port, token);
  g_assert_nonnull (strstr (answer, headers));
  g_assert_nonnull (strstr (answer, "Location: "));
  g_assert_null (strstr (strstr (answer, "Location: "), "token="));
  g_free (headers);
  g_free (answer);
  headers = g_strdup_printf ("Cookie: a=b; gst-flux-%u=%s\r\n", port, token);
  g_assert_cmpuint (test_http_ask (port, "GET", "/state", headers), ==, 200);
  g_free (headers);
  headers = g_strdup_printf ("Authorization: Bearer %s\r\n" OWN, token);
  g_atomic_int_set (&pressed, 0);
  g_assert_cmpuint (test_http_ask (port, "POST", "/save", headers), ==, 204);
  g_assert_cmpint (g_atomic_int_get (&pressed), ==, 100);
  g_free (headers);
  g_free (path);
  flux_report_free (r, TRUE);
}

static void
test_settings_refused (void)
{
  guint port;
  FluxReport *r = open_page (&port);
  GError *error = NULL;

  g_assert_null (open_at ("127.0.0.1", port, NULL, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_assert_nonnull (strstr (error->message, "http-port"));
  g_clear_error (&error);
  g_assert_null (open_at ("a.host.name", 0, NULL, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_assert_nonnull (strstr (error->message, "http-address"));
  g_clear_error (&error);
  g_assert_null (open_at ("127.0.0.1", 0, "short", &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_assert_null (strstr (error->message, "short"));
  g_clear_error (&error);
  flux_report_free (r, TRUE);
}

/* Whatever comes: the next one is answered. */
static void
test_garbage (void)
{
  static const gchar *const requests[] = {"\r\n\r\n", "GET\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00",
      "GET /%zz%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
      "GET http://[::/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
      "POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999"
      "\r\n\r\nx",
      "GET /state?stride=-1&from=1e9&from HTTP/1.1\r\nHost: localhost\r\nConnection: "
      "close\r\n\r\n"};
  guint port;
  FluxReport *r = open_page (&port);
  GRand *rand = g_rand_new_with_seed (1);

  g_atomic_int_set (&pressed, 0);
  for (guint i = 0; i < 200; i++) {
    GSocketConnection *c = test_http_connect (port);
    guint8 noise[300];
    gconstpointer data = noise;
    gsize n = sizeof noise;

    g_assert_nonnull (c);
    for (gsize k = 0; k < n; k++)
      noise[k] = (guint8)g_rand_int_range (rand, 0, 256);
    if (i < G_N_ELEMENTS (requests)) {
      data = requests[i];
      n = strlen (data);
    }
    g_output_stream_write_all (
        g_io_stream_get_output_stream (G_IO_STREAM (c)), data, n, NULL, NULL, NULL);
    g_object_unref (c); /* closes it: nobody waits for an answer */
  }
  g_rand_free (rand);
  g_assert_cmpuint (test_http_ask (port, "GET", "/state", NULL), ==, 200);
  g_assert_cmpint (g_atomic_int_get (&pressed), ==, 0);
  flux_report_free (r, TRUE);
}

/* Those who take their time do not keep others from looking, and more than a number of
 * them are sent away. */
static void
test_many (void)
{
  guint port, n_closed = 0;
  FluxReport *r = open_page (&port);
  GPtrArray *idle = g_ptr_array_new_with_free_func (g_object_unref);

  for (guint i = 0; i < FLUX_HTTP_MAX_CONNECTIONS - 10; i++) {
    GSocketConnection *c = test_http_connect (port);

    g_assert_nonnull (c);
    g_output_stream_write_all (g_io_stream_get_output_stream (G_IO_STREAM (c)),
        "GET /state HT", 13, NULL, NULL, NULL);
    g_ptr_array_add (idle, c);
  }
  for (guint64 step = 1; step <= 1000; step++)
    tell_step (r, step);
  g_assert_cmpuint (test_http_ask (port, "GET", "/state", NULL), ==, 200);
  for (guint i = 0; i < 30; i++)
    g_ptr_array_add (idle, test_http_connect (port));
  for (guint i = 0; i < 5; i++)
    n_closed += test_http_ask (port, "GET", "/state", NULL) == 0;
  g_assert_cmpuint (n_closed, ==, 5);
  g_ptr_array_unref (idle);
  for (guint i = 0; i < 100 && test_http_ask (port, "GET", "/state", NULL) == 0; i++)
    g_usleep (G_USEC_PER_SEC / 20);
  g_assert_cmpuint (test_http_ask (port, "GET", "/state", NULL), ==, 200);
  flux_report_free (r, TRUE);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/reporthttp/page", test_page);
  g_test_add_func ("/reporthttp/state", test_state);
  g_test_add_func ("/reporthttp/bounded", test_bounded);
  g_test_add_func ("/reporthttp/pictures", test_pictures);
  g_test_add_func ("/reporthttp/buttons", test_buttons);
  g_test_add_func ("/reporthttp/other-names", test_other_names);
  g_test_add_data_func ("/reporthttp/token/made", NULL, test_token);
  g_test_add_data_func ("/reporthttp/token/given", TOKEN, test_token);
  g_test_add_func ("/reporthttp/settings-refused", test_settings_refused);
  g_test_add_func ("/reporthttp/garbage", test_garbage);
  g_test_add_func ("/reporthttp/many", test_many);
  return g_test_run ();
}
