/* tests/elements/test-samplersrc.c: fluxsamplersrc. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/sample/sampler.h"
#include "tests/elements/testtrain.h"
#include "tests/testdata.h"

/* Small and quick: pictures of 64x48 in 2 steps. */
#define FAST "steps=2 max-sequence-length=32 text-quantization=none"
#define SIZE "video/x-raw,width=64,height=48"

/* A sampler with these properties, and what they show: frames as they come. */
typedef struct {
  TestRun run;
  GPtrArray *frames; /* GstSample */
  GMutex lock;
} Pictures;

static void
on_frame (GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer data)
{
  Pictures *p = data;
  GstCaps *caps = gst_pad_get_current_caps (pad);

  g_mutex_lock (&p->lock);
  g_ptr_array_add (p->frames, gst_sample_new (buffer, caps, NULL, NULL));
  g_mutex_unlock (&p->lock);
  gst_caps_unref (caps);
}

static void pictures_init (Pictures *p, const gchar *format, ...) G_GNUC_PRINTF (2, 3);

static void
pictures_init (Pictures *p, const gchar *format, ...)
{
  va_list args;
  gchar *line;
  GstElement *sink;

  va_start (args, format);
  line = g_strdup_vprintf (format, args);
  va_end (args);
  test_run_init (&p->run, "%s ! fakesink name=show signal-handoffs=true", line);
  g_free (line);
  p->frames = g_ptr_array_new_with_free_func ((GDestroyNotify)gst_sample_unref);
  g_mutex_init (&p->lock);
  sink = gst_bin_get_by_name (GST_BIN (p->run.pipeline), "show");
  g_signal_connect (sink, "handoff", G_CALLBACK (on_frame), p);
  gst_object_unref (sink);
}

static void
pictures_clear (Pictures *p)
{
  test_run_clear (&p->run);
  g_ptr_array_unref (p->frames);
  g_mutex_clear (&p->lock);
}

static GstBuffer *
frame_at (Pictures *p, guint i)
{
  g_assert_cmpuint (i, <, p->frames->len);
  return gst_sample_get_buffer (g_ptr_array_index (p->frames, i));
}

static gboolean
same_picture (GstBuffer *a, GstBuffer *b)
{
  GstMapInfo x, y;
  gboolean same;

  gst_buffer_map (a, &x, GST_MAP_READ);
  gst_buffer_map (b, &y, GST_MAP_READ);
  same = x.size == y.size && memcmp (x.data, y.data, x.size) == 0;
  gst_buffer_unmap (a, &x);
  gst_buffer_unmap (b, &y);
  return same;
}

/* Two halves add up to the whole but for rounding: a level or two. */
static void
check_nearly_same (Pictures *p, guint i, Pictures *q, guint j)
{
  GstMapInfo x, y;

  gst_buffer_map (frame_at (p, i), &x, GST_MAP_READ);
  gst_buffer_map (frame_at (q, j), &y, GST_MAP_READ);
  g_assert_cmpuint (x.size, ==, y.size);
  for (gsize k = 0; k < x.size; k++)
    g_assert_cmpint (ABS ((gint)x.data[k] - (gint)y.data[k]), <=, 2);
  gst_buffer_unmap (frame_at (p, i), &x);
  gst_buffer_unmap (frame_at (q, j), &y);
}

static void
check_same (Pictures *p, guint i, Pictures *q, guint j)
{
  g_assert_true (same_picture (frame_at (p, i), frame_at (q, j)));
}

/* Of the i-th flux-sample message. */
static const GstStructure *
message_at (Pictures *p, guint i)
{
  for (guint k = 0; k < p->run.messages->len; k++) {
    const GstStructure *s = g_ptr_array_index (p->run.messages, k);

    if (gst_structure_has_name (s, "flux-sample") && i-- == 0)
      return s;
  }
  g_assert_not_reached ();
  return NULL;
}

/* ---- pictures ---- */

