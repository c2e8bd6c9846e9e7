/* pipelines/push.h: gst-flux push. SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* words: push SOURCE user/name [name=value ...]; the exit status. */
int gst_flux_push (char **words);
/* Prints what it does; 0. */
int gst_flux_push_help (void);
