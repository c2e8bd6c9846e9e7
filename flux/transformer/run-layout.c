/* flux/transformer/run-layout.c: every buffer of a run.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The same function measures (with an arena that has no memory) and places. */
#include "flux/transformer/run-layout.h"

static int
note (FluxRun *r, const char *name, gsize before)
{
  FluxNamed entry = {name, r->arena.used - before};

  for (guint i = 0; i < r->names->len; i++) {
    FluxNamed *n = &g_array_index (r->names, FluxNamed, i);

    if (g_strcmp0 (n->name, name) == 0) {
      n->bytes += entry.bytes;
      return FX_OK;
    }
  }
  g_array_append_val (r->names, entry);
  return FX_OK;
}

static int
mat (FluxRun *r, const char *name, gint64 rows, gint64 cols, fx_dtype dtype, fx_mat *m)
{
  gsize before = r->arena.used;

  FX_TRY (fx_arena_mat (&r->arena, rows, cols, dtype, m));
  return note (r, name, before);
}

static int
bytes (FluxRun *r, const char *name, gsize n, gpointer p)
{
  gsize before = r->arena.used;
  void *at;

  FX_TRY (fx_arena_take (&r->arena, n, &at));
  *(void **)p = at;
  return note (r, name, before);
}

/* Activations of one block, for a backward. */
static int
lay_out_acts (FluxRun *r, FluxActs *a, gboolean is_double)
{
  const FluxConfig *c = &r->t->config;
  const gint64 s = r->max_text + r->max_image, dim = flux_config_dim (c);
  const fx_dtype type = r->b->compute;

  FX_TRY (mat (r, "q, k, v", s, 3 * dim, type, &a->qkv));
  FX_TRY (mat (r, "MLP before GELU", s, 4 * dim, type, &a->u));
  FX_TRY (bytes (r, "attention's log-sum-exp",
      sizeof (float) * (gsize)(s * c->num_attention_heads), &a->lse));
  FX_TRY (mat (r, "attention's output", s, dim, type, &a->o));
  if (is_double)
    FX_TRY (
        mat (r, "between attention and MLP", s, dim, fx_residual_dtype (type), &a->x1));
  return FX_OK;
}

/* The same where no backward follows: GELU works in place, on columns of cat. */
static int
lay_out_forward_acts (FluxRun *r, FluxActs *a)
{
  const FluxConfig *c = &r->t->config;
  const gint64 s = r->max_text + r->max_image, dim = flux_config_dim (c);

  FX_TRY (mat (r, "q, k, v", s, 3 * dim, r->b->compute, &a->qkv));
  a->u = fx_cols (r->cat, dim, 4 * dim);
  a->o = fx_cols (r->cat, 0, dim);
  return FX_OK;
}

static int
lay_out_lane (FluxRun *r, FluxLane *lane, const FluxActs *shared)
{
  const FluxConfig *c = &r->t->config;
  const gint64 s = r->max_text + r->max_image, dim = flux_config_dim (c);
  const fx_dtype type = r->b->compute, stream = fx_residual_dtype (type);
  const gsize table = sizeof (float) * (gsize)s * (c->attention_head_dim / 2);

  FX_TRY (bytes (r, "rotary tables", table, &lane->cos));
  FX_TRY (bytes (r, "rotary tables", table, &lane->sin));
  FX_TRY (mat (r, "velocity", r->max_image, c->out_channels, type, &lane->pred));
  for (int i = 0; i <= r->n_blocks; i++) {
    /* Nothing comes back to what lies below the lowest trained module. */
    if (i > 0 && (r->mode == FLUX_RUN_FORWARD || i <= r->first_trained))
      lane->x[i] = lane->x[0];
    else
      FX_TRY (mat (r, "input of each block", s, dim, stream, &lane->x[i]));
  }
  if (r->mode != FLUX_RUN_FORWARD)
    FX_TRY (mat (r, "gradient of the residual stream", s, dim, stream, &lane->dx));
  for (int i = 0; i < r->n_blocks; i++) {
    /* The last block's are used at once. */
    if (r->mode == FLUX_RUN_STORE && i >= r->first_trained && i < r->n_blocks - 1)
      FX_TRY (lay_out_acts (r, &lane->acts[i], i < c->num_layers));
    else
      lane->acts[i] = *shared;
  }
  return FX_OK;
}

