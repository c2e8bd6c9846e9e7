/* flux/files/weights-fill.h: what weights.c does with the data of one tensor (internal).
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/files/stored.h"
#include "flux/files/weights.h"

G_BEGIN_DECLS

/* Sets w->qtype and w->dtype for a weight [w->n, w->k] made of these parts. */
gboolean flux_weight_choose (
    FluxLoader *self, const FluxStored *parts, guint n, fx_weight *w, GError **error);
/* Uploads one part as rows row.. of w, converting or quantising it piece by piece. */
gboolean flux_weight_fill (FluxLoader *self, const fx_weight *w, gint64 row,
    const FluxStored *part, GError **error);
/* Uploads a float tensor as `dtype`. */
gboolean flux_upload_floats (
    FluxLoader *self, void *dst, fx_dtype dtype, const FluxTensor *t, GError **error);
/* Uploads a convolution [out, in, area] as [out, area, in]. */
gboolean flux_upload_conv (FluxLoader *self, const fx_weight *w, const FluxTensor *t,
    gint64 in, gint64 area, GError **error);

G_END_DECLS
