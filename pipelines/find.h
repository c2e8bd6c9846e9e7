/* pipelines/find.h: where pipeline files are. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Of the pipelines that have names: GST_FLUX_PIPELINES, else ../share/gst-flux/pipelines
 * of the program, so that a tree that was moved finds its own, else where they are
 * installed. g_free() it. */
char *gst_flux_pipelines_folder (void);
/* "cache, embed, train" in folder, sorted; "" when there are none. g_free() it. */
char *gst_flux_pipelines_names (const char *folder);
/* The text of a file, else of NAME.launch in the folder. */
char *gst_flux_pipelines_read (const char *name, GError **error);

G_END_DECLS
