/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Norms against fp64, and their gradients against differences. */
#include "common.h"

static const int64_t shapes[][2] = {
    {1, 1}, {77, 96}, {3, 130}, {96, 256}, {2, 3072}, {130, 77}};
static const double eps = 1e-6;

static double *
random_vector (int64_t n, float **f, uint64_t *state)
{
  double *d = g_new (double, n);

  *f = g_new (float, n);
  for (int64_t i = 0; i < n; i++)
    d[i] = (*f)[i] = (float)test_random (state);
  return d;
}

/* y = (x - mean) / sqrt (var + eps) * a + b */
static void
naive_norm (const double *x, int64_t rows, int64_t n, const double *a, double add,
    const double *b, double *y, double *stats)
{
  for (int64_t r = 0; r < rows; r++) {
    double mean = 0, var = 0, rstd;
    for (int64_t i = 0; i < n; i++)
      mean += x[r * n + i] / (double)n;
    for (int64_t i = 0; i < n; i++)
      var += (x[r * n + i] - mean) * (x[r * n + i] - mean) / (double)n;
    rstd = 1 / sqrt (var + eps);
    for (int64_t i = 0; i < n; i++)
      y[r * n + i] = (x[r * n + i] - mean) * rstd * (a[i] + add) + b[i];
    if (stats != NULL) {
      stats[2 * r] = mean;
      stats[2 * r + 1] = rstd;
    }
  }
}

typedef struct {
  int64_t rows, cols;
  const double *scale, *shift, *g;
} adaln_data;

static double
adaln_loss (const double *x, void *data)
{
  adaln_data *d = data;
  double *y = g_new (double, d->rows * d->cols), sum = 0;

  naive_norm (x, d->rows, d->cols, d->scale, 1, d->shift, y, NULL);
  for (int64_t i = 0; i < d->rows * d->cols; i++)
    sum += y[i] * d->g[i];
  g_free (y);
  return sum;
}

static void
check_adaln (fx_backend *b)
{
  uint64_t state = 1;

  for (guint s = 1; s < G_N_ELEMENTS (shapes); s++) {
    int64_t m = shapes[s][0], n = shapes[s][1];
    fx_mat x = test_random_mat (m, n, 3, &state), y = test_mat (m, n, 5),
           g = test_random_mat (m, n, 0, &state), dx = test_random_mat (m, n, 2, &state),
           before = test_clone (dx), stats = test_mat (m, 2, 0);
    float *scale, *shift;
    double *dscale = random_vector (n, &scale, &state),
           *dshift = random_vector (n, &shift, &state), *in = test_doubles (x),
           *ref = g_new (double, m *n), *ref_stats = g_new (double, 2 * m),
           *dg = test_doubles (g);
    adaln_data data = {m, n, dscale, dshift, dg};
    naive_norm (in, m, n, dscale, 1, dshift, ref, ref_stats);
    test_ok (fx_adaln (b, y, stats.p, x, shift, scale, (float)eps));
    test_check ("adaln", y, ref, 2e-6);
    test_check ("statistics", stats, ref_stats, 2e-6);
    test_ok (fx_adaln (b, y, NULL, x, shift, scale, (float)eps));
    test_check ("adaln", y, ref, 2e-6);
    test_ok (fx_adaln_bwd (b, dx, g, x, stats.p, scale));
    for (int64_t r = 0; r < m; r++) /* it adds to what is there */
      for (int64_t c = 0; c < n; c++)
        *test_at (dx, r, c) -= *test_at (before, r, c);
    test_gradient ("adaln_bwd", adaln_loss, &data, in, dx, 1e-5, &state);
    test_check_guards (dx);
    test_mat_free (x);
    test_mat_free (y);
    test_mat_free (g);
    test_mat_free (dx);
    test_mat_free (before);
    test_mat_free (stats);
    g_free (scale);
    g_free (shift);
    g_free (dscale);
    g_free (dshift);
    g_free (in);
    g_free (ref);
    g_free (ref_stats);
    g_free (dg);
  }
}

static void
test_adaln (void)
{
  test_each_isa (check_adaln);
}

static void
check_plain (fx_backend *b)
{
  uint64_t state = 2;

  for (guint s = 0; s < G_N_ELEMENTS (shapes); s++) {
    int64_t m = shapes[s][0], n = shapes[s][1];
    fx_mat x = test_random_mat (m, n, 3, &state), y = test_mat (m, n, 5);
    float *w, *bias;
    double *dw = random_vector (n, &w, &state), *db = random_vector (n, &bias, &state),
           *in = test_doubles (x), *ref = g_new (double, m *n);
    naive_norm (in, m, n, dw, 0, db, ref, NULL);
    test_ok (fx_layernorm (b, y, x, w, bias, (float)eps));
    test_check ("layernorm", y, ref, 2e-6);
    for (int64_t r = 0; r < m; r++) {
      double sum = 0;
      for (int64_t c = 0; c < n; c++)
        sum += in[r * n + c] * in[r * n + c];
      for (int64_t c = 0; c < n; c++)
        ref[r * n + c] = in[r * n + c] / sqrt (sum / (double)n + eps) * dw[c];
    }
    test_ok (fx_rmsnorm (b, y, x, w, (float)eps));
    test_check ("rmsnorm", y, ref, 2e-6);
    test_ok (fx_rmsnorm (b, x, x, w, (float)eps));
    test_check ("rmsnorm in place", x, ref, 2e-6);
    test_mat_free (x);
    test_mat_free (y);
    g_free (w);
    g_free (bias);
    g_free (dw);
    g_free (db);
    g_free (in);
    g_free (ref);
  }
}

