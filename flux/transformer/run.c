/* flux/transformer/run.c: forward, and forward with backward.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/error.h"
#include "flux/transformer/lora-private.h"
#include "flux/transformer/run-layout.h"

enum { MAX_TOKENS = 1 << 20, MAX_SAMPLES = 1 << 12 };

/* ---- life ---- */

/* What the backward has to do: down to which block, and what its trained modules read. */
static void
note_trained (FluxRun *r, guint slot)
{
  const FluxConfig *c = &r->t->config;
  const guint doubles = flux_slot_single (c, 0, 0);
  const gboolean is_double = slot < doubles;
  const guint kind =
      is_double ? slot % FLUX_DOUBLE_SLOTS : (slot - doubles) % FLUX_SINGLE_SLOTS;
  const guint block = is_double ? slot / FLUX_DOUBLE_SLOTS
                                : c->num_layers + (slot - doubles) / FLUX_SINGLE_SLOTS;

  r->first_trained = MIN (r->first_trained, (int)block);
  if (is_double && (kind == FLUX_D_FC1 || kind == FLUX_D_FC1_CONTEXT))
    r->train_n2 = TRUE;
  if (is_double ? kind == FLUX_D_FC2 || kind == FLUX_D_FC2_CONTEXT : kind == FLUX_S_OUT)
    r->train_cat = TRUE;
}

static void
find_trained (FluxRun *r)
{
  r->first_trained = r->n_blocks;
  r->max_rank = 0;
  for (guint l = 0; l < r->n_loras; l++) {
    r->max_rank = MAX (r->max_rank, flux_lora_get_rank (r->loras[l]));
    for (guint s = 0; s < flux_slot_end (&r->t->config, 0); s++) {
      const fx_lora *m = flux_lora_module (r->loras[l], s);

      if (m != NULL && m->da != NULL)
        note_trained (r, s);
    }
  }
}

/* Lays the buffers out, into memory that is reserved for them or, measuring, into none.
 */
static gboolean
lay_out (FluxRun *r, gboolean reserve, GError **error)
{
  int status = flux_run_lay_out (r);

  if (status == FX_OK && reserve) {
    fx_arena_rewind (&r->arena, 0);
    status = fx_arena_reserve (&r->arena, r->arena.high);
    if (status == FX_OK)
      status = flux_run_lay_out (r);
  }
  if (status != FX_OK)
    flux_error_from_fx (error, status, "Cannot reserve the working memory");
  return status == FX_OK;
}

static gboolean
check_sizes (int max_text, int max_image, int max_samples, GError **error)
{
  if (max_text >= 1 && max_text <= MAX_TOKENS && max_image >= 1 &&
      max_image <= MAX_TOKENS && max_samples >= 1 && max_samples <= MAX_SAMPLES)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "A run takes 1 to %d text tokens, 1 to %d image tokens and 1 to %d samples, not "
      "%d, %d and %d.",
      MAX_TOKENS, MAX_TOKENS, MAX_SAMPLES, max_text, max_image, max_samples);
  return FALSE;
}

/* Adapters of this shape of model, at most one of which is to be trained. */
static gboolean
check_loras (const FluxConfig *c, FluxRunMode mode, FluxLora *const *loras, guint n,
    GError **error)
{
  guint trained = 0;

  for (guint i = 0; i < n; i++) {
    const FluxConfig *l = &loras[i]->config;

    if (l->num_layers != c->num_layers || l->num_single_layers != c->num_single_layers ||
        flux_config_dim (l) != flux_config_dim (c)) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
          "An adapter for %d + %d blocks of width %d does not fit a transformer of %d + "
          "%d blocks of width %d.",
          l->num_layers, l->num_single_layers, flux_config_dim (l), c->num_layers,
          c->num_single_layers, flux_config_dim (c));
      return FALSE;
    }
    trained += flux_lora_gradients (loras[i]) != NULL;
  }
  if (mode == FLUX_RUN_FORWARD || trained <= 1)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "Only one adapter can be trained at a time; %u have gradients.", trained);
  return FALSE;
}

