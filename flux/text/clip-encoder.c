/* flux/text/clip-encoder.c: CLIP's text model. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * transformers models/clip/modeling_clip.py: token and position embeddings, causal
 * pre-norm layers, a final norm, and the row of the end-of-text token. */
#include "flux/text/encoders.h"

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/config-json.h"

typedef struct {
  const float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias;
  fx_weight qkv, out, fc1, fc2;
} ClipLayer;

struct _FluxClip {
  FluxClipConfig config;
  fx_backend *backend;
  fx_mat tokens, positions; /* [vocabulary, hidden], [positions, hidden] */
  const float *norm_weight, *norm_bias;
  ClipLayer *layers;
  fx_arena weights, work;
  fx_mat x, h, qkv, o, ff; /* x in fp32 */
};

static gboolean
read_act (FluxConfigJson *json, const char *dir, fx_act *act, GError **error)
{
  const char *name = "quick_gelu";

  if (flux_config_json_has (json, "hidden_act") &&
      (name = flux_config_json_string (json, "hidden_act", error)) == NULL)
    return FALSE;
  if (strcmp (name, "quick_gelu") == 0)
    *act = FX_ACT_QUICK_GELU;
  else if (strcmp (name, "gelu") == 0)
    *act = FX_ACT_GELU_ERF;
  else {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "The text encoder in '%s' has the hidden_act '%s'; quick_gelu or gelu is needed.",
        dir, name);
    return FALSE;
  }
  return TRUE;
}

gboolean
flux_clip_config_read (const char *dir, FluxClipConfig *c, GError **error)
{
  g_autofree char *path = g_build_filename (dir, "config.json", NULL);
  g_autoptr (FluxConfigJson) json = flux_config_json_read (path, error);
  double eps = 1e-5;

  *c = (FluxClipConfig){.eos = 49407};
  if (json == NULL ||
      !flux_config_json_int (json, "hidden_size", 1, 1 << 16, &c->hidden, error) ||
      !flux_config_json_int (
          json, "intermediate_size", 1, 1 << 18, &c->intermediate, error) ||
      !flux_config_json_int (json, "num_attention_heads", 1, 1 << 10, &c->heads, error) ||
      !flux_config_json_int (
          json, "num_hidden_layers", 1, FLUX_TEXT_MAX_LAYERS, &c->layers, error) ||
      !flux_config_json_int (
          json, "max_position_embeddings", 2, 1 << 14, &c->positions, error) ||
      !flux_config_json_int (json, "vocab_size", 1, 1 << 24, &c->vocabulary, error) ||
      (flux_config_json_has (json, "eos_token_id") &&
          !flux_config_json_int (json, "eos_token_id", 0, 1 << 24, &c->eos, error)) ||
      (flux_config_json_has (json, "layer_norm_eps") &&
          !flux_config_json_number (json, "layer_norm_eps", 0.0, 1.0, &eps, error)) ||
      !read_act (json, dir, &c->act, error))
    return FALSE;
  c->eps = (float)eps;
  if (c->hidden % c->heads != 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The hidden_size %d in '%s' is not a multiple of its %d heads.", c->hidden, path,
        c->heads);
    return FALSE;
  }
  return TRUE;
}

static gboolean
load_vector (FluxLoader *loader, const char *prefix, const char *suffix, gint64 n,
    const float **v, GError **error)
{
  g_autofree char *name = g_strconcat (prefix, suffix, NULL);

  return flux_load_vector (loader, name, n, v, error);
}

static gboolean
load_linear (FluxLoader *loader, const char *prefix, const char *suffix, gint64 n,
    gint64 k, fx_weight *w, GError **error)
{
  g_autofree char *name = g_strconcat (prefix, suffix, NULL);

  return flux_load_linear (loader, name, n, k, TRUE, w, error);
}

