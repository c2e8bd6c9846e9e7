/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Transposition in blocks of FX_VL x FX_VL (transpose.h). */
#include "transpose.h"

void
fx_pack_transposed (
    float *dst, int64_t ld, const float *x, int64_t x_ld, int64_t rows, int64_t cols)
{
  for (int64_t r = 0; r < rows; r += FX_VL) {
    int64_t high = fx_smaller (FX_VL, rows - r), c = 0;
    vf t[FX_VL];
    for (; c + FX_VL <= cols; c += FX_VL) {
      FX_UNROLL
      for (int i = 0; i < FX_VL; i++)
        t[i] = i < high ? vf_load (x + (r + i) * x_ld + c) : (vf){0};
      vf_transpose (t);
      FX_UNROLL
      for (int i = 0; i < FX_VL; i++)
        vf_store (dst + (c + i) * ld + r, t[i]);
    }
    for (; c < cols; c++)
      for (int i = 0; i < FX_VL; i++)
        dst[c * ld + r + i] = i < high ? x[(r + i) * x_ld + c] : 0.0f;
  }
}

void
fx_unpack_transposed (
    fx_mat y, const float *t, int64_t ld, int64_t n, const float *bias, bool beta)
{
  vf b = bias == NULL ? (vf){0} : VF_LOAD (bias, n);

  for (int64_t m = 0; m < y.rows; m += FX_VL) {
    int64_t count = fx_smaller (FX_VL, y.rows - m);
    vf v[FX_VL];
    FX_UNROLL
    for (int i = 0; i < FX_VL; i++)
      v[i] = i < n ? vf_load (t + i * ld + m) : (vf){0};
    vf_transpose (v);
    for (int64_t i = 0; i < count; i++) {
      float *at = (float *)y.p + (m + i) * y.ld;
      vf sum = v[i] + b;
      if (beta)
        sum += VF_LOAD (at, n);
      VF_STORE (at, sum, n);
    }
  }
}
