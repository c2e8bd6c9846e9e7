/* gst-flux: the plugin's entry point. SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <gst/gst.h>

#include "elements/gstfluxcachesink.h"
#include "elements/gstfluxcachesrc.h"
#include "elements/gstfluxdatasetsrc.h"
#include "elements/gstfluxembed.h"
#include "elements/gstfluximagecrop.h"
#include "elements/gstfluximagedec.h"
#include "elements/gstfluxlorafuse.h"
#include "elements/gstfluxmodelsink.h"
#include "elements/gstfluxmodelsrc.h"
#include "elements/gstfluxquantize.h"
#include "elements/gstfluxsamplemeta.h"
#include "elements/gstfluxsamplersrc.h"
#include "elements/gstfluxtrainsink.h"
#include "elements/gstfluxvaeenc.h"
#include "elements/gstfluxweights.h"

static gboolean
plugin_init (GstPlugin *plugin)
{
  gboolean ok = TRUE;

  gst_flux_sample_meta_register ();
  gst_flux_weight_meta_register ();
  ok &= GST_ELEMENT_REGISTER (fluxcachesink, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxcachesrc, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxdatasetsrc, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxembed, plugin);
  ok &= GST_ELEMENT_REGISTER (fluximagecrop, plugin);
  ok &= GST_ELEMENT_REGISTER (fluximagedec, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxlorafuse, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxmodelsink, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxmodelsrc, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxquantize, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxsamplersrc, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxtrainsink, plugin);
  ok &= GST_ELEMENT_REGISTER (fluxvaeenc, plugin);
  return ok;
}

GST_PLUGIN_DEFINE (GST_VERSION_MAJOR, GST_VERSION_MINOR, flux,
    "QLoRA fine-tuning of FLUX.1 and sampling from it", plugin_init, VERSION, "LGPL",
    GST_PACKAGE_NAME, GST_PACKAGE_ORIGIN)
