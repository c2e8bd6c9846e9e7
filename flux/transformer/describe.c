/* flux/transformer/describe.c: what the weights take on the device, for
 * people.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/transformer/transformer-private.h"

enum { ALIGNMENT = 256 /* of every buffer in an arena */ };

typedef enum { TOKENS, MODULATION, ENDS, VECTORS, N_KINDS } Kind;

static const char *const names[N_KINDS] = {[TOKENS] = "weights: layers of the blocks",
    [MODULATION] = "weights: modulation",
    [ENDS] = "weights: embedders, last layer",
    [VECTORS] = "weights: biases, norms"};

static gsize
padded (gsize bytes)
{
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void
add (gsize sums[N_KINDS], Kind kind, const fx_weight *w)
{
  gsize n = (gsize)(w->n * w->k), blocks = n / FX_NF4_BLOCK;
  gsize nested = (blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK * sizeof (float);

  if (w->bias != NULL)
    sums[VECTORS] += padded ((gsize)w->n * sizeof (float));
  if (w->home == FX_HOME_HOST)
    return;
  switch (w->qtype) {
    case FX_Q_NF4:
      sums[kind] += padded (n / 2) + padded (blocks * sizeof (float));
      break;
    case FX_Q_NF4_DOUBLE:
      sums[kind] += padded (n / 2) + padded (blocks) + 2 * padded (nested) +
                    padded (256 * sizeof (float));
      break;
    case FX_Q_INT8:
    case FX_Q_FP8:
      sums[kind] += padded (n) + padded ((gsize)w->n * sizeof (float));
      break;
    default:
      sums[kind] += padded (n * fx_dtype_size (w->dtype));
  }
}

static void
add_blocks (gsize sums[N_KINDS], const FluxTransformer *t)
{
  gsize norms = 2 * padded ((gsize)t->config.attention_head_dim * sizeof (float));

  for (int i = 0; i < t->config.num_layers; i++) {
    const FluxDouble *d = &t->doubles[i];

    for (int s = 0; s < FLUX_N_STREAMS; s++) {
      add (sums, MODULATION, &d->mod[s]);
      add (sums, TOKENS, &d->qkv[s]);
      add (sums, TOKENS, &d->out[s]);
      add (sums, TOKENS, &d->fc1[s]);
      add (sums, TOKENS, &d->fc2[s]);
      sums[VECTORS] += norms;
    }
  }
  for (int i = 0; i < t->config.num_single_layers; i++) {
    const FluxSingle *s = &t->singles[i];

    add (sums, MODULATION, &s->mod);
    add (sums, TOKENS, &s->qkv);
    add (sums, TOKENS, &s->mlp);
    add (sums, TOKENS, &s->out);
    sums[VECTORS] += norms;
  }
}

static void
add_mlp (gsize sums[N_KINDS], const FluxMlp *m)
{
  add (sums, ENDS, &m->first);
  add (sums, ENDS, &m->second);
}

char *
flux_transformer_describe (FluxTransformer *self)
{
  GString *text = g_string_new (NULL);
  gsize sums[N_KINDS] = {0};

  add_blocks (sums, self);
  add (sums, MODULATION, &self->norm_out);
  add (sums, ENDS, &self->x_embedder);
  add (sums, ENDS, &self->context_embedder);
  add (sums, ENDS, &self->proj_out);
  add_mlp (sums, &self->time);
  add_mlp (sums, &self->text);
  if (self->config.guidance_embeds)
    add_mlp (sums, &self->guidance);
  for (int i = 0; i < N_KINDS; i++)
    g_string_append_printf (
        text, "%-34s %10.2f\n", names[i], (double)sums[i] / (1 << 20));
  return g_string_free (text, FALSE);
}

const char *
flux_transformer_get_quantization (FluxTransformer *self)
{
  const fx_weight *w = self->config.num_layers > 0          ? &self->doubles[0].qkv[0]
                       : self->config.num_single_layers > 0 ? &self->singles[0].qkv
                                                            : &self->proj_out;

  return fx_qtype_name (w->qtype);
}