static FluxRun *
run_new (FluxTransformer *t, FluxRunMode mode, int max_text_tokens, int max_image_tokens,
    int max_samples, FluxLora *const *loras, guint n_loras, gboolean reserve,
    GError **error)
{
  FluxRun *r;

  if (!check_sizes (max_text_tokens, max_image_tokens, max_samples, error) ||
      !check_loras (&t->config, mode & ~FLUX_RUN_LEAN, loras, n_loras, error))
    return NULL;
  r = g_new0 (FluxRun, 1);
  r->t = flux_transformer_ref (t);
  r->b = t->backend;
  r->mode = mode & ~FLUX_RUN_LEAN;
  r->max_text = max_text_tokens;
  r->max_image = max_image_tokens;
  r->max_samples = max_samples;
  r->n_blocks = t->config.num_layers + t->config.num_single_layers;
  r->loras = g_new (FluxLora *, MAX (n_loras, 1));
  for (guint i = 0; i < n_loras; i++)
    r->loras[i] = loras[i];
  r->n_loras = n_loras;
  find_trained (r);
  /* In fp32, which is the CPU, a product expands its weight as fast as it reads it. */
  r->keep_expanded = r->mode != FLUX_RUN_FORWARD && (mode & FLUX_RUN_LEAN) == 0 &&
                     r->b->compute != FX_F32;
  r->beside = (mode & FLUX_RUN_LEAN) == 0;
  r->slot_bytes = flux_stream_slot_bytes (t);
  for (int i = 0; i < FLUX_SLOTS; i++)
    r->slots[i].block = FLUX_NO_BLOCK;
  r->names = g_array_new (FALSE, FALSE, sizeof (FluxNamed));
  r->lanes = g_new0 (FluxLane, max_samples);
  for (int i = 0; i < max_samples; i++) {
    r->lanes[i].x = g_new0 (fx_mat, r->n_blocks + 1);
    r->lanes[i].acts = g_new0 (FluxActs, MAX (r->n_blocks, 1));
  }
  fx_arena_init (&r->arena, r->b, "run");
  fx_arena_init (&r->resident, r->b, "expanded weights");
  if (!lay_out (r, reserve, error))
    g_clear_pointer (&r, flux_run_free);
  return r;
}

FluxRun *
flux_run_new (FluxTransformer *t, FluxRunMode mode, int max_text_tokens,
    int max_image_tokens, int max_samples, FluxLora *const *loras, guint n_loras,
    GError **error)
{
  return run_new (t, mode, max_text_tokens, max_image_tokens, max_samples, loras, n_loras,
      TRUE, error);
}

gsize
flux_run_measure (FluxTransformer *t, FluxRunMode mode, int max_text_tokens,
    int max_image_tokens, int max_samples, FluxLora *const *loras, guint n_loras,
    GError **error)
{
  g_autoptr (FluxRun) r = run_new (t, mode, max_text_tokens, max_image_tokens,
      max_samples, loras, n_loras, FALSE, error);

  return r != NULL ? r->arena.high : 0;
}

void
flux_run_free (FluxRun *self)
{
  if (self == NULL)
    return;
  fx_arena_clear (&self->resident);
  fx_arena_clear (&self->arena);
  g_free (self->filled);
  for (int i = 0; i < self->max_samples; i++) {
    g_free (self->lanes[i].x);
    g_free (self->lanes[i].acts);
  }
  g_free (self->lanes);
  g_free (self->loras);
  g_free (self->staging);
  g_array_unref (self->names);
  flux_transformer_unref (self->t);
  g_free (self);
}

gsize
flux_run_get_bytes (FluxRun *self)
{
  return self->arena.size + self->resident.size;
}

char *
flux_run_describe (FluxRun *self)
{
  GString *text = g_string_new (NULL);

  for (guint i = 0; i < self->names->len; i++) {
    const FluxNamed *n = &g_array_index (self->names, FluxNamed, i);

    g_string_append_printf (text, "%-34s %10.2f\n", n->name, n->bytes / 1048576.0);
  }
  return g_string_free (text, FALSE);
}

/* ---- one pass ---- */

enum { CANCELLED = 1 }; /* a status that is none of kernels/ */

void
flux_run_set_progress (FluxRun *self, FluxProgressFunc progress, gpointer data)
{
  self->progress = progress;
  self->progress_data = data;
}

