/* flux/text/t5-encoder.c: the encoder of T5 v1.1. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * transformers models/t5/modeling_t5.py: RMS norms, attention without scaling whose
 * logits get layer 0's relative position bias in every layer, and a gated GELU. int8
 * here is LLM.int8's layout of the weights only: activations stay floats, so the outliers
 * that bitsandbytes multiplies apart need no such care, and its rounding of activations
 * to int8 is not reproduced.
 *
 * Activations are fp32 on every device: attention's logits are not scaled down, so that
 * one rounding to 16 bits can turn a token's result by 4 % of the largest value; what
 * leaves the gated GELU is too large for fp16 (transformers keeps wo in fp32:
 * T5PreTrainedModel._keep_in_fp32_modules, its issue 20287); and a prompt is encoded
 * once. */
#include "flux/text/encoders.h"

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/config-json.h"
#include "flux/files/stored.h"

typedef struct {
  const float *norm1, *norm2;
  fx_weight qkv, out, wi, wo; /* wi: wi_0 above wi_1 */
} T5Layer;

struct _FluxT5 {
  FluxT5Config config;
  fx_backend *backend;
  fx_mat tokens; /* [vocabulary, d_model] */
  const float *norm;
  float *relative; /* host [buckets, heads] */
  T5Layer *layers;
  fx_arena weights, work;
  int max_tokens, bias_tokens; /* that work has room for; that bias is made for */
  float *bias;                 /* [heads, tokens, tokens] */
  fx_mat x, h, qkv, o, ff, gated;
};

/* ---- configuration ---- */

/* v1.1's gated GELU; a v1.0 file has ReLU and other tensors. */
static gboolean
check_feed_forward (FluxConfigJson *json, const char *dir, GError **error)
{
  const char *name = "relu";

  if (flux_config_json_has (json, "feed_forward_proj") &&
      (name = flux_config_json_string (json, "feed_forward_proj", error)) == NULL)
    return FALSE;
  if (strcmp (name, "gated-gelu") == 0)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "The text encoder in '%s' has the feed_forward_proj '%s'; FLUX.1 needs a T5 v1.1 "
      "encoder (gated-gelu).",
      dir, name);
  return FALSE;
}

gboolean
flux_t5_config_read (const char *dir, FluxT5Config *c, GError **error)
{
  g_autofree char *path = g_build_filename (dir, "config.json", NULL);
  g_autoptr (FluxConfigJson) json = flux_config_json_read (path, error);
  double eps = 1e-6;

  *c = (FluxT5Config){.buckets = 32, .max_distance = 128};
  if (json == NULL ||
      !flux_config_json_int (json, "d_model", 1, 1 << 16, &c->d_model, error) ||
      !flux_config_json_int (json, "d_kv", 1, 1 << 12, &c->d_kv, error) ||
      !flux_config_json_int (json, "d_ff", 1, 1 << 18, &c->d_ff, error) ||
      !flux_config_json_int (json, "num_heads", 1, 1 << 10, &c->heads, error) ||
      !flux_config_json_int (
          json, "num_layers", 1, FLUX_TEXT_MAX_LAYERS, &c->layers, error) ||
      !flux_config_json_int (json, "vocab_size", 1, 1 << 24, &c->vocabulary, error) ||
      (flux_config_json_has (json, "relative_attention_num_buckets") &&
          !flux_config_json_int (
              json, "relative_attention_num_buckets", 4, 1024, &c->buckets, error)) ||
      (flux_config_json_has (json, "relative_attention_max_distance") &&
          !flux_config_json_int (json, "relative_attention_max_distance", 2, 1 << 20,
              &c->max_distance, error)) ||
      (flux_config_json_has (json, "layer_norm_epsilon") &&
          !flux_config_json_number (json, "layer_norm_epsilon", 0.0, 1.0, &eps, error)) ||
      !check_feed_forward (json, dir, error))
    return FALSE;
  c->eps = (float)eps;
  if (c->buckets % 4 != 0 || c->max_distance <= c->buckets / 4) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "%d buckets of relative positions up to %d in '%s' make no sense.", c->buckets,
        c->max_distance, path);
    return FALSE;
  }
  return TRUE;
}

/* ---- loading ---- */

