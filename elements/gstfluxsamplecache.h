/* gstfluxsamplecache.h: samples on disk, for fluxcachesink and fluxcachesrc.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A folder with one safetensors file a sample (tensors moments [2 * channels, height,
 * width], prompt_embeds [text-length, text-dim], pooled [pooled-dim]; the sample's
 * identity as metadata), named by content; empty-prompt.safetensors, a table with the one
 * row ""; and samples.ini, a key file that lists the samples in their order and is
 * written last, so that a cache without it is not whole. */
#pragma once

#include "elements/gstfluxtensor.h"

G_BEGIN_DECLS

#define GST_FLUX_CACHE_INDEX_FILE "samples.ini"

typedef struct {
  gchar *model;          /* fingerprint of the VAE */
  GPtrArray *names;      /* files of the samples, in order */
  gboolean empty_prompt; /* there is an empty-prompt.safetensors */
} GstFluxCacheIndex;

void gst_flux_cache_index_init (GstFluxCacheIndex *index);
void gst_flux_cache_index_clear (GstFluxCacheIndex *index);
gboolean
gst_flux_cache_index_read (GstFluxCacheIndex *index, const gchar *folder, GError **error);
gboolean gst_flux_cache_index_write (
    const GstFluxCacheIndex *index, const gchar *folder, GError **error);

/* Writes buffer (with its meta) and gives the file's name. */
gboolean gst_flux_cache_write_sample (const gchar *folder, GstBuffer *buffer,
    const GstFluxTensorInfo *info, gchar **name, GError **error);
/* A buffer with meta, and what its caps are. */
GstBuffer *gst_flux_cache_read_sample (
    const gchar *folder, const gchar *name, GstFluxTensorInfo *info, GError **error);

gboolean gst_flux_cache_write_empty_prompt (
    const gchar *folder, const FluxEmbedding *e, GError **error);
gboolean
gst_flux_cache_read_empty_prompt (const gchar *folder, FluxEmbedding *e, GError **error);

G_END_DECLS
