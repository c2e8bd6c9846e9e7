/* tests/elements/test-hubpush.c: fluxtrainsink push-to-hub. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "tests/elements/testhub.h"

#define REPO "tests/mucha"
#define WANDB_KEY "0123456789planted0123456789planted012345"

static void
push_run_init (TestRun *run, const gchar *properties, guint steps)
{
  test_run_init (run,
      "fluxcachesrc location=%s ! fluxtrainsink model=%s max-steps=%u location=%s "
      "push-to-hub=" REPO " %s fluxsamplersrc every-steps=2 prompt=fox " FAST
      " ! video/x-raw,width=64,height=48 ! fakesink",
      cache, model, steps, at ("a.safetensors"), properties);
}

static gchar *
pushed_card (void)
{
  const TestHubFile *card = test_hub_find (hub, REPO, "README.md");

  g_assert_nonnull (card);
  return g_strndup (g_bytes_get_data (card->bytes, NULL), g_bytes_get_size (card->bytes));
}

static void
test_push (void)
{
  TestRun run;
  const TestHubFile *lora;
  const gchar *page = NULL;
  gchar *card, *data;
  gsize length, n;
  gconstpointer there;

  setup ();
  push_run_init (&run, "rank=2 meter-triples=4 trigger-words=\"sks style\"", 4);
  test_run_all (&run);
  g_assert_cmpuint (run.n_errors + run.n_warnings, ==, 0);
  for (guint i = 0; i < run.messages->len; i++)
    if (gst_structure_has_name (run.messages->pdata[i], "flux-push"))
      page = gst_structure_get_string (run.messages->pdata[i], "location");
  g_assert_true (page != NULL && g_str_has_suffix (page, "/" REPO));
  test_run_clear (&run);

  g_assert_cmpstr (g_hash_table_lookup (hub->repos, REPO), ==, "private");
  lora = test_hub_find (hub, REPO, "pytorch_lora_weights.safetensors");
  g_assert_nonnull (lora);
  g_assert_true (g_file_get_contents (at ("a.safetensors"), &data, &length, NULL));
  there = g_bytes_get_data (lora->bytes, &n);
  g_assert_cmpmem (there, n, data, length);
  g_assert_nonnull (test_hub_find (hub, REPO, "loss.png"));
  g_assert_nonnull (test_hub_find (hub, REPO, "samples/1.png"));
  card = pushed_card ();
  g_assert_nonnull (strstr (card, "\ninstance_prompt: \"sks style\"\n"));
  g_assert_nonnull (strstr (card, "\n- text: \"fox\"\n"));
  g_assert_nonnull (strstr (card, "| `rank` | `2` |"));
  g_assert_nonnull (strstr (card, "| 4 to 4 | "));
  g_assert_nonnull (strstr (card, " before, "));
  /* Nothing of this machine, and no secret. */
  g_assert_null (strstr (card, folder));
  g_assert_null (strstr (card, model));
  g_assert_null (strstr (card, cache));
  g_assert_null (strstr (card, TOKEN));
  g_free (card);
  g_free (data);

  /* What is on the Hub draws what the file draws. */
  draw (model, at ("a.safetensors"), at ("file"));
  draw (model, "hf://" REPO, at ("hub"));
  test_same_file (at ("file"), at ("hub"));
  teardown ();
}

/* Captions have words in common, and nothing is sent unasked. */
static void
test_push_words (void)
{
  TestRun run;
  gchar *card;

  setup ();
  train_from (images, model, at ("a.safetensors"));
  g_assert_cmpuint (hub->log->len, ==, 0);
  test_run_init (&run,
      "fluxdatasetsrc location=%s ! " CROP " ! fluxvaeenc model=%s ! fluxembed "
      "text-model=" MODEL " " EMBED " ! fluxtrainsink model=" MODEL
      " max-steps=4 location=%s push-to-hub=" REPO " push-private=false",
      images, model, at ("a.safetensors"));
  test_run_all (&run);
  test_run_clear (&run);
  g_assert_cmpstr (g_hash_table_lookup (hub->repos, REPO), ==, "public");
  card = pushed_card ();
  g_assert_nonnull (strstr (card, "\nbase_model: \"" TEST_HUB_REPO "\"\n"));
  g_assert_null (strstr (card, "instance_prompt"));
  g_free (card);
  teardown ();
}

static void
check_push_refused (guint steps, const gchar *words)
{
  TestRun run;

  push_run_init (&run, "", 3);
  test_run_play (&run);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  test_run_stop (&run);
  if (strstr (run.error, words) == NULL || strstr (run.error, TOKEN) != NULL) {
    g_test_message ("'%s' does not say '%s'", run.error, words);
    g_test_fail ();
  }
  g_assert_cmpuint (run.n_errors, ==, 1);
  g_assert_cmpuint (run.n_steps, ==, steps);
  /* What was learnt is there. */
  g_assert_true (exists (at ("a.safetensors")) == (steps > 0));
  g_assert_null (test_hub_find (hub, REPO, NULL));
  test_run_clear (&run);
}

