/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Linear layers on a few tokens: modulation vectors, time and guidance embeddings. */
#pragma once

#include "cpu.h"

enum { FX_SKINNY = 6 }; /* up to this many tokens */

#define fx_skinny_gemm FX_NAME (fx_skinny_gemm)

/* y = x W^T (+ bias) (+ y). */
int fx_skinny_gemm (fx_cpu *cpu, fx_mat y, fx_mat x, const fx_weight *w, bool beta);
