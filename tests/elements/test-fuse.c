/* test-fuse.c: fluxlorafuse adds adapters to the weights that pass.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testweights.h"
#include "tests/flux/lora-file.h"

static gchar *
adapter (const gchar *name)
{
  return g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "adapters", name, NULL);
}

/* What the transformer in `dir` makes of one input, with the adapters beside it. */
static float *
forward (const gchar *dir, gchar *const *files, const float *scales, guint n, gsize *size)
{
  fx_backend *b = test_backend ();
  FluxTransformer *t = test_load (dir, b, FX_Q_NONE);
  const FluxConfig *c = flux_transformer_get_config (t);
  FluxLora *loras[2];
  GError *error = NULL;
  TestMicro m;
  FluxRun *run;
  float *out;

  for (guint i = 0; i < n; i++) {
    loras[i] = flux_lora_read (c, b, files[i], FALSE, FALSE, NULL, &error);
    g_assert_no_error (error);
    flux_lora_set_multiplier (loras[i], scales[i]);
  }
  test_micro_init (&m, c, 1, 3, 5, 7);
  run = flux_run_new (t, FLUX_RUN_FORWARD, 7, 15, 1, loras, n, &error);
  g_assert_no_error (error);
  *size = 15 * (gsize)c->out_channels;
  out = g_new (float, *size);
  flux_run_forward (run, &m.micro.in, out, &error);
  g_assert_no_error (error);
  flux_run_free (run);
  test_micro_clear (&m);
  for (guint i = 0; i < n; i++)
    flux_lora_free (loras[i]);
  flux_transformer_unref (t);
  fx_backend_free (b);
  return out;
}

static void
test_fused_equals_unfused (void)
{
  gchar *from = test_folder (), *folder = test_folder (), *to = child (folder, "fused");
  gchar *files[] = {
      adapter ("small-bfl.safetensors"), adapter ("small-aitoolkit.safetensors")};
  const float scales[] = {0.8f, 0.4f};
  float *plain, *beside, *fused;
  gchar *message;
  gsize n;

  write_fp32 (from, NULL);
  g_assert_true (run_line (&message,
      "fluxmodelsrc location=%s ! fluxlorafuse strict=false loras=\"%s:1.6,%s:0.8\" "
      "lora-scale=0.5 ! queue ! fluxmodelsink location=%s",
      from, files[0], files[1], to));
  plain = forward (from, NULL, NULL, 0, &n);
  beside = forward (from, files, scales, 2, &n);
  fused = forward (to, NULL, NULL, 0, &n);
  g_test_message ("fused: %g", test_relative (fused, beside, n));
  g_assert_cmpfloat (test_relative (fused, beside, n), <=, 1e-5);
  g_assert_cmpfloat (test_relative (plain, beside, n), >, 0.1);
  test_remove (from);
  test_remove (folder);
  g_free (plain);
  g_free (beside);
  g_free (fused);
  g_free (files[0]);
  g_free (files[1]);
  g_free (from);
  g_free (folder);
  g_free (to);
}

/* What no adapter changes passes as it is. */
static void
test_other_tensors_pass (void)
{
  gchar *dir = test_small_dir (), *folder = test_folder (), *to = child (folder, "fused");
  gchar *file = adapter ("small-onetrainer.safetensors"), *message;
  FluxSafetensors *before, *after;
  guint changed = 0, n;

  g_assert_true (run_line (&message,
      "fluxmodelsrc location=%s ! fluxlorafuse loras=%s ! fluxmodelsink location=%s", dir,
      file, to));
  before = flux_safetensors_open (dir, NULL);
  after = flux_safetensors_open (to, NULL);
  n = flux_safetensors_get_n_tensors (before);
  g_assert_cmpuint (n, ==, flux_safetensors_get_n_tensors (after));
  for (guint i = 0; i < n; i++) {
    const FluxTensor *t = flux_safetensors_get_nth (before, i);
    const FluxTensor *u = flux_safetensors_lookup (after, t->name);

    g_assert_nonnull (u);
    g_assert_cmpuint (t->n_bytes, ==, u->n_bytes);
    changed += memcmp (t->data, u->data, t->n_bytes) != 0;
  }
  g_assert_cmpuint (changed, ==, 8); /* the layers of the adapter */
  flux_safetensors_unref (before);
  flux_safetensors_unref (after);
  test_remove (folder);
  g_free (file);
  g_free (dir);
  g_free (folder);
  g_free (to);
}

/* 4-bit weights become floats, and the folder says so. */
static void
test_a_quantised_model_becomes_floats (void)
{
  gchar *folder, *to, *file, *config, *text, *message, *base;

  if (!test_need_model (&base))
    return;
  folder = test_folder ();
  to = child (folder, "fused");
  file = adapter ("emoji-b.safetensors");
  config = child (to, "config.json");
  g_assert_true (run_line (&message,
      "fluxmodelsrc location=%s ! fluxlorafuse loras=%s ! fluxmodelsink location=%s",
      base, file, to));
  g_assert_true (g_file_get_contents (config, &text, NULL, NULL));
  g_assert_null (strstr (text, "quantization_config"));
  test_remove (folder);
  g_free (text);
  g_free (config);
  g_free (file);
  g_free (base);
  g_free (folder);
  g_free (to);
}

