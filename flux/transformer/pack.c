/* flux/transformer/pack.c: latents to tokens and back. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * A token holds 2 x 2 latent cells of every channel: feature (channel, dy, dx). */
#include "flux/transformer/transformer.h"

/* Index into latents [channels, h, w] of feature f of token t. */
static inline gsize
cell (int h, int w, gsize t, int f)
{
  const int across = w / 2;
  const gsize row = 2 * (t / across) + (f / 2) % 2, column = 2 * (t % across) + f % 2;

  return ((gsize)(f / 4) * h + row) * w + column;
}

void
flux_pack_latents (const float *latents, int channels, int h, int w, float *packed)
{
  const gsize tokens = (gsize)(h / 2) * (w / 2);

  for (gsize t = 0; t < tokens; t++) {
    for (int f = 0; f < 4 * channels; f++)
      packed[t * 4 * channels + f] = latents[cell (h, w, t, f)];
  }
}

void
flux_unpack_latents (const float *packed, int channels, int h, int w, float *latents)
{
  const gsize tokens = (gsize)(h / 2) * (w / 2);

  for (gsize t = 0; t < tokens; t++) {
    for (int f = 0; f < 4 * channels; f++)
      latents[cell (h, w, t, f)] = packed[t * 4 * channels + f];
  }
}
