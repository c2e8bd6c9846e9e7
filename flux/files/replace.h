/* flux/files/replace.h: replacing a file as a whole. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The bytes go to a temporary file in the same folder, which takes the name in one step
 * once all of them are on disk: whoever opens the path finds the old file or the new one,
 * whole, also after a power cut. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _FluxReplace FluxReplace;

/* Refuses a path that is there and is not a regular file (a folder, a device). */
FluxReplace *flux_replace_begin (const char *path, GError **error);
/* After a failure nothing more need be written: commit or abort to clean up. */
gboolean
flux_replace_write (FluxReplace *self, gconstpointer data, gsize length, GError **error);
/* Waits until what was written is on disk, so that the commit need not for long. */
gboolean flux_replace_sync (FluxReplace *self, GError **error);
/* Makes the new file durable and visible; frees self in every case. On failure the old
 * file is untouched and the temporary one is gone. */
gboolean flux_replace_commit (FluxReplace *self, GError **error);
/* Removes the temporary file and frees self. */
void flux_replace_abort (FluxReplace *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxReplace, flux_replace_abort)

/* Removes the temporary files in folder that a killed process left: nobody holds their
 * lock (flock(), which goes with the process) five minutes after the last byte; on file
 * systems without locks, an hour after it. Only for a folder that is the project's own.
 */
void flux_replace_sweep (const char *folder);

/* All in one, for bytes at hand (state files, JSON). */
gboolean
flux_file_replace (const char *path, gconstpointer data, gsize length, GError **error);

/* Before work whose result goes to path: creates the folder with its parents, and an
 * empty file in it for a moment, since access() calls some folders writable that are not
 * (/proc, many a network mount). what is to be written: "The adapter". */
gboolean flux_file_check_writable (const char *path, const char *what, GError **error);

G_END_DECLS
