/* flux/files/gemm-plans.h: GEMM plans kept between processes. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Choosing how a product is computed takes a timing of several ways (fx.h,
 * get_gemm_plans). What was chosen lies in gst-flux/gemm-plans-KEY of the user's cache
 * folder ($XDG_CACHE_HOME, else ~/.cache), KEY being a hash of GPU, library and version:
 * the next process does not time again. A file that is absent, damaged or foreign, or
 * cannot be written, costs that time and is no error. Backends that choose nothing, such
 * as the CPU, have no file. */
#pragma once

#include <glib.h>

#include "kernels/fx.h"

G_BEGIN_DECLS

/* From the file into a backend. */
void flux_gemm_plans_read (fx_backend *b);
/* What the backend has beyond the file into it, beside what other processes put there. */
void flux_gemm_plans_write (fx_backend *b);
/* All that a backend has chosen, for a checkpoint; NULL when that is nothing. */
GBytes *flux_gemm_plans_get (fx_backend *b);

G_END_DECLS
