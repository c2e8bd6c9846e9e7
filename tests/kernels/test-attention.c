/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Attention against fp64: head sizes, lengths, mask, bias, and gradients by differences.
 */
#include "common.h"

typedef struct {
  int64_t queries, keys;
  fx_attn a;
} shape;

static double
score (const double *q, const double *k, const shape *s, int64_t h, int64_t i, int64_t j)
{
  int64_t d = s->a.head_dim, cols = s->a.heads * d;
  double sum = 0;

  if (s->a.causal && j > i)
    return -INFINITY;
  for (int64_t c = 0; c < d; c++)
    sum += q[i * cols + h * d + c] * k[j * cols + h * d + c];
  sum *= s->a.scale;
  return s->a.bias == NULL ? sum : sum + s->a.bias[(h * s->queries + i) * s->keys + j];
}

static void
naive (const double *q, const double *k, const double *v, const shape *s, double *o,
    double *lse)
{
  int64_t d = s->a.head_dim, cols = s->a.heads * d;
  double *p = g_new (double, s->keys);

  for (int64_t h = 0; h < s->a.heads; h++)
    for (int64_t i = 0; i < s->queries; i++) {
      double max = -INFINITY, sum = 0;
      for (int64_t j = 0; j < s->keys; j++) {
        p[j] = score (q, k, s, h, i, j);
        max = fmax (max, p[j]);
      }
      for (int64_t j = 0; j < s->keys; j++)
        sum += p[j] = exp (p[j] - max);
      for (int64_t c = 0; c < d; c++) {
        double out = 0;
        for (int64_t j = 0; j < s->keys; j++)
          out += p[j] / sum * v[j * cols + h * d + c];
        o[i * cols + h * d + c] = out;
      }
      if (lse != NULL)
        lse[h * s->queries + i] = max + log (sum);
    }
  g_free (p);
}

static const shape shapes[] = {
    {1, 1, {1, 1, 1.0f}},
    {96, 96, {4, 64, 0.125f}},
    {77, 77, {2, 32, 0.2f, true}},
    {130, 130, {1, 20, 0.3f, true}},
    {33, 33, {2, 48, 1.0f}},
    {10, 300, {2, 17, 0.3f}},
    {300, 520, {1, 16, 0.25f}},
    {65, 600, {1, 96, 0.1f}},
    {600, 600, {1, 8, 0.5f, true}},
};

static void
check_forward (fx_backend *b)
{
  uint64_t state = 1;

  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++) {
    shape s = shapes[i];
    int64_t cols = s.a.heads * s.a.head_dim, scores = s.a.heads * s.queries;
    fx_mat q = test_random_mat (s.queries, cols, 3, &state),
           k = test_random_mat (s.keys, cols, 2 * cols, &state),
           v = test_random_mat (s.keys, cols, 1, &state),
           o = test_mat (s.queries, cols, 9), lse = test_mat (1, scores, 0);
    double *dq = test_doubles (q), *dk = test_doubles (k), *dv = test_doubles (v),
           *ref = g_new (double, s.queries *cols), *ref_lse = g_new (double, scores);
    float *bias = g_new (float, scores *s.keys);
    for (int64_t j = 0; j < scores * s.keys; j++)
      bias[j] = 3 * (float)test_random (&state);
    for (int with_bias = 0; with_bias < 2; with_bias++) {
      s.a.bias = with_bias ? bias : NULL;
      naive (dq, dk, dv, &s, ref, ref_lse);
      test_ok (fx_attention (b, o, lse.p, q, k, v, &s.a));
      test_check ("attention", o, ref, 2e-6);
      test_check ("lse", lse, ref_lse, 1e-6);
      test_ok (fx_attention (b, o, NULL, q, k, v, &s.a));
      test_check ("attention without lse", o, ref, 2e-6);
    }
    test_mat_free (q);
    test_mat_free (k);
    test_mat_free (v);
    test_mat_free (o);
    test_mat_free (lse);
    g_free (dq);
    g_free (dk);
    g_free (dv);
    g_free (ref);
    g_free (ref_lse);
    g_free (bias);
  }
}

static void
test_forward (void)
{
  test_each_isa (check_forward);
}

/* Scores far apart neither overflow nor lose the smaller ones. */
static void
check_extremes (fx_backend *b)
{
  float q[2] = {100, -100}, k[4] = {100, 99.99f, -100, 0}, v[4] = {1, 2, 3, 4}, o[2];
  fx_attn a = {1, 1, 1.0f};
  fx_mat mq = fx_mat_new (q, 2, 1, FX_F32), mk = fx_mat_new (k, 4, 1, FX_F32),
         mv = fx_mat_new (v, 4, 1, FX_F32), mo = fx_mat_new (o, 2, 1, FX_F32);
  double d = (double)99.99f, e = exp (-(100 - d) * 100);

  test_ok (fx_attention (b, mo, NULL, mq, mk, mv, &a));
  g_assert_cmpfloat_with_epsilon (o[0], (1 + 2 * e) / (1 + e), 1e-4);
  g_assert_cmpfloat_with_epsilon (o[1], 3.0, 1e-6);
}

