/* flux/transformer/transformer.c: the frozen base: loading and life.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/error.h"
#include "flux/transformer/transformer-private.h"

/* base + "." + name. */
static gboolean
linear (FluxLoader *l, const char *base, const char *name, gint64 n, gint64 k,
    fx_weight *w, GError **error)
{
  g_autofree char *prefix = g_strconcat (base, name, NULL);

  return flux_load_linear (l, prefix, n, k, TRUE, w, error);
}

/* A layer without 8-bit products. With quantization=fp8 modulation, whose one row would
 * gain nothing from them, is NF4, which halves its 3 GB, and the model's ends stay
 * floats; with int8 the weights are integers here as well. */
static gboolean
linear_beside_8_bits (FluxLoader *l, fx_qtype instead, const char *base, const char *name,
    gint64 n, gint64 k, fx_weight *w, GError **error)
{
  const FluxLoader asked = *l;
  gboolean ok;

  if (asked.qtype == FX_Q_FP8)
    l->qtype = instead;
  l->rounds_inputs = FALSE;
  ok = linear (l, base, name, n, k, w, error);
  l->qtype = asked.qtype;
  l->rounds_inputs = asked.rounds_inputs;
  return ok;
}

static gboolean
modulation (FluxLoader *l, const char *base, const char *name, gint64 n, gint64 k,
    fx_weight *w, GError **error)
{
  return linear_beside_8_bits (l, FX_Q_NF4, base, name, n, k, w, error);
}

static gboolean
end (FluxLoader *l, const char *base, const char *name, gint64 n, gint64 k, fx_weight *w,
    GError **error)
{
  return linear_beside_8_bits (l, FX_Q_NONE, base, name, n, k, w, error);
}

static gboolean
qkv (FluxLoader *l, const char *base, const char *const names[3], gint64 dim,
    fx_weight *w, GError **error)
{
  g_autofree char *q = g_strconcat (base, names[0], NULL);
  g_autofree char *k = g_strconcat (base, names[1], NULL);
  g_autofree char *v = g_strconcat (base, names[2], NULL);
  const char *prefixes[3] = {q, k, v};
  const gint64 rows[3] = {dim, dim, dim};

  return flux_load_linear_rows (l, prefixes, rows, 3, dim, TRUE, w, error);
}

static gboolean
vector (FluxLoader *l, const char *base, const char *name, gint64 n, const float **v,
    GError **error)
{
  g_autofree char *full = g_strconcat (base, name, NULL);

  return flux_load_vector (l, full, n, v, error);
}

static gboolean
mlp (FluxLoader *l, const char *name, gint64 k, gint64 dim, FluxMlp *m, GError **error)
{
  g_autofree char *base = g_strdup_printf ("time_text_embed.%s.", name);

  return end (l, base, "linear_1", dim, k, &m->first, error) &&
         end (l, base, "linear_2", dim, dim, &m->second, error);
}

