/* tests/flux/test-loader.c: the two passes of loading, and fingerprints.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/error.h"
#include "tests/flux/weights-bench.h"

/* ---- the two passes ---- */

typedef struct {
  int runs, fail_at;
  fx_weight w;
} Model;

static gboolean
load_model (FluxLoader *loader, gpointer model, GError **error)
{
  Model *self = model;

  if (++self->runs == self->fail_at) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ, "on purpose");
    return FALSE;
  }
  return flux_load_linear (loader, "a", 128, 128, TRUE, &self->w, error);
}

static void
test_measuring_equals_loading (void)
{
  static const fx_qtype qtypes[] = {
      FX_Q_NONE, FX_Q_NF4, FX_Q_NF4_DOUBLE, FX_Q_INT8, FX_Q_FP8};
  enum { N = 128, K = 128 };
  g_autofree guint16 *x = g_new0 (guint16, N * K);
  guint16 bias[N] = {0};
  Bench bench;

  bench_init (&bench);
  bench_add (&bench, "a.weight", FX_BF16, 2, N, K, x);
  bench_add (&bench, "a.bias", FX_BF16, 1, N, 0, bias);
  for (gsize i = 0; i < G_N_ELEMENTS (qtypes); i++) {
    g_autoptr (GError) error = NULL;
    Model model = {0};
    gsize size;
    bench_open (&bench, qtypes[i]);
    fx_arena_clear (&bench.arena);
    fx_arena_init (&bench.arena, bench.backend, "test");
    g_assert_true (flux_loader_run (&bench.loader, load_model, &model, &error));
    g_assert_no_error (error);
    g_assert_cmpint (model.runs, ==, 2);
    g_assert_cmpint (model.w.qtype, ==, qtypes[i]);
    g_assert_cmpint (model.w.rounds_inputs, ==, qtypes[i] == FX_Q_FP8);
    g_assert_cmpuint (bench.arena.used, ==, bench.arena.size); /* to the byte */
    g_assert_cmpuint (bench.loader.bytes_done, ==, bench.loader.bytes_total);
    g_assert_cmpuint (bench.loader.bytes_total, ==, 2 * (N * K + N));
    size = bench.arena.size;

    /* Without a file, the sizes of a bf16 one. */
    fx_arena_clear (&bench.arena);
    fx_arena_init (&bench.arena, bench.backend, "test");
    bench.loader.file = NULL;
    g_assert_true (load_model (&bench.loader, &model, &error));
    g_assert_cmpuint (bench.arena.high, ==, size);
    bench.loader.file = bench.file;
  }
  bench_clear (&bench);
}

static void
test_failed_loading_frees_everything (void)
{
  guint16 x[128] = {0};
  Bench bench;

  bench_init (&bench);
  bench_add (&bench, "a.weight", FX_BF16, 2, 1, 128, x);
  bench_open (&bench, FX_Q_NF4);
  for (int fail_at = 0; fail_at <= 2; fail_at++) { /* 0: by the wrong shape */
    g_autoptr (GError) error = NULL;
    Model model = {.fail_at = fail_at};
    fx_arena_clear (&bench.arena);
    fx_arena_init (&bench.arena, bench.backend, "test");
    g_assert_false (flux_loader_run (&bench.loader, load_model, &model, &error));
    g_assert_nonnull (error);
    g_assert_null (bench.arena.base);
  }
  bench_clear (&bench);
}

/* ---- fingerprint ---- */

static char *
fingerprint_of (Bench *bench, gboolean reversed, const char *name, const guint8 *data)
{
  g_array_set_size (bench->tensors, 0);
  if (!reversed)
    bench_add (bench, name, FX_U8, 1, 20000, 0, data);
  bench_add (bench, "b", FX_U8, 2, 2, 2, "wxyz");
  if (reversed)
    bench_add (bench, name, FX_U8, 1, 20000, 0, data);
  bench_open (bench, FX_Q_NONE);
  return flux_safetensors_fingerprint (bench->file);
}

static void
test_fingerprint (void)
{
  g_autofree guint8 *data = g_malloc0 (20000);
  g_autofree char *base = NULL;
  Bench bench;

  bench_init (&bench);
  base = fingerprint_of (&bench, FALSE, "a", data);
  g_assert_cmpuint (strlen (base), ==, 16);
#define COMPARE(op, reversed, name)                                                      \
  do {                                                                                   \
    g_autofree char *other = fingerprint_of (&bench, reversed, name, data);              \
    g_assert_cmpstr (other, op, base);                                                   \
  } while (0)
  COMPARE (==, FALSE, "a");
  COMPARE (==, TRUE, "a");
  COMPARE (!=, FALSE, "c");
  data[3] = 1;
  COMPARE (!=, FALSE, "a");
  data[3] = 0;
  data[19999] = 1;
  COMPARE (!=, FALSE, "a");
#undef COMPARE
  bench_clear (&bench);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/loader/measuring-equals-loading", test_measuring_equals_loading);
  g_test_add_func (
      "/loader/failed-loading-frees-everything", test_failed_loading_frees_everything);
  g_test_add_func ("/loader/fingerprint", test_fingerprint);
  return g_test_run ();
}
