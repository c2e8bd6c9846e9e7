/* tests/elements/test-pipeline.c: the whole line: pictures to LoRA to pictures.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/text-encoder.h"
#include "tests/elements/testlaunch.h"
#include "tests/elements/testtrain.h"

/* Pictures that are copied from the style set, with their captions. */
enum { PICTURES = 6 };
static const gchar *const names[PICTURES] = {
    "fox", "owl", "castle", "banana", "teapot", "guitar"};

static gchar *images; /* a data set of them */

/* Pictures to samples; %s: data set's properties, sizes, latents, table, embed's. */
#define SAMPLES                                                                          \
  "fluxdatasetsrc location=%s %s ! fluximagedec ! fluximagecrop %s ! "                   \
  "fluxvaeenc name=vae model=%s cache-location=%s ! "                                    \
  "fluxembed location=%s max-sequence-length=32 text-quantization=none %s ! "

static gchar *
samples_line (const gchar *properties, const gchar *size, gboolean compute)
{
  gchar *text_model = compute ? g_strconcat ("text-model=", model, NULL) : g_strdup ("");
  gchar *line = g_strdup_printf (SAMPLES, images, properties, size, model, at ("latents"),
      at ("table.parquet"), text_model);

  g_free (text_model);
  return line;
}

/* ---- pictures to LoRA, LoRA to picture ---- */

static void
test_images_to_lora (void)
{
  TestRun run;
  gchar *line;

  begin ();
  line = samples_line ("", "width=64 height=64", TRUE);
  for (guint i = 0; i < 2; i++) {
    GstElement *vae;
    guint64 hits, misses;

    test_run_init (&run, "%s fluxtrainsink model=%s max-steps=3 location=%s", line, model,
        at (i == 0 ? "a.safetensors" : "b.safetensors"));
    test_run_all (&run);
    vae = gst_bin_get_by_name (GST_BIN (run.pipeline), "vae");
    g_object_get (vae, "cache-hits", &hits, "cache-misses", &misses, NULL);
    gst_object_unref (vae);
    /* The second time everything is there. */
    g_assert_cmpuint (hits, ==, i == 0 ? 0 : PICTURES);
    g_assert_cmpuint (misses, ==, i == 0 ? PICTURES : 0);
    test_run_clear (&run);
  }
  test_check_lora (model, at ("a.safetensors"));
  test_same_file (at ("a.safetensors"), at ("b.safetensors"));
  g_free (line);

  test_run_init (&run,
      "fluxsamplersrc model=%s loras=%s prompt=fox steps=2 max-sequence-length=32 "
      "num-buffers=1 ! video/x-raw,width=64,height=96 ! pngenc ! filesink location=%s",
      model, at ("a.safetensors"), at ("fox.png"));
  test_run_all (&run);
  test_run_clear (&run);
  test_run_init (&run,
      "filesrc location=%s ! pngdec ! video/x-raw,width=64,height=96 ! fakesink",
      at ("fox.png"));
  test_run_all (&run);
  test_run_clear (&run);
  end ();
}

/* Pictures in buckets of several sizes, in one accumulation window. */
static void
test_sizes (void)
{
  TestRun run;
  gchar *line, *more;

  begin ();
  line = samples_line ("", "width=64 height=64", TRUE);
  more = samples_line ("", "width=96 height=48", TRUE);
  test_run_init (&run, "%s fluxcachesink location=%s", line, at ("square"));
  test_run_all (&run);
  test_run_clear (&run);
  test_run_init (&run, "%s fluxcachesink location=%s", more, at ("wide"));
  test_run_all (&run);
  test_run_clear (&run);
  test_run_init (&run,
      "concat name=all ! fluxtrainsink model=%s max-steps=3 accumulate=12 location=%s "
      "fluxcachesrc location=%s ! all. fluxcachesrc location=%s ! all.",
      model, at ("a.safetensors"), at ("square"), at ("wide"));
  test_run_all (&run);
  g_assert_cmpuint (run.n_steps, ==, 3);
  test_run_clear (&run);
  test_check_lora (model, at ("a.safetensors"));
  g_free (more);
  g_free (line);
  end ();
}

/* ---- captions stay with their pictures ---- */

typedef struct {
  gchar *filename, *caption;
  GBytes *memories[3];
} Sample;

static void
sample_free (gpointer data)
{
  Sample *s = data;

  g_free (s->filename);
  g_free (s->caption);
  for (guint i = 0; i < 3; i++)
    g_bytes_unref (s->memories[i]);
  g_free (s);
}