static gboolean
load_stream (FluxLoader *l, const char *base, const FluxConfig *c, FluxDouble *d, int s,
    GError **error)
{
  static const struct {
    const char *mod, *qkv[3], *out, *fc1, *fc2, *norm_q, *norm_k;
  } names[FLUX_N_STREAMS] = {
      {"norm1_context.linear", {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"},
          "attn.to_add_out", "ff_context.net.0.proj", "ff_context.net.2",
          "attn.norm_added_q.weight", "attn.norm_added_k.weight"},
      {"norm1.linear", {"attn.to_q", "attn.to_k", "attn.to_v"}, "attn.to_out.0",
          "ff.net.0.proj", "ff.net.2", "attn.norm_q.weight", "attn.norm_k.weight"},
  };
  const gint64 dim = flux_config_dim (c), head = c->attention_head_dim;

  return modulation (l, base, names[s].mod, 6 * dim, dim, &d->mod[s], error) &&
         qkv (l, base, names[s].qkv, dim, &d->qkv[s], error) &&
         linear (l, base, names[s].out, dim, dim, &d->out[s], error) &&
         linear (l, base, names[s].fc1, 4 * dim, dim, &d->fc1[s], error) &&
         linear (l, base, names[s].fc2, dim, 4 * dim, &d->fc2[s], error) &&
         vector (l, base, names[s].norm_q, head, &d->norm_q[s], error) &&
         vector (l, base, names[s].norm_k, head, &d->norm_k[s], error);
}

static gboolean
load_double (FluxLoader *l, const FluxConfig *c, int i, FluxDouble *d, GError **error)
{
  g_autofree char *base = g_strdup_printf ("transformer_blocks.%d.", i);

  return load_stream (l, base, c, d, FLUX_TEXT, error) &&
         load_stream (l, base, c, d, FLUX_IMAGE, error);
}

static gboolean
load_single (FluxLoader *l, const FluxConfig *c, int i, FluxSingle *s, GError **error)
{
  static const char *const names[3] = {"attn.to_q", "attn.to_k", "attn.to_v"};
  g_autofree char *base = g_strdup_printf ("single_transformer_blocks.%d.", i);
  const gint64 dim = flux_config_dim (c), head = c->attention_head_dim;

  return modulation (l, base, "norm.linear", 3 * dim, dim, &s->mod, error) &&
         qkv (l, base, names, dim, &s->qkv, error) &&
         linear (l, base, "proj_mlp", 4 * dim, dim, &s->mlp, error) &&
         linear (l, base, "proj_out", dim, 5 * dim, &s->out, error) &&
         vector (l, base, "attn.norm_q.weight", head, &s->norm_q, error) &&
         vector (l, base, "attn.norm_k.weight", head, &s->norm_k, error);
}

/* The blocks before this one are done, at the end all of them. */
static void
begin_block (FluxLoader *l, FluxTransformer *t, int block)
{
  if (l->host_arena == NULL)
    return;
  t->block_at[block] = fx_arena_mark (l->host_arena);
  l->to_host = block < t->config.num_layers + t->config.num_single_layers;
}

static gboolean
load_all (FluxLoader *l, gpointer model, GError **error)
{
  FluxTransformer *t = model;
  const FluxConfig *c = &t->config;
  const gint64 dim = flux_config_dim (c);

  if (!end (l, "", "x_embedder", dim, c->in_channels, &t->x_embedder, error) ||
      !end (l, "", "context_embedder", dim, c->joint_attention_dim, &t->context_embedder,
          error) ||
      !mlp (l, "timestep_embedder", FLUX_TIME_FEATURES, dim, &t->time, error) ||
      !mlp (l, "text_embedder", c->pooled_projection_dim, dim, &t->text, error))
    return FALSE;
  if (c->guidance_embeds &&
      !mlp (l, "guidance_embedder", FLUX_TIME_FEATURES, dim, &t->guidance, error))
    return FALSE;
  for (int i = 0; i < c->num_layers; i++) {
    begin_block (l, t, i);
    if (!load_double (l, c, i, &t->doubles[i], error))
      return FALSE;
  }
  for (int i = 0; i < c->num_single_layers; i++) {
    begin_block (l, t, c->num_layers + i);
    if (!load_single (l, c, i, &t->singles[i], error))
      return FALSE;
  }
  begin_block (l, t, c->num_layers + c->num_single_layers);
  return modulation (l, "", "norm_out.linear", 2 * dim, dim, &t->norm_out, error) &&
         end (l, "", "proj_out", c->out_channels, dim, &t->proj_out, error);
}

static FluxTransformer *
transformer_new (const FluxConfig *c, fx_backend *b)
{
  FluxTransformer *t = g_new0 (FluxTransformer, 1);

  g_atomic_ref_count_init (&t->ref_count);
  t->config = *c;
  t->backend = b;
  t->doubles = g_new0 (FluxDouble, MAX (c->num_layers, 1));
  t->singles = g_new0 (FluxSingle, MAX (c->num_single_layers, 1));
  fx_arena_init (&t->arena, b, "transformer weights");
  return t;
}

static gboolean
keep_on_host (FluxTransformer *t, GError **error)
{
  t->host_backend = fx_host_new (t->backend);
  if (t->host_backend == NULL) {
    flux_error_from_fx (error, FX_ERR_MEMORY, "Cannot keep weights on the host");
    return FALSE;
  }
  fx_arena_init (&t->host, t->host_backend, "transformer weights on the host");
  t->block_at = g_new0 (gsize, t->config.num_layers + t->config.num_single_layers + 1);
  return TRUE;
}

/* Takes t. */
static FluxTransformer *
load_from (FluxTransformer *t, FluxLoader *l, fx_home home, GError **error)
{
  if (home == FX_HOME_HOST && !keep_on_host (t, error)) {
    flux_transformer_unref (t);
    return NULL;
  }
  l->backend = t->backend;
  l->arena = &t->arena;
  l->host_arena = t->block_at != NULL ? &t->host : NULL;
  l->compute = t->backend->compute;
  l->rounds_inputs = TRUE;
  l->what = "transformer";
  if (!flux_loader_run (l, load_all, t, error))
    g_clear_pointer (&t, flux_transformer_unref);
  return t;
}

static FluxTransformer *
load_file (const char *dir, fx_backend *b, FluxLoader *l, fx_home home, GError **error)
{
  g_autofree char *sub = g_build_filename (dir, "transformer", NULL);
  g_autoptr (FluxSafetensors) file = NULL;
  FluxConfig config;

  if (l->qtype == FX_Q_FP8 && !b->has_fp8) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "quantization=fp8 needs a GPU of compute capability 8.9 or newer (RTX 40, H100) "
        "and bfloat16; choose int8 or nf4.");
    return NULL;
  }
  if (!flux_config_read (dir, &config, error))
    return NULL;
  file = flux_safetensors_open (g_file_test (sub, G_FILE_TEST_IS_DIR) ? sub : dir, error);
  if (file == NULL)
    return NULL;
  l->file = file;
  return load_from (transformer_new (&config, b), l, home, error);
}