/* Without caps: the size the model was trained at, a picture a second. */
static void
test_defaults (void)
{
  Pictures p;
  GstCaps *caps;
  gint width, height, n, d;
  const GstStructure *s;
  guint64 seed;

  pictures_init (&p,
      "fluxsamplersrc model=%s prompt=\"red apple\" seed=3 num-buffers=1 " FAST, model);
  test_run_all (&p.run);
  g_assert_cmpuint (p.frames->len, ==, 1);
  caps = gst_sample_get_caps (g_ptr_array_index (p.frames, 0));
  s = gst_caps_get_structure (caps, 0);
  g_assert_true (gst_structure_get (
      s, "width", G_TYPE_INT, &width, "height", G_TYPE_INT, &height, NULL));
  g_assert_true (gst_structure_get_fraction (s, "framerate", &n, &d));
  g_assert_cmpint (width, ==, 128);
  g_assert_cmpint (height, ==, 128);
  g_assert_cmpint (n, ==, d);
  s = message_at (&p, 0);
  g_assert_cmpstr (gst_structure_get_string (s, "prompt"), ==, "red apple");
  g_assert_true (gst_structure_get_uint64 (s, "seed", &seed));
  g_assert_cmpuint (seed, ==, 3);
  pictures_clear (&p);
}

/* The element adds nothing to what the library draws. */
static void
test_values (void)
{
  Pictures p;
  FluxModelKey key = {model, FX_Q_NF4, FX_N_DTYPES, FLUX_DEVICE_AUTO};
  FluxModel *base = flux_model_acquire (&key, NULL, NULL, NULL);
  FluxSampler *sampler = flux_sampler_new (base, model, FX_Q_NONE, NULL);
  FluxSampleRequest request = {.prompt = "cat face",
      .width = 64,
      .height = 48,
      .steps = 2,
      .guidance = 3.5,
      .seed = 11,
      .noise_dtype = FX_F32,
      .max_sequence_length = TEST_TOKENS};
  guint8 *want = g_malloc (64 * 48 * 3);
  GstMapInfo map;

  g_assert_true (
      flux_sampler_run (sampler, &request, want, 64 * 3, FALSE, NULL, NULL, NULL));
  pictures_init (&p,
      "fluxsamplersrc model=%s prompt=\"cat face\" seed=11 num-buffers=1 " FAST
      " ! " SIZE,
      model);
  test_run_all (&p.run);
  gst_buffer_map (frame_at (&p, 0), &map, GST_MAP_READ);
  g_assert_cmpmem (map.data, map.size, want, 64 * 48 * 3);
  gst_buffer_unmap (frame_at (&p, 0), &map);
  pictures_clear (&p);
  flux_sampler_free (sampler);
  flux_model_unref (base);
  g_free (want);
}

/* Picture n has seed + n. */
static void
test_seeds (void)
{
  Pictures p, q;

  pictures_init (&p,
      "fluxsamplersrc model=%s prompt=x seed=20 num-buffers=3 " FAST " ! " SIZE, model);
  test_run_all (&p.run);
  g_assert_cmpuint (p.frames->len, ==, 3);
  for (guint i = 0; i < 3; i++) {
    g_assert_cmpuint (GST_BUFFER_PTS (frame_at (&p, i)), ==, i * GST_SECOND);
    g_assert_cmpuint (GST_BUFFER_DURATION (frame_at (&p, i)), ==, GST_SECOND);
    g_assert_cmpuint (GST_BUFFER_OFFSET (frame_at (&p, i)), ==, i);
  }
  g_assert_false (same_picture (frame_at (&p, 0), frame_at (&p, 1)));
  pictures_init (&q,
      "fluxsamplersrc model=%s prompt=x seed=22 num-buffers=1 " FAST " ! " SIZE, model);
  test_run_all (&q.run);
  check_same (&p, 2, &q, 0);
  pictures_clear (&q);
  pictures_init (&q,
      "fluxsamplersrc model=%s prompt=x seed=20 num-buffers=1 noise-dtype=bfloat16 " FAST
      " ! " SIZE,
      model);
  test_run_all (&q.run);
  g_assert_false (same_picture (frame_at (&p, 0), frame_at (&q, 0)));
  pictures_clear (&q);
  pictures_clear (&p);
}