static void
on_sample (GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer data)
{
  Sample *s = g_new0 (Sample, 1);
  GstFluxSample meta;

  g_assert_true (gst_flux_sample_meta_get (buffer, &meta));
  s->filename = g_path_get_basename (meta.filename);
  s->caption = g_strdup (meta.caption);
  for (guint i = 0; i < 3; i++) {
    gpointer copy;
    gsize size = gst_memory_get_sizes (gst_buffer_peek_memory (buffer, i), NULL, NULL);
    GstMapInfo map;

    gst_memory_map (gst_buffer_peek_memory (buffer, i), &map, GST_MAP_READ);
    copy = g_memdup2 (map.data, size);
    gst_memory_unmap (gst_buffer_peek_memory (buffer, i), &map);
    s->memories[i] = g_bytes_new_take (copy, size);
  }
  g_ptr_array_add (data, s);
}

static GPtrArray *
collect (const gchar *properties, gboolean compute)
{
  GPtrArray *samples = g_ptr_array_new_with_free_func (sample_free);
  gchar *line = samples_line (properties, "width=64 height=64", compute);
  GstElement *sink;
  TestRun run;

  test_run_init (&run, "%s fakesink name=show signal-handoffs=true", line);
  sink = gst_bin_get_by_name (GST_BIN (run.pipeline), "show");
  g_signal_connect (sink, "handoff", G_CALLBACK (on_sample), samples);
  gst_object_unref (sink);
  test_run_all (&run);
  test_run_clear (&run);
  g_free (line);
  return samples;
}

/* Embeddings are computed in one order and looked up in another. Each picture keeps its
 * latents, its caption and its caption's embeddings. In the reference the i-th picture of
 * one permutation gets the embeddings of the i-th of another: that would fail here,
 * because the two orders are different ones. */
static void
test_captions_stay (void)
{
  GPtrArray *first, *second;
  guint moved = 0;
  fx_backend *backend = flux_backend_new (FLUX_DEVICE_CPU, FX_N_DTYPES, NULL);
  FluxTextEncoder *encoder =
      flux_text_encoder_load (model, backend, FX_Q_NONE, NULL, NULL, NULL, NULL);
  const FluxTextInfo *info = flux_text_encoder_get_info (encoder);
  gsize n = (gsize)TEST_TOKENS * (gsize)info->joint_dim;
  float *embeds = g_new (float, n), *pooled = g_new (float, info->pooled_dim);

  begin ();
  first = collect ("shuffle=true seed=1", TRUE);
  second = collect ("shuffle=true seed=2", FALSE);
  g_assert_cmpuint (first->len, ==, PICTURES);
  g_assert_cmpuint (second->len, ==, PICTURES);
  for (guint i = 0; i < PICTURES; i++) {
    Sample *b = g_ptr_array_index (second, i), *a = NULL;
    gchar *caption, *dot;

    for (guint j = 0; j < PICTURES; j++) {
      Sample *s = g_ptr_array_index (first, j);

      if (strcmp (s->filename, b->filename) == 0) {
        a = s;
        moved += i != j;
      }
    }
    g_assert_nonnull (a);
    caption = g_strconcat ("a ", b->filename, NULL);
    dot = strrchr (caption, '.');
    *dot = '\0';
    g_assert_cmpstr (b->caption, ==, caption);
    g_assert_true (flux_text_encode (
        encoder, caption, TEST_TOKENS, embeds, pooled, NULL, NULL, NULL));
    for (guint k = 0; k < 3; k++)
      g_assert_true (g_bytes_equal (a->memories[k], b->memories[k]));
    g_assert_cmpmem (embeds, n * sizeof (float), g_bytes_get_data (b->memories[1], NULL),
        g_bytes_get_size (b->memories[1]));
    g_assert_cmpmem (pooled, info->pooled_dim * sizeof (float),
        g_bytes_get_data (b->memories[2], NULL), g_bytes_get_size (b->memories[2]));
    g_free (caption);
  }
  g_assert_cmpuint (moved, >, 0);
  g_ptr_array_unref (first);
  g_ptr_array_unref (second);
  g_free (embeds);
  g_free (pooled);
  flux_text_encoder_free (encoder);
  fx_backend_free (backend);
  end ();
}

/* ---- up and down ---- */

