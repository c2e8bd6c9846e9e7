/* kernels/core/cephes.h: logarithm, sine and cosine by the single-precision polynomials
 * of the Cephes library, with the roundings of vector code in which a product that is
 * added is fused, because the bits of torch.randn depend on them.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

float fx_cephes_log (float x); /* x > 0 */
void fx_cephes_sincos (float x, float *sine, float *cosine);