static int
lay_out_gradients (FluxRun *r)
{
  const FluxConfig *c = &r->t->config;
  const gint64 s = r->max_text + r->max_image, dim = flux_config_dim (c);
  const fx_dtype type = r->b->compute;

  FX_TRY (mat (r, "gradients of one block", s, dim, type, &r->dn));
  FX_TRY (mat (r, "gradients of one block", s, 3 * dim, type, &r->dqkv));
  /* y is of the forward only; so is cat, unless a trained module reads it. */
  r->dy = r->y;
  r->dcat = r->cat;
  if (r->train_cat)
    FX_TRY (mat (r, "gradients of one block", s, 5 * dim, type, &r->dcat));
  FX_TRY (mat (r, "targets", r->max_image, c->out_channels, type, &r->dpred));
  FX_TRY (mat (r, "targets", r->max_image, c->out_channels, FX_F32, &r->target));
  if (r->keep_expanded)
    FX_TRY (bytes (
        r, "one block's weights expanded", flux_expanded_bytes (r->t), &r->expanded));
  return FX_OK;
}

static gboolean
rounds_early (const FluxRun *r)
{
  const FluxTransformer *t = r->t;

  return fx_rounds_early (r->b) &&
         (t->config.num_layers > 0 ? t->doubles[0].fc1[FLUX_IMAGE].rounds_inputs
                                   : t->singles[0].mlp.rounds_inputs);
}

static int
lay_out_work (FluxRun *r)
{
  const FluxConfig *c = &r->t->config;
  const gint64 s = r->max_text + r->max_image, dim = flux_config_dim (c);
  const fx_dtype type = r->b->compute;
  const gsize stats = sizeof (float) * 2 * (gsize)s;

  FX_TRY (mat (r, "work of one block", s, dim, type, &r->y));
  FX_TRY (mat (r, "work of one block", s, 2 * dim, type, &r->qk));
  FX_TRY (mat (r, "work of one block", s, 5 * dim, type, &r->cat));
  if (rounds_early (r)) {
    FX_TRY (bytes (r, "operands in 8 bits", flux_rounded_bytes (s, dim), &r->narrow8));
    FX_TRY (bytes (r, "operands in 8 bits", flux_rounded_bytes (s, 5 * dim), &r->wide8));
  }
  /* Of q, k and v together; a row a sample in the conditioning. */
  FX_TRY (mat (r, "LoRA's hidden features", MAX (s, r->max_samples),
      3 * MAX (r->max_rank, 1), type, &r->h));
  FX_TRY (bytes (r, "norm statistics", stats, &r->stats));
  FX_TRY (bytes (r, "norm statistics", stats, &r->stats2));
  FX_TRY (bytes (r, "norm statistics", stats, &r->final_stats));
  FX_TRY (bytes (r, "norm statistics", stats * c->num_attention_heads, &r->rstd));
  /* What a norm gives is used up before y is written, but for the trained modules. */
  r->n = r->n2 = r->y;
  if (r->mode == FLUX_RUN_FORWARD)
    return FX_OK;
  FX_TRY (mat (r, "work of one block", s, dim, type, &r->n));
  if (r->train_n2)
    FX_TRY (mat (r, "work of one block", s, dim, type, &r->n2));
  return lay_out_gradients (r);
}

static int
lay_out_conditions (FluxRun *r)
{
  const FluxConfig *c = &r->t->config;
  const gint64 n = r->max_samples, dim = flux_config_dim (c);
  const fx_dtype type = r->b->compute;
  const gint64 widest = MAX (r->max_text * (gint64)c->joint_attention_dim,
      r->max_image * (gint64)c->in_channels);

  FX_TRY (mat (r, "conditioning", n, FLUX_TIME_FEATURES, type, &r->features));
  FX_TRY (mat (r, "conditioning", n, c->pooled_projection_dim, type, &r->pooled));
  FX_TRY (mat (r, "conditioning", n, dim, type, &r->temb));
  FX_TRY (mat (r, "conditioning", n, dim, type, &r->hidden));
  FX_TRY (mat (r, "conditioning", n, 6 * dim, type, &r->mod));
  FX_TRY (mat (r, "modulation vectors", n, flux_n_mods (c), FX_F32, &r->mods));
  FX_TRY (mat (r, "inputs", 1, widest, type, &r->tokens_in));
  return bytes (r, "losses", sizeof (double) * (gsize)n, &r->losses);
}

int
flux_run_lay_out (FluxRun *r)
{
  FluxActs shared = {0};

  g_array_set_size (r->names, 0);
  for (int i = 0; i < FLUX_SLOTS && r->slot_bytes > 0; i++)
    FX_TRY (bytes (r, "blocks' weights from the host", r->slot_bytes, &r->slots[i].p));
  FX_TRY (lay_out_conditions (r));
  FX_TRY (lay_out_work (r));
  if (r->mode == FLUX_RUN_FORWARD)
    FX_TRY (lay_out_forward_acts (r, &shared));
  else
    FX_TRY (lay_out_acts (r, &shared, r->t->config.num_layers > 0));
  for (int i = 0; i < r->max_samples; i++)
    FX_TRY (lay_out_lane (r, &r->lanes[i], &shared));
  return FX_OK;
}
