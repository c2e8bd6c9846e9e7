/* flux/train/optimiser.c: AdamW over an adapter's flat buffers. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/train/optimiser.h"

#include <math.h>

#include "flux/error.h"

/* bitsandbytes' min_8bit_size. */
enum { MIN_8BIT = 4096 };

/* Consecutive tensors with the same kind of state. */
typedef struct {
  gsize offset, n;
  gboolean eight;
  float *m, *v;     /* fp32 */
  fx_adam8_state q; /* 8 bits */
} Range;

struct _FluxAdam {
  FluxLora *lora;
  fx_backend *backend;
  gboolean decay_first;
  GArray *ranges;
  fx_arena arena;
  float *map_m, *map_v;
  double *sum;
};

static gsize
n_blocks (gsize n)
{
  return (n + FX_ADAM8_BLOCK - 1) / FX_ADAM8_BLOCK;
}

static void
find_ranges (FluxAdam *self, FluxOptimizer kind)
{
  guint n;
  const FluxLoraTensor *t = flux_lora_get_tensors (self->lora, &n);

  for (guint i = 0; i < n; i++) {
    gboolean eight = kind == FLUX_OPTIMIZER_ADAMW8BIT && t[i].n_elements >= MIN_8BIT;
    Range *last = self->ranges->len > 0
                      ? &g_array_index (self->ranges, Range, self->ranges->len - 1)
                      : NULL;
    Range r = {.offset = t[i].offset, .n = t[i].n_elements, .eight = eight};

    if (last != NULL && last->eight == eight)
      last->n = t[i].offset + t[i].n_elements - last->offset;
    else
      g_array_append_val (self->ranges, r);
  }
}

/* Run twice: on an arena that measures, then on the reserved one. */
static int
take_all (FluxAdam *self)
{
  fx_arena *a = &self->arena;

  FX_TRY (fx_arena_take (a, sizeof (double), (void **)&self->sum));
  FX_TRY (fx_arena_take (a, 256 * sizeof (float), (void **)&self->map_m));
  FX_TRY (fx_arena_take (a, 256 * sizeof (float), (void **)&self->map_v));
  for (guint i = 0; i < self->ranges->len; i++) {
    Range *r = &g_array_index (self->ranges, Range, i);
    gsize blocks = n_blocks (r->n) * sizeof (float);

    if (r->eight) {
      FX_TRY (fx_arena_take (a, r->n, (void **)&r->q.m));
      FX_TRY (fx_arena_take (a, r->n, (void **)&r->q.v));
      FX_TRY (fx_arena_take (a, blocks, (void **)&r->q.absmax_m));
      FX_TRY (fx_arena_take (a, blocks, (void **)&r->q.absmax_v));
      r->q.map_m = self->map_m;
      r->q.map_v = self->map_v;
    } else {
      FX_TRY (fx_arena_take (a, r->n * sizeof (float), (void **)&r->m));
      FX_TRY (fx_arena_take (a, r->n * sizeof (float), (void **)&r->v));
    }
  }
  return FX_OK;
}

static int
allocate (FluxAdam *self)
{
  fx_backend *b = self->backend;

  fx_arena_init (&self->arena, b, "optimiser");
  FX_TRY (take_all (self));
  fx_arena_rewind (&self->arena, 0);
  FX_TRY (fx_arena_reserve (&self->arena, self->arena.high));
  FX_TRY (take_all (self));
  /* What bitsandbytes and torch start from; code 0 times an absmax of 0 is 0. */
  FX_TRY (fx_zero (b, self->arena.base, self->arena.used));
  FX_TRY (fx_upload (b, self->map_m, fx_dynamic_map (true), 256 * sizeof (float)));
  return fx_upload (b, self->map_v, fx_dynamic_map (false), 256 * sizeof (float));
}

