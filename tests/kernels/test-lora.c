/* SPDX-License-Identifier: LGPL-2.1-or-later
 * LoRA modules against fp64. */
#include "common.h"

typedef struct {
  int64_t m, k, n;
  fx_lora l;
  fx_mat x, y, dy, a, b, da, db;
} module;

static void
module_init (module *t, int64_t m, int64_t k, int64_t n, int rank, uint64_t *state)
{
  *t = (module){m, k, n};
  t->x = test_random_mat (m, k, 3, state);
  t->y = test_random_mat (m, n, 1, state);
  t->dy = test_random_mat (m, n, 2, state);
  t->a = test_random_mat (rank, k, 0, state);
  t->b = test_random_mat (n, rank, 0, state);
  t->da = test_random_mat (rank, k, 0, state);
  t->db = test_random_mat (n, rank, 0, state);
  t->l = (fx_lora){t->a.p, t->b.p, t->da.p, t->db.p, rank, 1.75f};
}

static void
module_clear (module *t)
{
  test_mat_free (t->x);
  test_mat_free (t->y);
  test_mat_free (t->dy);
  test_mat_free (t->a);
  test_mat_free (t->b);
  test_mat_free (t->da);
  test_mat_free (t->db);
}

/* out [a.rows, b.cols] = start + factor a b, where a and b may be read transposed. */
static double *
product (const double *start, double factor, const double *a, bool a_t, const double *b,
    bool b_t, int64_t rows, int64_t depth, int64_t cols)
{
  double *out = g_new (double, rows *cols);

  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) {
      double sum = 0;
      for (int64_t d = 0; d < depth; d++)
        sum += (a_t ? a[d * rows + r] : a[r * depth + d]) *
               (b_t ? b[c * depth + d] : b[d * cols + c]);
      out[r * cols + c] = (start == NULL ? 0 : start[r * cols + c]) + factor * sum;
    }
  return out;
}

static const int64_t shapes[][4] = {{96, 256, 256, 4}, {77, 130, 33, 1}, {1, 64, 1, 3},
    {130, 65, 96, 16}, {40, 30, 50, 21}};

static void
check_forward (fx_backend *b)
{
  uint64_t state = 1;

  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++) {
    module t;
    module_init (&t, shapes[i][0], shapes[i][1], shapes[i][2], (int)shapes[i][3], &state);
    fx_mat h = test_mat (t.m, t.l.rank, 1);
    double *x = test_doubles (t.x), *y = test_doubles (t.y), *a = test_doubles (t.a),
           *bm = test_doubles (t.b);
    double *ref_h = product (NULL, 1, x, false, a, true, t.m, t.k, t.l.rank);
    double *ref = product (y, t.l.scale, ref_h, false, bm, true, t.m, t.l.rank, t.n);
    test_ok (fx_lora_fwd (b, t.y, h, t.x, &t.l, 1));
    test_check ("h", h, ref_h, 2e-6);
    test_check ("lora", t.y, ref, 2e-6);
    g_free (x);
    g_free (y);
    g_free (a);
    g_free (bm);
    g_free (ref_h);
    g_free (ref);
    test_mat_free (h);
    module_clear (&t);
  }
}

static void
test_forward (void)
{
  test_each_isa (check_forward);
}

/* keep_h: h comes from the forward; want_dx: the input has a gradient. */
static void
check_one_backward (fx_backend *b, module *t, bool keep_h, bool want_dx, uint64_t *state)
{
  int rank = t->l.rank;
  fx_mat h = test_mat (t->m, rank, 1), dx = test_random_mat (t->m, t->k, 5, state),
         none = {NULL};
  double *x = test_doubles (t->x), *dy = test_doubles (t->dy), *a = test_doubles (t->a),
         *bm = test_doubles (t->b), *da = test_doubles (t->da),
         *db = test_doubles (t->db), *dx0 = test_doubles (dx);
  double *rh = product (NULL, 1, x, false, a, true, t->m, t->k, rank);
  double *dh = product (NULL, t->l.scale, dy, false, bm, false, t->m, t->n, rank);
  double *rdb = product (db, t->l.scale, dy, true, rh, false, t->n, t->m, rank);
  double *rda = product (da, 1, dh, true, x, false, rank, t->m, t->k);
  double *rdx = product (dx0, 1, dh, false, a, false, t->m, rank, t->k);
  fx_mat y = test_clone (t->y);

  test_ok (fx_lora_fwd (b, y, h, t->x, &t->l, 1));
  test_ok (
      fx_lora_bwd (b, want_dx ? dx : none, t->dy, t->x, keep_h ? h : none, &t->l, 1));
  test_check ("dA", t->da, t->l.da == NULL ? da : rda, t->l.da == NULL ? 0 : 2e-6);
  test_check ("dB", t->db, t->l.db == NULL ? db : rdb, t->l.db == NULL ? 0 : 2e-6);
  test_check ("dx", dx, want_dx ? rdx : dx0, want_dx ? 2e-6 : 0);
  test_mat_free (h);
  test_mat_free (dx);
  test_mat_free (y);
  double *all[] = {x, dy, a, bm, da, db, dx0, rh, dh, rdb, rda, rdx};
  for (guint i = 0; i < G_N_ELEMENTS (all); i++)
    g_free (all[i]);
}

