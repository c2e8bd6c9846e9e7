/* test-quantize.c: fluxquantize changes the type of the weights that pass.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/files/stored.h"
#include "tests/elements/testweights.h"
#include "tests/flux/transformer-common.h"

/* Quantises a model's transformer; the new folder in `folder`. */
static gchar *
quantize (const gchar *model_dir, const gchar *folder, const gchar *type)
{
  gchar *to = child (folder, type), *message;

  if (!run_line (&message,
          "fluxmodelsrc location=%s ! fluxquantize type=%s ! queue ! "
          "fluxmodelsink location=%s",
          model_dir, type, to))
    g_error ("%s: %s", type, message);
  return to;
}

static float *
forward (const gchar *dir, fx_qtype qtype, gsize *size)
{
  fx_backend *b = test_backend ();
  FluxTransformer *t = test_load (dir, b, qtype);
  const FluxConfig *c = flux_transformer_get_config (t);
  GError *error = NULL;
  FluxRun *run = flux_run_new (t, FLUX_RUN_FORWARD, 7, 15, 1, NULL, 0, &error);
  TestMicro m;
  float *out;

  g_assert_no_error (error);
  test_micro_init (&m, c, 1, 3, 5, 7);
  *size = 15 * (gsize)c->out_channels;
  out = g_new (float, *size);
  flux_run_forward (run, &m.micro.in, out, &error);
  g_assert_no_error (error);
  flux_run_free (run);
  test_micro_clear (&m);
  flux_transformer_unref (t);
  fx_backend_free (b);
  return out;
}

/* A file quantised before is what the loader makes of the floats. LLM.int8's files do not
 * say that a weight had been bfloat16, so these were float32. */
static void
test_as_quantised_when_loaded (void)
{
  static const struct {
    const gchar *type;
    fx_qtype qtype;
  } cases[] = {{"nf4", FX_Q_NF4}, {"nf4-double", FX_Q_NF4_DOUBLE}, {"int8", FX_Q_INT8}};
  gchar *folder = test_folder (), *bf16 = test_small_dir ();
  gchar *fp32 = child (folder, "float32");
  gsize n;

  g_assert_cmpint (g_mkdir (fp32, 0700), ==, 0);
  write_fp32 (fp32, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    const gchar *dir = cases[i].qtype == FX_Q_INT8 ? fp32 : bf16;
    gchar *to = quantize (dir, folder, cases[i].type);
    float *want = forward (dir, cases[i].qtype, &n);
    float *got = forward (to, cases[i].qtype, &n);

    g_test_message ("%s: %g", cases[i].type, test_relative (got, want, n));
    g_assert_cmpfloat (test_relative (got, want, n), ==, 0);
    g_free (want);
    g_free (got);
    g_free (to);
  }
  test_remove (folder);
  g_free (folder);
  g_free (fp32);
  g_free (bf16);
}

static const FluxTensor *
find_tensor (FluxSafetensors *file, const gchar *name, fx_dtype dtype)
{
  const FluxTensor *t = flux_safetensors_lookup (file, name);

  g_assert_nonnull (t);
  g_assert_cmpint (t->dtype, ==, dtype);
  return t;
}

