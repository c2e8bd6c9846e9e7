/* flux/sample/latents.c: the noise a picture starts from. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * diffusers draws [1, channels, h, w] with torch.randn in the pipeline's dtype, each
 * dtype a stream of its own, and packs it (pipelines/flux/pipeline_flux.py,
 * prepare_latents). */
#include "flux/sample/sampler.h"

void
flux_sampler_noise (
    guint64 seed, fx_dtype dtype, int channels, int h, int w, float *packed)
{
  gsize n = (gsize)channels * (gsize)h * (gsize)w;
  g_autofree fx_torch_rng *rng = g_new (fx_torch_rng, 1);
  g_autofree float *noise = g_new (float, n);

  fx_torch_seed (rng, seed);
  if (dtype == FX_F32) {
    fx_torch_randn (rng, noise, FX_F32, n);
  } else {
    g_autofree guint16 *half = g_new (guint16, n);

    fx_torch_randn (rng, half, dtype, n);
    for (gsize i = 0; i < n; i++)
      noise[i] = dtype == FX_BF16 ? fx_bf16_to_f32 (half[i]) : fx_f16_to_f32 (half[i]);
  }
  flux_pack_latents (noise, channels, h, w, packed);
}