static void
test_cycles (void)
{
  TestRun run;
  gchar *line;

  begin ();
  line = samples_line ("shuffle=true", "width=64 height=64", TRUE);
  test_run_init (&run,
      "%s fluxtrainsink model=%s max-steps=100000 accumulate=1 location=%s", line, model,
      at ("a.safetensors"));
  for (guint i = 0; i < 20; i++) {
    test_run_play (&run);
    g_usleep (g_test_rand_int_range (0, 100000));
    if (i % 3 == 2)
      gst_element_set_state (run.pipeline, GST_STATE_PAUSED);
    if (i % 5 == 4)
      gst_element_send_event (run.pipeline, gst_event_new_eos ());
    test_run_stop (&run);
  }
  run.n_steps = 0;
  run.last_step = 0;
  test_run_play (&run);
  test_run_until_step (&run, 2);
  g_assert_cmpuint (run.n_errors, ==, 0);
  test_run_clear (&run);
  g_free (line);
  end ();
}

/* ---- Ctrl-C ---- */

/* While it trains: a checkpoint that can be loaded, with -e also the adapter; exit status
 * 0. source: one-shot or stream. */
static void
test_ctrl_c (gconstpointer source)
{
  gchar *line, *points;
  GDir *dir;
  const gchar *name;
  gchar *program = find_gst_launch ();

  if (program == NULL) {
    g_test_skip ("no gst-launch-1.0 that can load this build");
    return;
  }
  g_free (program);
  begin ();
  for (guint i = 0; i < 2; i++) {
    gboolean e = i == 1;
    guint n = 0;

    line = g_strdup_printf ("fluxcachesrc location=%s %s ! fluxtrainsink model=%s "
                            "max-steps=100000 location=%s/%u.safetensors",
        cache, (const gchar *)source, model, folder, i);
    g_assert_cmpint (interrupt_launch (e ? "-e" : "", line, "flux-step"), ==, 0);
    g_free (line);
    line = g_strdup_printf ("%s/%u.safetensors", folder, i);
    g_assert_true (exists (line) == e);
    if (e)
      test_check_lora (model, line);
    g_free (line);
    points = g_strdup_printf ("%s/%u-checkpoints", folder, i);
    dir = g_dir_open (points, 0, NULL);
    g_assert_nonnull (dir);
    while ((name = g_dir_read_name (dir)) != NULL) {
      gchar *path =
          g_build_filename (points, name, "pytorch_lora_weights.safetensors", NULL);

      test_check_lora (model, path);
      g_free (path);
      n++;
    }
    g_dir_close (dir);
    g_assert_cmpuint (n, ==, 1);
    g_free (points);
  }
  end ();
}

/* While the model is loaded, and while pictures are encoded: nothing to save, and no
 * error either. */
static void
test_ctrl_c_early (void)
{
  const gchar *words[] = {"open", "encode", "(open) transformer"};
  gchar *program = find_gst_launch ();

  if (program == NULL) {
    g_test_skip ("no gst-launch-1.0 that can load this build");
    return;
  }
  g_free (program);
  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    for (guint e = 0; e < 2; e++) {
      gchar *samples, *line;

      begin ();
      samples = samples_line ("", "width=64 height=64", TRUE);
      line = g_strdup_printf ("%s fluxtrainsink model=%s max-steps=100000 location=%s",
          samples, model, at ("a.safetensors"));
      g_assert_cmpint (interrupt_launch (e ? "-e" : "", line, words[i]), ==, 0);
      g_free (line);
      g_free (samples);
      end ();
    }
}

static void
add_tests (void)
{
  images = test_style_pictures (names, PICTURES);
  g_test_add_func ("/pipeline/images-to-lora", test_images_to_lora);
  g_test_add_func ("/pipeline/sizes", test_sizes);
  g_test_add_func ("/pipeline/captions-stay", test_captions_stay);
  g_test_add_func ("/pipeline/cycles", test_cycles);
  g_test_add_data_func ("/pipeline/ctrl-c/one-shot", "", test_ctrl_c);
  g_test_add_data_func ("/pipeline/ctrl-c/stream", "epochs=-1", test_ctrl_c);
  g_test_add_func ("/pipeline/ctrl-c/early", test_ctrl_c_early);
}

int
main (int argc, char **argv)
{
  gint ret = test_main (argc, argv, add_tests);

  if (images != NULL) {
    test_remove (images);
    g_free (images);
  }
  return ret;
}
