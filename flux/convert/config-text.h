/* flux/convert/config-text.h: the text of config.json. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* config.json of a folder, checked to be a small JSON object. g_free() it. */
char *flux_config_text_read (const char *folder, GError **error);

/* The same text without quantization_config, for weights that are floats. text must have
 * come from flux_config_text_read(). g_free() it. */
char *flux_config_text_plain (const char *text);

G_END_DECLS