static int
ask (const FluxRun *r)
{
  return r->progress == NULL || r->progress ("transformer", -1, r->progress_data)
             ? FX_OK
             : CANCELLED;
}

static void
set_error (GError **error, int status, const char *what)
{
  if (status == CANCELLED)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED,
        "The transformer was stopped between two blocks.");
  else
    flux_error_from_fx (error, status, what);
}

static gboolean
check_input (FluxRun *r, const FluxInput *in, GError **error)
{
  gint64 image = (gint64)in->grid_height * in->grid_width;

  if (in->text_tokens >= 1 && in->text_tokens <= r->max_text && in->grid_height >= 1 &&
      in->grid_width >= 1 && image <= r->max_image)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "A sample of %d text tokens and %d x %d image tokens does not fit a run made for "
      "%d "
      "and %d.",
      in->text_tokens, in->grid_height, in->grid_width, r->max_text, r->max_image);
  return FALSE;
}

static int
start_lane (FluxRun *r, guint index, const FluxInput *in)
{
  FluxLane *lane = &r->lanes[index];
  const int text = in->text_tokens, image = in->grid_height * in->grid_width;

  if (lane->text_tokens != text)
    lane->grid_height = 0; /* the rotary table moves with the text's length */
  lane->text_tokens = text;
  lane->image_tokens = image;
  lane->tokens = text + image;
  lane->mods = fx_rows (r->mods, index, 1);
  for (int i = 0; i <= r->n_blocks; i++)
    lane->x[i].rows = lane->tokens;
  lane->dx.rows = lane->tokens;
  FX_TRY (flux_rope_update (r, lane, in->grid_height, in->grid_width));
  return flux_embed_tokens (r, lane, in);
}

/* The weights of the block being computed. */
typedef struct {
  int index; /* of the block */
  FluxDouble d;
  FluxSingle s;
} Block;

static int
open_block (FluxRun *r, int index, gboolean backward, Block *b)
{
  const int doubles = r->t->config.num_layers;

  b->index = index;
  FX_TRY (flux_stream_open (r, index, backward));
  FX_TRY (index < doubles ? flux_expand_double (r, index, backward, &b->d)
                          : flux_expand_single (r, index - doubles, backward, &b->s));
  if (r->slot_bytes == 0 || index < r->n_modulated)
    return FX_OK;
  r->n_modulated = index + 1;
  return index < doubles ? flux_condition_double (r, index, &b->d)
                         : flux_condition_single (r, index - doubles, &b->s);
}

static int
block_forward (FluxRun *r, FluxLane *lane, const Block *b, FluxPass pass)
{
  const int i = b->index, doubles = r->t->config.num_layers;
  FluxActs *a = &lane->acts[i];

  if (i < doubles)
    return flux_double_forward (r, lane, &b->d, i, a, lane->x[i], lane->x[i + 1], pass);
  return flux_single_forward (
      r, lane, &b->s, i - doubles, a, lane->x[i], lane->x[i + 1], pass);
}

static int
block_backward (FluxRun *r, FluxLane *lane, const Block *b, gboolean fresh)
{
  const int i = b->index, doubles = r->t->config.num_layers;
  const gboolean want_dx = i > r->first_trained;
  FluxActs *a = &lane->acts[i];

  if (i < doubles)
    return flux_double_backward (r, lane, &b->d, i, a, lane->x[i], fresh, want_dx);
  return flux_single_backward (
      r, lane, &b->s, i - doubles, a, lane->x[i], fresh, want_dx);
}

/* Lanes [first, end) through the blocks before `last`. */
static int
blocks_forward (FluxRun *r, int last, guint first, guint end)
{
  Block b;

  for (int i = 0; i < last; i++) {
    gboolean keep = r->mode == FLUX_RUN_STORE && i >= r->first_trained;

    FX_TRY (ask (r));
    FX_TRY (open_block (r, i, FALSE, &b));
    for (guint l = first; l < end; l++)
      FX_TRY (
          block_forward (r, &r->lanes[l], &b, keep ? FLUX_PASS_KEEP : FLUX_PASS_PLAIN));
  }
  return FX_OK;
}

