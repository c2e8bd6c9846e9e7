/* kernels/core/cephes.c: fp32 logarithm, sine and cosine. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Polynomials and reductions: S. Moshier, Cephes Mathematical Library 2.2 (logf.c,
 * sinf.c). */
#include "kernels/core/cephes.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static float
polynomial (float x, const float *c, int n)
{
  float y = c[0];

  for (int i = 1; i < n; i++)
    y = fmaf (y, x, c[i]);
  return y;
}

float
fx_cephes_log (float x)
{
  static const float p[9] = {7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f,
      -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f, 2.0000714765e-1f,
      -2.4999993993e-1f, 3.3333331174e-1f};
  uint32_t bits;
  float e, z, y;

  if (x < 0x1p-126f)
    x = 0x1p-126f;
  memcpy (&bits, &x, sizeof bits);
  e = (float)((int32_t)(bits >> 23) - 0x7f) + 1.0f;
  bits = (bits & 0x007fffffu) | 0x3f000000u; /* mantissa in [0.5, 1) */
  memcpy (&x, &bits, sizeof x);
  if (x < 0.707106781186547524f) {
    e = e - 1.0f;
    x = (x - 1.0f) + x;
  } else {
    x = x - 1.0f;
  }
  z = x * x;
  y = polynomial (x, p, 9) * x;
  y = fmaf (y, z, e * -2.12194440e-4f);
  y = fmaf (-z, 0.5f, y);
  x = x + y;
  return fmaf (e, 0.693359375f, x);
}

void
fx_cephes_sincos (float x, float *sine, float *cosine)
{
  static const float cos_p[3] = {
      2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f};
  static const float sin_p[3] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
  float sign_sin = x < 0 ? -1.0f : 1.0f, y, z, c, s;
  int32_t octant;

  x = fabsf (x);
  octant = ((int32_t)(x * 1.27323954473516f) + 1) & ~1;
  y = (float)octant;
  x = fmaf (y, -0.78515625f, x);
  x = fmaf (y, -2.4187564849853515625e-4f, x);
  x = fmaf (y, -3.77489497744594108e-8f, x);
  if (octant & 4)
    sign_sin = -sign_sin;
  z = x * x;
  c = polynomial (z, cos_p, 3) * z;
  c = fmaf (c, z, -(z * 0.5f));
  c = c + 1.0f;
  s = polynomial (z, sin_p, 3) * z;
  s = fmaf (s, x, x);
  *sine = sign_sin * ((octant & 2) ? c : s);
  *cosine = ((octant - 2) & 4 ? 1.0f : -1.0f) * ((octant & 2) ? s : c);
}
