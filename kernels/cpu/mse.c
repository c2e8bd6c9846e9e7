/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The loss: weighted mean squared error in fp64, and its gradient. */
#include "cpu.h"

int
fx_cpu_mse (fx_backend *b, double *loss, fx_mat dpred, fx_mat pred, fx_mat target,
    float weight, float grad_scale)
{
  double count = (double)pred.rows * (double)pred.cols, lanes[8] = {0}, sum = 0;
  float factor = (float)(2.0 * weight / count * grad_scale);
  int64_t n = pred.cols;

  for (int64_t r = 0; r < pred.rows; r++) {
    const float *p = (const float *)pred.p + r * pred.ld,
                *t = (const float *)target.p + r * target.ld;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
      for (int j = 0; j < 8; j++) {
        double d = (double)p[i + j] - t[i + j];
        lanes[j] += d * d;
      }
    for (; i < n; i++) {
      double d = (double)p[i] - t[i];
      lanes[0] += d * d;
    }
    if (dpred.p != NULL) {
      float *dp = (float *)dpred.p + r * dpred.ld;
      for (i = 0; i < n; i++)
        dp[i] = (p[i] - t[i]) * factor;
    }
  }
  for (int j = 0; j < 8; j++)
    sum += lanes[j];
  *loss = weight * (sum / count);
  return FX_OK;
}
