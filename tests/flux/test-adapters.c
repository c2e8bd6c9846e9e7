/* tests/flux/test-adapters.c: adapters in the layouts of other tools, beside what
 * diffusers computes with the same files. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reference: tests/reference/make_adapters.py. */
#include "flux/sample/sampler.h"
#include "tests/testdata.h"
#include "adapters-common.h"
#include "golden.h"

static const double FORWARD = 2e-5, DELTA = 1e-6, PSNR = 50;

/* ---- diffusers' forward ---- */

static float *
forward_all (Fixture *f, FluxLora *const *loras, guint n_loras, gsize n_out)
{
  g_autofree char *path = g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "data", "transformer-small.safetensors", NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxSafetensors) io = flux_safetensors_open (path, &error);
  g_autoptr (FluxRun) run =
      flux_run_new (f->t, FLUX_RUN_FORWARD, 7, 15, 1, loras, n_loras, &error);
  gsize n;
  g_autofree float *latents = golden_floats (io, "latents", &n);
  g_autofree float *prompt = golden_floats (io, "prompt_embeds", &n);
  g_autofree float *pooled = golden_floats (io, "pooled", &n);
  const FluxInput in = {.latents = latents,
      .grid_height = 3,
      .grid_width = 5,
      .prompt_embeds = prompt,
      .text_tokens = 7,
      .pooled = pooled,
      .timestep = 0.37f,
      .guidance = 1};
  float *out = g_new (float, n_out);

  g_assert_no_error (error);
  flux_run_forward (run, &in, out, &error);
  g_assert_no_error (error);
  return out;
}

static void
test_files_give_diffusers_output (Fixture *f, gconstpointer data)
{
  static const struct {
    const char *name, *format;
    guint layers, left_out;
  } cases[] = {{"kohya", "kohya", 26, 0}, {"comfy", "comfy", 26, 0},
      {"bfl", "bfl", 34, 8}, {"fal", "fal", 27, 0}, {"onetrainer", "OneTrainer", 8, 0},
      {"aitoolkit", "diffusers", 14, 0}};
  g_autofree char *reference = data_path ("small.safetensors");
  g_autoptr (FluxSafetensors) want = flux_safetensors_open (reference, NULL);

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *file = g_strdup_printf ("small-%s.safetensors", cases[i].name);
    g_autofree char *path = data_path (file);
    g_autofree char *name = g_strconcat ("out.", cases[i].name, NULL);
    g_autofree float *out = NULL, *expected = NULL, *plain = NULL;
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) lora = NULL;
    FluxLoraReport report = {0};
    gsize n;

    /* Control adapters also replace norms, which is refused unless told to go on. */
    if (cases[i].left_out > 0) {
      g_assert_null (flux_lora_load (f->c, f->b, path, FALSE, &error));
      g_assert_nonnull (strstr (error->message, "control"));
      g_clear_error (&error);
    }
    lora =
        flux_lora_read (f->c, f->b, path, cases[i].left_out == 0, FALSE, &report, &error);
    g_assert_no_error (error);
    g_assert_cmpstr (report.format, ==, cases[i].format);
    g_assert_cmpuint (report.n_left_out, ==, cases[i].left_out);
    g_assert_cmpuint (report.n_layers, ==, cases[i].layers);
    expected = golden_floats (want, name, &n);
    plain = golden_floats (want, "out.plain", &n);
    out = forward_all (f, &lora, 1, n);
    g_test_message ("%s: %g", name, test_relative (out, expected, n));
    g_assert_cmpfloat (test_relative (out, expected, n), <=, FORWARD);
    g_assert_cmpfloat (test_relative (plain, expected, n), >, 0.01);
    flux_lora_report_clear (&report);
  }
}

/* ---- weight changes ---- */

/* scale B A of a slot into out [n, k]; zeros without a module. */
static double *
delta_of (FluxLora *lora, guint slot)
{
  const FluxLoraSlot *s = flux_lora_get_slot (lora, slot);
  const fx_lora *m = flux_lora_module (lora, slot);
  double *out = g_new0 (double, (gsize)(s->n * s->k));

  for (gint64 i = 0; m != NULL && i < s->n; i++)
    for (int r = 0; r < m->rank; r++)
      for (gint64 j = 0; j < s->k; j++)
        out[i * s->k + j] +=
            (double)m->scale * (double)m->b[i * m->rank + r] * (double)m->a[r * s->k + j];
  return out;
}

