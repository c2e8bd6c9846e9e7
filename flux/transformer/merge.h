/* flux/transformer/merge.h: adapters added to weights on the host.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * W' = W + sum of scale B A: summed in fp32, and rounded once, to the weight's dtype. */
#pragma once

#include <glib.h>

#include "kernels/fx.h"

G_BEGIN_DECLS

/* Adds n modules to w: rows `first`.. of their layer's weight, in fp32 [rows, k]. cpu: a
 * backend on the CPU; w and the modules' halves are on the host. */
int
flux_merge_rows (fx_backend *cpu, fx_mat w, gint64 first, const fx_lora *modules, int n);

G_END_DECLS