/* Weights of linear layers alone, rounded to e4m3. */
static void
test_fp8 (void)
{
  static const gchar weight[] = "transformer_blocks.0.attn.to_q.weight";
  gchar *dir = test_small_dir (), *folder = test_folder ();
  gchar *to = quantize (dir, folder, "fp8"), *plain = child (folder, "plain"), *message;
  FluxSafetensors *before = flux_safetensors_open (dir, NULL);
  FluxSafetensors *after = flux_safetensors_open (to, NULL), *again;
  const FluxTensor *info = find_tensor (after, weight, FX_E4M3);
  float *values = g_new (float, info->n_elements), *rounded;
  float *a, *b;
  guint8 *codes = g_malloc (info->n_elements);
  gsize n;

  find_tensor (after, "x_embedder.bias", FX_BF16);
  find_tensor (after, "x_embedder.weight", FX_E4M3);
  g_assert_true (
      flux_tensor_to_f32 (flux_safetensors_lookup (before, weight), values, NULL));
  fx_convert (codes, FX_E4M3, values, FX_F32, info->n_elements);
  g_assert_cmpmem (codes, info->n_elements, flux_safetensors_lookup (after, weight)->data,
      info->n_elements);
  /* The reader's values are those. */
  a = forward (dir, FX_Q_NONE, &n);
  b = forward (to, FX_Q_NONE, &n);
  g_test_message ("fp8: %g", test_relative (b, a, n));
  g_assert_cmpfloat (test_relative (b, a, n), <, 0.2);
  g_assert_cmpfloat (test_relative (b, a, n), >, 1e-4);
  g_assert_true (run_line (&message,
      "fluxmodelsrc location=%s ! application/x-flux-weights,layout=plain ! "
      "fluxmodelsink location=%s",
      to, plain));
  again = flux_safetensors_open (plain, NULL);
  rounded = g_new (float, info->n_elements);
  g_assert_true (
      flux_tensor_to_f32 (flux_safetensors_lookup (again, weight), rounded, NULL));
  fx_convert (values, FX_F32, codes, FX_E4M3, info->n_elements);
  g_assert_cmpmem (values, info->n_elements * 4, rounded, info->n_elements * 4);
  flux_safetensors_unref (before);
  flux_safetensors_unref (after);
  flux_safetensors_unref (again);
  test_remove (folder);
  g_free (a);
  g_free (b);
  g_free (values);
  g_free (rounded);
  g_free (codes);
  g_free (dir);
  g_free (folder);
  g_free (plain);
  g_free (to);
}

/* Floats to wider floats and back are the same floats. */
static void
test_wider_floats (void)
{
  gchar *dir = test_small_dir (), *folder = test_folder ();
  gchar *wide = quantize (dir, folder, "fp32"), *back = quantize (wide, folder, "bf16");
  FluxSafetensors *file = flux_safetensors_open (wide, NULL);

  find_tensor (file, "x_embedder.bias", FX_F32);
  flux_safetensors_unref (file);
  assert_same_tensors (dir, back);
  test_remove (folder);
  g_free (wide);
  g_free (back);
  g_free (dir);
  g_free (folder);
}

/* bitsandbytes would quantise over the ends of rows; the configuration says which layers
 * are not in 4 bits, and that there are none in 8. */
static void
test_layers_that_stay_floats (void)
{
  gchar *dir = test_small_dir (), *folder = test_folder ();
  gchar *nf4 = quantize (dir, folder, "nf4"), *int8 = quantize (dir, folder, "int8");
  gchar *config = child (nf4, "config.json"), *text;
  FluxSafetensors *file = flux_safetensors_open (nf4, NULL);

  find_tensor (file, "x_embedder.weight", FX_BF16);
  find_tensor (file, "transformer_blocks.0.attn.to_q.weight", FX_U8);
  flux_safetensors_unref (file);
  g_assert_true (g_file_get_contents (config, &text, NULL, NULL));
  g_assert_nonnull (strstr (text, "\"_load_in_4bit\" : true"));
  g_assert_nonnull (strstr (text, "\"x_embedder\""));
  g_assert_nonnull (strstr (text, "\"time_text_embed.text_embedder.linear_1\""));
  g_free (text);
  g_free (config);
  config = child (int8, "config.json");
  g_assert_true (g_file_get_contents (config, &text, NULL, NULL));
  g_assert_nonnull (strstr (text, "\"_load_in_8bit\" : true"));
  g_assert_nonnull (strstr (text, "\"llm_int8_skip_modules\" : null"));
  g_free (text);
  g_free (config);
  test_remove (folder);
  g_free (nf4);
  g_free (int8);
  g_free (dir);
  g_free (folder);
}

