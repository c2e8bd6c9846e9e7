/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Activations in 8 bits, emulated in fp32. */
#pragma once

#include "cpu.h"

#define fx_round_fp8 FX_NAME (fx_round_fp8)

/* *x [rows, cols] becomes a copy in cpu->shared whose rows went through e4m3 and back.
 * factor [cols] (NULL: ones) is multiplied in before and taken out after: the scales of
 * W's rows, which a gradient takes along because they vary along its depth. */
int fx_round_fp8 (fx_cpu *cpu, const char *op, fx_mat *x, const float *factor);
