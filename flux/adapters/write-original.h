/* flux/adapters/write-original.h: adapters under the original model's names (internal).
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/transformer/lora.h"

G_BEGIN_DECLS

/* values: the adapter's parameters on the host. */
gboolean flux_lora_write_original (FluxLora *self, const char *path, const float *values,
    gboolean kohya, GError **error);

G_END_DECLS
