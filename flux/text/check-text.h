/* flux/text/check-text.h: what both tokenisers ask of their input.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* len -1: up to the NUL; *n: the bytes of text. FALSE with an error where text is not
 * UTF-8, over FLUX_TEXT_MAX, or max_length under min_length. */
gboolean flux_check_text (const char *text, gssize len, guint max_length,
    guint min_length, gsize *n, GError **error);

G_END_DECLS