/* A framerate of 0/1 is one still. */
static void
test_still (void)
{
  Pictures p;

  pictures_init (&p,
      "fluxsamplersrc model=%s prompt=x num-buffers=3 " FAST " ! " SIZE ",framerate=0/1",
      model);
  test_run_all (&p.run);
  g_assert_cmpuint (p.frames->len, ==, 1);
  pictures_clear (&p);
}

/* Seeking to a frame gives the picture that playing up to it gives. */
static void
test_seek (void)
{
  Pictures p, q;
  gint64 duration;

  pictures_init (&q,
      "fluxsamplersrc model=%s prompt=x seed=32 num-buffers=1 " FAST " ! " SIZE, model);
  test_run_all (&q.run);
  pictures_init (&p,
      "fluxsamplersrc model=%s prompt=x seed=30 num-buffers=5 " FAST " ! " SIZE
      ",framerate=2/1",
      model);
  gst_element_set_state (p.run.pipeline, GST_STATE_PAUSED);
  g_assert_cmpint (gst_element_get_state (p.run.pipeline, NULL, NULL, TEST_TIMEOUT), ==,
      GST_STATE_CHANGE_SUCCESS);
  g_assert_true (gst_element_query_duration (p.run.pipeline, GST_FORMAT_TIME, &duration));
  g_assert_cmpint (duration, ==, 5 * GST_SECOND / 2);
  g_assert_true (gst_element_seek_simple (
      p.run.pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, GST_SECOND));
  test_run_play (&p.run);
  g_assert_cmpint (test_run_until_end (&p.run), ==, GST_MESSAGE_EOS);
  for (guint i = 0; i < p.frames->len; i++)
    if (GST_BUFFER_PTS (frame_at (&p, i)) == GST_SECOND) {
      check_same (&p, i, &q, 0);
      break;
    } else {
      g_assert_cmpuint (i, <, p.frames->len - 1);
    }
  pictures_clear (&p);
  pictures_clear (&q);
}

/* A prompt a line, then EOS; with num-buffers they start over. */
static void
test_prompt_list (void)
{
  Pictures p;
  const gchar *prompts[] = {"red apple", "gr\303\274ner Apfel", "red apple"};

  begin ();
  g_assert_true (g_file_set_contents (
      at ("list.txt"), "red apple\r\n\n  gr\303\274ner Apfel  \n", -1, NULL));
  pictures_init (&p, "fluxsamplersrc model=%s prompt-location=%s " FAST " ! " SIZE, model,
      at ("list.txt"));
  test_run_all (&p.run);
  g_assert_cmpuint (p.frames->len, ==, 2);
  for (guint i = 0; i < 2; i++)
    g_assert_cmpstr (
        gst_structure_get_string (message_at (&p, i), "prompt"), ==, prompts[i]);
  pictures_clear (&p);
  pictures_init (&p,
      "fluxsamplersrc model=%s prompt-location=%s num-buffers=3 " FAST " ! " SIZE, model,
      at ("list.txt"));
  test_run_all (&p.run);
  g_assert_cmpuint (p.frames->len, ==, 3);
  g_assert_cmpstr (
      gst_structure_get_string (message_at (&p, 2), "prompt"), ==, prompts[2]);
  pictures_clear (&p);
  end ();
}

