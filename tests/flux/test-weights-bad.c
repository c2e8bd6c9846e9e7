/* tests/flux/test-weights-bad.c: files that lie about their weights.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/error.h"
#include "tests/flux/weights-bench.h"

static const char GOOD_STATE[] =
    "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": "
    "\"bfloat16\", \"shape\": [4, 64]}";

typedef struct {
  const char *tensor; /* replaced in a good 4-bit file; removed when n is 0 */
  fx_dtype dtype;
  gint64 n;
  const char *text; /* its data, or NULL for zeros */
  const char *says; /* part of the message */
} Damage;

static const Damage damages[] = {
    {"x.weight", FX_U8, 127, NULL, "x.weight"},
    {"x.weight", FX_U8, 0, NULL, "x.weight"},
    {"x.weight.absmax", FX_F32, 3, NULL, "x.weight.absmax"},
    {"x.weight.absmax", FX_U8, 4, NULL, "x.weight.absmax"},
    {"x.weight.absmax", FX_F32, 0, NULL, "x.weight.absmax"},
    {"x.weight.quant_map", FX_F32, 16, NULL, "NF4 code"},
    {"x.weight.quant_map", FX_F32, 15, NULL, "x.weight.quant_map"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, 0, NULL, "quant_state"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_F32, 4, NULL, "quant_state"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, 5000, NULL, "quant_state"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, 40, NULL, "quant_state"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, -1, "[1, 2]", "object"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, -1,
        "{\"quant_type\": \"fp4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", "
        "\"shape\": "
        "[4, 64]}",
        "nf4"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, -1,
        "{\"quant_type\": \"nf4\", \"blocksize\": 128, \"dtype\": \"bfloat16\", "
        "\"shape\": [4, 64]}",
        "64"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, -1,
        "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"int8\", \"shape\": "
        "[4, "
        "64]}",
        "dtype"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, -1,
        "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", "
        "\"shape\": "
        "[64, 4]}",
        "64 x 4"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, -1,
        "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", "
        "\"shape\": "
        "[4, 64, 1]}",
        "shape"},
    {"x.weight.quant_state.bitsandbytes__nf4", FX_U8, -1,
        "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", "
        "\"shape\": "
        "[4, 64.5]}",
        "whole number"},
    {"x.weight.nested_absmax", FX_F32, 1, NULL, "nested_blocksize"},
    {"x.weight.quant_state.bitsandbytes__fp4", FX_U8, 4, NULL, "fp4"},
};

static void
write_damaged (Bench *bench, const Damage *d, guint8 *zeros, const float *map)
{
  const char *state = "x.weight.quant_state.bitsandbytes__nf4";

  g_array_set_size (bench->tensors, 0);
  bench_add (bench, "pad", FX_U8, 1, 1, 0, zeros);
  if (d == NULL || strcmp (d->tensor, "x.weight") != 0)
    bench_add (bench, "x.weight", FX_U8, 2, 128, 1, zeros);
  if (d == NULL || strcmp (d->tensor, "x.weight.absmax") != 0)
    bench_add (bench, "x.weight.absmax", FX_F32, 1, 4, 0, zeros);
  if (d == NULL || strcmp (d->tensor, "x.weight.quant_map") != 0)
    bench_add (bench, "x.weight.quant_map", FX_F32, 1, 16, 0, map);
  if (d == NULL || strcmp (d->tensor, state) != 0)
    bench_add (bench, state, FX_U8, 1, (gint64)strlen (GOOD_STATE), 0, GOOD_STATE);
  if (d != NULL && d->text != NULL)
    bench_add (bench, d->tensor, d->dtype, 1, (gint64)strlen (d->text), 0, d->text);
  else if (d != NULL && d->n > 0)
    bench_add (bench, d->tensor, d->dtype, 1, d->n, 0, zeros);
}