/* Lanes [first, end) back through the blocks before `last`. */
static int
blocks_backward (FluxRun *r, int last, guint first, guint end)
{
  const gboolean again = r->mode == FLUX_RUN_RECOMPUTE;
  Block b;

  for (int i = last - 1; i >= r->first_trained; i--) {
    FX_TRY (open_block (r, i, TRUE, &b));
    for (guint l = first; l < end; l++) {
      if (again)
        FX_TRY (block_forward (r, &r->lanes[l], &b, FLUX_PASS_REDO));
      FX_TRY (block_backward (r, &r->lanes[l], &b, again));
    }
  }
  return FX_OK;
}

static int
forward (FluxRun *r, const FluxInput *in, float *out)
{
  FluxLane *lane = &r->lanes[0];
  fx_mat pred, wide;

  FX_TRY (flux_condition (r, &in, 1));
  FX_TRY (start_lane (r, 0, in));
  FX_TRY (blocks_forward (r, r->n_blocks, 0, 1));
  FX_TRY (flux_final_forward (r, lane));
  pred = fx_rows (lane->pred, 0, lane->image_tokens);
  if (pred.dtype != FX_F32) {
    /* cat is free after the last block, and large enough. */
    wide = fx_mat_new (r->cat.p, pred.rows, pred.cols, FX_F32);
    FX_TRY (fx_copy (r->b, wide, pred));
    pred = wide;
  }
  return fx_download (r->b, out, pred.p, (gsize)(pred.rows * pred.cols) * sizeof (float));
}

gboolean
flux_run_forward (FluxRun *self, const FluxInput *in, float *out, GError **error)
{
  int status;

  if (!check_input (self, in, error))
    return FALSE;
  status = forward (self, in, out);
  if (status != FX_OK)
    set_error (error, status, "The transformer's forward pass failed");
  return status == FX_OK;
}

/* Lanes [first, end) there and back. In the last block each lane turns at once, so that
 * nothing of it has to be computed again. */
static int
there_and_back (
    FluxRun *r, const FluxMicro *micros, guint first, guint end, float grad_scale)
{
  const int last = r->n_blocks - 1;
  Block b;

  for (guint l = first; l < end; l++)
    FX_TRY (start_lane (r, l, &micros[l].in));
  FX_TRY (blocks_forward (r, last, first, end));
  FX_TRY (open_block (r, last, TRUE, &b));
  for (guint l = first; l < end; l++) {
    FluxLane *lane = &r->lanes[l];

    FX_TRY (block_forward (r, lane, &b, FLUX_PASS_KEEP));
    FX_TRY (flux_final_forward (r, lane));
    FX_TRY (
        flux_final_backward (r, lane, l, micros[l].target, micros[l].weight, grad_scale));
    if (last >= r->first_trained)
      FX_TRY (block_backward (r, lane, &b, TRUE));
  }
  return blocks_backward (r, last, first, end);
}

static int
gradients (FluxRun *r, const FluxMicro *micros, guint n, float grad_scale,
    gboolean layer_major, double *losses)
{
  g_autofree const FluxInput **inputs = g_new (const FluxInput *, n);

  for (guint i = 0; i < n; i++)
    inputs[i] = &micros[i].in;
  FX_TRY (flux_condition (r, inputs, n));
  if (layer_major) {
    FX_TRY (there_and_back (r, micros, 0, n, grad_scale));
  } else {
    for (guint i = 0; i < n; i++)
      FX_TRY (there_and_back (r, micros, i, i + 1, grad_scale));
  }
  return fx_download (r->b, losses, r->losses, n * sizeof (double));
}

gboolean
flux_run_gradients (FluxRun *self, const FluxMicro *micros, guint n, float grad_scale,
    gboolean layer_major, double *losses, GError **error)
{
  int status;

  if (self->mode == FLUX_RUN_FORWARD || n < 1 || n > (guint)self->max_samples) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "This run takes 1 to %d samples with gradients, not %u.",
        self->mode == FLUX_RUN_FORWARD ? 0 : self->max_samples, n);
    return FALSE;
  }
  for (guint i = 0; i < n; i++) {
    if (!check_input (self, &micros[i].in, error))
      return FALSE;
  }
  status = gradients (self, micros, n, grad_scale, layer_major, losses);
  if (status != FX_OK)
    set_error (error, status, "The training step failed");
  return status == FX_OK;
}