static gboolean
load_layer (
    FluxLoader *loader, const FluxClipConfig *c, int i, ClipLayer *l, GError **error)
{
  g_autofree char *prefix = g_strdup_printf ("text_model.encoder.layers.%d", i);
  g_autofree char *q = g_strconcat (prefix, ".self_attn.q_proj", NULL);
  g_autofree char *k = g_strconcat (prefix, ".self_attn.k_proj", NULL);
  g_autofree char *v = g_strconcat (prefix, ".self_attn.v_proj", NULL);
  const char *const names[] = {q, k, v};
  const gint64 d = c->hidden, ff = c->intermediate, rows[] = {d, d, d};

  return load_vector (
             loader, prefix, ".layer_norm1.weight", d, &l->norm1_weight, error) &&
         load_vector (loader, prefix, ".layer_norm1.bias", d, &l->norm1_bias, error) &&
         flux_load_linear_rows (loader, names, rows, 3, d, TRUE, &l->qkv, error) &&
         load_linear (loader, prefix, ".self_attn.out_proj", d, d, &l->out, error) &&
         load_vector (
             loader, prefix, ".layer_norm2.weight", d, &l->norm2_weight, error) &&
         load_vector (loader, prefix, ".layer_norm2.bias", d, &l->norm2_bias, error) &&
         load_linear (loader, prefix, ".mlp.fc1", ff, d, &l->fc1, error) &&
         load_linear (loader, prefix, ".mlp.fc2", d, ff, &l->fc2, error);
}

static gboolean
load_model (FluxLoader *loader, gpointer model, GError **error)
{
  FluxClip *self = model;
  const FluxClipConfig *c = &self->config;

  if (!flux_load_table (loader, "text_model.embeddings.token_embedding.weight",
          c->vocabulary, c->hidden, &self->tokens, error) ||
      !flux_load_table (loader, "text_model.embeddings.position_embedding.weight",
          c->positions, c->hidden, &self->positions, error))
    return FALSE;
  for (int i = 0; i < c->layers; i++)
    if (!load_layer (loader, c, i, &self->layers[i], error))
      return FALSE;
  return load_vector (loader, "text_model.final_layer_norm", ".weight", c->hidden,
             &self->norm_weight, error) &&
         load_vector (loader, "text_model.final_layer_norm", ".bias", c->hidden,
             &self->norm_bias, error);
}

static int
take_buffers (FluxClip *self)
{
  const FluxClipConfig *c = &self->config;
  fx_dtype dtype = self->backend->compute;
  fx_arena *a = &self->work;

  FX_TRY (fx_arena_mat (a, c->positions, c->hidden, FX_F32, &self->x));
  FX_TRY (fx_arena_mat (a, c->positions, c->hidden, dtype, &self->h));
  FX_TRY (fx_arena_mat (a, c->positions, 3 * (gint64)c->hidden, dtype, &self->qkv));
  FX_TRY (fx_arena_mat (a, c->positions, c->hidden, dtype, &self->o));
  return fx_arena_mat (a, c->positions, c->intermediate, dtype, &self->ff);
}

static int
reserve_buffers (FluxClip *self)
{
  FX_TRY (take_buffers (self));
  fx_arena_rewind (&self->work, 0);
  FX_TRY (fx_arena_reserve (&self->work, self->work.high));
  return take_buffers (self);
}

FluxClip *
flux_clip_load (const char *dir, fx_backend *b, FluxProgressFunc progress, gpointer data,
    GError **error)
{
  g_autoptr (FluxSafetensors) file = NULL;
  g_autoptr (FluxClip) self = g_new0 (FluxClip, 1);
  FluxLoader loader = {.backend = b,
      .arena = &self->weights,
      .qtype = FX_Q_NONE,
      .compute = b->compute,
      .what = "CLIP",
      .progress = progress,
      .progress_data = data};
  int status;

  self->backend = b;
  fx_arena_init (&self->weights, b, "CLIP weights");
  fx_arena_init (&self->work, b, "CLIP work");
  if (!flux_clip_config_read (dir, &self->config, error))
    return NULL;
  self->layers = g_new0 (ClipLayer, (gsize)self->config.layers);
  file = flux_safetensors_open (dir, error);
  if (file == NULL)
    return NULL;
  loader.file = file;
  if (!flux_loader_run (&loader, load_model, self, error))
    return NULL;
  status = reserve_buffers (self);
  if (status != FX_OK) {
    flux_error_from_fx (error, status, "No room for the work of CLIP");
    return NULL;
  }
  return g_steal_pointer (&self);
}

