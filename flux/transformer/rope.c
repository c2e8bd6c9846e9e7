/* flux/transformer/rope.c: rotary tables. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers embeddings.py:1156-1175: axis a has axes_dims_rope[a] / 2 frequencies
 * theta^(-2 i / dim), computed in fp64; text tokens stand at (0, 0, 0), image tokens at
 * (0, row, column). */
#include "flux/transformer/transformer-private.h"

#include <math.h>

#define THETA 10000.0

static void
fill_row (const FluxConfig *c, const int position[3], float *cosines, float *sines)
{
  for (int axis = 0; axis < 3; axis++) {
    int dim = c->axes_dims_rope[axis];

    for (int i = 0; i < dim; i += 2) {
      double angle = position[axis] * (1.0 / pow (THETA, (double)i / dim));

      *cosines++ = (float)cos (angle);
      *sines++ = (float)sin (angle);
    }
  }
}

int
flux_rope_update (FluxRun *r, FluxLane *lane, int grid_height, int grid_width)
{
  const FluxConfig *c = &r->t->config;
  const int pairs = c->attention_head_dim / 2;
  const gsize n = (gsize)lane->tokens * pairs;
  g_autofree float *tables = NULL;

  lane->rope = (fx_rope){lane->cos, lane->sin, lane->tokens};
  if (lane->grid_height == grid_height && lane->grid_width == grid_width &&
      grid_height > 0)
    return FX_OK;
  tables = g_new (float, 2 * n);
  for (int i = 0; i < lane->tokens; i++) {
    int image = i - lane->text_tokens;
    int position[3] = {
        0, image >= 0 ? image / grid_width : 0, image >= 0 ? image % grid_width : 0};

    fill_row (c, position, tables + (gsize)i * pairs, tables + n + (gsize)i * pairs);
  }
  FX_TRY (fx_upload (r->b, lane->cos, tables, n * sizeof (float)));
  FX_TRY (fx_upload (r->b, lane->sin, tables + n, n * sizeof (float)));
  lane->grid_height = grid_height;
  lane->grid_width = grid_width;
  return FX_OK;
}
