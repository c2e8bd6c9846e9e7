/* flux/sample/sampler.h: text to picture. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers pipelines/flux/pipeline_flux.py: flow-match Euler with dynamic shifting,
 * embedded guidance. The same seed gives the picture that diffusers gives with
 * generator=torch.manual_seed(seed). */
#pragma once

#include "flux/model.h"
#include "flux/text/text-encoder.h"
#include "flux/vae/vae.h"

G_BEGIN_DECLS

/* scheduler/scheduler_config.json; shifts by exp (mu) when use_dynamic_shifting. */
typedef struct {
  gboolean use_dynamic_shifting;
  double shift, base_shift, max_shift;
  int base_image_seq_len, max_image_seq_len, num_train_timesteps;
} FluxScheduler;

gboolean flux_scheduler_read (const char *dir, FluxScheduler *s, GError **error);
/* sigmas: [steps + 1], the last is 0; timesteps: [steps] = sigma * 1000. */
void flux_scheduler_sigmas (
    const FluxScheduler *s, int steps, int image_tokens, float *sigmas, float *timesteps);

typedef struct {
  const char *prompt;
  int width, height; /* pixels, multiples of 16 */
  int steps;
  double guidance;
  guint64 seed;
  fx_dtype noise_dtype;    /* which of torch's streams: F32, BF16, F16 */
  int max_sequence_length; /* 0 = 512 */
} FluxSampleRequest;

/* Asked between denoising steps; FALSE cancels. step 1..steps. */
typedef gboolean (*FluxSampleFunc) (int step, int steps, gpointer data);

typedef struct _FluxSampler FluxSampler;

/* Whether the transformer of a model folder, not loaded yet, fits on b with what drawing
 * takes: planned, nothing is read but headers. FALSE with FLUX_ERROR_NO_SPACE and its
 * bytes (flux_error_get_room()). */
gboolean flux_sampler_check_room (fx_backend *b, const FluxModelKey *key, int width,
    int height, int text_tokens, GError **error);
/* model: shared base; dir: the model folder, for text encoders, VAE and scheduler. */
FluxSampler *
flux_sampler_new (FluxModel *model, const char *dir, fx_qtype text_qtype, GError **error);
void flux_sampler_free (FluxSampler *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxSampler, flux_sampler_free)
/* TRUE (the default on the CPU): text encoders and VAE stay loaded between pictures.
 * FALSE, and with a model that offloads in any case: each is freed as soon as it has done
 * its part. */
void flux_sampler_set_keep_models (FluxSampler *self, gboolean keep);
/* For the weights of the text encoders; borrowed, or NULL. */
void flux_sampler_set_cache (FluxSampler *self, FluxWeightsCache *cache);
/* Is told of loading the text encoders and the transformer of FLUX_OFFLOAD_MODEL, and
 * asked between the layers of those and the transformer's blocks (percent -1); may stop
 * them. */
void
flux_sampler_set_progress (FluxSampler *self, FluxProgressFunc progress, gpointer data);
/* Encodes prompts ahead, in one load of the text encoders; takes the model's lock. The
 * embeddings of the latest prompts are always kept. */
gboolean flux_sampler_encode (FluxSampler *self, const char *const *prompts, guint n,
    int max_sequence_length, GError **error);
/* Adapters whose effects add up; not owned. Takes effect at the next picture. */
gboolean flux_sampler_set_loras (
    FluxSampler *self, FluxLora *const *loras, guint n_loras, GError **error);

/* rgb: packed [height, width, 3] with `stride`. Holds the model's lock only while it runs
 * on the backend, and hands it over between steps when keep_lock is FALSE (a preview
 * holds it, so that the adapter does not change under the picture). */
gboolean
flux_sampler_run (FluxSampler *self, const FluxSampleRequest *request, guint8 *rgb,
    int stride, gboolean keep_lock, FluxSampleFunc func, gpointer data, GError **error);

/* The pieces, for tests: initial packed noise, the loop from given embeddings (of
 * request->max_sequence_length tokens), and the decoder. Here the caller holds the lock.
 */
void flux_sampler_noise (
    guint64 seed, fx_dtype dtype, int channels, int h, int w, float *packed);
gboolean flux_sampler_denoise (FluxSampler *self, const FluxSampleRequest *request,
    const float *prompt_embeds, const float *pooled, float *packed /* in, out */,
    FluxSampleFunc func, gpointer data, GError **error);
gboolean flux_sampler_decode (FluxSampler *self, const float *packed, int width,
    int height, float *image, GError **error);

G_END_DECLS
