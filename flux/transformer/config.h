/* flux/transformer/config.h: shape of a FLUX transformer. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct {
  int in_channels;           /* 64 = 16 latent channels of 2 x 2 cells */
  int out_channels;          /* 64 */
  int num_layers;            /* double blocks: 19 */
  int num_single_layers;     /* single blocks: 38 */
  int num_attention_heads;   /* 24 */
  int attention_head_dim;    /* 128 */
  int joint_attention_dim;   /* T5 features: 4096 */
  int pooled_projection_dim; /* CLIP features: 768 */
  gboolean guidance_embeds;  /* TRUE in FLUX.1-dev */
  int axes_dims_rope[3];     /* 16, 56, 56: sums to attention_head_dim */
} FluxConfig;

static inline int
flux_config_dim (const FluxConfig *c)
{
  return c->num_attention_heads * c->attention_head_dim;
}

/* dir: the model folder (with transformer/) or the transformer folder; reads config.json.
 */
gboolean flux_config_read (const char *dir, FluxConfig *config, GError **error);
/* FLUX.1-dev's own configuration. */
void flux_config_init_dev (FluxConfig *config);
/* Parameters of the base (weights, biases, norms): 11,901,408,320 for FLUX.1-dev. */
gint64 flux_config_n_parameters (const FluxConfig *c);

G_END_DECLS
