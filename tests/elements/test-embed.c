/* tests/elements/test-embed.c: fluxembed. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/files/embedding-table.h"
#include "flux/text/text-encoder.h"
#include "flux/model.h"
#include "tests/elements/testembed.h"

enum { TOKENS = 3, DIM = 4, POOLED = 2 };

/* Rows of pictures first..first + n - 1 (values: number), and "" (values: -1). */
static void
write_table (const gchar *path, guint first, guint n, gboolean empty)
{
  FluxEmbeddingTable *table = flux_embedding_table_open (path, TRUE, DIM, POOLED, NULL);

  for (guint i = 0; i < n + (empty ? 1 : 0); i++) {
    gchar *key = i < n ? g_strdup_printf ("%064x", first + i + 1) : g_strdup ("");
    float value = i < n ? (float)(first + i) : -1, embeds[TOKENS * DIM], pooled[POOLED];
    FluxEmbedding e = {.text_tokens = TOKENS, .joint_dim = DIM, .pooled_dim = POOLED};

    for (guint j = 0; j < TOKENS * DIM; j++)
      embeds[j] = value;
    for (guint j = 0; j < POOLED; j++)
      pooled[j] = value;
    e.prompt_embeds = g_bytes_new (embeds, sizeof embeds);
    e.pooled = g_bytes_new (pooled, sizeof pooled);
    flux_embedding_table_add (table, key, &e);
    flux_embedding_clear (&e);
    g_free (key);
  }
  g_assert_true (flux_embedding_table_save (table, NULL));
  flux_embedding_table_free (table);
}

static float
first_value (GstBuffer *buffer, guint memory)
{
  GstMemory *m = gst_buffer_peek_memory (buffer, memory);
  GstMapInfo map;
  float value;

  g_assert_true (gst_memory_map (m, &map, GST_MAP_READ));
  memcpy (&value, map.data, sizeof value);
  gst_memory_unmap (m, &map);
  return value;
}

/* A row is found by the key of the image: whatever order pictures come in, each gets its
 * own. (The reference pairs row i with the picture that comes i-th, which is wrong after
 * a shuffle.) */
static void
test_by_key (void)
{
  const guint order[] = {5, 0, 7, 2, 2, 6, 1, 3, 4};
  Fixture f;

  setup (&f, ".safetensors");
  write_table (f.table, 0, 8, FALSE);
  play (&f);
  for (guint i = 0; i < G_N_ELEMENTS (order); i++) {
    GstBuffer *out = gst_harness_push_and_pull (f.h, latent (order[i], 2, 2, "x"));

    g_assert_cmpuint (gst_buffer_n_memory (out), ==, 3);
    g_assert_cmpfloat (first_value (out, 0), ==, (float)order[i]);
    g_assert_cmpfloat (first_value (out, 1), ==, (float)order[i]);
    g_assert_cmpfloat (first_value (out, 2), ==, (float)order[i]);
    gst_buffer_unref (out);
  }
  teardown (&f);
}

static void
test_caps (void)
{
  Fixture f;
  GstCaps *caps, *want;
  GstFluxTensorInfo info = {16, 4, 2, TOKENS, DIM, POOLED, "vae"};

  setup (&f, ".parquet");
  write_table (f.table, 0, 2, FALSE);
  play (&f);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, NULL)));
  gst_harness_set_src_caps (f.h, latent_caps (4, 2));
  gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (1, 4, 2, NULL)));
  caps = gst_pad_get_current_caps (f.h->sinkpad);
  want = gst_flux_tensor_info_to_caps (&info);
  g_assert_true (gst_caps_is_equal (caps, want));
  gst_caps_unref (want);
  gst_caps_unref (caps);
  teardown (&f);
}

