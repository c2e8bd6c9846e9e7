/* flux/vae/vae-private.h: the inside of the VAE. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Activations are images [height * width, channels]. They live in three slots, and every
 * block says in which slot its result lies. A forward is run twice: first it only records
 * how large each slot must be, then it computes. */
#pragma once

#include "flux/vae/vae.h"

G_BEGIN_DECLS

enum { FLUX_VAE_MAX_BLOCKS = 8, FLUX_VAE_MAX_LAYERS = 8, FLUX_VAE_SLOTS = 3 };

typedef struct {
  int in_channels, out_channels, latent_channels;
  int channels[FLUX_VAE_MAX_BLOCKS]; /* block_out_channels */
  int n_blocks, layers, groups;
  gboolean attention; /* in the middle */
  float scaling_factor, shift_factor;
  int sample_size; /* 0: not in the file */
} FluxVaeConfig;

/* dir: the vae folder. */
gboolean flux_vae_config_read (const char *dir, FluxVaeConfig *c, GError **error);
/* FLUX.1's own. */
void flux_vae_config_init (FluxVaeConfig *c);

typedef struct {
  const float *weight, *bias;
} FluxVaeNorm;

typedef struct {
  int in, out;
  FluxVaeNorm norm1, norm2;
  fx_weight conv1, conv2;
  fx_weight shortcut; /* 1 x 1, when in != out */
} FluxVaeResnet;

typedef struct {
  FluxVaeNorm norm;
  fx_weight qkv, out;
} FluxVaeAttention;

/* Resnets, then a convolution that halves or doubles the image, but for the last stage.
 */
typedef struct {
  FluxVaeResnet resnets[FLUX_VAE_MAX_LAYERS + 1];
  int n, out;
  gboolean resample;
  fx_weight conv;
} FluxVaeStage;

/* An encoder or a decoder; the stages come before the middle in an encoder, after it in a
 * decoder. */
typedef struct {
  fx_weight conv_in, conv_out;
  int in, out;
  FluxVaeStage stages[FLUX_VAE_MAX_BLOCKS];
  FluxVaeResnet mid[2];
  FluxVaeAttention attention;
  FluxVaeNorm norm_out;
} FluxVaeNet;

/* One forward, measured or computed. */
typedef struct {
  fx_backend *backend;
  fx_dtype dtype; /* of the images */
  int groups;
  gboolean measuring;
  void *slots[FLUX_VAE_SLOTS];
  gsize bytes[FLUX_VAE_SLOTS]; /* measured */
} FluxVaePass;

typedef struct {
  fx_mat m; /* [height * width, channels] */
  int slot, height, width;
} FluxVaeImage;

struct _FluxVae {
  FluxVaeConfig config;
  FluxVaeInfo info;
  fx_backend *backend;
  fx_dtype dtype; /* fp32 where the backend computes in fp16: FLUX.1-dev's VAE says
                   * force_upcast (diffusers autoencoder_kl.py:64) */
  FluxVaeParts parts;
  FluxVaeNet encoder, decoder;
  fx_arena weights, work;
  gsize slot_bytes[FLUX_VAE_SLOTS]; /* reserved */
};

/* blocks.c: loading, and x -> result; kernels/ statuses. */
gboolean flux_vae_load_norm (
    FluxLoader *loader, const char *prefix, int channels, FluxVaeNorm *n, GError **error);
gboolean flux_vae_load_resnet (FluxLoader *loader, const char *prefix, int in, int out,
    FluxVaeResnet *r, GError **error);
gboolean flux_vae_load_attention (FluxLoader *loader, const char *prefix, int channels,
    FluxVaeAttention *a, GError **error);
int flux_vae_take (FluxVaePass *pass, int slot, int height, int width, int channels,
    FluxVaeImage *image);
int flux_vae_conv (FluxVaePass *pass, FluxVaeImage *y, int slot, const FluxVaeImage *x,
    const fx_weight *w, int kernel);
int flux_vae_norm (FluxVaePass *pass, const FluxVaeImage *y, const FluxVaeImage *x,
    const FluxVaeNorm *n, bool silu);
int flux_vae_resnet (FluxVaePass *pass, FluxVaeImage *x, const FluxVaeResnet *r);
int flux_vae_attention (FluxVaePass *pass, FluxVaeImage *x, const FluxVaeAttention *a);
int flux_vae_downsample (FluxVaePass *pass, FluxVaeImage *x, const fx_weight *w);
int flux_vae_upsample (FluxVaePass *pass, FluxVaeImage *x, const fx_weight *w);

/* encoder.c, decoder.c: the input is an image in slot 0, the result may be in any. */
gboolean flux_vae_load_encoder (
    FluxLoader *loader, const FluxVaeConfig *c, FluxVaeNet *net, GError **error);
gboolean flux_vae_load_decoder (
    FluxLoader *loader, const FluxVaeConfig *c, FluxVaeNet *net, GError **error);
int flux_vae_run_encoder (
    FluxVaePass *pass, const FluxVaeConfig *c, const FluxVaeNet *net, FluxVaeImage *x);
int flux_vae_run_decoder (
    FluxVaePass *pass, const FluxVaeConfig *c, const FluxVaeNet *net, FluxVaeImage *x);

G_END_DECLS
