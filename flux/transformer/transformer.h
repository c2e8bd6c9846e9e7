/* flux/transformer/transformer.h: FLUX.1's transformer. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The frozen base is a FluxTransformer; everything that changes while it runs lives in a
 * FluxRun (work buffers for one shape and one list of adapters), so that a trainer and a
 * sampler can share a base. Written once, against the op table of kernels/fx.h; diffusers
 * models/transformers/transformer_flux.py.
 *
 * The residual stream is one matrix [text_tokens + image_tokens, dim], text first; the
 * double blocks work on its two row ranges, the single blocks on all of it. */
#pragma once

#include "flux/files/weights.h"
#include "flux/transformer/lora.h"

G_BEGIN_DECLS

typedef struct _FluxTransformer FluxTransformer;

/* dir: the model folder or the transformer folder (float or bitsandbytes 4-bit files).
 * home: FX_HOME_DEVICE, or FX_HOME_HOST, where the blocks' weights stay, and come to the
 * device as they are used: the same bits with less device memory. cache: for quantised
 * weights, or NULL. */
FluxTransformer *
flux_transformer_load (const char *dir, fx_backend *b, fx_qtype qtype, fx_home home,
    FluxWeightsCache *cache, FluxProgressFunc progress, gpointer data, GError **error);
/* The same for the plan backend: of the file only names and shapes are read. */
FluxTransformer *flux_transformer_load_planned (
    const char *dir, fx_backend *b, fx_qtype qtype, fx_home home, GError **error);
/* A transformer without a file, for the plan backend. */
FluxTransformer *flux_transformer_new_planned (
    const FluxConfig *c, fx_backend *b, fx_qtype qtype, fx_home home, GError **error);
FluxTransformer *flux_transformer_ref (FluxTransformer *self);
void flux_transformer_unref (FluxTransformer *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxTransformer, flux_transformer_unref)
const FluxConfig *flux_transformer_get_config (FluxTransformer *self);
fx_backend *flux_transformer_get_backend (FluxTransformer *self);
gsize flux_transformer_get_bytes (FluxTransformer *self);      /* weights on the device */
gsize flux_transformer_get_host_bytes (FluxTransformer *self); /* and on the host */
/* How the layers of its blocks are kept: none, nf4, nf4-double, int8 or fp8. */
const char *flux_transformer_get_quantization (FluxTransformer *self);
/* A table of them, "name  MiB" a line. g_free() it. */
char *flux_transformer_describe (FluxTransformer *self);

/* Adds the adapters (of this model's shape), with their multipliers, to the weights for
 * good; whoever shares the transformer sees it. An error, and nothing done, when a weight
 * is quantised or on the host. */
gboolean flux_transformer_merge (
    FluxTransformer *self, FluxLora *const *loras, guint n_loras, GError **error);

/* What one sample gives the transformer. All host pointers. */
typedef struct {
  const float *latents; /* packed noisy latents [grid_height * grid_width, in_channels] */
  int grid_height, grid_width; /* in tokens: latent cells / 2 */
  const float *prompt_embeds;  /* [text_tokens, joint_attention_dim] */
  int text_tokens;
  const float *pooled; /* [pooled_projection_dim] */
  float timestep;      /* sigma, 0..1: multiplied by 1000 inside */
  float guidance;
} FluxInput;

typedef enum {
  FLUX_RUN_FORWARD,   /* no gradients */
  FLUX_RUN_RECOMPUTE, /* keeps each block's input, recomputes the rest */
  FLUX_RUN_STORE,     /* keeps every activation */
  FLUX_RUN_LEAN = 4 /* or-ed to one of the others: quantised weights are expanded at each
                     * use instead of once a block. Less memory, the same bits, slower. */
} FluxRunMode;

typedef struct _FluxRun FluxRun;

/* Reserves all buffers for samples up to the given sizes and up to max_samples of them at
 * once (layer-major accumulation). loras: adapters whose effects add up; the one that has
 * gradients (at most one) is trained. Not owned; may be empty. */
FluxRun *flux_run_new (FluxTransformer *t, FluxRunMode mode, int max_text_tokens,
    int max_image_tokens, int max_samples, FluxLora *const *loras, guint n_loras,
    GError **error);
/* Bytes that such a run would reserve; 0 with *error set when it could not be. */
gsize flux_run_measure (FluxTransformer *t, FluxRunMode mode, int max_text_tokens,
    int max_image_tokens, int max_samples, FluxLora *const *loras, guint n_loras,
    GError **error);
/* With memory to spare: keeps the weights of n of the single blocks in the compute dtype
 * from their first use on, n times flux_run_expanded_bytes(), which may be 0: nothing to
 * gain. Once a run. */
gsize flux_run_expanded_bytes (FluxRun *self);
gboolean flux_run_keep_expanded (FluxRun *self, guint n, GError **error);
void flux_run_free (FluxRun *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxRun, flux_run_free)
/* Bytes of the run's buffers, and a table of them by name for people ("name  MiB" a
 * line). */
gsize flux_run_get_bytes (FluxRun *self);
char *flux_run_describe (FluxRun *self);

/* Is asked before each block of a forward pass (percent -1); FALSE gives up with
 * FLUX_ERROR_CANCELLED. Or NULL, as it is at first. */
void flux_run_set_progress (FluxRun *self, FluxProgressFunc progress, gpointer data);

/* out: host [image tokens, out_channels], the velocity. */
gboolean
flux_run_forward (FluxRun *self, const FluxInput *in, float *out, GError **error);

/* One micro-batch: an input and what its output is compared with. loss = mean (weight
 * (out - target)^2). */
typedef struct {
  FluxInput in;
  const float *target; /* host [image tokens, out_channels]: noise - latent, packed */
  float weight;
} FluxMicro;

/* Forward and backward of n micro-batches (of any sizes that fit); gradients of
 * loss * grad_scale are added to the trained adapter's. layer_major: block by block over
 * all of them, else one after the other; both give the same bits. losses: host [n]. */
gboolean flux_run_gradients (FluxRun *self, const FluxMicro *micros, guint n,
    float grad_scale, gboolean layer_major, double *losses, GError **error);

/* Packing, host to host: latents [channels, h, w] <-> tokens [h/2 * w/2, 4 * channels];
 * diffusers pipelines/flux/pipeline_flux.py:520-541. */
void flux_pack_latents (const float *latents, int channels, int h, int w, float *packed);
void
flux_unpack_latents (const float *packed, int channels, int h, int w, float *latents);

G_END_DECLS
