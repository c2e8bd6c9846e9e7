/* gstfluxsource.h: base class of the sources. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * EOS that is sent to a GstBaseSrc waits for its streaming thread, which in PAUSED can be
 * blocked in a sink that prerolls: then Ctrl-C under gst-launch-1.0 -e hangs while a
 * pipeline loads its models. Here the event is only noted: create() returns GST_FLOW_EOS
 * at its next turn, and what it is doing is interrupted by unlock(). */
#pragma once

#include <gst/base/gstpushsrc.h>

G_BEGIN_DECLS

#define GST_TYPE_FLUX_SOURCE (gst_flux_source_get_type ())
G_DECLARE_DERIVABLE_TYPE (GstFluxSource, gst_flux_source, GST, FLUX_SOURCE, GstPushSrc)

struct _GstFluxSourceClass {
  GstPushSrcClass parent_class;
};

G_END_DECLS
