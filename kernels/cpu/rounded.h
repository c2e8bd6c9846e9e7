/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Activations in 8 bits, emulated in fp32. */
#pragma once

#include "cpu.h"

#define fx_round_operand FX_NAME (fx_round_operand)

/* *x [rows, cols], the other operand of a product with w (which has rounds_inputs),
 * becomes a copy in cpu->shared whose rows went through 8 bits and back. backward: it is
 * dy, and the scales of W's rows are multiplied in before and taken out after, because
 * they vary along its depth. */
int fx_round_operand (
    fx_cpu *cpu, const char *op, fx_mat *x, const fx_weight *w, bool backward);