static void
check_backward (fx_backend *b)
{
  uint64_t state = 2;

  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++) {
    module t;
    module_init (&t, shapes[i][0], shapes[i][1], shapes[i][2], (int)shapes[i][3], &state);
    check_one_backward (b, &t, true, true, &state);
    check_one_backward (b, &t, false, true, &state);
    check_one_backward (b, &t, false, false, &state);
    t.l.da = t.l.db = NULL; /* not trained, only passed through */
    check_one_backward (b, &t, true, true, &state);
    module_clear (&t);
  }
}

static void
test_backward (void)
{
  test_each_isa (check_backward);
}

static void
test_threads (void)
{
  fx_mat da[3], db[3], dx[3], y[3];

  for (int threads = 0; threads < 3; threads++) {
    fx_backend *b = fx_cpu_new (threads + 1);
    uint64_t state = 3;
    module t;
    module_init (&t, 300, 200, 333, 5, &state);
    fx_mat h = test_mat (300, 5, 0);
    dx[threads] = test_random_mat (300, 200, 0, &state);
    test_ok (fx_lora_fwd (b, t.y, h, t.x, &t.l, 1));
    test_ok (fx_lora_bwd (b, dx[threads], t.dy, t.x, h, &t.l, 1));
    da[threads] = test_clone (t.da);
    db[threads] = test_clone (t.db);
    y[threads] = test_clone (t.y);
    g_assert_true (test_same_bits (da[0], da[threads]));
    g_assert_true (test_same_bits (db[0], db[threads]));
    g_assert_true (test_same_bits (dx[0], dx[threads]));
    g_assert_true (test_same_bits (y[0], y[threads]));
    test_mat_free (h);
    module_clear (&t);
    fx_backend_free (b);
  }
  for (int threads = 0; threads < 3; threads++) {
    test_mat_free (da[threads]);
    test_mat_free (db[threads]);
    test_mat_free (dx[threads]);
    test_mat_free (y[threads]);
  }
}

enum { PARTS = 3 };

/* A group with h kept or not, x with a gradient or not, trained or frozen, against its
 * modules one by one. */
