/* flux/vae/encoder.c: image to moments. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers models/autoencoders/vae.py, Encoder. */
#include "flux/vae/vae-private.h"

static gboolean
load_stage (
    FluxLoader *loader, const FluxVaeConfig *c, int i, FluxVaeStage *s, GError **error)
{
  int in = c->channels[i > 0 ? i - 1 : 0];

  s->out = c->channels[i];
  s->n = c->layers;
  s->resample = i + 1 < c->n_blocks;
  for (int j = 0; j < s->n; j++) {
    g_autofree char *prefix = g_strdup_printf ("encoder.down_blocks.%d.resnets.%d", i, j);
    if (!flux_vae_load_resnet (
            loader, prefix, j == 0 ? in : s->out, s->out, &s->resnets[j], error))
      return FALSE;
  }
  if (s->resample) {
    g_autofree char *prefix =
        g_strdup_printf ("encoder.down_blocks.%d.downsamplers.0.conv", i);
    return flux_load_conv (loader, prefix, s->out, s->out, 3, &s->conv, error);
  }
  return TRUE;
}

gboolean
flux_vae_load_encoder (
    FluxLoader *loader, const FluxVaeConfig *c, FluxVaeNet *net, GError **error)
{
  int last = c->channels[c->n_blocks - 1];

  net->in = c->in_channels;
  net->out = 2 * c->latent_channels;
  if (!flux_load_conv (
          loader, "encoder.conv_in", c->channels[0], net->in, 3, &net->conv_in, error))
    return FALSE;
  for (int i = 0; i < c->n_blocks; i++)
    if (!load_stage (loader, c, i, &net->stages[i], error))
      return FALSE;
  return flux_vae_load_resnet (
             loader, "encoder.mid_block.resnets.0", last, last, &net->mid[0], error) &&
         (!c->attention ||
             flux_vae_load_attention (loader, "encoder.mid_block.attentions.0", last,
                 &net->attention, error)) &&
         flux_vae_load_resnet (
             loader, "encoder.mid_block.resnets.1", last, last, &net->mid[1], error) &&
         flux_vae_load_norm (
             loader, "encoder.conv_norm_out", last, &net->norm_out, error) &&
         flux_load_conv (
             loader, "encoder.conv_out", net->out, last, 3, &net->conv_out, error);
}

int
flux_vae_run_encoder (
    FluxVaePass *pass, const FluxVaeConfig *c, const FluxVaeNet *net, FluxVaeImage *x)
{
  FluxVaeImage y;

  FX_TRY (flux_vae_conv (pass, &y, 1, x, &net->conv_in, 3));
  for (int i = 0; i < c->n_blocks; i++) {
    const FluxVaeStage *s = &net->stages[i];
    for (int j = 0; j < s->n; j++)
      FX_TRY (flux_vae_resnet (pass, &y, &s->resnets[j]));
    if (s->resample)
      FX_TRY (flux_vae_downsample (pass, &y, &s->conv));
  }
  FX_TRY (flux_vae_resnet (pass, &y, &net->mid[0]));
  if (c->attention)
    FX_TRY (flux_vae_attention (pass, &y, &net->attention));
  FX_TRY (flux_vae_resnet (pass, &y, &net->mid[1]));
  FX_TRY (flux_vae_norm (pass, &y, &y, &net->norm_out, true));
  return flux_vae_conv (pass, x, (y.slot + 1) % FLUX_VAE_SLOTS, &y, &net->conv_out, 3);
}
