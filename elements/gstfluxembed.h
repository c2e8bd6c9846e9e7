/* gstfluxembed.h: captions to text embeddings. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_TYPE_FLUX_EMBED (gst_flux_embed_get_type ())
G_DECLARE_FINAL_TYPE (GstFluxEmbed, gst_flux_embed, GST, FLUX_EMBED, GstElement)
GST_ELEMENT_REGISTER_DECLARE (fluxembed);

G_END_DECLS