void
flux_clip_free (FluxClip *self)
{
  if (self == NULL)
    return;
  fx_arena_clear (&self->work);
  fx_arena_clear (&self->weights);
  g_free (self->layers);
  g_free (self);
}

const FluxClipConfig *
flux_clip_get_config (FluxClip *self)
{
  return &self->config;
}

/* Where the pooled output is taken: configurations with the historical eos_token_id 2 do
 * not name the real token, which is the largest id of the vocabulary. */
static int
find_eos (const FluxClipConfig *c, const gint32 *ids)
{
  int at = 0;

  for (int i = 0; i < c->positions; i++) {
    if (c->eos != 2 && ids[i] == c->eos)
      return i;
    if (c->eos == 2 && ids[i] > ids[at])
      at = i;
  }
  return at;
}

static int
run_layer (FluxClip *self, const ClipLayer *l, const fx_attn *attn)
{
  fx_backend *b = self->backend;
  gint64 d = self->config.hidden;
  fx_mat none = {0};

  FX_TRY (fx_layernorm (
      b, self->h, self->x, l->norm1_weight, l->norm1_bias, self->config.eps));
  FX_TRY (fx_gemm (b, self->qkv, self->h, &l->qkv, false));
  FX_TRY (fx_attention (b, self->o, NULL, fx_cols (self->qkv, 0, d),
      fx_cols (self->qkv, d, d), fx_cols (self->qkv, 2 * d, d), attn));
  FX_TRY (fx_gemm (b, self->h, self->o, &l->out, false));
  FX_TRY (fx_gate_residual (b, self->x, self->x, self->h, NULL));
  FX_TRY (fx_layernorm (
      b, self->h, self->x, l->norm2_weight, l->norm2_bias, self->config.eps));
  FX_TRY (fx_gemm (b, self->ff, self->h, &l->fc1, false));
  FX_TRY (fx_act_fwd (b, self->ff, self->ff, none, self->config.act));
  FX_TRY (fx_gemm (b, self->h, self->ff, &l->fc2, false));
  return fx_gate_residual (b, self->x, self->x, self->h, NULL);
}

static int
embed_tokens (FluxClip *self, const gint32 *ids)
{
  fx_backend *b = self->backend;
  g_autofree gint32 *places = g_new (gint32, (gsize)self->config.positions);

  for (int i = 0; i < self->config.positions; i++)
    places[i] = i;
  FX_TRY (fx_gather (b, self->x, self->tokens, ids));
  FX_TRY (fx_gather (b, self->h, self->positions, places));
  return fx_gate_residual (b, self->x, self->x, self->h, NULL);
}

static int
read_pooled (FluxClip *self, const gint32 *ids, float *pooled)
{
  const FluxClipConfig *c = &self->config;
  int eos = find_eos (c, ids);
  fx_mat row = fx_rows (self->h, eos, 1);

  FX_TRY (fx_layernorm (self->backend, row, fx_rows (self->x, eos, 1), self->norm_weight,
      self->norm_bias, c->eps));
  return flux_text_download (self->backend, row, pooled);
}

gboolean
flux_clip_encode (FluxClip *self, const gint32 *ids, float *pooled,
    FluxProgressFunc progress, gpointer data, GError **error)
{
  const FluxClipConfig *c = &self->config;
  int head_dim = c->hidden / c->heads;
  fx_attn attn = {.heads = c->heads,
      .head_dim = head_dim,
      .scale = 1.0f / sqrtf ((float)head_dim),
      .causal = true};
  int status;

  if (!flux_text_check_ids (ids, c->positions, c->vocabulary, "CLIP", error))
    return FALSE;
  status = embed_tokens (self, ids);
  for (int i = 0; i < c->layers && status == FX_OK; i++) {
    if (!flux_text_may_go_on ("CLIP", progress, data, error))
      return FALSE;
    status = run_layer (self, &self->layers[i], &attn);
  }
  if (status == FX_OK)
    status = read_pooled (self, ids, pooled);
  if (status != FX_OK)
    flux_error_from_fx (error, status, "CLIP failed");
  return status == FX_OK;
}
