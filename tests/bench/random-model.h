/* tests/bench/random-model.h: FLUX.1-dev from random weights, made on the device.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/model.h"

G_BEGIN_DECLS

/* A transformer of FLUX.1-dev's size, or as small as examples/models/tiny-flux-emoji,
 * whose weights are normal with a deviation of 1 / sqrt (inputs), in qtype. NULL: *error
 * says why. */
FluxTransformer *random_transformer (
    fx_backend *b, fx_qtype qtype, fx_home home, gboolean tiny, GError **error);
/* Normal numbers with a deviation of 0.02 all over an arena of 16-bit or fp32 weights;
 * signed bytes in it get any value. */
gboolean random_arena (fx_backend *b, const fx_arena *arena, GError **error);
/* n normal numbers that depend on `which` alone. g_free() them. */
float *random_normals (guint32 which, gsize n);

G_END_DECLS
