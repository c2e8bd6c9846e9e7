/* tests/elements/test-vaeenc.c: fluxvaeenc. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/files/latent-cache.h"
#include "flux/model.h"
#include "flux/vae/vae.h"
#include "tests/elements/testgst.h"

static gchar *model;

typedef struct {
  GstHarness *h;
  GstBus *bus;
} Fixture;

static void
setup (Fixture *f, const gchar *cache)
{
  GstElement *element = gst_element_factory_make ("fluxvaeenc", NULL);

  f->bus = gst_bus_new ();
  gst_element_set_bus (element, f->bus);
  g_object_set (element, "model", model, "cache-location", cache, NULL);
  f->h = gst_harness_new_with_element (element, "sink", "src");
  gst_object_unref (element);
  gst_harness_set_src_caps (f->h, test_picture_caps (64, 64));
}

static void
teardown (Fixture *f)
{
  gst_element_set_bus (f->h->element, NULL);
  gst_object_unref (f->bus);
  gst_harness_teardown (f->h);
}

static void
check_counts (Fixture *f, guint64 hits, guint64 misses)
{
  guint64 h, m;

  g_object_get (f->h->element, "cache-hits", &h, "cache-misses", &m, NULL);
  g_assert_cmpuint (h, ==, hits);
  g_assert_cmpuint (m, ==, misses);
}

/* Loading weights posts progress. */
static gboolean
has_loaded (Fixture *f)
{
  GstMessage *message = gst_bus_pop_filtered (f->bus, GST_MESSAGE_PROGRESS);
  gboolean has = message != NULL;

  if (has)
    gst_message_unref (message);
  return has;
}

/* What comes out: caps, size, identity, time. */
static void
test_output (void)
{
  Fixture f;
  GstBuffer *out;
  GstCaps *caps, *want;
  gchar *fingerprint = flux_vae_fingerprint (model, NULL);
  GstFluxSample sample;

  setup (&f, NULL);
  out = gst_harness_push_and_pull (f.h, test_picture (3, 64, 64, "a disc"));
  g_assert_nonnull (out);
  caps = gst_pad_get_current_caps (f.h->sinkpad);
  want = gst_caps_new_simple ("application/x-flux-latent", "format", G_TYPE_STRING,
      "F32LE", "content", G_TYPE_STRING, "moments", "channels", G_TYPE_INT, 16, "width",
      G_TYPE_INT, 8, "height", G_TYPE_INT, 8, "version", G_TYPE_INT, 1, "model",
      G_TYPE_STRING, fingerprint, NULL);
  g_assert_true (gst_caps_is_equal (caps, want));
  g_assert_cmpuint (gst_buffer_n_memory (out), ==, 1);
  g_assert_cmpuint (gst_buffer_get_size (out), ==, 2 * 16 * 8 * 8 * sizeof (float));
  g_assert_true (gst_flux_sample_meta_get (out, &sample));
  g_assert_cmpstr (sample.caption, ==, "a disc");
  g_assert_cmpuint (sample.index, ==, 3);
  g_assert_cmpuint (GST_BUFFER_PTS (out), ==, 3 * GST_SECOND);
  gst_caps_unref (want);
  gst_caps_unref (caps);
  gst_buffer_unref (out);
  g_free (fingerprint);
  teardown (&f);
}

/* The element adds nothing to what the library computes. */
static void
test_values (void)
{
  Fixture f;
  fx_backend *backend = flux_backend_new (FLUX_DEVICE_CPU, FX_N_DTYPES, NULL);
  FluxVae *vae = flux_vae_load (model, backend, FLUX_VAE_ENCODER, NULL, NULL, NULL);
  float *want = g_new (float, 2 * 16 * 8 * 8);
  GstBuffer *picture = test_picture (5, 64, 64, NULL), *out;
  GstMapInfo map;

  g_assert_nonnull (vae);
  gst_buffer_map (picture, &map, GST_MAP_READ);
  g_assert_true (flux_vae_encode (vae, map.data, 64, 64, 3 * 64, want, NULL));
  gst_buffer_unmap (picture, &map);
  setup (&f, NULL);
  out = gst_harness_push_and_pull (f.h, picture);
  gst_buffer_map (out, &map, GST_MAP_READ);
  g_assert_cmpmem (map.data, map.size, want, 2 * 16 * 8 * 8 * sizeof (float));
  gst_buffer_unmap (out, &map);
  gst_buffer_unref (out);
  teardown (&f);
  flux_vae_free (vae);
  fx_backend_free (backend);
  g_free (want);
}