static void
test_extremes (void)
{
  test_each_isa (check_extremes);
}

typedef struct {
  shape s;
  double *q, *k, *v, *g; /* g: gradient of the output */
  int which;
} loss_data;

static double
loss (const double *x, void *data)
{
  loss_data *l = data;
  int64_t n = l->s.queries * l->s.a.heads * l->s.a.head_dim;
  double *o = g_new (double, n), sum = 0;

  naive (l->which == 0 ? x : l->q, l->which == 1 ? x : l->k, l->which == 2 ? x : l->v,
      &l->s, o, NULL);
  for (int64_t i = 0; i < n; i++)
    sum += o[i] * l->g[i];
  g_free (o);
  return sum;
}

static void
check_backward (fx_backend *b)
{
  static const shape bwd[] = {{96, 96, {2, 64, 0.125f}}, {77, 77, {2, 16, 0.25f}},
      {33, 290, {1, 20, 0.3f}}, {130, 40, {2, 5, 0.4f}}, {1, 1, {1, 2, 1.0f}}};
  uint64_t state = 5;

  for (guint i = 0; i < G_N_ELEMENTS (bwd); i++) {
    loss_data l = {.s = bwd[i]};
    int64_t cols = l.s.a.heads * l.s.a.head_dim, m = l.s.queries, n = l.s.keys;
    fx_mat q = test_random_mat (m, cols, 3, &state),
           k = test_random_mat (n, cols, 7, &state),
           v = test_random_mat (n, cols, 0, &state),
           g = test_random_mat (m, cols, 2, &state), o = test_mat (m, cols, 1),
           lse = test_mat (1, l.s.a.heads * m, 0);
    fx_mat d[3] = {test_mat (m, cols, 3), test_mat (n, cols, 2), test_mat (n, cols, 1)};
    l.q = test_doubles (q);
    l.k = test_doubles (k);
    l.v = test_doubles (v);
    l.g = test_doubles (g);
    test_ok (fx_attention (b, o, lse.p, q, k, v, &l.s.a));
    test_ok (fx_attention_bwd (b, d[0], d[1], d[2], g, o, lse.p, q, k, v, &l.s.a));
    for (l.which = 0; l.which < 3; l.which++) {
      test_gradient ("attention_bwd", loss, &l,
          l.which == 0   ? l.q
          : l.which == 1 ? l.k
                         : l.v,
          d[l.which], 5e-6, &state);
      test_check_guards (d[l.which]);
      test_mat_free (d[l.which]);
    }
    test_mat_free (q);
    test_mat_free (k);
    test_mat_free (v);
    test_mat_free (g);
    test_mat_free (o);
    test_mat_free (lse);
    g_free (l.q);
    g_free (l.k);
    g_free (l.v);
    g_free (l.g);
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
  uint64_t state = 6;
  fx_attn a = {3, 24, 0.2f};
  fx_mat q = test_random_mat (200, 72, 0, &state),
         g = test_random_mat (200, 72, 0, &state);
  fx_mat o[3], d[3][3];
  float lse[3][600];

  for (int t = 0; t < 3; t++) {
    fx_backend *b = fx_cpu_new (t + 1);
    o[t] = test_mat (200, 72, 0);
    for (int j = 0; j < 3; j++)
      d[t][j] = test_mat (200, 72, 0);
    test_ok (fx_attention (b, o[t], lse[t], q, q, g, &a));
    test_ok (
        fx_attention_bwd (b, d[t][0], d[t][1], d[t][2], g, o[t], lse[t], q, q, g, &a));
    g_assert_true (test_same_bits (o[0], o[t]));
    for (int j = 0; j < 3; j++)
      g_assert_true (test_same_bits (d[0][j], d[t][j]));
    fx_backend_free (b);
  }
  for (int t = 0; t < 3; t++) {
    test_mat_free (o[t]);
    for (int j = 0; j < 3; j++)
      test_mat_free (d[t][j]);
  }
  test_mat_free (q);
  test_mat_free (g);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/attention/forward", test_forward);
  g_test_add_func ("/attention/extreme-scores", test_extremes);
  g_test_add_func ("/attention/gradients", test_backward);
  g_test_add_func ("/attention/same-bits-on-any-threads", test_threads);
  return g_test_run ();
}
