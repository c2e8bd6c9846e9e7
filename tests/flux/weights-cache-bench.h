/* tests/flux/weights-cache-bench.h: a small model, loaded with and without a cache.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/error.h"
#include "tests/flux/weights-bench.h"

enum { N = 192, K = 256, SIZE = N * K };

/* A model of all that a loader takes. */
typedef struct {
  fx_weight w, qkv;
  const float *v;
  fx_mat table;
} Model;

static inline gboolean
load_model (FluxLoader *loader, gpointer data, GError **error)
{
  static const char *const parts[] = {"q", "k"};
  static const gint64 rows[] = {N, N};
  Model *m = data;

  return flux_load_linear (loader, "a", N, K, TRUE, &m->w, error) &&
         flux_load_linear_rows (loader, parts, rows, 2, K, FALSE, &m->qkv, error) &&
         flux_load_vector (loader, "a.bias", N, &m->v, error) &&
         flux_load_table (loader, "t", 32, 33, &m->table, error);
}

/* A bench with a file of that model, and a cache in a folder of its own. */
typedef struct {
  Bench bench;
  FluxWeightsCache *cache;
  Model model;
} Fixture;

static inline void
fixture_init (Fixture *f)
{
  g_autofree float *x = g_new (float, SIZE);
  g_autofree guint16 *bf16 = g_new (guint16, SIZE);
  g_autofree char *dir = g_dir_make_tmp ("flux-cache-XXXXXX", NULL);

  memset (f, 0, sizeof *f);
  fx_philox_normal (1, 2, 3, 4, x, SIZE);
  fx_convert (bf16, FX_BF16, x, FX_F32, SIZE);
  bench_init (&f->bench);
  bench_add (&f->bench, "a.weight", FX_BF16, 2, N, K, bf16);
  bench_add (&f->bench, "a.bias", FX_BF16, 1, N, 0, bf16);
  bench_add (&f->bench, "q.weight", FX_F32, 2, N, K, x);
  bench_add (&f->bench, "k.weight", FX_F32, 2, N, K, x);
  bench_add (&f->bench, "t", FX_F32, 2, 32, 33, x);
  bench_open (&f->bench, FX_Q_NF4);
  f->cache = flux_weights_cache_new (dir);
}

/* The names in the cache's folder. g_strfreev() it. */
static inline char **
list (Fixture *f)
{
  GDir *dir = g_dir_open (f->cache->dir, 0, NULL);
  GPtrArray *names = g_ptr_array_new ();
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    g_ptr_array_add (names, g_build_filename (f->cache->dir, name, NULL));
  if (dir != NULL)
    g_dir_close (dir);
  g_ptr_array_add (names, NULL);
  return (char **)g_ptr_array_free (names, FALSE);
}

static inline void
fixture_clear (Fixture *f)
{
  g_auto (GStrv) names = list (f);

  for (guint i = 0; names[i] != NULL; i++)
    g_remove (names[i]);
  g_rmdir (f->cache->dir);
  flux_weights_cache_free (f->cache);
  bench_clear (&f->bench);
}

/* All bytes that were loaded, padding between buffers apart. */
static inline GBytes *
load (Fixture *f, fx_qtype qtype, gboolean use_cache)
{
  g_autoptr (GError) error = NULL;
  FluxLoader *l = &f->bench.loader;
  fx_arena *arena = &f->bench.arena;

  fx_arena_clear (arena);
  fx_arena_init (arena, f->bench.backend, "test");
  l->qtype = qtype;
  l->what = "model";
  l->cache = use_cache ? f->cache : NULL;
  g_assert_true (flux_loader_run (l, load_model, &f->model, &error));
  g_assert_no_error (error);
  {
    GByteArray *all = g_byte_array_new ();
    const fx_weight *w[] = {&f->model.w, &f->model.qkv};

    for (guint i = 0; i < 2; i++) {
      gsize n = (gsize)(w[i]->n * w[i]->k), blocks = n / FX_NF4_BLOCK;
      gboolean rows = w[i]->qtype == FX_Q_INT8 || w[i]->qtype == FX_Q_FP8;
      g_byte_array_append (all, w[i]->data, rows ? n : n / 2);
      if (w[i]->absmax != NULL)
        g_byte_array_append (
            all, (guint8 *)w[i]->absmax, 4 * (rows ? (gsize)w[i]->n : blocks));
      if (w[i]->absmax_q != NULL) {
        g_byte_array_append (all, w[i]->absmax_q, blocks);
        g_byte_array_append (all, (guint8 *)w[i]->absmax2, blocks / 256 * 4);
        g_byte_array_append (all, (guint8 *)w[i]->offset2, blocks / 256 * 4);
        g_byte_array_append (all, (const guint8 *)w[i]->code8, 1024);
      }
    }
    g_byte_array_append (all, (const guint8 *)f->model.w.bias, N * 4);
    g_byte_array_append (all, (const guint8 *)f->model.v, N * 4);
    g_byte_array_append (all, f->model.table.p, 32 * 33 * 4);
    return g_byte_array_free_to_bytes (all);
  }
}

#define ASSERT_EQUAL(a, b)                                                               \
  g_assert_cmpmem (g_bytes_get_data (a, NULL), g_bytes_get_size (a),                     \
      g_bytes_get_data (b, NULL), g_bytes_get_size (b))