/* Sticky events in their order, and the empty prompt's among them when there is one. */
static void
test_events (void)
{
  for (guint with = 0; with < 2; with++) {
    Fixture f;
    GstEvent *event;
    GstEventType last = 0;
    guint n_empty = 0;

    setup (&f, ".safetensors");
    write_table (f.table, 0, 1, with == 1);
    play (&f);
    gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, NULL)));
    gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, NULL)));
    while ((event = gst_harness_try_pull_event (f.h)) != NULL) {
      FluxEmbedding e;

      g_assert_cmpint (GST_EVENT_TYPE (event), >=, last);
      last = GST_EVENT_TYPE (event);
      if (gst_flux_empty_prompt_event_parse (event, &e)) {
        n_empty++;
        g_assert_cmpint (e.text_tokens, ==, TOKENS);
        g_assert_cmpint (e.joint_dim, ==, DIM);
        g_assert_cmpint (e.pooled_dim, ==, POOLED);
        g_assert_cmpfloat (*(const float *)g_bytes_get_data (e.pooled, NULL), ==, -1);
        flux_embedding_clear (&e);
      }
      gst_event_unref (event);
    }
    g_assert_cmpuint (n_empty, ==, with);
    teardown (&f);
  }
}

static void
test_missing (void)
{
  Fixture f;
  GError *error = NULL;

  setup (&f, ".safetensors");
  write_table (f.table, 0, 1, FALSE);
  play (&f);
  g_assert_cmpint (gst_harness_push (f.h, latent (4, 2, 2, "x")), ==, GST_FLOW_ERROR);
  g_assert_cmpuint (test_count_errors (f.bus, &error), ==, 1);
  g_assert_error (error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, f.table));
  g_error_free (error);
  teardown (&f);
}

static void
test_missing_skip (void)
{
  Fixture f;

  setup (&f, ".safetensors");
  write_table (f.table, 0, 1, FALSE);
  gst_util_set_object_arg (G_OBJECT (f.element), "missing", "skip");
  play (&f);
  g_assert_cmpint (gst_harness_push (f.h, latent (4, 2, 2, "x")), ==, GST_FLOW_OK);
  g_assert_cmpint (gst_harness_push (f.h, latent (0, 2, 2, "x")), ==, GST_FLOW_OK);
  g_assert_cmpuint (gst_harness_buffers_received (f.h), ==, 1);
  g_assert_cmpuint (test_count_errors (f.bus, NULL), ==, 0);
  teardown (&f);
}

/* A buffer that is smaller than its caps say is not read beyond its end. */
static void
test_short_buffer (void)
{
  Fixture f;
  GstBuffer *buffer;

  setup (&f, ".safetensors");
  write_table (f.table, 0, 1, FALSE);
  play (&f);
  buffer = latent (0, 2, 2, "x");
  gst_buffer_resize (buffer, 0, 100);
  g_assert_cmpint (gst_harness_push (f.h, buffer), ==, GST_FLOW_ERROR);
  g_assert_cmpuint (test_count_errors (f.bus, NULL), ==, 1);
  teardown (&f);
}

/* ---- with text encoders ---- */

static gboolean
has_loaded (Fixture *f)
{
  GstMessage *message = gst_bus_pop_filtered (f->bus, GST_MESSAGE_PROGRESS);
  gboolean has = message != NULL;

  if (has)
    gst_message_unref (message);
  return has;
}

/* Rows that are missing are computed as the library does, and are in the table
 * afterwards, with the empty prompt's: then nothing is loaded. */
