/* kernels/cuda/rounded.h: products in 8 bits. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* gemm and gemm_dgrad of a weight with rounds_inputs. */
int fxc_rounding_gemm (fx_cuda *c, fx_mat y, fx_mat x, const fx_weight *w, bool beta);
int fxc_rounding_dgrad (fx_cuda *c, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta);

/* The result of an op that did not round it by itself: y itself, or a matrix in scratch
 * where that was not wanted. */
int fxc_unrounded (fx_cuda *c, fx_rounded r, fx_dtype dtype, fx_mat *y);
/* in [n, k] -> out [k, n]. */
int
fxc_transpose_bytes (fx_cuda *c, uint8_t *out, const uint8_t *in, int64_t n, int64_t k);
/* y [m, n] (+)= p [m, n] * scales of its rows * scales of its columns (NULL: ones)
 * + bias (NULL: none). p is of y's dtype, or FX_I32. */
int fxc_apply_scales (fx_cuda *c, fx_mat y, fx_mat p, const float *row_scales,
    const float *col_scales, const float *bias, bool beta);
int fxc_ones (fx_cuda *c, float *p, int64_t n);

#ifdef __cplusplus
}
#endif