FluxTransformer *
flux_transformer_load (const char *dir, fx_backend *b, fx_qtype qtype, fx_home home,
    FluxWeightsCache *cache, FluxProgressFunc progress, gpointer data, GError **error)
{
  FluxLoader l = {
      .qtype = qtype, .cache = cache, .progress = progress, .progress_data = data};

  return load_file (dir, b, &l, home, error);
}

FluxTransformer *
flux_transformer_load_planned (
    const char *dir, fx_backend *b, fx_qtype qtype, fx_home home, GError **error)
{
  FluxLoader l = {.qtype = qtype, .is_planned = TRUE};

  return load_file (dir, b, &l, home, error);
}

FluxTransformer *
flux_transformer_new_planned (
    const FluxConfig *c, fx_backend *b, fx_qtype qtype, fx_home home, GError **error)
{
  FluxLoader l = {.qtype = qtype};

  return load_from (transformer_new (c, b), &l, home, error);
}

FluxTransformer *
flux_transformer_ref (FluxTransformer *self)
{
  g_atomic_ref_count_inc (&self->ref_count);
  return self;
}

void
flux_transformer_unref (FluxTransformer *self)
{
  if (self == NULL || !g_atomic_ref_count_dec (&self->ref_count))
    return;
  fx_arena_clear (&self->arena);
  if (self->host_backend != NULL) {
    fx_arena_clear (&self->host);
    fx_backend_free (self->host_backend);
  }
  g_free (self->block_at);
  g_free (self->doubles);
  g_free (self->singles);
  g_free (self);
}

const FluxConfig *
flux_transformer_get_config (FluxTransformer *self)
{
  return &self->config;
}

fx_backend *
flux_transformer_get_backend (FluxTransformer *self)
{
  return self->backend;
}

gsize
flux_transformer_get_bytes (FluxTransformer *self)
{
  return self->arena.size;
}

gsize
flux_transformer_get_host_bytes (FluxTransformer *self)
{
  return self->host.size;
}
