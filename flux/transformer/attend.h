/* flux/transformer/attend.h: joint attention of a block (internal).
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/transformer/transformer-private.h"

G_BEGIN_DECLS

/* Rows [row, row + qkv.rows) of qk, from the same rows of qkv (already cut out). */
int flux_norm_rope (FluxRun *r, FluxLane *lane, fx_mat qk, fx_mat qkv, int row,
    const float *wq, const float *wk);
/* dqkv8 (q may be NULL): dqkv for the gradient of w. */
int
flux_norm_rope_bwd (FluxRun *r, FluxLane *lane, fx_mat dqkv, fx_rounded dqkv8, fx_mat dqk,
    fx_mat qkv, int row, const float *wq, const float *wk, const fx_weight *w);
/* o from q and k in qk [S, 2 D] and v in the last third of qkv. */
int flux_attend (FluxRun *r, fx_mat o, float *lse, fx_mat qk, fx_mat qkv);
/* dqk, and the last third of dqkv. */
int flux_attend_bwd (FluxRun *r, fx_mat dqk, fx_mat dqkv, fx_mat d_o, fx_mat o,
    const float *lse, fx_mat qk, fx_mat qkv);

G_END_DECLS