static void
test_compute (gconstpointer suffix)
{
  Fixture f;
  GstBuffer *first, *again;
  FluxTextInfo info;
  FluxTextEncoder *encoder;
  fx_backend *backend;
  float *embeds, *pooled;
  GstMapInfo map;

  if (!test_need_model (&model))
    return;
  setup (&f, suffix);
  g_object_set (f.element, "text-model", model, NULL);
  gst_util_set_object_arg (G_OBJECT (f.element), "text-quantization", "none");
  play (&f);
  first = gst_harness_push_and_pull (f.h, latent (0, 2, 2, "red apple"));
  g_assert_true (has_loaded (&f));
  g_assert_false (g_file_test (f.table, G_FILE_TEST_EXISTS));
  gst_harness_push_event (f.h, gst_event_new_eos ());
  g_assert_true (g_file_test (f.table, G_FILE_TEST_EXISTS));
  gst_harness_teardown (f.h);
  gst_element_set_bus (f.element, NULL);
  gst_object_unref (f.element);

  backend = flux_backend_new (FLUX_DEVICE_CPU, FX_N_DTYPES, NULL);
  encoder = flux_text_encoder_load (model, backend, FX_Q_NONE, NULL, NULL, NULL, NULL);
  g_assert_true (flux_text_read_info (model, &info, NULL));
  embeds = g_new (float, TEST_TOKENS *info.joint_dim);
  pooled = g_new (float, info.pooled_dim);
  g_assert_true (flux_text_encode (
      encoder, "red apple", TEST_TOKENS, embeds, pooled, NULL, NULL, NULL));
  gst_memory_map (gst_buffer_peek_memory (first, 1), &map, GST_MAP_READ);
  g_assert_cmpmem (
      map.data, map.size, embeds, sizeof (float) * TEST_TOKENS * info.joint_dim);
  gst_memory_unmap (gst_buffer_peek_memory (first, 1), &map);
  gst_memory_map (gst_buffer_peek_memory (first, 2), &map, GST_MAP_READ);
  g_assert_cmpmem (map.data, map.size, pooled, sizeof (float) * info.pooled_dim);
  gst_memory_unmap (gst_buffer_peek_memory (first, 2), &map);
  flux_text_encoder_free (encoder);
  fx_backend_free (backend);

  f.element = gst_element_factory_make ("fluxembed", NULL);
  gst_element_set_bus (f.element, f.bus);
  while (has_loaded (&f))
    ;
  g_object_set (f.element, "location", f.table, "text-model", model,
      "max-sequence-length", TEST_TOKENS, NULL);
  play (&f);
  again = gst_harness_push_and_pull (f.h, latent (0, 2, 2, "red apple"));
  g_assert_false (has_loaded (&f));
  gst_memory_map (gst_buffer_peek_memory (again, 1), &map, GST_MAP_READ);
  g_assert_cmpmem (
      map.data, map.size, embeds, sizeof (float) * TEST_TOKENS * info.joint_dim);
  gst_memory_unmap (gst_buffer_peek_memory (again, 1), &map);
  gst_buffer_unref (first);
  gst_buffer_unref (again);
  g_free (embeds);
  g_free (pooled);
  g_free (model);
  teardown (&f);
}

/* Interrupted before EOS: what was computed is kept. */
static void
test_interrupted (void)
{
  Fixture f;

  if (!test_need_model (&model))
    return;
  setup (&f, ".parquet");
  g_object_set (f.element, "text-model", model, NULL);
  play (&f);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, "red apple")));
  gst_element_set_state (f.element, GST_STATE_NULL);
  g_assert_true (g_file_test (f.table, G_FILE_TEST_EXISTS));
  g_free (model);
  teardown (&f);
}

/* One picture with two captions cannot be told apart in a table: a warning. */
static void
test_two_captions (void)
{
  Fixture f;
  GstMessage *warning;

  setup (&f, ".safetensors");
  write_table (f.table, 0, 1, FALSE);
  play (&f);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, "red apple")));
  gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, "red apple")));
  g_assert_null (gst_bus_pop_filtered (f.bus, GST_MESSAGE_WARNING));
  gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, "an apple")));
  warning = gst_bus_pop_filtered (f.bus, GST_MESSAGE_WARNING);
  g_assert_nonnull (warning);
  gst_message_unref (warning);
  teardown (&f);
}

/* A table whose rows have another length is not mixed with ours. */
static void
test_other_length (void)
{
  Fixture f;
  GError *error = NULL;
  FluxTextInfo info;
  FluxEmbeddingTable *table;
  FluxEmbedding e = {.text_tokens = 7};
  gchar *key;

  if (!test_need_model (&model))
    return;
  setup (&f, ".safetensors");
  flux_text_read_info (model, &info, NULL);
  table =
      flux_embedding_table_open (f.table, TRUE, info.joint_dim, info.pooled_dim, NULL);
  e.joint_dim = info.joint_dim;
  e.pooled_dim = info.pooled_dim;
  e.prompt_embeds = g_bytes_new_take (
      g_new0 (float, 7 * info.joint_dim), sizeof (float) * 7 * info.joint_dim);
  e.pooled = g_bytes_new_take (
      g_new0 (float, info.pooled_dim), sizeof (float) * info.pooled_dim);
  key = g_strdup_printf ("%064x", 1);
  flux_embedding_table_add (table, key, &e);
  flux_embedding_table_add (table, "", &e);
  g_assert_true (flux_embedding_table_save (table, NULL));
  flux_embedding_table_free (table);
  flux_embedding_clear (&e);
  g_object_set (f.element, "text-model", model, NULL);
  play (&f);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, "x")));
  g_assert_cmpint (gst_harness_push (f.h, latent (1, 2, 2, "y")), ==, GST_FLOW_ERROR);
  g_assert_cmpuint (test_count_errors (f.bus, &error), ==, 1);
  g_assert_nonnull (strstr (error->message, "max-sequence-length=7"));
  g_error_free (error);
  g_free (key);
  g_free (model);
  teardown (&f);
}

