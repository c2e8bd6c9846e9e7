/* tests/elements/test-sampleradapters.c: adapters of other tools in fluxsamplersrc.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>

#include "tests/elements/testtrain.h"

#define LINE                                                                             \
  "fluxsamplersrc name=source model=%s prompt=x num-buffers=1 steps=1 "                  \
  "max-sequence-length=32 text-quantization=none loras=%s %s ! "                         \
  "video/x-raw,width=64,height=48 ! fakesink"

static gchar *
data_path (const gchar *name)
{
  return g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "adapters", name, NULL);
}

/* emoji-b with one tensor more, for a block that the model has not. */
static void
write_with_stranger (const gchar *path)
{
  gchar *from = data_path ("emoji-b.safetensors");
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxSafetensors) file = flux_safetensors_open (from, &error);
  guint n = flux_safetensors_get_n_tensors (file);
  g_autofree FluxTensorSource *sources = g_new0 (FluxTensorSource, n + 1);

  for (guint i = 0; i < n; i++) {
    const FluxTensor *t = flux_safetensors_get_nth (file, i);

    sources[i] = (FluxTensorSource){.name = t->name,
        .dtype = t->dtype,
        .n_dims = t->n_dims,
        .dims = {t->dims[0], t->n_dims > 1 ? t->dims[1] : 0},
        .data = t->data};
  }
  sources[n] = sources[0];
  sources[n].name = "transformer.transformer_blocks.18.attn.to_q.lora_A.weight";
  flux_safetensors_write (path, sources, n + 1, NULL, &error);
  g_assert_no_error (error);
  g_free (from);
}

/* The flux-adapter message, which there is one of. */
static const GstStructure *
adapter_message (TestRun *run)
{
  const GstStructure *found = NULL;

  for (guint i = 0; i < run->messages->len; i++) {
    const GstStructure *s = g_ptr_array_index (run->messages, i);

    if (!gst_structure_has_name (s, "flux-adapter"))
      continue;
    g_assert_null (found);
    found = s;
  }
  g_assert_nonnull (found);
  return found;
}

static void
check_message (const GstStructure *s, const gchar *format, guint layers, guint left_out)
{
  guint n;

  g_assert_cmpstr (gst_structure_get_string (s, "format"), ==, format);
  g_assert_true (gst_structure_get_uint (s, "layers", &n));
  g_assert_cmpuint (n, ==, layers);
  g_assert_true (gst_structure_get_uint (s, "left-out", &n));
  g_assert_cmpuint (n, ==, left_out);
}

static void
test_formats_are_announced (void)
{
  static const gchar *const cases[][2] = {{"emoji-a-kohya.safetensors", "kohya"},
      {"emoji-a-comfy.safetensors", "comfy"}, {"emoji-a-xlabs.safetensors", "xlabs"}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    gchar *path = data_path (cases[i][0]);
    TestRun run;

    test_run_init (&run, LINE, model, path, "");
    test_run_all (&run);
    check_message (adapter_message (&run), cases[i][1], 20, 0);
    test_run_clear (&run);
    g_free (path);
  }
}

static void
test_strict (void)
{
  for (gint strict = 1; strict >= 0; strict--) {
    TestRun run;

    begin ();
    write_with_stranger (at ("b.safetensors"));
    test_run_init (&run, LINE, model, at ("b.safetensors"), strict ? "" : "strict=false");
    if (strict) {
      test_run_play (&run);
      g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
      test_run_stop (&run);
      g_assert_cmpuint (run.n_errors, ==, 1);
      g_assert_nonnull (strstr (run.error, "transformer_blocks.18"));
      g_assert_nonnull (strstr (run.error, "strict=false"));
    } else {
      test_run_all (&run);
      g_assert_cmpuint (run.n_warnings, ==, 1);
      check_message (adapter_message (&run), "diffusers", 5, 1);
    }
    test_run_clear (&run);
    end ();
  }
}

static void
test_wrong_base (void)
{
  gchar *path = data_path ("small-fal.safetensors");
  TestRun run;

  test_run_init (&run, LINE, model, path, "strict=false");
  test_run_play (&run);
  g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_errors, ==, 1);
  g_assert_nonnull (strstr (run.error, "does not have the shape"));
  test_run_clear (&run);
  g_free (path);
}

#define LAYER "transformer.transformer_blocks.0.attn.to_q."
#define WIDTH 256 /* of the model */

/* One error each, with what is wrong; as in tests/flux/test-adapters-bad. */
static void
test_bad_adapters (void)
{
  static const struct {
    const gchar *third; /* a tensor more */
    gint64 rank_of_b;   /* 0: no B; A is of rank 2 */
    gfloat value;       /* of A */
    const gchar *words;
  } cases[] = {{NULL, 2, NAN, "NaN"}, {NULL, 3, 1, "ranks"}, {NULL, 0, 1, "missing"},
      {LAYER "dora_scale", 2, 1, "DoRA"}, {LAYER "lokr_w1", 2, 1, "LyCORIS"}};
  gfloat a[2 * WIDTH], b[WIDTH * 3] = {0};

  begin ();
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    const gint64 rank = cases[i].rank_of_b;
    FluxTensorSource sources[3];
    GError *error = NULL;
    TestRun run;
    guint n = 0;

    for (guint j = 0; j < G_N_ELEMENTS (a); j++)
      a[j] = cases[i].value;
    sources[n++] = (FluxTensorSource){.name = LAYER "lora_A.weight",
        .dtype = FX_F32,
        .n_dims = 2,
        .dims = {2, WIDTH},
        .data = a};
    if (rank > 0)
      sources[n++] = (FluxTensorSource){.name = LAYER "lora_B.weight",
          .dtype = FX_F32,
          .n_dims = 2,
          .dims = {WIDTH, rank},
          .data = b};
    if (cases[i].third != NULL)
      sources[n++] = (FluxTensorSource){.name = cases[i].third,
          .dtype = FX_F32,
          .n_dims = 2,
          .dims = {WIDTH, 1},
          .data = b};
    flux_safetensors_write (at ("bad.safetensors"), sources, n, NULL, &error);
    g_assert_no_error (error);
    test_run_init (&run, LINE, model, at ("bad.safetensors"), "");
    test_run_play (&run);
    g_assert_cmpint (test_run_until_end (&run), ==, GST_MESSAGE_ERROR);
    test_run_stop (&run);
    g_test_message ("%s", run.error);
    g_assert_cmpuint (run.n_errors, ==, 1);
    g_assert_nonnull (strstr (run.error, cases[i].words));
    test_run_clear (&run);
  }
  end ();
}

static void
add_tests (void)
{
  g_test_add_func ("/sampleradapters/formats-are-announced", test_formats_are_announced);
  g_test_add_func ("/sampleradapters/strict", test_strict);
  g_test_add_func ("/sampleradapters/wrong-base", test_wrong_base);
  g_test_add_func ("/sampleradapters/bad-adapters", test_bad_adapters);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}
