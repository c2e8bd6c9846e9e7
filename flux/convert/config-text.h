/* flux/convert/config-text.h: the text of config.json. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "flux/files/stored.h"

G_BEGIN_DECLS

/* config.json of a folder, checked to be a small JSON object. g_free() it. */
char *flux_config_text_read (const char *folder, GError **error);

/* The same text with the quantization_config that diffusers writes for weights stored so
 * (BitsAndBytesConfig.to_dict()), or with none for floats. text must have come from
 * flux_config_text_read(). skipped: names of the linear layers that stayed floats, may be
 * NULL. g_free() it. */
char *
flux_config_text_quantise (const char *text, FluxStoredKind kind, GPtrArray *skipped);

/* The same text without quantization_config, for weights that are floats. g_free() it. */
char *flux_config_text_plain (const char *text);

G_END_DECLS