static void
test_plain (void)
{
  test_each_isa (check_plain);
}

typedef struct {
  int64_t rows, heads, row;
  int head_dim;
  double *wq, *wk, *g;
  fx_rope rope;
} rope_data;

/* y [rows, 2 d] of x [rows, 3 d]; rstd [rows, 2 heads] or NULL. */
static void
naive_rope (const double *x, const rope_data *d, double *y, double *rstd)
{
  int n = d->head_dim, half = n / 2;

  for (int64_t r = 0; r < d->rows; r++)
    for (int64_t h = 0; h < 2 * d->heads; h++) {
      const double *in = x + r * 3 * d->heads * n + h * n;
      const double *w = h < d->heads ? d->wq : d->wk;
      double *out = y + r * 2 * d->heads * n + h * n, sum = 0, inv;
      for (int i = 0; i < n; i++)
        sum += in[i] * in[i] / n;
      inv = 1 / sqrt (sum + eps);
      if (rstd != NULL)
        rstd[r * 2 * d->heads + h] = inv;
      for (int i = 0; i < half; i++) {
        double c = d->rope.cos[(d->row + r) * half + i],
               s = d->rope.sin[(d->row + r) * half + i], a = in[2 * i] * inv * w[2 * i],
               b = in[2 * i + 1] * inv * w[2 * i + 1];
        out[2 * i] = a * c - b * s;
        out[2 * i + 1] = b * c + a * s;
      }
    }
}

static double
rope_loss (const double *x, void *data)
{
  rope_data *d = data;
  int64_t n = d->rows * 2 * d->heads * d->head_dim;
  double *y = g_new (double, n), sum = 0;

  naive_rope (x, d, y, NULL);
  for (int64_t i = 0; i < n; i++)
    sum += y[i] * d->g[i];
  g_free (y);
  return sum;
}

static void
check_rope (fx_backend *b)
{
  static const int64_t cases[][3] = {{96, 4, 64}, {5, 3, 20}, {77, 1, 128}, {1, 2, 2}};
  uint64_t state = 3;

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    rope_data d = {cases[i][0], cases[i][1], 3, (int)cases[i][2]};
    int64_t m = d.rows, width = d.heads * d.head_dim, tokens = m + 5;
    float *wq, *wk, *c = g_new (float, tokens *d.head_dim / 2),
                    *s = g_new (float, tokens *d.head_dim / 2);
    fx_mat x = test_random_mat (m, 3 * width, 1, &state), y = test_mat (m, 2 * width, 3),
           g = test_random_mat (m, 2 * width, 0, &state), dx = test_mat (m, 3 * width, 2),
           grad = test_mat (m, 3 * width, 0), rstd = test_mat (m, 2 * d.heads, 0);
    double *in = test_doubles (x), *ref = g_new (double, m * 2 * width),
           *ref_rstd = g_new (double, m * 2 * d.heads);
    for (int64_t j = 0; j < tokens * d.head_dim / 2; j++) {
      c[j] = (float)cos (3 * test_random (&state));
      s[j] =
          (float)sin (3 * test_random (&state)); /* no rotation: nothing relies on it */
    }
    d.rope = (fx_rope){c, s, tokens};
    d.wq = random_vector (d.head_dim, &wq, &state);
    d.wk = random_vector (d.head_dim, &wk, &state);
    d.g = test_doubles (g);
    naive_rope (in, &d, ref, ref_rstd);
    test_ok (
        fx_qknorm_rope (b, y, rstd.p, x, wq, wk, &d.rope, d.row, d.head_dim, (float)eps));
    test_check ("qknorm_rope", y, ref, 2e-6);
    test_check ("rstd", rstd, ref_rstd, 2e-6);
    test_ok (
        fx_qknorm_rope_bwd (b, dx, g, x, rstd.p, wq, wk, &d.rope, d.row, d.head_dim));
    for (int64_t r = 0; r < m; r++) /* the third with dv stays */
      for (int64_t j = 0; j < 3 * width; j++) {
        g_assert_true (test_is_poison (*test_at (dx, r, j)) == (j >= 2 * width));
        *test_at (grad, r, j) = j < 2 * width ? *test_at (dx, r, j) : 0;
      }
    test_gradient ("qknorm_rope_bwd", rope_loss, &d, in, grad, 1e-5, &state);
    test_check_guards (dx);
    test_mat_free (x);
    test_mat_free (y);
    test_mat_free (g);
    test_mat_free (dx);
    test_mat_free (grad);
    test_mat_free (rstd);
    g_free (wq);
    g_free (wk);
    g_free (c);
    g_free (s);
    g_free (in);
    g_free (ref);
    g_free (ref_rstd);
    g_free (d.wq);
    g_free (d.wk);
    g_free (d.g);
  }
}

static void
test_rope (void)
{
  test_each_isa (check_rope);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/norm/adaln", test_adaln);
  g_test_add_func ("/norm/layernorm-rmsnorm", test_plain);
  g_test_add_func ("/norm/qknorm-rope", test_rope);
  return g_test_run ();
}