static void
assert_same_change (FluxLora *a, FluxLora *b)
{
  gboolean any = FALSE;

  for (guint i = 0; flux_lora_get_slot (a, i) != NULL; i++) {
    const FluxLoraSlot *s = flux_lora_get_slot (a, i);
    g_autofree double *x = delta_of (a, i), *y = delta_of (b, i);
    double largest = 0, difference = 0;

    for (gint64 j = 0; j < s->n * s->k; j++) {
      largest = fmax (largest, fabs (x[j]));
      difference = fmax (difference, fabs (x[j] - y[j]));
    }
    if (!(difference <= DELTA * largest))
      g_test_message ("%s: %g of %g", s->name, difference, largest);
    any = any || largest > 0;
    g_assert_cmpfloat (difference, <=, DELTA * largest);
  }
  g_assert_true (any);
}

static void
fill_random (Fixture *f, FluxLora *lora, guint32 which)
{
  const gsize n = flux_lora_n_flat (lora);
  g_autofree float *values = test_floats (which, n, 0.1f);

  g_assert_cmpint (
      fx_upload (f->b, flux_lora_parameters (lora), values, n * sizeof (float)), ==,
      FX_OK);
}

static void
test_written_files_keep_the_change (Fixture *f, gconstpointer data)
{
  static const FluxLoraFormat formats[] = {
      FLUX_LORA_DIFFUSERS, FLUX_LORA_KOHYA, FLUX_LORA_COMFY};
  static const char *const names[] = {"diffusers", "kohya", "comfy"};
  static const struct {
    const char *targets;
    int rank;
    float alpha;
  } cases[] = {{"attention", 4, 4}, {"all-linear", 3, 7.3f}, {"to_q", 3, 2},
      {"to_k,to_v,add_v_proj,proj_mlp", 6, 1}};

  for (guint i = 0; i < G_N_ELEMENTS (cases) * G_N_ELEMENTS (formats); i++) {
    const guint c = i / G_N_ELEMENTS (formats), format = i % G_N_ELEMENTS (formats);
    g_autofree char *dir = g_dir_make_tmp ("flux-XXXXXX", NULL);
    g_autofree char *path = g_build_filename (dir, "a.safetensors", NULL);
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) lora = flux_lora_new (
        f->c, f->b, cases[c].rank, cases[c].alpha, cases[c].targets, FALSE, &error);
    g_autoptr (FluxLora) back = NULL;
    FluxLoraReport report = {0};

    g_assert_no_error (error);
    fill_random (f, lora, 40 + i);
    g_assert_true (flux_lora_write (lora, path, formats[format], &error));
    back = flux_lora_read (f->c, f->b, path, TRUE, FALSE, &report, &error);
    g_assert_no_error (error);
    g_assert_cmpstr (report.format, ==, names[format]);
    /* Not more layers than there were: those that do nothing are not made modules. */
    g_assert_cmpuint (flux_lora_n_parameters (back), >=, flux_lora_n_parameters (lora));
    assert_same_change (lora, back);
    g_unlink (path);
    g_rmdir (dir);
  }
}

/* What others wrote, with modules outside the blocks, goes through ours. */
static void
test_rewritten_files_keep_the_change (Fixture *f, gconstpointer data)
{
  static const char *const files[] = {"small-bfl.safetensors", "small-fal.safetensors",
      "small-onetrainer.safetensors", "small-kohya.safetensors",
      "small-comfy.safetensors", "small-aitoolkit.safetensors"};

  for (guint i = 0; i < 3 * G_N_ELEMENTS (files); i++) {
    g_autofree char *from = data_path (files[i / 3]);
    g_autofree char *dir = g_dir_make_tmp ("flux-XXXXXX", NULL);
    g_autofree char *path = g_build_filename (dir, "a.safetensors", NULL);
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) lora =
        flux_lora_read (f->c, f->b, from, FALSE, FALSE, NULL, &error);
    g_autoptr (FluxLora) back = NULL;

    g_assert_no_error (error);
    g_assert_true (flux_lora_write (lora, path, (FluxLoraFormat)(i % 3), &error));
    back = flux_lora_load (f->c, f->b, path, FALSE, &error);
    g_assert_no_error (error);
    assert_same_change (lora, back);
    g_unlink (path);
    g_rmdir (dir);
  }
}