static gboolean
load_vector (FluxLoader *loader, const char *prefix, const char *suffix, gint64 n,
    const float **v, GError **error)
{
  g_autofree char *name = g_strconcat (prefix, suffix, NULL);

  return flux_load_vector (loader, name, n, v, error);
}

static gboolean
load_rows (FluxLoader *loader, const char *prefix, const char *const *suffixes, guint n,
    gint64 rows, gint64 k, fx_weight *w, GError **error)
{
  g_autofree char *a = g_strconcat (prefix, suffixes[0], NULL);
  g_autofree char *b = g_strconcat (prefix, n > 1 ? suffixes[1] : NULL, NULL);
  g_autofree char *c = g_strconcat (prefix, n > 2 ? suffixes[2] : NULL, NULL);
  const char *const names[] = {a, b, c};
  const gint64 counts[] = {rows, rows, rows};

  return flux_load_linear_rows (loader, names, counts, n, k, FALSE, w, error);
}

static gboolean
load_layer (FluxLoader *loader, const FluxT5Config *c, int i, T5Layer *l, GError **error)
{
  static const char *const qkv[] = {
      ".SelfAttention.q", ".SelfAttention.k", ".SelfAttention.v"};
  static const char *const out[] = {".SelfAttention.o"};
  static const char *const wi[] = {".DenseReluDense.wi_0", ".DenseReluDense.wi_1"};
  static const char *const wo[] = {".DenseReluDense.wo"};
  g_autofree char *attention = g_strdup_printf ("encoder.block.%d.layer.0", i);
  g_autofree char *ff = g_strdup_printf ("encoder.block.%d.layer.1", i);
  gint64 d = c->d_model, inner = (gint64)c->heads * c->d_kv;

  return load_vector (loader, attention, ".layer_norm.weight", d, &l->norm1, error) &&
         load_rows (loader, attention, qkv, 3, inner, d, &l->qkv, error) &&
         load_rows (loader, attention, out, 1, d, inner, &l->out, error) &&
         load_vector (loader, ff, ".layer_norm.weight", d, &l->norm2, error) &&
         load_rows (loader, ff, wi, 2, c->d_ff, d, &l->wi, error) &&
         load_rows (loader, ff, wo, 1, d, c->d_ff, &l->wo, error);
}

static gboolean
load_model (FluxLoader *loader, gpointer model, GError **error)
{
  FluxT5 *self = model;
  const FluxT5Config *c = &self->config;
  const char *table = "shared.weight", *tied = "encoder.embed_tokens.weight";

  if (loader->file != NULL && flux_safetensors_lookup (loader->file, table) == NULL &&
      flux_safetensors_lookup (loader->file, tied) != NULL)
    table = tied;
  if (!flux_load_table (loader, table, c->vocabulary, c->d_model, &self->tokens, error))
    return FALSE;
  for (int i = 0; i < c->layers; i++)
    if (!load_layer (loader, c, i, &self->layers[i], error))
      return FALSE;
  return load_vector (
      loader, "encoder.final_layer_norm", ".weight", c->d_model, &self->norm, error);
}

/* The bias is made on the host, so its table stays there. */
static gboolean
load_relative (FluxT5 *self, FluxSafetensors *file, GError **error)
{
  const FluxT5Config *c = &self->config;
  const FluxTensor *t = flux_safetensors_require (file,
      "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", error, 2,
      (gint64)c->buckets, (gint64)c->heads);

  if (t == NULL)
    return FALSE;
  self->relative = g_new (float, t->n_elements);
  return flux_tensor_to_f32 (t, self->relative, error);
}

static FluxT5 *
t5_new (fx_backend *b)
{
  FluxT5 *self = g_new0 (FluxT5, 1);

  self->backend = b;
  fx_arena_init (&self->weights, b, "T5 weights");
  fx_arena_init (&self->work, b, "T5 work");
  return self;
}

/* T5-XXL in fp32 would take 19 GB of a host's memory, and expanding bf16 as it is used
 * costs little. */