FluxAdam *
flux_adam_new (FluxLora *lora, fx_backend *b, FluxOptimizer kind, GError **error)
{
  FluxAdam *self = g_new0 (FluxAdam, 1);
  int status;

  self->lora = lora;
  self->backend = b;
  self->decay_first = kind == FLUX_OPTIMIZER_ADAMW;
  self->ranges = g_array_new (FALSE, TRUE, sizeof (Range));
  find_ranges (self, kind);
  status = allocate (self);
  if (status != FX_OK) {
    flux_error_from_fx (error, status, "Could not set up the optimiser's state");
    flux_adam_free (self);
    return NULL;
  }
  return self;
}

void
flux_adam_free (FluxAdam *self)
{
  if (self == NULL)
    return;
  fx_arena_clear (&self->arena);
  g_array_unref (self->ranges);
  g_free (self);
}

gsize
flux_adam_get_bytes (FluxAdam *self)
{
  return self->arena.size;
}

gboolean
flux_adam_grad_norm (FluxAdam *self, double *norm, GError **error)
{
  fx_backend *b = self->backend;
  double sum = 0;
  int status = fx_zero (b, self->sum, sizeof sum);

  if (status == FX_OK)
    status = fx_sum_squares (b, self->sum, flux_lora_gradients (self->lora),
        (int64_t)flux_lora_n_flat (self->lora));
  if (status == FX_OK)
    status = fx_download (b, &sum, self->sum, sizeof sum);
  if (status != FX_OK) {
    flux_error_from_fx (error, status, "Could not compute the norm of the gradients");
    return FALSE;
  }
  *norm = sqrt (sum);
  return TRUE;
}

gboolean
flux_adam_step (FluxAdam *self, const FluxTrainConfig *c, double learning_rate,
    double grad_scale, guint64 step, GError **error)
{
  fx_adamw o = {.lr = (float)learning_rate,
      .beta1 = (float)c->beta1,
      .beta2 = (float)c->beta2,
      .eps = (float)c->epsilon,
      .weight_decay = (float)c->weight_decay,
      .grad_scale = (float)grad_scale,
      .step = (int)MIN (step, G_MAXINT),
      .decay_first = self->decay_first};
  float *p = flux_lora_parameters (self->lora), *g = flux_lora_gradients (self->lora);
  int status = FX_OK;

  for (guint i = 0; i < self->ranges->len && status == FX_OK; i++) {
    const Range *r = &g_array_index (self->ranges, Range, i);

    if (r->eight)
      status = fx_adamw8_step (
          self->backend, p + r->offset, g + r->offset, &r->q, (int64_t)r->n, &o);
    else
      status = fx_adamw_step (
          self->backend, p + r->offset, g + r->offset, r->m, r->v, (int64_t)r->n, &o);
  }
  if (status == FX_OK)
    return TRUE;
  flux_error_from_fx (error, status, "Could not update the adapter");
  return FALSE;
}

guint
flux_adam_pieces (FluxAdam *self, guint tensor, FluxAdamPiece pieces[4])
{
  guint n;
  const FluxLoraTensor *t = flux_lora_get_tensors (self->lora, &n) + tensor;

  for (guint i = 0; i < self->ranges->len; i++) {
    const Range *r = &g_array_index (self->ranges, Range, i);
    gsize at, block;

    if (t->offset < r->offset || t->offset >= r->offset + r->n)
      continue;
    at = t->offset - r->offset;
    block = at / FX_ADAM8_BLOCK;
    if (!r->eight) {
      pieces[0] = (FluxAdamPiece){"state1", FX_F32, t->n_elements, r->m + at};
      pieces[1] = (FluxAdamPiece){"state2", FX_F32, t->n_elements, r->v + at};
      return 2;
    }
    n = (guint)n_blocks (t->n_elements);
    pieces[0] = (FluxAdamPiece){"state1", FX_U8, t->n_elements, r->q.m + at};
    pieces[1] = (FluxAdamPiece){"state2", FX_U8, t->n_elements, r->q.v + at};
    pieces[2] = (FluxAdamPiece){"absmax1", FX_F32, n, r->q.absmax_m + block};
    pieces[3] = (FluxAdamPiece){"absmax2", FX_F32, n, r->q.absmax_v + block};
    return 4;
  }
  return 0;
}