/* A layer of the adapter whose weight does not come is named. */
static void
test_a_layer_without_a_weight (void)
{
  static const gchar missing[] = "single_transformer_blocks.0.attn.to_q";
  gchar *from = test_folder (), *folder = test_folder (), *to = child (folder, "fused");
  gchar *file = adapter ("small-kohya.safetensors"), *message;
  TestRun run;

  write_fp32 (from, "single_transformer_blocks.0.attn.to_q.weight");
  g_assert_false (run_line (&message,
      "fluxmodelsrc location=%s ! fluxlorafuse loras=%s ! fluxmodelsink location=%s",
      from, file, to));
  g_assert_nonnull (strstr (message, missing));
  assert_only (folder, NULL);
  g_free (message);
  test_run_init (&run,
      "fluxmodelsrc location=%s ! fluxlorafuse loras=%s strict=false ! "
      "fluxmodelsink location=%s",
      from, file, to);
  test_run_all (&run);
  g_assert_cmpuint (run.n_warnings, ==, 1);
  test_run_clear (&run);
  test_remove (from);
  test_remove (folder);
  g_free (file);
  g_free (from);
  g_free (folder);
  g_free (to);
}

/* ---- what is refused ---- */

typedef enum {
  OTHER_MODEL,
  OTHER_RANK,
  HALF,
  NOT_A_NUMBER,
  LYCORIS,
  DORA,
  TOO_LARGE,
} Fault;

static gchar *
faulty (Fault fault)
{
  static const gchar name[] = "transformer.transformer_blocks.0.attn.to_q";
  const gint64 k = fault == OTHER_MODEL ? 3072 : 64;
  gchar *a = g_strconcat (name, ".lora_A.weight", NULL), *path;
  gchar *b = g_strconcat (name, ".lora_B.weight", NULL);
  gchar *more = g_strconcat (
      name, fault == LYCORIS ? ".hada_w1_a" : ".lora_magnitude_vector", NULL);
  float value = fault == NOT_A_NUMBER ? (float)NAN : fault == TOO_LARGE ? 1e30f : 0.01f;
  File f;

  file_init (&f);
  file_add (&f, a, 4, k, value);
  if (fault != HALF)
    file_add (&f, b, k, fault == OTHER_RANK ? 5 : 4, fault == TOO_LARGE ? 1e30f : 0.01f);
  if (fault == LYCORIS || fault == DORA)
    file_add (&f, more, 64, 0, 0.01f);
  path = file_write (&f);
  file_clear (&f);
  g_free (a);
  g_free (b);
  g_free (more);
  return path;
}

static void
test_refuses_adapters (void)
{
  static const struct {
    Fault fault;
    const gchar *says;
  } cases[] = {{OTHER_MODEL, "does not have the shape"}, {OTHER_RANK, "ranks of"},
      {HALF, "lora_B.weight"}, {NOT_A_NUMBER, "NaN"}, {LYCORIS, "LyCORIS"},
      {DORA, "DoRA"}, {TOO_LARGE, "scale too large"}};
  gchar *dir = test_small_dir (), *folder = test_folder (), *to = child (folder, "fused");

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    gchar *file = faulty (cases[i].fault), *message;

    g_assert_false (run_line (&message,
        "fluxmodelsrc location=%s ! fluxlorafuse loras=%s ! queue ! "
        "fluxmodelsink location=%s",
        dir, file, to));
    g_test_message ("%s", message);
    g_assert_nonnull (strstr (message, cases[i].says));
    assert_only (folder, NULL);
    g_assert_cmpint (g_remove (file), ==, 0);
    g_free (message);
    g_free (file);
  }
  test_remove (folder);
  g_free (dir);
  g_free (folder);
  g_free (to);
}

static void
test_refuses_settings (void)
{
  static const struct {
    const gchar *loras, *says;
  } cases[] = {{"", "nothing to fuse"}, {"loras=/nowhere.safetensors", "There is no"},
      {"loras=a.safetensors:x", "no number"}, {"loras=a.safetensors,", "empty entry"}};
  gchar *dir = test_small_dir (), *folder = test_folder (), *to = child (folder, "fused");

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    gchar *message;

    g_assert_false (run_line (&message,
        "fluxmodelsrc location=%s ! fluxlorafuse %s ! fluxmodelsink location=%s", dir,
        cases[i].loras, to));
    g_assert_nonnull (strstr (message, cases[i].says));
    g_free (message);
  }
  assert_only (folder, NULL);
  test_remove (folder);
  g_free (dir);
  g_free (folder);
  g_free (to);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/fuse/fused-equals-unfused", test_fused_equals_unfused);
  g_test_add_func ("/fuse/other-tensors-pass", test_other_tensors_pass);
  g_test_add_func (
      "/fuse/a-quantised-model-becomes-floats", test_a_quantised_model_becomes_floats);
  g_test_add_func ("/fuse/a-layer-without-a-weight", test_a_layer_without_a_weight);
  g_test_add_func ("/fuse/refuses-adapters", test_refuses_adapters);
  g_test_add_func ("/fuse/refuses-settings", test_refuses_settings);
  return g_test_run ();
}
