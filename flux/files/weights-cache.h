/* flux/files/weights-cache.h: quantised weights on disk, so that a model is quantised
 * once. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A folder with one safetensors file a model and form,
 * WHAT-FINGERPRINT-PLACE-QTYPE-COMPUTE: every buffer of the loaded model in the order of
 * loading, with what it was made from and how it is laid out as metadata, which are
 * compared when it is read, and a checksum behind the data. What it was made from is the
 * fingerprint, which does not have all of a model, with the sizes and times of change of
 * the model's files. What does not fit, or is damaged, is made again and replaced.
 * Several processes may read and write at once. Nothing but disk space is lost when the
 * folder is deleted. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct {
  char *dir;       /* made when something is kept */
  gsize min_bytes; /* models whose file is smaller are quantised each time */
  /* What the latest loads could not do, which is no failure of theirs; a sentence. The
   * caller's to tell and to clear. */
  GError *warning;
} FluxWeightsCache;

/* text: "auto" (XDG_CACHE_HOME/gst-flux/weights, for files of 256 MiB or more), "off" or
 * a folder (for files of any size). NULL when there is none to be. */
FluxWeightsCache *flux_weights_cache_new (const char *text);
void flux_weights_cache_free (FluxWeightsCache *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxWeightsCache, flux_weights_cache_free)

G_END_DECLS