/* What is in the folder is not computed again, and the weights are not read. */
static void
test_cache (void)
{
  Fixture f;
  gchar *folder = test_folder ();
  GstBuffer *first[3], *again;
  GstMapInfo a, b;

  setup (&f, folder);
  for (guint i = 0; i < 3; i++)
    first[i] = gst_harness_push_and_pull (f.h, test_picture (i, 64, 64, NULL));
  check_counts (&f, 0, 3);
  g_assert_true (has_loaded (&f));
  teardown (&f);

  setup (&f, folder);
  for (guint i = 0; i < 3; i++) {
    again = gst_harness_push_and_pull (f.h, test_picture (2 - i, 64, 64, NULL));
    gst_buffer_map (again, &a, GST_MAP_READ);
    gst_buffer_map (first[2 - i], &b, GST_MAP_READ);
    g_assert_cmpmem (a.data, a.size, b.data, b.size);
    gst_buffer_unmap (again, &a);
    gst_buffer_unmap (first[2 - i], &b);
    gst_buffer_unref (again);
    gst_buffer_unref (first[2 - i]);
  }
  check_counts (&f, 3, 0);
  g_assert_false (has_loaded (&f));
  gst_buffer_unref (gst_harness_push_and_pull (f.h, test_picture (9, 64, 64, NULL)));
  check_counts (&f, 3, 1);
  g_assert_true (has_loaded (&f));
  teardown (&f);
  test_remove (folder);
  g_free (folder);
}

/* The same image, cut or mirrored in another way, or changed in a way that the meta does
 * not tell, is another picture. */
static void
test_cache_views (void)
{
  Fixture f;
  GstBuffer *buffer;
  GstFluxSample sample;
  GstMapInfo map;

  setup (&f, NULL);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, test_picture (1, 64, 64, NULL)));
  check_counts (&f, 0, 1);

  buffer = test_picture (1, 64, 64, NULL);
  gst_flux_sample_meta_get (buffer, &sample);
  sample.scaled_width = sample.scaled_height = 64;
  sample.crop_width = sample.crop_height = 64;
  sample.flip = TRUE;
  gst_flux_sample_meta_set (buffer, &sample);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, buffer));
  check_counts (&f, 0, 2);

  buffer = test_picture (1, 64, 64, NULL);
  gst_flux_sample_meta_get (buffer, &sample);
  sample.scaled_width = sample.scaled_height = 80;
  sample.crop_x = 4;
  sample.crop_width = sample.crop_height = 64;
  gst_flux_sample_meta_set (buffer, &sample);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, buffer));
  check_counts (&f, 0, 3);

  buffer = test_picture (1, 64, 64, NULL);
  gst_buffer_map (buffer, &map, GST_MAP_WRITE);
  map.data[100] ^= 1;
  gst_buffer_unmap (buffer, &map);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, buffer));
  check_counts (&f, 0, 4);

  gst_buffer_unref (gst_harness_push_and_pull (f.h, test_picture (1, 64, 64, NULL)));
  check_counts (&f, 1, 4);
  teardown (&f);
}

static void
test_sizes_change (void)
{
  const gint sizes[][2] = {{64, 64}, {96, 32}, {32, 96}, {64, 64}};
  Fixture f;

  setup (&f, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    gint w = sizes[i][0], h = sizes[i][1], cells;
    GstBuffer *out;
    GstCaps *caps;

    gst_harness_set_src_caps (f.h, test_picture_caps (w, h));
    out = gst_harness_push_and_pull (f.h, test_picture (i, w, h, NULL));
    caps = gst_pad_get_current_caps (f.h->sinkpad);
    gst_structure_get_int (gst_caps_get_structure (caps, 0), "width", &cells);
    g_assert_cmpint (cells, ==, w / 8);
    gst_structure_get_int (gst_caps_get_structure (caps, 0), "height", &cells);
    g_assert_cmpint (cells, ==, h / 8);
    g_assert_cmpuint (
        gst_buffer_get_size (out), ==, 2 * 16 * (w / 8) * (h / 8) * sizeof (float));
    gst_caps_unref (caps);
    gst_buffer_unref (out);
  }
  teardown (&f);
}

/* A size that the transformer cannot take is refused, with what to do. */
static void
test_odd_size (void)
{
  Fixture f;
  GError *error = NULL;

  setup (&f, NULL);
  gst_harness_set_src_caps (f.h, test_picture_caps (72, 64));
  g_assert_cmpint (gst_harness_push (f.h, test_picture (0, 72, 64, NULL)), ==,
      GST_FLOW_NOT_NEGOTIATED);
  g_assert_cmpuint (test_count_errors (f.bus, &error), ==, 1);
  g_assert_nonnull (strstr (error->message, "72x64"));
  g_assert_nonnull (strstr (error->message, "fluximagecrop"));
  g_error_free (error);
  teardown (&f);
}

/* A picture from elsewhere is known by its pixels. */
static void
test_no_key (void)
{
  Fixture f;
  GstBuffer *in = gst_buffer_new_allocate (NULL, 64 * 64 * 3, NULL), *out;
  gchar *want;
  GstMapInfo map;
  GstFluxSample sample;

  gst_buffer_memset (in, 0, 77, 64 * 64 * 3);
  gst_buffer_map (in, &map, GST_MAP_READ);
  want = g_compute_checksum_for_data (G_CHECKSUM_SHA256, map.data, map.size);
  gst_buffer_unmap (in, &map);
  setup (&f, NULL);
  out = gst_harness_push_and_pull (f.h, in);
  g_assert_true (gst_flux_sample_meta_get (out, &sample));
  g_assert_cmpstr (sample.key, ==, want);
  gst_buffer_unref (out);
  g_free (want);
  teardown (&f);
}

