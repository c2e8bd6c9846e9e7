/* flux/files/latent-cache.h: posteriors on disk, by content. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * A folder with one small safetensors file an entry, named by the SHA-256 of
 * (decoded-pixel key, size, crop, flip, VAE fingerprint), holding `moments` [2C, h, w]
 * F32 and those facts as metadata, which are checked when it is read. Several processes
 * may write at once. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct {
  const char *key;   /* sha256 hex of the decoded pixels */
  int width, height; /* pixels of what was encoded */
  const char
      *crop; /* "x,y,w,h" in the source, resized size, flip: any exact description */
  const char *fingerprint; /* of the VAE */
} FluxLatentId;

typedef struct _FluxLatentCache FluxLatentCache;

/* Creates the folder; NULL path: a cache in memory. A folder written with another VAE is
 * an error that says so. */
FluxLatentCache *
flux_latent_cache_open (const char *path, const char *fingerprint, GError **error);
void flux_latent_cache_free (FluxLatentCache *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxLatentCache, flux_latent_cache_free)
/* NULL without error: not there. FLUX_ERROR_FORMAT: there, but damaged; storing replaces
 * it. */
GBytes *flux_latent_cache_lookup (FluxLatentCache *self, const FluxLatentId *id,
    int *channels, int *h, int *w, GError **error);
gboolean flux_latent_cache_store (FluxLatentCache *self, const FluxLatentId *id,
    GBytes *moments, int channels, int h, int w, GError **error);

G_END_DECLS
