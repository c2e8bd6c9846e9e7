/* SPDX-License-Identifier: LGPL-2.1-or-later
 * AdamW with fp32 and with 8-bit state. */
#include "golden.h"
#include "kernels/cpu/fast-power.h"

/* torch.optim.AdamW and bitsandbytes' order of decay, in fp64. */
static void
naive_adamw (double *p, const double *g, double *m, double *v, int n, const fx_adamw *o)
{
  double c1 = 1 - pow (o->beta1, o->step), c2 = 1 - pow (o->beta2, o->step);

  if (!o->decay_first) { /* bitsandbytes' powers: held to its own values below */
    c1 = 1 - (double)fx_fast_power (o->beta1, o->step);
    c2 = 1 - (double)fx_fast_power (o->beta2, o->step);
  }
  for (int i = 0; i < n; i++) {
    double grad = g[i] * o->grad_scale;
    if (o->decay_first)
      p[i] *= 1 - (double)o->lr * o->weight_decay;
    m[i] = o->beta1 * m[i] + (1 - (double)o->beta1) * grad;
    v[i] = o->beta2 * v[i] + (1 - (double)o->beta2) * grad * grad;
    p[i] -= o->lr * (m[i] / c1) / (sqrt (v[i] / c2) + o->eps);
    if (!o->decay_first)
      p[i] *= 1 - (double)o->lr * o->weight_decay;
  }
}

static void
check_adamw (fx_backend *b)
{
  enum { N = 8200 };
  uint64_t state = 1;

  for (int decay_first = 0; decay_first < 2; decay_first++) {
    fx_mat p = test_random_mat (1, N, 0, &state), m = test_mat (1, N, 0),
           v = test_mat (1, N, 0);
    double *rp = test_doubles (p), *rm = g_new0 (double, N), *rv = g_new0 (double, N);
    fx_adamw o = {1e-2f, 0.9f, 0.999f, 1e-8f, 0.1f, 0.25f, 0, decay_first};
    memset (m.p, 0, N * sizeof (float));
    memset (v.p, 0, N * sizeof (float));
    for (o.step = 1; o.step <= 5; o.step++) {
      fx_mat g = test_random_mat (1, N, 0, &state);
      double *rg = test_doubles (g);
      naive_adamw (rp, rg, rm, rv, N, &o);
      test_ok (fx_adamw_step (b, p.p, g.p, m.p, v.p, N, &o));
      g_free (rg);
      test_mat_free (g);
    }
    test_check ("parameters", p, rp, 1e-6);
    test_check ("m", m, rm, 1e-6);
    test_check ("v", v, rv, 1e-6);
    test_mat_free (p);
    test_mat_free (m);
    test_mat_free (v);
    g_free (rp);
    g_free (rm);
    g_free (rv);
  }
}

static void
test_adamw (void)
{
  test_each_isa (check_adamw);
}

static fx_adam8_state
state_new (int n)
{
  int blocks = (n + 255) / 256;
  fx_adam8_state s = {g_new (uint8_t, n), g_new0 (uint8_t, n), g_new0 (float, blocks),
      g_new0 (float, blocks), fx_dynamic_map (true), fx_dynamic_map (false)};

  memset (s.m, 127, (size_t)n); /* zero of the signed map */
  return s;
}

static void
state_clear (fx_adam8_state *s)
{
  g_free (s->m);
  g_free (s->v);
  g_free (s->absmax_m);
  g_free (s->absmax_v);
}

/* Codes may differ by one in 0.1 % of the cases. */
static void
check_codes (const uint8_t *got, const uint8_t *want, size_t n)
{
  size_t off = 0;

  for (size_t i = 0; i < n; i++) {
    g_assert_cmpint (abs (got[i] - want[i]), <=, 1);
    off += got[i] != want[i];
  }
  g_assert_cmpint (off, <=, n / 1000);
}

static void
check_absmax (const float *got, const void *want, int n)
{
  for (int i = 0; i < n; i++) {
    float w;
    memcpy (&w, (const char *)want + 4 * i, 4);
    g_assert_cmpfloat_with_epsilon (got[i], w, 2e-6f * w);
  }
}