static void
check_one_group (fx_backend *b, const int64_t *shape, guint kind, uint64_t *state)
{
  const int64_t m = shape[0], k = shape[1], n = shape[2], rank = shape[3];
  const gboolean keep = kind & 1, want_dx = kind & 2, trained = kind & 4;
  fx_mat none = {NULL}, x = test_random_mat (m, k, 3, state),
         h = test_mat (m, 3 * rank, 2);
  fx_mat y = test_random_mat (m, 3 * n, 1, state), dx = test_random_mat (m, k, 0, state);
  fx_mat dy = test_random_mat (m, 3 * n, 5, state), y1 = test_clone (y),
         h1 = test_clone (h), dx1 = test_clone (dx);
  fx_mat a[PARTS], bs[PARTS], da[2][PARTS], db[2][PARTS];
  fx_lora l[2][PARTS];

  for (int i = 0; i < PARTS; i++) {
    a[i] = test_random_mat (rank, k, 0, state);
    bs[i] = test_random_mat (n, rank, 0, state);
    da[0][i] = test_random_mat (rank, k, 0, state);
    db[0][i] = test_random_mat (n, rank, 0, state);
    da[1][i] = test_clone (da[0][i]);
    db[1][i] = test_clone (db[0][i]);
    for (int j = 0; j < 2; j++)
      l[j][i] = (fx_lora){a[i].p, bs[i].p, trained ? da[j][i].p : NULL,
          trained ? db[j][i].p : NULL, (int)rank, 0.5f + (float)i};
  }
  test_ok (fx_lora_fwd (b, y, h, x, l[0], PARTS));
  test_ok (fx_lora_bwd (b, want_dx ? dx : none, dy, x, keep ? h : none, l[0], PARTS));
  for (int i = 0; i < PARTS; i++)
    test_ok (fx_lora_fwd (
        b, fx_cols (y1, i * n, n), fx_cols (h1, i * rank, rank), x, &l[1][i], 1));
  for (int i = 0; i < PARTS; i++)
    test_ok (fx_lora_bwd (b, want_dx ? dx1 : none, fx_cols (dy, i * n, n), x,
        keep ? fx_cols (h1, i * rank, rank) : none, &l[1][i], 1));
  g_assert_true (test_same_bits (y, y1));
  g_assert_true (test_same_bits (h, h1));
  g_assert_true (test_same_bits (dx, dx1));
  for (int i = 0; i < PARTS; i++) {
    g_assert_true (test_same_bits (da[0][i], da[1][i]));
    g_assert_true (test_same_bits (db[0][i], db[1][i]));
    fx_mat all[] = {a[i], bs[i], da[0][i], da[1][i], db[0][i], db[1][i]};
    for (guint j = 0; j < G_N_ELEMENTS (all); j++)
      test_mat_free (all[j]);
  }
  fx_mat all[] = {x, h, h1, y, y1, dy, dx, dx1};
  for (guint i = 0; i < G_N_ELEMENTS (all); i++) {
    test_check_guards (all[i]);
    test_mat_free (all[i]);
  }
}

static void
check_group (fx_backend *b)
{
  uint64_t state = 4;

  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++)
    for (guint kind = 0; kind < 8; kind++)
      check_one_group (b, shapes[i], kind, &state);
}

static void
test_group (void)
{
  test_each_isa (check_group);
}

static void
expect_shape_error (int status, const char *part)
{
  g_assert_cmpint (status, ==, FX_ERR_SHAPE);
  g_assert_nonnull (strstr (fx_error_message (), part));
}

static void
test_group_errors (void)
{
  fx_backend *b = fx_cpu_new (1);
  float *f = g_new0 (float, 16 * 96);
  fx_mat x = fx_mat_new (f, 16, 8, FX_F32), y = fx_mat_new (f, 16, 12, FX_F32),
         h = fx_mat_new (f, 16, 6, FX_F32), none = {NULL};
  fx_lora l[3], bad[3];

  for (int i = 0; i < 3; i++)
    l[i] = (fx_lora){f, f, f, f, 2, 1.0f};
  test_ok (fx_lora_fwd (b, y, h, x, l, 3));
  test_ok (fx_lora_bwd (b, x, y, x, h, l, 3));
  expect_shape_error (fx_lora_fwd (b, y, h, x, l, 0), "a group of 0 LoRA modules");
  expect_shape_error (fx_lora_fwd (b, fx_cols (y, 0, 11), h, x, l, 3),
      "the 11 columns of y are not 3 equal parts");
  expect_shape_error (fx_lora_bwd (b, none, fx_cols (y, 0, 10), x, none, l, 3),
      "the 10 columns of dy are not 3 equal parts");
  expect_shape_error (
      fx_lora_fwd (b, y, fx_cols (h, 0, 2), x, l, 3), "h is [16, 2], must be [16, 6]");
  expect_shape_error (
      fx_lora_bwd (b, x, y, x, fx_cols (h, 0, 2), l, 3), "h is [16, 2], must be [16, 6]");
  memcpy (bad, l, sizeof l);
  bad[2].rank = 3;
  expect_shape_error (fx_lora_fwd (b, y, h, x, bad, 3), "ranks 2 and 3 in one group");
  memcpy (bad, l, sizeof l);
  bad[1].db = NULL;
  expect_shape_error (fx_lora_bwd (b, x, y, x, h, bad, 3), "trained and frozen");
  memcpy (bad, l, sizeof l);
  bad[1].a = NULL;
  expect_shape_error (fx_lora_fwd (b, y, h, x, bad, 3), "A of the LoRA module is NULL");
  g_free (f);
  fx_backend_free (b);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/lora/forward", test_forward);
  g_test_add_func ("/lora/gradients", test_backward);
  g_test_add_func ("/lora/group-equals-one-by-one", test_group);
  g_test_add_func ("/lora/group-errors", test_group_errors);
  g_test_add_func ("/lora/same-bits-on-any-threads", test_threads);
  return g_test_run ();
}