static void
test_damaged_4bit_files_are_named (void)
{
  g_autofree guint8 *zeros = g_malloc0 (8192);
  g_autoptr (GError) error = NULL;
  fx_weight w = {0};
  Bench bench;

  bench_init (&bench);
  write_damaged (&bench, NULL, zeros, fx_nf4_code);
  bench_open (&bench, FX_Q_NF4);
  g_assert_true (flux_load_linear (&bench.loader, "x", 4, 64, FALSE, &w, &error));
  g_assert_no_error (error);
  for (gsize i = 0; i < G_N_ELEMENTS (damages); i++) {
    write_damaged (&bench, &damages[i], zeros, fx_nf4_code);
    bench_open (&bench, FX_Q_NF4);
    g_assert_false (flux_load_linear (&bench.loader, "x", 4, 64, FALSE, &w, &error));
    g_assert_nonnull (strstr (error->message, bench.path));
    if (strstr (error->message, damages[i].says) == NULL)
      g_error ("damage %" G_GSIZE_FORMAT ": '%s'", i, error->message);
    g_clear_error (&error);
  }
  bench_clear (&bench);
}

static void
test_wrong_floats_are_named (void)
{
  float x[128] = {0};
  g_autoptr (GError) error = NULL;
  fx_weight w = {0};
  const float *v;
  fx_mat m;
  Bench bench;

  bench_init (&bench);
  bench_add (&bench, "f.weight", FX_F32, 2, 2, 64, x);
  bench_add (&bench, "f.bias", FX_I32, 1, 2, 0, x);
  bench_add (&bench, "i.weight", FX_I32, 2, 2, 64, x);
  bench_add (&bench, "e.weight", FX_E5M2, 2, 2, 64, x);
  bench_add (&bench, "s.weight", FX_E4M3, 2, 2, 64, x);
  bench_add (&bench, "s.scale_weight", FX_F32, 1, 1, 0, x);
  bench_add (&bench, "b.weight", FX_I8, 2, 2, 64, x);
  bench_open (&bench, FX_Q_NONE);
#define REFUSED(call, part)                                                              \
  do {                                                                                   \
    g_assert_false (call);                                                               \
    g_assert_nonnull (strstr (error->message, part));                                    \
    g_assert_nonnull (strstr (error->message, bench.path));                              \
    g_clear_error (&error);                                                              \
  } while (0)
  REFUSED (flux_load_linear (&bench.loader, "f", 2, 64, TRUE, &w, &error), "f.bias");
  REFUSED (flux_load_linear (&bench.loader, "f", 64, 2, FALSE, &w, &error), "f.weight");
  REFUSED (flux_load_linear (&bench.loader, "i", 2, 64, FALSE, &w, &error), "i.weight");
  REFUSED (flux_load_linear (&bench.loader, "e", 2, 64, FALSE, &w, &error), "F8_E5M2");
  REFUSED (
      flux_load_linear (&bench.loader, "s", 2, 64, FALSE, &w, &error), "s.scale_weight");
  REFUSED (flux_load_linear (&bench.loader, "b", 2, 64, FALSE, &w, &error), "b.SCB");
  REFUSED (flux_load_linear (&bench.loader, "n", 2, 64, FALSE, &w, &error), "n.weight");
  REFUSED (flux_load_vector (&bench.loader, "f.bias", 2, &v, &error), "f.bias");
  REFUSED (flux_load_vector (&bench.loader, "f.weight", 128, &v, &error), "f.weight");
  REFUSED (flux_load_table (&bench.loader, "f.weight", 2, 63, &m, &error), "f.weight");
#undef REFUSED
  g_assert_false (
      flux_load_linear (&bench.loader, "f", G_MAXINT64, 64, FALSE, &w, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  bench_clear (&bench);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func (
      "/weights/damaged-4bit-files-are-named", test_damaged_4bit_files_are_named);
  g_test_add_func ("/weights/wrong-floats-are-named", test_wrong_floats_are_named);
  return g_test_run ();
}