/* The cache of another VAE is refused, by name. */
static void
test_other_cache (void)
{
  gchar *folder = test_folder ();
  FluxLatentCache *cache = flux_latent_cache_open (folder, "another", NULL);
  GstElement *element = gst_element_factory_make ("fluxvaeenc", NULL);
  GstBus *bus = gst_bus_new ();
  GError *error = NULL;

  flux_latent_cache_free (cache);
  gst_element_set_bus (element, bus);
  g_object_set (element, "model", model, "cache-location", folder, NULL);
  g_assert_cmpint (
      gst_element_set_state (element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
  g_assert_cmpuint (test_count_errors (bus, &error), ==, 1);
  g_assert_error (error, GST_STREAM_ERROR, GST_STREAM_ERROR_WRONG_TYPE);
  g_assert_nonnull (strstr (error->message, folder));
  g_error_free (error);
  gst_element_set_state (element, GST_STATE_NULL);
  gst_element_set_bus (element, NULL);
  gst_object_unref (bus);
  gst_object_unref (element);
  test_remove (folder);
  g_free (folder);
}

/* A cache that cannot be written is one warning, and pictures still come out. */
static void
test_unwritable_cache (void)
{
  Fixture f;
  gchar *folder = test_folder ();
  GstMessage *warning;
  GError *error = NULL;

  setup (&f, folder);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, test_picture (0, 64, 64, NULL)));
  test_remove (folder);
  for (guint i = 1; i < 4; i++)
    gst_buffer_unref (gst_harness_push_and_pull (f.h, test_picture (i, 64, 64, NULL)));
  warning = gst_bus_pop_filtered (f.bus, GST_MESSAGE_WARNING);
  g_assert_nonnull (warning);
  gst_message_parse_warning (warning, &error, NULL);
  g_assert_nonnull (strstr (error->message, folder));
  g_error_free (error);
  gst_message_unref (warning);
  g_assert_null (gst_bus_pop_filtered (f.bus, GST_MESSAGE_WARNING));
  g_assert_cmpuint (test_count_errors (f.bus, NULL), ==, 0);
  teardown (&f);
  g_free (folder);
}

static guint
count_warnings (Fixture *f, const gchar *word)
{
  GstMessage *warning;
  guint n = 0;

  while ((warning = gst_bus_pop_filtered (f->bus, GST_MESSAGE_WARNING)) != NULL) {
    GError *error = NULL;

    gst_message_parse_warning (warning, &error, NULL);
    g_assert_nonnull (strstr (error->message, word));
    g_error_free (error);
    gst_message_unref (warning);
    n++;
  }
  return n;
}

/* A damaged entry is one warning that names it, and is replaced. */
static void
test_damaged_entry (void)
{
  Fixture f;
  gchar *folder = test_folder (), *path = NULL;
  const gchar *name;
  GDir *dir;

  setup (&f, folder);
  gst_buffer_unref (gst_harness_push_and_pull (f.h, test_picture (0, 64, 64, NULL)));
  g_assert_cmpuint (count_warnings (&f, folder), ==, 0);
  dir = g_dir_open (folder, 0, NULL);
  while (path == NULL && (name = g_dir_read_name (dir)) != NULL)
    if (g_str_has_suffix (name, ".safetensors"))
      path = g_build_filename (folder, name, NULL);
  g_dir_close (dir);
  g_assert_true (g_file_set_contents (path, "rubbish", -1, NULL));
  for (guint i = 0; i < 3; i++)
    gst_buffer_unref (gst_harness_push_and_pull (f.h, test_picture (0, 64, 64, NULL)));
  g_assert_cmpuint (count_warnings (&f, path), ==, 1);
  check_counts (&f, 2, 2);
  teardown (&f);
  test_remove (folder);
  g_free (path);
  g_free (folder);
}

int
main (int argc, char **argv)
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
  g_test_add_func ("/vaeenc/output", test_output);
  g_test_add_func ("/vaeenc/values", test_values);
  g_test_add_func ("/vaeenc/cache", test_cache);
  g_test_add_func ("/vaeenc/cache-views", test_cache_views);
  g_test_add_func ("/vaeenc/sizes-change", test_sizes_change);
  g_test_add_func ("/vaeenc/odd-size", test_odd_size);
  g_test_add_func ("/vaeenc/no-key", test_no_key);
  g_test_add_func ("/vaeenc/other-cache", test_other_cache);
  g_test_add_func ("/vaeenc/unwritable-cache", test_unwritable_cache);
  g_test_add_func ("/vaeenc/damaged-entry", test_damaged_entry);
  ret = g_test_run ();
  g_free (model);
  return ret;
}
