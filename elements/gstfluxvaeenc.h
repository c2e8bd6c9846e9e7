/* gstfluxvaeenc.h: pictures to the VAE's posterior. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <gst/base/gstbasetransform.h>

G_BEGIN_DECLS

#define GST_TYPE_FLUX_VAE_ENC (gst_flux_vae_enc_get_type ())
G_DECLARE_FINAL_TYPE (
    GstFluxVaeEnc, gst_flux_vae_enc, GST, FLUX_VAE_ENC, GstBaseTransform)
GST_ELEMENT_REGISTER_DECLARE (fluxvaeenc);

G_END_DECLS
