/* tests/flux/test-weights.c: tensors of files to weights. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/error.h"
#include "tests/flux/golden.h"
#include "tests/flux/weights-bench.h"

/* w as floats, through the backend. */
static float *
expand (fx_backend *b, const fx_weight *w)
{
  float *out = g_new (float, (gsize)(w->n * w->k));

  g_assert_cmpint (fx_expand (b, fx_mat_new (out, w->n, w->k, FX_F32), w), ==, FX_OK);
  return out;
}

static void
fill (float *x, gsize n, guint32 seed)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);

  for (gsize i = 0; i < n; i++)
    x[i] = (float)g_rand_double_range (rand, -1.0, 1.0);
}

/* ---- golden ---- */

/* Quantising the bf16 model on load gives what bitsandbytes saved, to the bit. */
static void
test_quantising_equals_the_saved_model (void)
{
  static const char *const qkv[] = {"transformer_blocks.1.attn.to_q",
      "transformer_blocks.1.attn.to_k", "transformer_blocks.1.attn.to_v"};
  static const gint64 rows[] = {256, 256, 256};
  g_autofree char *model = flux_test_model ();
  g_autoptr (FluxSafetensors) saved = golden_open ("transformer-nf4");
  g_autoptr (FluxSafetensors) file = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree char *dir = NULL;
  fx_weight a = {0}, b = {0};
  Bench bench;

  if (saved == NULL)
    return;
  if (model == NULL) {
    g_test_skip ("tiny-flux-emoji is missing");
    return;
  }
  dir = g_build_filename (model, "transformer", NULL);
  file = flux_safetensors_open (dir, &error);
  g_assert_no_error (error);
  bench_init (&bench);
  bench_add (&bench, "unused", FX_U8, 1, 1, 0, "x");
  bench_open (&bench, FX_Q_NF4);
  bench.loader.file = saved;
  g_assert_true (
      flux_load_linear_rows (&bench.loader, qkv, rows, 3, 256, TRUE, &a, &error));
  bench.loader.file = file;
  g_assert_true (
      flux_load_linear_rows (&bench.loader, qkv, rows, 3, 256, TRUE, &b, &error));
  g_assert_cmpint (a.qtype, ==, FX_Q_NF4);
  g_assert_cmpint (b.qtype, ==, FX_Q_NF4);
  g_assert_cmpint (a.dtype, ==, FX_BF16);
  g_assert_cmpint (b.dtype, ==, FX_BF16);
  g_assert_cmpmem (a.data, 768 * 128, b.data, 768 * 128);
  g_assert_cmpmem (a.absmax, 768 * 4 * 4, b.absmax, 768 * 4 * 4);
  g_assert_cmpmem (a.bias, 768 * 4, b.bias, 768 * 4);

  /* Kept as floats, the saved model is its own expansion. */
  bench.loader.file = saved;
  bench.loader.qtype = FX_Q_NONE;
  g_assert_true (
      flux_load_linear_rows (&bench.loader, qkv, rows, 3, 256, TRUE, &b, &error));
  g_assert_cmpint (b.qtype, ==, FX_Q_NONE);
  {
    g_autofree float *expanded = expand (bench.backend, &a);
    g_assert_cmpmem (expanded, 768 * 256 * 4, b.data, 768 * 256 * 4);
  }
  bench_clear (&bench);
}

static const char NESTED_1[] =
    "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": "
    "[96, 320], \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
    "\"nested_offset\": %.17g}";