static gboolean
load_from (FluxT5 *self, FluxLoader *loader, GError **error)
{
  loader->backend = self->backend;
  loader->arena = &self->weights;
  loader->compute = self->backend->compute;
  loader->keep_dtype = self->backend->compute == FX_F32;
  loader->what = "T5";
  self->layers = g_new0 (T5Layer, (gsize)self->config.layers);
  return flux_loader_run (loader, load_model, self, error);
}

FluxT5 *
flux_t5_load (const char *dir, fx_backend *b, fx_qtype qtype, FluxWeightsCache *cache,
    FluxProgressFunc progress, gpointer data, GError **error)
{
  g_autoptr (FluxSafetensors) file = NULL;
  g_autoptr (FluxT5) self = t5_new (b);
  FluxLoader loader = {
      .qtype = qtype, .cache = cache, .progress = progress, .progress_data = data};

  if (!flux_t5_config_read (dir, &self->config, error))
    return NULL;
  file = flux_safetensors_open (dir, error);
  if (file == NULL)
    return NULL;
  loader.file = file;
  if (!load_relative (self, file, error) || !load_from (self, &loader, error))
    return NULL;
  return g_steal_pointer (&self);
}

/* text_encoder_2/config.json of black-forest-labs/FLUX.1-dev. */
FluxT5 *
flux_t5_new_planned (fx_backend *b, fx_qtype qtype, GError **error)
{
  g_autoptr (FluxT5) self = t5_new (b);
  FluxLoader loader = {.qtype = qtype};

  self->config = (FluxT5Config){.d_model = 4096,
      .d_kv = 64,
      .d_ff = 10240,
      .heads = 64,
      .layers = 24,
      .vocabulary = 32128,
      .buckets = 32,
      .max_distance = 128,
      .eps = 1e-6f};
  self->relative = g_new0 (float, (gsize)self->config.buckets *(gsize)self->config.heads);
  if (!load_from (self, &loader, error))
    return NULL;
  return g_steal_pointer (&self);
}

void
flux_t5_free (FluxT5 *self)
{
  if (self == NULL)
    return;
  fx_arena_clear (&self->work);
  fx_arena_clear (&self->weights);
  g_free (self->relative);
  g_free (self->layers);
  g_free (self);
}

const FluxT5Config *
flux_t5_get_config (FluxT5 *self)
{
  return &self->config;
}

const fx_arena *
flux_t5_get_weights (FluxT5 *self)
{
  return &self->weights;
}

gsize
flux_t5_get_bytes (FluxT5 *self)
{
  return self->weights.size + self->work.size;
}

/* ---- running ---- */

int
flux_t5_bucket (int distance, int buckets, int max_distance)
{
  int half = buckets / 2, exact = half / 2, n = ABS (distance), bucket = n;

  if (n >= exact) {
    /* In fp32, in this order, as the reference does. */
    float scale = (float)log ((double)max_distance / exact);
    bucket =
        exact + (int)(logf ((float)n / (float)exact) / scale * (float)(half - exact));
    bucket = MIN (bucket, half - 1);
  }
  return distance > 0 ? bucket + half : bucket;
}

static int
take_buffers (FluxT5 *self, int tokens)
{
  const FluxT5Config *c = &self->config;
  gint64 inner = (gint64)c->heads * c->d_kv;
  fx_arena *a = &self->work;
  fx_mat bias;

  FX_TRY (fx_arena_mat (a, (gint64)c->heads * tokens, tokens, FX_F32, &bias));
  self->bias = bias.p;
  FX_TRY (fx_arena_mat (a, tokens, c->d_model, FX_F32, &self->x));
  FX_TRY (fx_arena_mat (a, tokens, c->d_model, FX_F32, &self->h));
  FX_TRY (fx_arena_mat (a, tokens, 3 * inner, FX_F32, &self->qkv));
  FX_TRY (fx_arena_mat (a, tokens, inner, FX_F32, &self->o));
  FX_TRY (fx_arena_mat (a, tokens, 2 * (gint64)c->d_ff, FX_F32, &self->ff));
  return fx_arena_mat (a, tokens, c->d_ff, FX_F32, &self->gated);
}