/* What can be known before hours of training is told before. */
static void
test_push_refused (void)
{
  setup ();
  g_unsetenv ("HF_TOKEN");
  check_push_refused (0, "needs a token");
  g_setenv ("HF_TOKEN", "hf_not_mine", TRUE);
  check_push_refused (0, "does not accept the token");
  g_setenv ("HF_TOKEN", TOKEN, TRUE);
  hub->push_status = 403;
  hub->push_at = "/repos/create";
  check_push_refused (3, "but not on the Hub: The token may not write");
  hub->push_at = "/commit/";
  hub->push_status = 400;
  check_push_refused (3, "sends it");
  teardown ();
}

/* Stopped before the end: saved, and not sent. Stopped while it is sent: neither. */
static void
test_push_stopped (void)
{
  TestRun run;
  gint64 start;

  setup ();
  push_run_init (&run, "", 100000);
  test_run_play (&run);
  g_assert_cmpint (test_run_until_step (&run, 2), ==, 0);
  gst_element_send_event (run.pipeline, gst_event_new_eos ());
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_warnings, ==, 1);
  g_assert_cmpuint (run.n_final, ==, 1);
  test_run_clear (&run);
  g_assert_cmpuint (test_hub_count (hub, "POST"), ==, 0);

  for (guint by_eos = 0; by_eos < 2; by_eos++) {
    hub->n_cut_put = 1000;
    hub->stall_put = TRUE;
    push_run_init (&run, "", 3);
    test_run_play (&run);
    while (test_hub_count (hub, "PUT") <= by_eos)
      g_usleep (10000);
    start = g_get_monotonic_time ();
    if (by_eos) {
      gst_element_send_event (run.pipeline, gst_event_new_eos ());
      g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_EOS);
    }
    test_run_stop (&run);
    g_assert_cmpint (g_get_monotonic_time () - start, <, 2 * G_TIME_SPAN_SECOND);
    g_assert_cmpuint (run.n_errors, ==, 0);
    test_run_clear (&run);
    g_assert_cmpuint (test_hub_count (hub, "/commit/"), ==, 0);
    g_assert_true (exists (at ("a.safetensors")));
  }
  teardown ();
}

/* Neither logs at their most, nor messages, reports, the cache or what is pushed say a
 * token, of a run that pulls and pushes. */
static void
test_push_token (void)
{
  static const gchar *const pushed[] = {
      "README.md", "pytorch_lora_weights.safetensors", "loss.png", "samples/1.png"};
  gchar *program = find_gst_launch (), *line, *log;
  gint status;

  if (program == NULL) {
    g_test_skip ("no gst-launch-1.0 that can load this build");
    return;
  }
  g_free (program);
  setup ();
  g_setenv ("WANDB_API_KEY", WANDB_KEY, TRUE);
  line = g_strdup_printf (
      "sh -c 'GST_DEBUG_NO_COLOR=1 GST_DEBUG=*:9 G_MESSAGES_DEBUG=all gst-launch-1.0 -v "
      "-m "
      "fluxcachesrc location=%s ! fluxtrainsink model=" MODEL " max-steps=2 location=%s "
      "push-to-hub=" REPO " report-to=jsonl+tensorboard+wandb report-dir=%s "
      "fluxsamplersrc every-steps=2 prompt=fox " FAST
      " ! video/x-raw,width=64,height=48 ! fakesink >%s 2>&1'",
      cache, at ("a.safetensors"), at ("reports"), at ("log"));
  g_assert_true (g_spawn_command_line_sync (line, NULL, NULL, &status, NULL));
  g_assert_cmpint (status, ==, 0);
  g_assert_nonnull (test_hub_find (hub, REPO, "README.md"));
  g_assert_cmpuint (test_hub_count (hub, TOKEN), >, 0);
  g_free (line);
  for (guint i = 0; i < G_N_ELEMENTS (pushed); i++) {
    const TestHubFile *file = test_hub_find (hub, REPO, pushed[i]);
    gsize n;
    gconstpointer bytes;

    g_assert_nonnull (file);
    bytes = g_bytes_get_data (file->bytes, &n);
    g_assert_null (memmem (bytes, n, TOKEN, strlen (TOKEN)));
    g_assert_null (memmem (bytes, n, WANDB_KEY, strlen (WANDB_KEY)));
  }
  line = g_strdup_printf ("grep -rqF -e " TOKEN " -e " WANDB_KEY " %s", folder);
  g_assert_true (g_spawn_command_line_sync (line, NULL, NULL, &status, NULL));
  g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 1);
  g_assert_true (g_file_get_contents (at ("log"), &log, NULL, NULL));
  g_assert_nonnull (strstr (log, "flux-push"));
  g_assert_nonnull (strstr (log, "tensorboard report: "));
  g_assert_nonnull (strstr (log, "wandb report: "));
  g_free (log);
  g_free (line);
  g_unsetenv ("WANDB_API_KEY");
  teardown ();
}

static void
add_tests (void)
{
  g_test_add_func ("/hubpush/card", test_push);
  g_test_add_func ("/hubpush/words", test_push_words);
  g_test_add_func ("/hubpush/refused", test_push_refused);
  g_test_add_func ("/hubpush/stopped", test_push_stopped);
  g_test_add_func ("/hubpush/token", test_push_token);
}

int
main (int argc, char **argv)
{
  return test_hub_main (argc, argv, add_tests);
}