static void
expect_no_start (const gchar *location, const gchar *text_model, const gchar *word)
{
  GstElement *element = gst_element_factory_make ("fluxembed", NULL);
  GstBus *bus = gst_bus_new ();
  GError *error = NULL;

  gst_element_set_bus (element, bus);
  g_object_set (element, "location", location, "text-model", text_model, NULL);
  g_assert_cmpint (
      gst_element_set_state (element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
  g_assert_cmpuint (test_count_errors (bus, &error), ==, 1);
  g_assert_nonnull (strstr (error->message, word));
  g_error_free (error);
  gst_element_set_state (element, GST_STATE_NULL);
  gst_element_set_bus (element, NULL);
  gst_object_unref (bus);
  gst_object_unref (element);
}

/* What is neither parquet nor safetensors by name, and where no file can be made. */
static void
test_bad_location (void)
{
  Fixture f;

  if (!test_need_model (&model))
    return;
  setup (&f, ".txt");
  expect_no_start (f.table, model, f.table);
  expect_no_start ("/proc/table.parquet", model, "'/proc'");
  /* Nobody would write this one: it is only not there. */
  expect_no_start ("/proc/table.parquet", NULL, "'/proc/table.parquet'");
  g_object_set (f.element, "location", NULL, "text-model", model, NULL);
  play (&f);
  g_assert_cmpuint (test_count_errors (f.bus, NULL), ==, 0);
  g_free (model);
  teardown (&f);
}

/* A table that cannot be saved at EOS cannot be when the element stops either: one error.
 * When it can be by then, nothing is lost. */
static void
test_cannot_save (void)
{
  for (guint again = 0; again < 2; again++) {
    Fixture f;
    GError *error = NULL;

    if (!test_need_model (&model))
      return;
    setup (&f, ".parquet");
    g_object_set (f.element, "text-model", model, NULL);
    play (&f);
    gst_buffer_unref (gst_harness_push_and_pull (f.h, latent (0, 2, 2, "red apple")));
    g_assert_cmpint (g_rmdir (f.folder), ==, 0);
    gst_harness_push_event (f.h, gst_event_new_eos ());
    if (again == 1)
      g_assert_cmpint (g_mkdir (f.folder, 0777), ==, 0);
    gst_element_set_state (f.element, GST_STATE_NULL);
    g_assert_cmpuint (test_count_errors (f.bus, &error), ==, 1);
    g_assert_nonnull (strstr (error->message, f.table));
    g_error_free (error);
    g_assert_true (g_file_test (f.table, G_FILE_TEST_EXISTS) == (again == 1));
    if (again == 0)
      g_assert_cmpint (g_mkdir (f.folder, 0777), ==, 0);
    g_free (model);
    teardown (&f);
  }
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/embed/by-key", test_by_key);
  g_test_add_func ("/embed/caps", test_caps);
  g_test_add_func ("/embed/events", test_events);
  g_test_add_func ("/embed/missing", test_missing);
  g_test_add_func ("/embed/missing-skip", test_missing_skip);
  g_test_add_func ("/embed/short-buffer", test_short_buffer);
  g_test_add_data_func ("/embed/compute/parquet", ".parquet", test_compute);
  g_test_add_data_func ("/embed/compute/safetensors", ".safetensors", test_compute);
  g_test_add_func ("/embed/interrupted", test_interrupted);
  g_test_add_func ("/embed/two-captions", test_two_captions);
  g_test_add_func ("/embed/other-length", test_other_length);
  g_test_add_func ("/embed/bad-location", test_bad_location);
  g_test_add_func ("/embed/cannot-save", test_cannot_save);
  return g_test_run ();
}