/* An adapter that has not learnt yet (B = 0) keeps its modules. */
static void
test_untrained_adapter_goes_through (Fixture *f, gconstpointer data)
{
  g_autofree char *path =
      g_build_filename (g_get_tmp_dir (), "flux-untrained.safetensors", NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora =
      flux_lora_new (f->c, f->b, 2, 2, "attention", FALSE, &error);
  g_autoptr (FluxLora) back = NULL;
  guint n, m;

  g_assert_true (flux_lora_init_gaussian (lora, 1, &error));
  g_assert_true (flux_lora_write (lora, path, FLUX_LORA_KOHYA, &error));
  back = flux_lora_load (f->c, f->b, path, FALSE, &error);
  g_unlink (path);
  g_assert_no_error (error);
  flux_lora_get_tensors (lora, &n);
  flux_lora_get_tensors (back, &m);
  g_assert_cmpuint (m, >=, n);
}

/* ---- merging ---- */

/* Two adapters on all layers, at 0.8 and 0.4. */
static void
load_two (Fixture *f, FluxLora *loras[2])
{
  static const char *const names[] = {
      "small-bfl.safetensors", "small-aitoolkit.safetensors"};

  for (guint i = 0; i < 2; i++) {
    g_autofree char *path = data_path (names[i]);
    g_autoptr (GError) error = NULL;

    loras[i] = flux_lora_read (f->c, f->b, path, FALSE, FALSE, NULL, &error);
    g_assert_no_error (error);
    flux_lora_set_multiplier (loras[i], i == 0 ? 0.8f : 0.4f);
  }
}

static float *
forward_with (Fixture *f, FluxTransformer *t, FluxLora *const *loras, guint n)
{
  FluxTransformer *own = f->t;
  float *out;

  f->t = t;
  out = forward_all (f, loras, n, 3 * 5 * 16);
  f->t = own;
  return out;
}

/* On the CPU, whose weights are in fp32. */
static void
test_merged_equals_unmerged (Fixture *f, gconstpointer data)
{
  const gsize n = 3 * 5 * 16;
  g_autofree char *dir = test_small_dir ();
  FluxTransformer *t = test_load (dir, f->b, FX_Q_NONE);
  g_autofree float *plain = forward_with (f, t, NULL, 0), *beside = NULL, *merged = NULL;
  g_autoptr (GError) error = NULL;
  FluxLora *loras[2];

  load_two (f, loras);
  beside = forward_with (f, t, loras, 2);
  flux_transformer_merge (t, loras, 2, &error);
  g_assert_no_error (error);
  merged = forward_with (f, t, NULL, 0);
  g_test_message ("merged: %g", test_relative (merged, beside, n));
  g_assert_cmpfloat (test_relative (merged, beside, n), <=, 1e-5);
  g_assert_cmpfloat (test_relative (plain, beside, n), >, 0.1);
  flux_lora_free (loras[0]);
  flux_lora_free (loras[1]);
  flux_transformer_unref (t);
}

static void
test_merging_into_quantised_weights (Fixture *f, gconstpointer data)
{
  g_autofree char *dir = test_small_dir ();
  FluxTransformer *t = test_load (dir, f->b, FX_Q_NF4);
  g_autofree float *before = forward_with (f, t, NULL, 0), *after = NULL;
  g_autoptr (GError) error = NULL;
  FluxLora *loras[2];

  load_two (f, loras);
  g_assert_false (flux_transformer_merge (t, loras, 2, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  after = forward_with (f, t, NULL, 0);
  g_assert_cmpmem (before, 960, after, 960);
  flux_lora_free (loras[0]);
  flux_lora_free (loras[1]);
  flux_transformer_unref (t);
}

/* ---- pictures ---- */

static double
psnr (FluxSafetensors *want, const char *name, const guint8 *got)
{
  const FluxTensor *t = flux_safetensors_lookup (want, name);
  const guint8 *p;
  double sum = 0;

  g_assert_nonnull (t);
  g_assert_cmpint (t->dtype, ==, FX_U8);
  p = t->data;
  for (gsize i = 0; i < t->n_elements; i++)
    sum += ((double)p[i] - got[i]) * ((double)p[i] - got[i]);
  return sum == 0 ? INFINITY : 10 * log10 (255.0 * 255.0 * (double)t->n_elements / sum);
}

static double
compare_picture (FluxModel *model, const char *dir, const char *const *files,
    const float *scales, guint n, FluxSafetensors *want, const char *name)
{
  static const FluxSampleRequest request = {.prompt = "red apple",
      .width = 64,
      .height = 64,
      .steps = 6,
      .guidance = 3.5,
      .seed = 4,
      .noise_dtype = FX_F32,
      .max_sequence_length = 32};
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxSampler) sampler = flux_sampler_new (model, dir, FX_Q_NONE, &error);
  g_autofree guint8 *rgb = g_malloc (64 * 64 * 3);
  FluxLora *loras[2] = {NULL, NULL};

  g_assert_no_error (error);
  for (guint i = 0; i < n; i++) {
    g_autofree char *path = data_path (files[i]);
    FluxLoraReport report = {0};

    loras[i] =
        flux_lora_read (flux_transformer_get_config (flux_model_get_transformer (model)),
            flux_model_get_backend (model), path, FALSE, FALSE, &report, &error);
    g_assert_no_error (error);
    /* The control adapter's norms, which are the model's own. */
    g_assert_cmpuint (report.n_left_out, ==, g_str_equal (report.format, "bfl") ? 24 : 0);
    flux_lora_report_clear (&report);
    flux_lora_set_multiplier (loras[i], scales[i]);
  }
  flux_sampler_set_loras (sampler, loras, n, &error);
  flux_sampler_run (sampler, &request, rgb, 64 * 3, FALSE, NULL, NULL, &error);
  g_assert_no_error (error);
  g_clear_pointer (&sampler, flux_sampler_free);
  for (guint i = 0; i < n; i++)
    flux_lora_free (loras[i]);
  return psnr (want, name, rgb);
}

static void
test_pictures_are_diffusers (void)
{
  static const struct {
    const char *layout, *picture;
  } cases[] = {{"a-diffusers", "a"}, {"a-kohya", "a"}, {"a-comfy", "a"}, {"a-xlabs", "a"},
      {"c-fal", "c"}, {"c-aitoolkit", "c"}, {"bfl", "bfl"}, {"onetrainer", "onetrainer"}};
  static const char *const pair[] = {"emoji-a-kohya.safetensors", "emoji-b.safetensors"};
  static const float scales[] = {0.8f, 0.4f}, one = 1;
  g_autofree char *dir = flux_test_model ();
  g_autofree char *reference = data_path ("emoji.safetensors");
  g_autoptr (FluxSafetensors) want = flux_safetensors_open (reference, NULL);
  FluxModelKey key = {dir, FX_Q_NONE, FX_F32, FLUX_DEVICE_CPU};
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxModel) model = NULL;
  const guint8 *plain = flux_safetensors_lookup (want, "plain")->data;
  double db;

  if (dir == NULL) {
    g_test_skip ("no bf16 tiny-flux-emoji");
    return;
  }
  model = flux_model_acquire (&key, NULL, NULL, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *file = g_strdup_printf ("emoji-%s.safetensors", cases[i].layout);
    const char *const files[] = {file};

    db = compare_picture (model, dir, files, &one, 1, want, cases[i].picture);
    g_test_message ("%s: %.1f dB", cases[i].layout, db);
    g_assert_cmpfloat (db, >=, PSNR);
    /* Without it, it is another picture. */
    g_assert_cmpfloat (psnr (want, cases[i].picture, plain), <, 40);
  }
  db = compare_picture (model, dir, pair, scales, 2, want, "ab");
  g_test_message ("two adapters at 0.8 and 0.4: %.1f dB", db);
  g_assert_cmpfloat (db, >=, PSNR);
  g_assert_cmpfloat (
      compare_picture (model, dir, NULL, NULL, 0, want, "plain"), >=, PSNR);
}

int
main (int argc, char **argv)
{
  static const struct {
    const char *name;
    void (*func) (Fixture *, gconstpointer);
  } tests[] = {{"files-give-diffusers-output", test_files_give_diffusers_output},
      {"written-files-keep-the-change", test_written_files_keep_the_change},
      {"rewritten-files-keep-the-change", test_rewritten_files_keep_the_change},
      {"untrained-adapter-goes-through", test_untrained_adapter_goes_through},
      {"merged-equals-unmerged", test_merged_equals_unmerged},
      {"merging-into-quantised-weights", test_merging_into_quantised_weights}};

  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/adapters/pictures-are-diffusers", test_pictures_are_diffusers);
  for (guint i = 0; i < G_N_ELEMENTS (tests); i++) {
    g_autofree char *path = g_strconcat ("/adapters/", tests[i].name, NULL);

    g_test_add (path, Fixture, NULL, set_up, tests[i].func, tear_down);
  }
  return g_test_run ();
}
