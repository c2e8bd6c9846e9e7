/* flux/convert/folder-private.h: what folder.c does with whole folders (internal).
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Without slashes at the end. g_free() it. */
char *flux_folder_trim (const char *location);
/* Is nothing there, or an empty folder? */
gboolean flux_folder_is_free (const char *location, GError **error);
/* Links or copies what else is in the model folder around `transformer` (VAE, encoders,
 * tokenizers, scheduler, model_index.json) to `to`. */
gboolean flux_folder_add_parts (
    const char *transformer, const char *to, gboolean link, GError **error);
/* With all that is in it; links are not followed. */
void flux_folder_remove (const char *path);
/* The name of a folder is on disk when its parent is. As far as that works. */
void flux_folder_sync_parent (const char *location);

G_END_DECLS
