/* pipelines/overrides.h: key=value words on top of a pipeline. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/* "element.property=value" sets one property; "property=value" sets it on every element
 * that has it, and is refused when several have it with different values, because then it
 * means different things (location). FALSE with one sentence in error. */
gboolean gst_flux_override (GstBin *pipeline, const char *word, GError **error);

G_END_DECLS
