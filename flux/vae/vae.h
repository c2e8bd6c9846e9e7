/* flux/vae/vae.h: AutoencoderKL. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers models/autoencoders/autoencoder_kl.py and vae.py; configuration from
 * config.json (any block_out_channels, layers_per_block, groups; no quant convs as in
 * FLUX). */
#pragma once

#include "flux/files/weights.h"

G_BEGIN_DECLS

typedef struct _FluxVae FluxVae;

typedef struct {
  int latent_channels;                /* 16 */
  int downscale;                      /* 8: image pixels a latent cell, each way */
  float scaling_factor, shift_factor; /* latents = (x - shift) * scaling */
  int sample_size; /* pixels a side that the model was trained at; 0: unknown */
} FluxVaeInfo;

typedef enum { FLUX_VAE_ENCODER = 1, FLUX_VAE_DECODER = 2 } FluxVaeParts;

/* Reads only config.json. dir: the model folder (with vae/) or the vae folder. */
gboolean flux_vae_read_info (const char *dir, FluxVaeInfo *info, GError **error);
/* Identity of the VAE's file without reading its weights (flux_safetensors_fingerprint).
 */
char *flux_vae_fingerprint (const char *dir, GError **error);
/* Opens its file, header and sizes: a truncated one is an error. No weights are read. */
gboolean flux_vae_check (const char *dir, GError **error);
FluxVae *flux_vae_load (const char *dir, fx_backend *b, FluxVaeParts parts,
    FluxProgressFunc progress, gpointer data, GError **error);
/* FLUX.1's VAE without a file: its weights have room and no values. For the plan backend
 * and for measurements, which fill them. */
FluxVae *flux_vae_new_planned (fx_backend *b, FluxVaeParts parts, GError **error);
void flux_vae_free (FluxVae *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxVae, flux_vae_free)
const FluxVaeInfo *flux_vae_get_info (FluxVae *self);
const fx_arena *flux_vae_get_weights (FluxVae *self);
/* On the device: weights, and room for the largest picture so far. */
gsize flux_vae_get_bytes (FluxVae *self);

/* rgb: rows of `stride` bytes, height and width multiples of downscale. moments: host
 * buffer [2 * latent_channels, height / downscale, width / downscale]: mean, then logvar
 * clamped to
 * [-30, 20]; unscaled. Pixels become x / 127.5 - 1. */
gboolean flux_vae_encode (FluxVae *self, const guint8 *rgb, int width, int height,
    int stride, float *moments, GError **error);
/* latents: host [latent_channels, h, w], unscaled (already / scaling + shift). image:
 * host [3, h * downscale, w * downscale], about -1..1, not clamped. */
gboolean flux_vae_decode (
    FluxVae *self, const float *latents, int w, int h, float *image, GError **error);
/* The reference's post-processing: round (clamp (x / 2 + 0.5, 0, 1) * 255), to packed
 * RGB. */
void flux_vae_image_to_rgb (
    const float *image, int width, int height, guint8 *rgb, int stride);

G_END_DECLS
