/* flux/text/check-text.c: what both tokenisers ask of their input.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/check-text.h"

#include <string.h>

#include "flux/error.h"
#include "flux/text/clip-tokenizer.h"
#include "flux/text/unicode.h"

gboolean
flux_check_text (const char *text, gssize len, guint max_length, guint min_length,
    gsize *n, GError **error)
{
  gsize bad;

  *n = len < 0 ? strlen (text) : (gsize)len;
  if (max_length < min_length) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "A sequence of %u tokens has no room for the text; the shortest has %u.",
        max_length, min_length);
    return FALSE;
  }
  if (*n > FLUX_TEXT_MAX) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The text is %" G_GSIZE_FORMAT " bytes long; shorten it to at most %d.", *n,
        FLUX_TEXT_MAX);
    return FALSE;
  }
  if (!flux_unicode_validate (text, *n, &bad)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The text is not UTF-8 at byte %" G_GSIZE_FORMAT "; save it as UTF-8.", bad);
    return FALSE;
  }
  return TRUE;
}