/* Adds golden nf4.1.nested as NAME.weight; what must live on is put into `keep`. */
static void
add_nested (Bench *bench, FluxSafetensors *golden, const char *name, GPtrArray *keep)
{
  const FluxTensor *packed = flux_safetensors_lookup (golden, "nf4.1.nested.packed");
  const FluxTensor *absmax = flux_safetensors_lookup (golden, "nf4.1.nested.absmax");
  const FluxTensor *scale =
      flux_safetensors_lookup (golden, "nf4.1.nested.state2_absmax");
  const FluxTensor *map = flux_safetensors_lookup (golden, "nf4.1.nested.state2_code");
  const FluxTensor *code = flux_safetensors_lookup (golden, "nf4.code");
  g_autofree float *offset = golden_floats (golden, "nf4.1.nested.offset", NULL);
  char *state = g_strdup_printf (NESTED_1, (double)offset[0]);
  const char *const suffixes[] = {"", ".absmax", ".quant_map", ".nested_absmax",
      ".nested_quant_map", ".quant_state.bitsandbytes__nf4"};
  char *names[G_N_ELEMENTS (suffixes)];

  g_ptr_array_add (keep, state);
  for (gsize i = 0; i < G_N_ELEMENTS (suffixes); i++) {
    names[i] = g_strconcat (name, ".weight", suffixes[i], NULL);
    g_ptr_array_add (keep, names[i]);
  }
  bench_add (bench, names[0], FX_U8, 2, 15360, 1, packed->data);
  bench_add (bench, names[1], FX_U8, 1, 480, 0, absmax->data);
  bench_add (bench, names[2], FX_F32, 1, 16, 0, code->data);
  bench_add (bench, names[3], FX_F32, 1, 2, 0, scale->data);
  bench_add (bench, names[4], FX_F32, 1, 256, 0, map->data);
  bench_add (bench, names[5], FX_U8, 1, (gint64)strlen (state), 0, state);
}

