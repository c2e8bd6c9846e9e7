/* SPDX-License-Identifier: LGPL-2.1-or-later
 * What the kernel tests share: random matrices with guarded padding, comparison with a
 * reference in fp64, and every instruction set and thread count the machine has. */
#pragma once

#include "kernels/cpu/cpu.h"

#include <glib.h>
#include <math.h>
#include <string.h>

/* Uniform in [-1, 1). */
static inline double
test_random (uint64_t *state)
{
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int64_t)(*state >> 11) / (double)(1ll << 52) - 1.0;
}

/* What unwritten memory holds: a NaN no arithmetic makes. */
static inline float
test_poison (void)
{
  uint32_t bits = 0x7fedcba9;
  float f;

  memcpy (&f, &bits, sizeof f);
  return f;
}

static inline gboolean
test_is_poison (float f)
{
  uint32_t bits;

  memcpy (&bits, &f, sizeof bits);
  return bits == 0x7fedcba9;
}

/* A matrix whose rows lie `gap` elements apart, with guard rows before and behind; all of
 * it poisoned. */
static inline fx_mat
test_mat (int64_t rows, int64_t cols, int64_t gap)
{
  int64_t ld = cols + gap, all = (rows + 2) * ld;
  float *p = g_new (float, all);
  fx_mat m = fx_mat_new (p + ld, rows, cols, FX_F32);

  m.ld = ld;
  for (int64_t i = 0; i < all; i++)
    p[i] = test_poison ();
  return m;
}

static inline fx_mat
test_random_mat (int64_t rows, int64_t cols, int64_t gap, uint64_t *state)
{
  fx_mat m = test_mat (rows, cols, gap);

  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++)
      ((float *)m.p)[r * m.ld + c] = (float)test_random (state);
  return m;
}

static inline void
test_mat_free (fx_mat m)
{
  g_free ((float *)m.p - m.ld);
}

static inline float *
test_at (fx_mat m, int64_t r, int64_t c)
{
  return (float *)m.p + r * m.ld + c;
}

static inline fx_mat
test_clone (fx_mat m)
{
  fx_mat y = test_mat (m.rows, m.cols, m.ld - m.cols);

  for (int64_t r = 0; r < m.rows; r++)
    memcpy (test_at (y, r, 0), test_at (m, r, 0), (size_t)m.cols * sizeof (float));
  return y;
}

/* Nothing outside the matrix was written. */
static inline void
test_check_guards (fx_mat m)
{
  float *p = (float *)m.p - m.ld;

  for (int64_t i = 0; i < (m.rows + 2) * m.ld; i++) {
    int64_t r = i / m.ld - 1, c = i % m.ld;
    if (r >= 0 && r < m.rows && c < m.cols)
      continue;
    if (!test_is_poison (p[i]))
      g_error ("written outside the matrix, at row %d column %d of %d x %d", (int)r,
          (int)c, (int)m.rows, (int)m.cols);
  }
}

/* Largest |m - ref| relative to the largest |ref|. */
static inline double
test_error (fx_mat m, const double *ref)
{
  double error = 0, largest = 0;

  for (int64_t r = 0; r < m.rows; r++)
    for (int64_t c = 0; c < m.cols; c++) {
      double want = ref[r * m.cols + c], got = *test_at (m, r, c);
      if (!(fabs (got - want) <= error))
        error = isnan (got - want) ? INFINITY : fabs (got - want);
      largest = fmax (largest, fabs (want));
    }
  return error == 0 ? 0 : error / fmax (largest, 1e-30);
}

static inline void
test_check (const char *what, fx_mat m, const double *ref, double bound)
{
  double error = test_error (m, ref);

  if (!(error <= bound))
    g_error (
        "%s [%d, %d]: error %g, bound %g", what, (int)m.rows, (int)m.cols, error, bound);
  test_check_guards (m);
}

static inline gboolean
test_same_bits (fx_mat a, fx_mat b)
{
  for (int64_t r = 0; r < a.rows; r++)
    if (memcmp (test_at (a, r, 0), test_at (b, r, 0), (size_t)a.cols * sizeof (float)) !=
        0)
      return FALSE;
  return TRUE;
}

static inline double *
test_doubles (fx_mat m)
{
  double *d = g_new (double, m.rows *m.cols);

  for (int64_t r = 0; r < m.rows; r++)
    for (int64_t c = 0; c < m.cols; c++)
      d[r * m.cols + c] = *test_at (m, r, c);
  return d;
}

static inline void
test_ok (int status)
{
  if (status != FX_OK)
    g_error ("%s", fx_error_message ());
}

/* Calls fn with a backend of each instruction set this machine has. */
static inline void
test_each_isa (void (*fn) (fx_backend *b))
{
  const char *isas[] = {"base", "avx2", "avx512"};

  for (guint i = 0; i < G_N_ELEMENTS (isas); i++) {
    fx_backend *b = fx_cpu_new_isa (2, isas[i]);
    if (b == NULL)
      continue;
    g_test_message ("%s", isas[i]);
    fn (b);
    fx_backend_free (b);
  }
}

/* A scalar function of n variables, in fp64. */
typedef double (*test_scalar_fn) (const double *x, void *data);

/* Compares grad [rows, cols] with 4-point differences of f at x, along random directions
 * and along some axes. */
static inline void
test_gradient (const char *what, test_scalar_fn f, void *data, const double *x,
    fx_mat grad, double bound, uint64_t *state)
{
  int64_t n = grad.rows * grad.cols;
  double *at = g_new (double, n), *u = g_new (double, n);

  for (int trial = 0; trial < 12; trial++) {
    double h = 1e-3, want, got = 0, scale = 0;
    double steps[4] = {-2 * h, -h, h, 2 * h}, factors[4] = {1, -8, 8, -1};
    memset (u, 0, (size_t)n * sizeof *u);
    if (trial < 4)
      for (int64_t i = 0; i < n; i++)
        u[i] = test_random (state) / sqrt ((double)n);
    else
      u[(int64_t)((test_random (state) + 1) / 2 * (double)n)] = 1;
    want = 0;
    for (int s = 0; s < 4; s++) {
      for (int64_t i = 0; i < n; i++)
        at[i] = x[i] + steps[s] * u[i];
      want += factors[s] * f (at, data) / (12 * h);
    }
    for (int64_t i = 0; i < n; i++) {
      double g = *test_at (grad, i / grad.cols, i % grad.cols);
      got += g * u[i];
      scale = fmax (scale, fabs (g));
    }
    if (!(fabs (got - want) <= bound * fmax (scale, fabs (want)) + 1e-12))
      g_error ("%s: derivative %g, differences say %g (largest gradient %g)", what, got,
          want, scale);
  }
  g_free (at);
  g_free (u);
}
