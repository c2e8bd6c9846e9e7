/* flux/files/map-file.h: mapping a file of outside data. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Maps a regular file read-only; an error for anything else (a FIFO would block). */
GMappedFile *flux_map_file (const char *path, GError **error);

/* Whether these are the bytes of a Git LFS pointer: what a clone without git-lfs leaves
 * in place of a big file. */
gboolean flux_is_lfs_pointer (const char *bytes, gsize length);

G_END_DECLS