/* Prompt and seed go downstream as tags. */
static void
test_tags (void)
{
  TestRun run;
  GstMessage *message;
  GstTagList *tags;
  gchar *text = NULL;

  test_run_init (&run,
      "fluxsamplersrc model=%s prompt=\"cat face\" seed=5 num-buffers=1 " FAST " ! " SIZE
      " ! fakesink",
      model);
  test_run_play (&run);
  message = gst_bus_timed_pop_filtered (run.bus, TEST_TIMEOUT, GST_MESSAGE_TAG);
  g_assert_nonnull (message);
  gst_message_parse_tag (message, &tags);
  g_assert_true (gst_tag_list_get_string (tags, GST_TAG_DESCRIPTION, &text));
  g_assert_cmpstr (text, ==, "cat face");
  g_free (text);
  g_assert_true (gst_tag_list_get_string (tags, GST_TAG_COMMENT, &text));
  g_assert_nonnull (strstr (text, "seed=5"));
  g_free (text);
  gst_tag_list_unref (tags);
  gst_message_unref (message);
  test_run_clear (&run);
}

/* A scale of 0 is no adapter, and a colon in a path no scale; adapters change the
 * picture, and their effects add up. */
static void
test_loras (void)
{
  const gchar *line =
      "fluxsamplersrc model=%s prompt=x num-buffers=1 %s%s " FAST " ! " SIZE;
  Pictures p[4];
  gchar *loras;

  begin ();
  train ("", "max-steps=8 learning-rate=0.03", at ("run:a.safetensors"));
  pictures_init (&p[0], line, model, "", "");
  loras = g_strdup_printf ("loras=%s:0", at ("run:a.safetensors"));
  pictures_init (&p[1], line, model, loras, "");
  g_free (loras);
  loras = g_strdup_printf ("loras=%s", at ("run:a.safetensors"));
  pictures_init (&p[2], line, model, loras, "");
  g_free (loras);
  loras = g_strdup_printf (
      "loras=%s:1.5,%s:-0.5", at ("run:a.safetensors"), at ("run:a.safetensors"));
  pictures_init (&p[3], line, model, loras, "");
  g_free (loras);
  for (guint i = 0; i < 4; i++)
    test_run_all (&p[i].run);
  check_same (&p[0], 0, &p[1], 0);
  g_assert_false (same_picture (frame_at (&p[0], 0), frame_at (&p[2], 0)));
  g_assert_false (same_picture (frame_at (&p[0], 0), frame_at (&p[3], 0)));
  for (guint i = 0; i < 4; i++)
    pictures_clear (&p[i]);
  end ();
}

/* Between two pictures the scales change, then the adapters, and the base stays. */
static void
change_loras (GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer data)
{
  TestRun *run = data;
  GstElement *source = gst_bin_get_by_name (GST_BIN (run->pipeline), "source");
  gchar *loras = NULL;

  if (GST_BUFFER_OFFSET (buffer) == 0)
    loras = g_strdup_printf ("%s:0", at ("run:a.safetensors"));
  if (GST_BUFFER_OFFSET (buffer) == 2)
    loras = g_strdup_printf (
        "%s:0.25,%s:0.25", at ("b.safetensors"), at ("run:a.safetensors"));
  if (loras != NULL)
    g_object_set (source, "loras", loras, NULL);
  if (GST_BUFFER_OFFSET (buffer) == 1)
    g_object_set (source, "loras", "", NULL);
  if (GST_BUFFER_OFFSET (buffer) == 3)
    g_object_set (source, "lora-scale", 2.0, NULL);
  g_free (loras);
  gst_object_unref (source);
}

/* Picture n has seed n: each is compared with one of that seed from a sampler of its own.
 */
