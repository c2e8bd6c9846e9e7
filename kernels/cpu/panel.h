/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Pieces of a frozen weight as fp32, whatever it is stored as. */
#pragma once

#include "cpu.h"

#define fx_panel_expand FX_NAME (fx_panel_expand)

/* Rows [row, row + rows) and columns [col, col + cols) of W to dst, whose rows are ld
 * long. For 4-bit weights col is a multiple of 64. */
void fx_panel_expand (const fx_weight *w, int64_t row, int64_t rows, int64_t col,
    int64_t cols, float *dst, int64_t ld);

/* W itself when it is held in fp32 [n, k], else NULL. */
static inline const float *
fx_panel_direct (const fx_weight *w)
{
  if (w->expanded != NULL)
    return w->expanded;
  return w->qtype == FX_Q_NONE && w->dtype == FX_F32 ? w->data : NULL;
}
