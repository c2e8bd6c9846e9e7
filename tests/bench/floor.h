/* tests/bench/floor.h: products and attention alone. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Times the products of FLUX.1-dev's blocks at their shapes, weights ready in the compute
 * dtype, and attention; prints what a forward, a backward and a recomputed micro-step
 * come to. FALSE without a GPU. */
gboolean floor_measure (const char *name, int image_tokens, int text_tokens, int rounds);