static void
test_loras_while_playing (void)
{
  static const gchar *const same[5] = {"1", "0", NULL, "0.5", "1"};
  gchar *text;
  Pictures all;
  GstElement *sink;
  guint adapters = 0;

  begin ();
  train ("", "max-steps=8 learning-rate=0.03", at ("run:a.safetensors"));
  /* The same training in another layout: b is a. */
  train ("", "max-steps=8 learning-rate=0.03 lora-format=kohya", at ("b.safetensors"));
  text = g_strdup_printf ("loras=%s", at ("run:a.safetensors"));
  pictures_init (&all,
      "fluxsamplersrc name=source model=%s prompt=x num-buffers=5 %s " FAST " ! " SIZE,
      model, text);
  g_free (text);
  sink = gst_bin_get_by_name (GST_BIN (all.run.pipeline), "show");
  g_signal_connect (sink, "handoff", G_CALLBACK (change_loras), &all.run);
  gst_object_unref (sink);
  g_object_set (sink, "sync", FALSE, NULL);
  test_run_all (&all.run);
  for (guint i = 0; i < 5; i++) {
    Pictures one;

    text = same[i] == NULL
               ? g_strdup ("")
               : g_strdup_printf ("loras=%s:%s", at ("run:a.safetensors"), same[i]);
    pictures_init (&one,
        "fluxsamplersrc model=%s prompt=x num-buffers=1 seed=%u %s " FAST " ! " SIZE,
        model, i, text);
    g_free (text);
    test_run_all (&one.run);
    check_nearly_same (&all, i, &one, 0);
    pictures_clear (&one);
  }
  for (guint i = 0; i < all.run.messages->len; i++) {
    const GstStructure *s = g_ptr_array_index (all.run.messages, i);
    guint layers;

    if (!gst_structure_has_name (s, "flux-adapter"))
      continue;
    adapters++;
    g_assert_true (gst_structure_get_uint (s, "layers", &layers));
    g_assert_cmpuint (layers, >, 0);
  }
  /* a, and after it was dropped a and b. */
  g_assert_cmpuint (adapters, ==, 3);
  pictures_clear (&all);
  end ();
}

/* In the weights or beside them: the same picture, but for rounding. */
static void
test_merge (void)
{
  gchar *float_model = flux_test_model ();
  gchar *a, *b;
  Pictures p[2];

  if (float_model == NULL) {
    g_test_skip ("no bf16 tiny-flux-emoji");
    return;
  }
  a = g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "data", "adapters", "emoji-a-xlabs.safetensors", NULL);
  b = g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "data", "adapters", "emoji-b.safetensors", NULL);
  for (guint i = 0; i < 2; i++) {
    pictures_init (&p[i],
        "fluxsamplersrc model=%s quantization=none prompt=x num-buffers=1 merge=%s "
        "loras=%s:0.8,%s:0.4 " FAST " ! " SIZE,
        float_model, i == 0 ? "false" : "true", a, b);
    test_run_all (&p[i].run);
  }
  check_nearly_same (&p[0], 0, &p[1], 0);
  for (guint i = 0; i < 2; i++)
    pictures_clear (&p[i]);
  g_free (float_model);
  g_free (a);
  g_free (b);
}

/* ---- what goes wrong ---- */

/* Stopping in the middle of a picture does not wait for its end. */
static void
test_interrupt (void)
{
  Pictures p;
  gint64 start;

  pictures_init (
      &p, "fluxsamplersrc model=%s prompt=x steps=1000 max-sequence-length=32", model);
  for (guint i = 0; i < 5; i++) {
    test_run_play (&p.run);
    g_usleep (100000 * (1 + i));
    start = g_get_monotonic_time ();
    test_run_stop (&p.run);
    g_assert_cmpint (g_get_monotonic_time () - start, <, 10 * G_USEC_PER_SEC);
  }
  g_assert_cmpuint (p.run.n_errors, ==, 0);
  g_assert_cmpuint (p.frames->len, ==, 0);
  pictures_clear (&p);
}

static void
add_tests (void)
{
  g_test_add_func ("/samplersrc/defaults", test_defaults);
  g_test_add_func ("/samplersrc/values", test_values);
  g_test_add_func ("/samplersrc/seeds", test_seeds);
  g_test_add_func ("/samplersrc/still", test_still);
  g_test_add_func ("/samplersrc/seek", test_seek);
  g_test_add_func ("/samplersrc/prompt-list", test_prompt_list);
  g_test_add_func ("/samplersrc/tags", test_tags);
  g_test_add_func ("/samplersrc/loras", test_loras);
  g_test_add_func ("/samplersrc/loras-while-playing", test_loras_while_playing);
  g_test_add_func ("/samplersrc/merge", test_merge);
  g_test_add_func ("/samplersrc/interrupt", test_interrupt);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
