/* tests/bench/random-model.c: FLUX.1-dev from random weights, made on the device.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Twelve thousand million normal numbers would take minutes; a pool of POOL of them,
 * quantised once, is copied piece by piece from changing places. */
#include "tests/bench/random-model.h"

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/transformer/transformer-private.h"

enum { POOL = 1 << 24, PIECE = 1 << 22 /* elements, multiples of 64 */ };

typedef struct {
  fx_backend *b, *host; /* for the weights that are there */
  float *values;        /* [POOL] */
  guint8 *codes;        /* NF4 */
  guint8 *e4m3;         /* 64 times the values; NULL until it is needed */
  float *absmax;
  guint16 *bf16;
  float *scaled; /* [PIECE / 64] */
  guint64 state;
} Pool;

float *
random_normals (guint32 which, gsize n)
{
  float *x = g_new (float, n);

  fx_philox_normal (0, which, 0, 0, x, n);
  return x;
}

static Pool *
pool_new (fx_backend *b)
{
  Pool *p = g_new0 (Pool, 1);

  p->b = b;
  p->values = random_normals (99, POOL);
  p->codes = g_malloc (POOL / 2);
  p->absmax = g_new (float, POOL / FX_NF4_BLOCK);
  p->bf16 = g_new (guint16, POOL);
  p->scaled = g_new (float, PIECE / FX_NF4_BLOCK);
  p->state = 1;
  fx_nf4_quantize (p->values, POOL, p->codes, p->absmax);
  return p;
}

static void
pool_make_e4m3 (Pool *p)
{
  p->e4m3 = g_malloc (POOL);
  for (gsize i = 0; i < POOL; i++) {
    float v = 64 * p->values[i];

    fx_convert (p->e4m3 + i, FX_E4M3, &v, FX_F32, 1);
  }
}

static void
pool_free (Pool *p)
{
  g_free (p->values);
  g_free (p->codes);
  g_free (p->e4m3);
  g_free (p->absmax);
  g_free (p->bf16);
  g_free (p->scaled);
  g_free (p);
}

/* Where the next piece begins: a multiple of 64. */
static gsize
pool_place (Pool *p)
{
  p->state = p->state * G_GUINT64_CONSTANT (6364136223846793005) + 1442695040888963407u;
  return (gsize)((p->state >> 33) % ((POOL - PIECE) / FX_NF4_BLOCK)) * FX_NF4_BLOCK;
}

/* The whole pool times `deviation`, in bf16. */
static void
pool_scale (Pool *p, float deviation)
{
  for (gsize i = 0; i < POOL; i++)
    p->bf16[i] = fx_f32_to_bf16 (p->values[i] * deviation);
}

static int
fill_4bit (Pool *p, const fx_weight *w, float deviation)
{
  const gsize n = (gsize)(w->n * w->k);

  for (gsize i = 0; i < n; i += PIECE) {
    gsize count = MIN (PIECE, n - i), from = pool_place (p),
          blocks = count / FX_NF4_BLOCK;

    FX_TRY (fx_upload (p->b, (guint8 *)w->data + i / 2, p->codes + from / 2, count / 2));
    for (gsize j = 0; j < blocks; j++)
      p->scaled[j] = p->absmax[from / FX_NF4_BLOCK + j] * deviation;
    FX_TRY (fx_upload (
        p->b, w->absmax + i / FX_NF4_BLOCK, p->scaled, blocks * sizeof (float)));
  }
  return FX_OK;
}