/* Pictures from every type. */
static void
test_the_sampler_opens_it (void)
{
  static const gchar *const types[] = {"nf4", "nf4-double", "int8", "fp8", "bf16"};
  gchar *base, *folder;

  if (!test_need_model (&base))
    return;
  folder = test_folder ();
  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    gchar *to = child (folder, types[i]), *message;

    g_assert_true (run_line (&message,
        "fluxmodelsrc location=%s ! fluxquantize type=%s ! fluxmodelsink location=%s "
        "parts=link",
        base, types[i], to));
    if (!run_line (&message,
            "fluxsamplersrc model=%s prompt=x num-buffers=1 steps=1 "
            "max-sequence-length=32 ! video/x-raw,width=64,height=64 ! fakesink",
            to))
      g_error ("%s: %s", types[i], message);
    g_free (to);
  }
  test_remove (folder);
  g_free (folder);
  g_free (base);
}

/* ---- what is refused ---- */

/* A model of one weight, which is `value`, and a scale when it has 8 bits. */
static void
write_weight (const gchar *to, fx_dtype dtype, float value)
{
  gchar *dir = test_small_dir (), *config = child (dir, "config.json"), *text;
  gchar *new_config = child (to, "config.json");
  gchar *path = child (to, "diffusion_pytorch_model.safetensors");
  float values[2 * 64] = {0}, scale = 1;
  guint8 stored[sizeof values];
  FluxTensorSource sources[2] = {{.name = "x_embedder.weight",
                                     .dtype = dtype,
                                     .n_dims = 2,
                                     .dims = {2, 64},
                                     .data = stored},
      {.name = "x_embedder.scale_weight", .dtype = FX_F32, .data = &scale}};

  values[77] = value;
  fx_convert (stored, dtype, values, FX_F32, G_N_ELEMENTS (values));
  g_assert_true (
      flux_safetensors_write (path, sources, dtype == FX_E4M3 ? 2 : 1, NULL, NULL));
  g_assert_true (g_file_get_contents (config, &text, NULL, NULL));
  g_assert_true (g_file_set_contents (new_config, text, -1, NULL));
  g_free (text);
  g_free (dir);
  g_free (config);
  g_free (new_config);
  g_free (path);
}

static void
test_refuses_weights (void)
{
  static const struct {
    fx_dtype dtype;
    float value;
    const gchar *type, *says;
  } cases[] = {{FX_F32, 1, "nf4", NULL}, {FX_F32, NAN, "nf4", "NaN"},
      {FX_BF16, INFINITY, "int8", "NaN"}, {FX_F32, 448, "fp8", NULL},
      {FX_F32, 500, "fp8", "cannot hold"}, {FX_F32, NAN, "bf16", "NaN"},
      {FX_E4M3, 1, "bf16", "x_embedder.scale_weight"}};
  gchar *from = test_folder (), *folder = test_folder (), *to = child (folder, "to");

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    gchar *message;
    gboolean ok;

    write_weight (from, cases[i].dtype, cases[i].value);
    ok = run_line (&message,
        "fluxmodelsrc location=%s ! fluxquantize type=%s ! fluxmodelsink location=%s",
        from, cases[i].type, to);
    g_assert_cmpint (ok, ==, cases[i].says == NULL);
    if (ok) {
      test_remove (to);
    } else {
      g_test_message ("%s", message);
      g_assert_nonnull (strstr (message, cases[i].says));
      g_assert_nonnull (strstr (message, "x_embedder"));
    }
    assert_only (folder, NULL);
    g_free (message);
  }
  test_remove (from);
  test_remove (folder);
  g_free (from);
  g_free (folder);
  g_free (to);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/quantize/as-quantised-when-loaded", test_as_quantised_when_loaded);
  g_test_add_func ("/quantize/fp8", test_fp8);
  g_test_add_func ("/quantize/wider-floats", test_wider_floats);
  g_test_add_func ("/quantize/layers-that-stay-floats", test_layers_that_stay_floats);
  g_test_add_func ("/quantize/the-sampler-opens-it", test_the_sampler_opens_it);
  g_test_add_func ("/quantize/refuses-weights", test_refuses_weights);
  return g_test_run ();
}