/* Room for `tokens`; memory grows with the longest text so far. */
static int
reserve_buffers (FluxT5 *self, int tokens)
{
  if (tokens > self->max_tokens) {
    fx_arena_clear (&self->work);
    fx_arena_init (&self->work, self->backend, "T5 work");
    self->max_tokens = 0;
    FX_TRY (take_buffers (self, tokens));
    fx_arena_rewind (&self->work, 0);
    FX_TRY (fx_arena_reserve (&self->work, self->work.high));
    self->max_tokens = tokens;
  }
  self->bias_tokens = tokens == self->bias_tokens ? tokens : 0;
  fx_arena_rewind (&self->work, 0);
  return take_buffers (self, tokens);
}

static int
make_bias (FluxT5 *self, int tokens)
{
  const FluxT5Config *c = &self->config;
  gsize row = (gsize)tokens, n = (gsize)c->heads * row * row;
  g_autofree float *bias = NULL;

  if (self->bias_tokens == tokens)
    return FX_OK;
  bias = g_new (float, n);
  for (int h = 0; h < c->heads; h++)
    for (int d = 1 - tokens; d < tokens; d++) {
      float v =
          self->relative[flux_t5_bucket (d, c->buckets, c->max_distance) * c->heads + h];
      for (int q = MAX (0, -d); q < MIN (tokens, tokens - d); q++)
        bias[((gsize)h * row + (gsize)q) * row + (gsize)(q + d)] = v;
    }
  FX_TRY (fx_upload (self->backend, self->bias, bias, n * sizeof (float)));
  self->bias_tokens = tokens;
  return FX_OK;
}

static int
run_layer (FluxT5 *self, const T5Layer *l, const fx_attn *attn)
{
  fx_backend *b = self->backend;
  gint64 inner = self->o.cols, ff = self->gated.cols;
  float eps = self->config.eps;

  FX_TRY (fx_rmsnorm (b, self->h, self->x, l->norm1, eps));
  FX_TRY (fx_gemm (b, self->qkv, self->h, &l->qkv, false));
  FX_TRY (fx_attention (b, self->o, NULL, fx_cols (self->qkv, 0, inner),
      fx_cols (self->qkv, inner, inner), fx_cols (self->qkv, 2 * inner, inner), attn));
  FX_TRY (fx_gemm (b, self->h, self->o, &l->out, false));
  FX_TRY (fx_gate_residual (b, self->x, self->x, self->h, NULL));
  FX_TRY (fx_rmsnorm (b, self->h, self->x, l->norm2, eps));
  FX_TRY (fx_gemm (b, self->ff, self->h, &l->wi, false));
  FX_TRY (fx_act_fwd (b, self->gated, fx_cols (self->ff, 0, ff),
      fx_cols (self->ff, ff, ff), FX_ACT_GELU_TANH));
  FX_TRY (fx_gemm (b, self->h, self->gated, &l->wo, false));
  return fx_gate_residual (b, self->x, self->x, self->h, NULL);
}

static int
embed_tokens (FluxT5 *self, const gint32 *ids, int tokens)
{
  FX_TRY (reserve_buffers (self, tokens));
  FX_TRY (make_bias (self, tokens));
  return fx_gather (self->backend, self->x, self->tokens, ids);
}

static int
read_embeds (FluxT5 *self, float *embeds)
{
  FX_TRY (fx_rmsnorm (self->backend, self->h, self->x, self->norm, self->config.eps));
  return flux_text_download (self->backend, self->h, embeds);
}

gboolean
flux_t5_encode (FluxT5 *self, const gint32 *ids, int tokens, float *embeds,
    FluxProgressFunc progress, gpointer data, GError **error)
{
  const FluxT5Config *c = &self->config;
  fx_attn attn = {.heads = c->heads, .head_dim = c->d_kv, .scale = 1.0f};
  int status;

  if (!flux_text_check_ids (ids, tokens, c->vocabulary, "T5", error))
    return FALSE;
  status = embed_tokens (self, ids, tokens);
  attn.bias = self->bias;
  for (int i = 0; i < c->layers && status == FX_OK; i++) {
    if (!flux_text_may_go_on ("T5", progress, data, error))
      return FALSE;
    status = run_layer (self, &self->layers[i], &attn);
  }
  if (status == FX_OK)
    status = read_embeds (self, embeds);
  if (status != FX_OK)
    flux_error_from_fx (error, status, "T5 failed");
  return status == FX_OK;
}