static void
test_stored_double_quantisation (void)
{
  g_autoptr (FluxSafetensors) golden = golden_open ("golden.safetensors");
  g_autoptr (GPtrArray) keep = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  g_autofree float *want = NULL, *one = NULL, *two = NULL;
  const char *const names[] = {"x", "y"};
  const gint64 rows[] = {96, 96};
  fx_weight w = {0};
  gsize n;
  Bench bench;

  if (golden == NULL)
    return;
  bench_init (&bench);
  add_nested (&bench, golden, "x", keep);
  add_nested (&bench, golden, "y", keep);
  want = golden_floats (golden, "nf4.1.nested.dequant", &n);

  /* Whatever quantisation is asked for, the file's own stays. */
  bench_open (&bench, FX_Q_INT8);
  g_assert_true (flux_load_linear (&bench.loader, "x", 96, 320, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NF4_DOUBLE);
  one = expand (bench.backend, &w);
  g_assert_cmpmem (one, n * 4, want, n * 4);

  /* 480 values of absmax are no multiple of 256: decoded, exactly. */
  g_assert_true (
      flux_load_linear_rows (&bench.loader, names, rows, 2, 320, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NF4);
  two = expand (bench.backend, &w);
  g_assert_cmpmem (two, n * 4, want, n * 4);
  g_assert_cmpmem (two + n, n * 4, want, n * 4);
  bench_clear (&bench);
}

static void
test_quantising_doubly (void)
{
  g_autoptr (FluxSafetensors) golden = golden_open ("golden.safetensors");
  g_autoptr (GError) error = NULL;
  g_autofree float *want = NULL, *one = NULL, *two = NULL;
  const char *const names[] = {"x", "x"};
  const gint64 rows[] = {96, 96};
  const FluxTensor *x, *codes;
  fx_weight w = {0};
  gsize n;
  Bench bench;

  if (golden == NULL)
    return;
  x = flux_safetensors_lookup (golden, "nf4.1.x");
  codes = flux_safetensors_lookup (golden, "nf4.1.nested.absmax");
  want = golden_floats (golden, "nf4.1.nested.dequant", &n);
  bench_init (&bench);
  bench_add (&bench, "x.weight", FX_BF16, 2, 96, 320, x->data);
  bench_open (&bench, FX_Q_NF4_DOUBLE);
  g_assert_true (flux_load_linear (&bench.loader, "x", 96, 320, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NF4_DOUBLE);
  g_assert_cmpmem (w.absmax_q, 480, codes->data, 480);
  one = expand (bench.backend, &w);
  g_assert_true (
      flux_load_linear_rows (&bench.loader, names, rows, 2, 320, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NF4);
  two = expand (bench.backend, &w);
  /* The offset may differ by an ulp from bitsandbytes' mean; bf16 hides it but at ties.
   */
  for (gsize i = 0; i < n; i++) {
    g_assert_cmpfloat (fabsf (one[i] - want[i]), <=, fabsf (want[i]) / 128.0f);
    g_assert_cmpfloat (two[i], ==, one[i]);
    g_assert_cmpfloat (two[n + i], ==, one[i]);
  }
  bench_clear (&bench);
}

/* ---- made up ---- */

/* Two tensors whose 256 absmax values each fill a block: fused without decoding. */
static void
test_fused_double_quantisation_keeps_offsets (void)
{
  enum { N = 128, K = 128 };
  g_autofree float *x = g_new (float, 2 * N * K);
  g_autofree float *a = NULL, *b = NULL, *both = NULL;
  g_autoptr (GError) error = NULL;
  const char *const names[] = {"a", "b"};
  const gint64 rows[] = {N, N};
  fx_weight w = {0};
  Bench bench;

  fill (x, 2 * N * K, 1);
  for (gsize i = 0; i < N * K; i++)
    x[i] *= 5.0f; /* another offset */
  bench_init (&bench);
  bench_add (&bench, "a.weight", FX_F32, 2, N, K, x);
  bench_add (&bench, "b.weight", FX_F32, 2, N, K, x + N * K);
  bench_open (&bench, FX_Q_NF4_DOUBLE);
  g_assert_true (flux_load_linear (&bench.loader, "a", N, K, FALSE, &w, &error));
  a = expand (bench.backend, &w);
  g_assert_true (flux_load_linear (&bench.loader, "b", N, K, FALSE, &w, &error));
  b = expand (bench.backend, &w);
  g_assert_true (
      flux_load_linear_rows (&bench.loader, names, rows, 2, K, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NF4_DOUBLE);
  g_assert_cmpfloat (w.offset2[0], !=, w.offset2[1]);
  both = expand (bench.backend, &w);
  g_assert_cmpmem (both, N * K * 4, a, N * K * 4);
  g_assert_cmpmem (both + N * K, N * K * 4, b, N * K * 4);
  bench_clear (&bench);
}

static void
test_int8_stored_and_made (void)
{
  enum { N = 6, K = 40 };
  float x[N * K], absmax[N];
  gint8 q[N * K];
  g_autofree float *stored = NULL, *made = NULL;
  g_autoptr (GError) error = NULL;
  fx_weight w = {0};
  Bench bench;

  fill (x, N * K, 2);
  fx_int8_quantize (x, N, K, q, absmax);
  bench_init (&bench);
  bench_add (&bench, "s.weight", FX_I8, 2, N, K, q);
  bench_add (&bench, "s.SCB", FX_F32, 1, N, 0, absmax);
  bench_add (&bench, "m.weight", FX_F32, 2, N, K, x);
  bench_open (&bench, FX_Q_INT8);
  g_assert_true (flux_load_linear (&bench.loader, "s", N, K, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_INT8);
  stored = expand (bench.backend, &w);
  g_assert_true (flux_load_linear (&bench.loader, "m", N, K, FALSE, &w, &error));
  made = expand (bench.backend, &w);
  g_assert_cmpmem (stored, sizeof x, made, sizeof x);
  bench.loader.qtype = FX_Q_NONE;
  g_assert_true (flux_load_linear (&bench.loader, "s", N, K, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NONE);
  g_assert_cmpmem (w.data, sizeof x, made, sizeof x);
  bench_clear (&bench);
}

/* What cannot be in 4 bits, or together, is kept as floats. */
static void
test_floats_where_4_bits_cannot_be (void)
{
  float x[6 * 64];
  guint16 half[2 * 64];
  g_autoptr (GError) error = NULL;
  const char *const names[] = {"even", "half"};
  const gint64 rows[] = {6, 2};
  fx_weight w = {0};
  Bench bench;

  fill (x, G_N_ELEMENTS (x), 3);
  g_assert_cmpint (fx_convert (half, FX_BF16, x, FX_F32, 128), ==, FX_OK);
  bench_init (&bench);
  bench_add (&bench, "odd.weight", FX_F32, 2, 8, 48, x);
  bench_add (&bench, "even.weight", FX_F32, 2, 6, 64, x);
  bench_add (&bench, "half.weight", FX_BF16, 2, 2, 64, half);
  bench_add (&bench, "wide.weight", FX_F32, 2, 16, 16, x);
  bench_open (&bench, FX_Q_NF4);
  g_assert_true (flux_load_linear (&bench.loader, "even", 6, 64, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NF4);
  g_assert_true (flux_load_linear (&bench.loader, "odd", 8, 48, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NONE);
  g_assert_cmpmem (w.data, sizeof x, x, sizeof x);
  g_assert_true (
      flux_load_linear_rows (&bench.loader, names, rows, 2, 64, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NONE);
  g_assert_cmpmem (w.data, sizeof x, x, sizeof x);
  g_assert_cmpfloat (((float *)w.data)[6 * 64], ==, fx_bf16_to_f32 (half[0]));

  bench.loader.qtype = FX_Q_FP8;
  g_assert_true (flux_load_linear (&bench.loader, "even", 6, 64, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NONE); /* 6 rows are no multiple of 16 */
  g_assert_false (w.rounds_inputs);

  /* int8 is of the weights alone, unless products are to be as well. */
  bench.loader.qtype = FX_Q_INT8;
  g_assert_true (flux_load_linear (&bench.loader, "wide", 16, 16, FALSE, &w, &error));
  g_assert_false (w.rounds_inputs);
  bench.loader.rounds_inputs = TRUE;
  g_assert_true (flux_load_linear (&bench.loader, "wide", 16, 16, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_INT8);
  g_assert_true (w.rounds_inputs);
  g_assert_true (flux_load_linear (&bench.loader, "even", 6, 64, FALSE, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_INT8);
  g_assert_false (w.rounds_inputs);
  bench_clear (&bench);
}

static void
test_dtypes_of_floats (void)
{
  float x[8], bias[2] = {0.5f, -3.0f};
  guint16 bf16[8], f16[8];
  g_autoptr (GError) error = NULL;
  const float *v;
  fx_weight w = {0};
  fx_mat m;
  Bench bench;

  fill (x, 8, 4);
  g_assert_cmpint (fx_convert (bf16, FX_BF16, x, FX_F32, 8), ==, FX_OK);
  g_assert_cmpint (fx_convert (f16, FX_F16, x, FX_F32, 8), ==, FX_OK);
  bench_init (&bench);
  bench_add (&bench, "pad", FX_U8, 1, 3, 0, "abc"); /* what follows is unaligned */
  bench_add (&bench, "w.weight", FX_BF16, 2, 2, 4, bf16);
  bench_add (&bench, "w.bias", FX_F32, 1, 2, 0, bias);
  bench_add (&bench, "v", FX_F16, 1, 8, 0, f16);
  bench_open (&bench, FX_Q_NONE);
  g_assert_true (flux_load_linear (&bench.loader, "w", 2, 4, TRUE, &w, &error));
  g_assert_cmpint (w.dtype, ==, FX_F32);
  g_assert_cmpmem (w.bias, sizeof bias, bias, sizeof bias);
  for (int i = 0; i < 8; i++)
    g_assert_cmpfloat (((float *)w.data)[i], ==, fx_bf16_to_f32 (bf16[i]));
  g_assert_true (flux_load_vector (&bench.loader, "v", 8, &v, &error));
  for (int i = 0; i < 8; i++)
    g_assert_cmpfloat (v[i], ==, fx_f16_to_f32 (f16[i]));
  g_assert_true (flux_load_table (&bench.loader, "w.weight", 2, 4, &m, &error));
  g_assert_cmpint (m.dtype, ==, FX_F32);

  bench.loader.keep_dtype = TRUE;
  g_assert_true (flux_load_table (&bench.loader, "w.weight", 2, 4, &m, &error));
  g_assert_cmpint (m.dtype, ==, FX_BF16);
  g_assert_cmpmem (m.p, sizeof bf16, bf16, sizeof bf16);
  g_assert_true (flux_load_linear (&bench.loader, "w", 2, 4, TRUE, &w, &error));
  g_assert_cmpint (w.dtype, ==, FX_BF16);
  g_assert_cmpmem (w.data, sizeof bf16, bf16, sizeof bf16);

  bench.loader.keep_dtype = FALSE;
  bench.loader.compute = FX_F16;
  g_assert_true (flux_load_linear (&bench.loader, "w", 2, 4, TRUE, &w, &error));
  g_assert_cmpint (w.dtype, ==, FX_F16);
  for (int i = 0; i < 8; i++)
    g_assert_cmpint (
        ((guint16 *)w.data)[i], ==, fx_f32_to_f16 (fx_bf16_to_f32 (bf16[i])));
  bench_clear (&bench);
}

static void
test_convolutions_are_turned (void)
{
  enum { OUT = 3, IN = 5, KERNEL = 3 };
  float x[OUT * IN * KERNEL * KERNEL], bias[OUT] = {1.f, 2.f, 3.f};
  FluxTensorSource t = {.name = "c.weight",
      .dtype = FX_F32,
      .n_dims = 4,
      .dims = {OUT, IN, KERNEL, KERNEL},
      .data = x};
  g_autoptr (GError) error = NULL;
  fx_weight w = {0};
  Bench bench;

  fill (x, G_N_ELEMENTS (x), 5);
  bench_init (&bench);
  g_array_append_val (bench.tensors, t);
  bench_add (&bench, "c.bias", FX_F32, 1, OUT, 0, bias);
  bench_open (&bench, FX_Q_NF4); /* convolutions are never quantised */
  g_assert_true (flux_load_conv (&bench.loader, "c", OUT, IN, KERNEL, &w, &error));
  g_assert_cmpint (w.qtype, ==, FX_Q_NONE);
  g_assert_cmpint (w.k, ==, IN * KERNEL * KERNEL);
  for (int o = 0; o < OUT; o++)
    for (int i = 0; i < IN; i++)
      for (int a = 0; a < KERNEL * KERNEL; a++)
        g_assert_cmpfloat (((float *)w.data)[(o * KERNEL * KERNEL + a) * IN + i], ==,
            x[(o * IN + i) * KERNEL * KERNEL + a]);
  g_assert_cmpmem (w.bias, sizeof bias, bias, sizeof bias);
  g_assert_false (flux_load_conv (&bench.loader, "c", OUT, IN + 1, KERNEL, &w, &error));
  g_assert_nonnull (strstr (error->message, "c.weight"));
  bench_clear (&bench);
}

/* Several pieces, quantised by several threads, the last one short. */
static void
test_large_tensors_equal_whole_ones (void)
{
  enum { N = 1300, K = 1920, ELEMENTS = N * K };
  g_autofree float *x = g_new (float, ELEMENTS);
  g_autofree guint8 *packed = g_malloc (ELEMENTS / 2);
  g_autofree float *absmax = g_new (float, ELEMENTS / 64);
  g_autofree gint8 *q = g_malloc (ELEMENTS);
  g_autoptr (GError) error = NULL;
  fx_weight w = {0};
  Bench bench;

  fill (x, ELEMENTS, 6);
  bench_init (&bench);
  bench_add (&bench, "x.weight", FX_F32, 2, N, K, x);
  bench_open (&bench, FX_Q_NF4);
  fx_nf4_quantize (x, ELEMENTS, packed, absmax);
  g_assert_true (flux_load_linear (&bench.loader, "x", N, K, FALSE, &w, &error));
  g_assert_cmpmem (w.data, ELEMENTS / 2, packed, ELEMENTS / 2);
  g_assert_cmpmem (w.absmax, ELEMENTS / 16, absmax, ELEMENTS / 16);
  fx_arena_rewind (&bench.arena, 0);
  bench.loader.qtype = FX_Q_INT8;
  fx_int8_quantize (x, N, K, q, absmax);
  g_assert_true (flux_load_linear (&bench.loader, "x", N, K, FALSE, &w, &error));
  g_assert_cmpmem (w.data, ELEMENTS, q, ELEMENTS);
  g_assert_cmpmem (w.absmax, N * 4, absmax, N * 4);
  bench_clear (&bench);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/weights/quantising-equals-the-saved-model",
      test_quantising_equals_the_saved_model);
  g_test_add_func (
      "/weights/stored-double-quantisation", test_stored_double_quantisation);
  g_test_add_func ("/weights/quantising-doubly", test_quantising_doubly);
  g_test_add_func ("/weights/fused-double-quantisation-keeps-offsets",
      test_fused_double_quantisation_keeps_offsets);
  g_test_add_func ("/weights/int8-stored-and-made", test_int8_stored_and_made);
  g_test_add_func (
      "/weights/floats-where-4-bits-cannot-be", test_floats_where_4_bits_cannot_be);
  g_test_add_func ("/weights/dtypes-of-floats", test_dtypes_of_floats);
  g_test_add_func ("/weights/convolutions-are-turned", test_convolutions_are_turned);
  g_test_add_func (
      "/weights/large-tensors-equal-whole-ones", test_large_tensors_equal_whole_ones);
  return g_test_run ();
}