/* Five steps at lr 1e-2, weight decay 1e-2. */
static int
check_adam8_size (const golden *g, fx_backend *b, int n)
{
  size_t bytes = 0;
  const void *p0 = golden_getf (g, &bytes, "adam8.%d.p0", n);
  fx_adam8_state s;
  float *p, worst = 0;

  if (p0 == NULL || golden_getf (g, NULL, "adam8.%d.state.absmax1", n) == NULL)
    return 0;
  s = state_new (n);
  p = g_memdup2 (p0, bytes);
  for (int step = 1; step <= 5; step++) {
    fx_adamw o = {1e-2f, 0.9f, 0.999f, 1e-8f, 1e-2f, 1.0f, step, false};
    float *grad = g_memdup2 (golden_getf (g, NULL, "adam8.%d.g%d", n, step - 1), bytes),
          *want = g_memdup2 (golden_getf (g, NULL, "adam8.%d.p%d", n, step), bytes);
    test_ok (fx_adamw8_step (b, p, grad, &s, n, &o));
    for (int i = 0; i < n; i++)
      worst = fmaxf (worst, fabsf (p[i] - want[i]) / fmaxf (1, fabsf (want[i])));
    g_free (grad);
    g_free (want);
  }
  g_test_message ("%d elements: worst parameter %g", n, worst);
  g_assert_cmpfloat (worst, <=, 6e-7); /* 1.5e-6 with exact powers */
  check_codes (s.m, golden_getf (g, NULL, "adam8.%d.state.state1", n), (size_t)n);
  check_codes (s.v, golden_getf (g, NULL, "adam8.%d.state.state2", n), (size_t)n);
  check_absmax (
      s.absmax_m, golden_getf (g, NULL, "adam8.%d.state.absmax1", n), (n + 255) / 256);
  check_absmax (
      s.absmax_v, golden_getf (g, NULL, "adam8.%d.state.absmax2", n), (n + 255) / 256);
  state_clear (&s);
  g_free (p);
  return 1;
}

static const golden *current;

static void
check_adam8 (fx_backend *b)
{
  int found = 0;

  found += check_adam8_size (current, b, 512);
  found += check_adam8_size (current, b, 4096);
  found += check_adam8_size (current, b, 10000);
  g_assert_cmpint (found, >=, 1);
}

static void
each_isa (const golden *g)
{
  current = g;
  test_each_isa (check_adam8);
}

static void
test_adam8 (void)
{
  golden_checked_in (each_isa);
}

static void
test_adam8_shared (void)
{
  golden_shared (each_isa);
}

/* NaN and infinite gradients leave their parameter alone and clear its state; a block
 * without gradients stays zero. */
static void
check_adam8_nan (fx_backend *b)
{
  enum { N = 600 };
  float p[N], g[N];
  fx_adam8_state s = state_new (N);
  fx_adamw o = {1e-2f, 0.9f, 0.999f, 1e-8f, 1e-2f, 1.0f, 1, false};

  for (int i = 0; i < N; i++) {
    p[i] = 1;
    g[i] = i < 256 ? 0.5f : 0;
  }
  g[3] = NAN;
  g[4] = INFINITY;
  test_ok (fx_adamw8_step (b, p, g, &s, N, &o));
  g_assert_cmpfloat (p[3], ==, 1);
  g_assert_cmpfloat (p[4], ==, 1);
  g_assert_cmpfloat (s.map_m[s.m[3]], ==, 0);
  g_assert_cmpfloat (s.map_v[s.v[3]], ==, 0);
  g_assert_cmpfloat_with_epsilon (p[0], 0.99f * 0.9999f, 1e-6f);
  for (int i = 256; i < N; i++) {
    g_assert_cmpfloat_with_epsilon (p[i], 0.9999f, 1e-7f);
    g_assert_cmpfloat (s.map_m[s.m[i]] * s.absmax_m[i / 256], ==, 0);
  }
  state_clear (&s);
}

static void
test_adam8_nan (void)
{
  test_each_isa (check_adam8_nan);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/optimiser/adamw", test_adamw);
  g_test_add_func ("/optimiser/adamw8/bitsandbytes", test_adam8);
  g_test_add_func ("/optimiser/adamw8/golden", test_adam8_shared);
  g_test_add_func ("/optimiser/adamw8/nan-and-zero", test_adam8_nan);
  return g_test_run ();
}