/* The first level as above, then quantised again a tensor at a time. */
static int
fill_4bit_double (Pool *p, const fx_weight *w, float deviation)
{
  const gsize n = (gsize)(w->n * w->k), blocks = n / FX_NF4_BLOCK;
  const gsize nested = (blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK;
  g_autofree float *absmax = g_new (float, blocks), *scales = g_new (float, nested);
  g_autofree float *offsets = g_new (float, nested);
  g_autofree guint8 *codes = g_malloc (blocks);
  float offset;

  for (gsize i = 0; i < n; i += PIECE) {
    gsize count = MIN (PIECE, n - i), from = pool_place (p);

    FX_TRY (fx_upload (p->b, (guint8 *)w->data + i / 2, p->codes + from / 2, count / 2));
    for (gsize j = 0; j < count / FX_NF4_BLOCK; j++)
      absmax[i / FX_NF4_BLOCK + j] = p->absmax[from / FX_NF4_BLOCK + j] * deviation;
  }
  fx_absmax_quantize (absmax, blocks, codes, scales, &offset);
  for (gsize i = 0; i < nested; i++)
    offsets[i] = offset;
  FX_TRY (fx_upload (p->b, w->absmax_q, codes, blocks));
  FX_TRY (fx_upload (p->b, w->absmax2, scales, nested * sizeof (float)));
  FX_TRY (fx_upload (p->b, w->offset2, offsets, nested * sizeof (float)));
  return fx_upload (p->b, (void *)w->code8, fx_dynamic_map (true), 256 * sizeof (float));
}

static int
fill_e4m3 (Pool *p, const fx_weight *w, float deviation)
{
  const gsize n = (gsize)(w->n * w->k);

  g_assert (w->n <= PIECE / FX_NF4_BLOCK);
  if (p->e4m3 == NULL)
    pool_make_e4m3 (p);
  for (gsize i = 0; i < n; i += PIECE)
    FX_TRY (fx_upload (
        p->b, (guint8 *)w->data + i, p->e4m3 + pool_place (p), MIN (PIECE, n - i)));
  for (gint64 i = 0; i < w->n; i++)
    p->scaled[i] = exp2f (rintf (log2f (deviation / 64)));
  return fx_upload (p->b, w->absmax, p->scaled, (gsize)w->n * sizeof (float));
}

/* The bytes of e4m3 numbers are as good as any. */
static int
fill_int8 (Pool *p, const fx_weight *w, float deviation)
{
  FX_TRY (fill_e4m3 (p, w, deviation));
  for (gint64 i = 0; i < w->n; i++)
    p->scaled[i] = 2 * deviation;
  return fx_upload (p->b, w->absmax, p->scaled, (gsize)w->n * sizeof (float));
}

static int
fill_floats (Pool *p, const fx_weight *w, float deviation)
{
  const gsize n = (gsize)(w->n * w->k), size = fx_dtype_size (w->dtype);
  g_autofree void *scaled = NULL;

  if (w->dtype == FX_F32) {
    float *f = scaled = g_new (float, PIECE);

    for (gsize i = 0; i < PIECE; i++)
      f[i] = p->values[i] * deviation;
  }
  for (gsize i = 0; i < n; i += PIECE) {
    gsize count = MIN (PIECE, n - i);

    FX_TRY (fx_upload (p->b, (guint8 *)w->data + i * size,
        scaled != NULL ? scaled : (void *)(p->bf16 + pool_place (p)), count * size));
  }
  return FX_OK;
}

static int
fill_data (Pool *p, const fx_weight *w)
{
  const float deviation = (float)(1 / sqrt ((double)w->k));

  switch (w->qtype) {
    case FX_Q_NF4:
      return fill_4bit (p, w, deviation);
    case FX_Q_NF4_DOUBLE:
      return fill_4bit_double (p, w, deviation);
    case FX_Q_INT8:
      return fill_int8 (p, w, deviation);
    case FX_Q_FP8:
      return fill_e4m3 (p, w, deviation);
    case FX_Q_NONE:
      pool_scale (p, deviation);
      return fill_floats (p, w, deviation);
    default:
      return fx_error (FX_ERR_UNSUPPORTED, "no random weights of type %d", w->qtype);
  }
}

static int
fill (Pool *p, const fx_weight *w)
{
  fx_backend *b = p->b;
  int status;

  if (w->bias != NULL) {
    g_assert (w->n <= PIECE / FX_NF4_BLOCK);
    for (gint64 i = 0; i < w->n; i++)
      p->scaled[i] = 0.02f * p->values[i];
    FX_TRY (fx_upload (p->b, (void *)w->bias, p->scaled, (gsize)w->n * sizeof (float)));
  }
  if (w->home == FX_HOME_HOST)
    p->b = p->host;
  status = fill_data (p, w);
  p->b = b;
  return status;
}

static int
fill_norm (Pool *p, const float *norm, int n)
{
  for (int i = 0; i < n; i++)
    p->scaled[i] = 1;
  return fx_upload (p->b, (void *)norm, p->scaled, (gsize)n * sizeof (float));
}

static int
fill_all (Pool *p, FluxTransformer *t)
{
  const int head = t->config.attention_head_dim;

  FX_TRY (fill (p, &t->x_embedder));
  FX_TRY (fill (p, &t->context_embedder));
  FX_TRY (fill (p, &t->norm_out));
  FX_TRY (fill (p, &t->proj_out));
  for (int i = 0; i < 3; i++) {
    const FluxMlp *m = i == 0 ? &t->time : i == 1 ? &t->guidance : &t->text;

    FX_TRY (fill (p, &m->first));
    FX_TRY (fill (p, &m->second));
  }
  for (int i = 0; i < t->config.num_layers; i++) {
    for (int s = 0; s < FLUX_N_STREAMS; s++) {
      const FluxDouble *d = &t->doubles[i];
      const fx_weight *all[] = {
          &d->mod[s], &d->qkv[s], &d->out[s], &d->fc1[s], &d->fc2[s]};

      for (guint j = 0; j < G_N_ELEMENTS (all); j++)
        FX_TRY (fill (p, all[j]));
      FX_TRY (fill_norm (p, d->norm_q[s], head));
      FX_TRY (fill_norm (p, d->norm_k[s], head));
    }
  }
  for (int i = 0; i < t->config.num_single_layers; i++) {
    const FluxSingle *s = &t->singles[i];
    const fx_weight *all[] = {&s->mod, &s->qkv, &s->mlp, &s->out};

    for (guint j = 0; j < G_N_ELEMENTS (all); j++)
      FX_TRY (fill (p, all[j]));
    FX_TRY (fill_norm (p, s->norm_q, head));
    FX_TRY (fill_norm (p, s->norm_k, head));
  }
  return fx_sync (p->b);
}

/* Normal numbers of 2 bytes over all of an arena. fp32 values in it become normal numbers
 * too: their upper half is one. Signed bytes are any. */
static int
fill_arena (Pool *p, const fx_arena *a)
{
  pool_scale (p, 0.02f);
  for (gsize i = 0; i < a->size; i += (gsize)PIECE * 2)
    FX_TRY (fx_upload (p->b, a->base + i, p->bf16 + pool_place (p),
        MIN ((gsize)PIECE * 2, a->size - i)));
  return fx_sync (p->b);
}

gboolean
random_arena (fx_backend *b, const fx_arena *arena, GError **error)
{
  Pool *pool = pool_new (b);
  int status = fill_arena (pool, arena);

  pool_free (pool);
  if (status != FX_OK)
    flux_error_from_fx (error, status, "Cannot make random weights");
  return status == FX_OK;
}

/* transformer/config.json of examples/models/tiny-flux-emoji. */
static void
shrink (FluxConfig *c)
{
  c->num_layers = 3;
  c->num_single_layers = 6;
  c->num_attention_heads = 4;
  c->attention_head_dim = 64;
  c->axes_dims_rope[0] = 8;
  c->axes_dims_rope[1] = c->axes_dims_rope[2] = 28;
  c->joint_attention_dim = 192;
  c->pooled_projection_dim = 128;
}

FluxTransformer *
random_transformer (
    fx_backend *b, fx_qtype qtype, fx_home home, gboolean tiny, GError **error)
{
  FluxTransformer *t;
  FluxConfig c;
  Pool *pool;
  int status;

  flux_config_init_dev (&c);
  if (tiny)
    shrink (&c);
  t = flux_transformer_new_planned (&c, b, qtype, home, error);
  if (t == NULL)
    return NULL;
  pool = pool_new (b);
  pool->host = t->host_backend;
  status = fill_all (pool, t);
  pool_free (pool);
  if (status != FX_OK) {
    flux_error_from_fx (error, status, "Cannot make random weights");
    g_clear_pointer (&t, flux_transformer_unref);
  }
  return t;
}
