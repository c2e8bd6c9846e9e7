/* kernels/cuda/fp8.h: products in 8 bits. SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* gemm and gemm_dgrad of a weight with rounds_inputs. */
int fxc_fp8_gemm (fx_cuda *c, fx_mat y, fx_mat x, const fx_weight *w, bool beta);
int fxc_fp8_dgrad (fx_cuda *c, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta);

/* q [rows, cols] dense, scales [rows] of x times factor [cols] (NULL: ones). */
int
fxc_fp8_quantize (fx_cuda *c, uint8_t *q, float *scales, fx_mat x, const float *factor);
/* in [n, k] -> out [k, n]. */
int fxc_fp8_transpose (fx_cuda *c, uint8_t *out, const uint8_t *in, int64_t n, int64_t k);
/* y [m, n] (+)= p [m, n] * scales of its rows * scales of its columns (NULL: ones)
 * + bias (NULL: none). p is of y's dtype. */
int fxc_fp8_apply (fx_cuda *c, fx_mat y, const void *p, const float *row_scales,
    const float *col_scales, const float *bias, bool beta);
int fxc_fp8_ones (fx_cuda *c, float *p, int64_t n);

#ifdef __cplusplus
}
#endif
