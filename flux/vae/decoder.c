/* flux/vae/decoder.c: latents to image. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers models/autoencoders/vae.py, Decoder: the stages run through the channels
 * backwards, with one resnet more than the encoder's. */
#include "flux/vae/vae-private.h"

static gboolean
load_stage (
    FluxLoader *loader, const FluxVaeConfig *c, int i, FluxVaeStage *s, GError **error)
{
  int at = c->n_blocks - 1 - i, in = c->channels[i == 0 ? at : at + 1];

  s->out = c->channels[at];
  s->n = c->layers + 1;
  s->resample = i + 1 < c->n_blocks;
  for (int j = 0; j < s->n; j++) {
    g_autofree char *prefix = g_strdup_printf ("decoder.up_blocks.%d.resnets.%d", i, j);
    if (!flux_vae_load_resnet (
            loader, prefix, j == 0 ? in : s->out, s->out, &s->resnets[j], error))
      return FALSE;
  }
  if (s->resample) {
    g_autofree char *prefix =
        g_strdup_printf ("decoder.up_blocks.%d.upsamplers.0.conv", i);
    return flux_load_conv (loader, prefix, s->out, s->out, 3, &s->conv, error);
  }
  return TRUE;
}

gboolean
flux_vae_load_decoder (
    FluxLoader *loader, const FluxVaeConfig *c, FluxVaeNet *net, GError **error)
{
  int first = c->channels[c->n_blocks - 1];

  net->in = c->latent_channels;
  net->out = c->out_channels;
  if (!flux_load_conv (
          loader, "decoder.conv_in", first, net->in, 3, &net->conv_in, error) ||
      !flux_vae_load_resnet (
          loader, "decoder.mid_block.resnets.0", first, first, &net->mid[0], error) ||
      (c->attention && !flux_vae_load_attention (loader, "decoder.mid_block.attentions.0",
                           first, &net->attention, error)) ||
      !flux_vae_load_resnet (
          loader, "decoder.mid_block.resnets.1", first, first, &net->mid[1], error))
    return FALSE;
  for (int i = 0; i < c->n_blocks; i++)
    if (!load_stage (loader, c, i, &net->stages[i], error))
      return FALSE;
  return flux_vae_load_norm (
             loader, "decoder.conv_norm_out", c->channels[0], &net->norm_out, error) &&
         flux_load_conv (loader, "decoder.conv_out", net->out, c->channels[0], 3,
             &net->conv_out, error);
}

int
flux_vae_run_decoder (
    FluxVaePass *pass, const FluxVaeConfig *c, const FluxVaeNet *net, FluxVaeImage *x)
{
  FluxVaeImage y;

  FX_TRY (flux_vae_conv (pass, &y, 1, x, &net->conv_in, 3));
  FX_TRY (flux_vae_resnet (pass, &y, &net->mid[0]));
  if (c->attention)
    FX_TRY (flux_vae_attention (pass, &y, &net->attention));
  FX_TRY (flux_vae_resnet (pass, &y, &net->mid[1]));
  for (int i = 0; i < c->n_blocks; i++) {
    const FluxVaeStage *s = &net->stages[i];
    for (int j = 0; j < s->n; j++)
      FX_TRY (flux_vae_resnet (pass, &y, &s->resnets[j]));
    if (s->resample)
      FX_TRY (flux_vae_upsample (pass, &y, &s->conv));
  }
  FX_TRY (flux_vae_norm (pass, &y, &y, &net->norm_out, true));
  return flux_vae_conv (pass, x, (y.slot + 1) % FLUX_VAE_SLOTS, &y, &net->conv_out, 3);
}
