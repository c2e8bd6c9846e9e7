/* gst-flux: the plugin's entry point. SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <gst/gst.h>

#include "elements/gstfluxsamplemeta.h"

static gboolean
plugin_init (GstPlugin *plugin)
{
  gst_flux_sample_meta_register ();
  return TRUE;
}

GST_PLUGIN_DEFINE (GST_VERSION_MAJOR, GST_VERSION_MINOR, flux,
    "QLoRA fine-tuning of FLUX.1 and sampling from it", plugin_init, VERSION, "LGPL",
    GST_PACKAGE_NAME, GST_PACKAGE_ORIGIN)
