/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Linear layers: y = x W^T + bias, and dx = dy W.
 *
 * Forward: rows of W lie along the depth, so W is the operand whose elements are
 * broadcast; x is transposed once into [k, tokens], tokens go across the vectors, and
 * tiles of y^T are transposed on their way out. W needs no transposition, which makes
 * expanding 4-bit weights cheap: PANEL rows at a time, into the second-level cache.
 * Backward: rows of W go across the vectors as they are.
 * A few tokens would leave most of a vector idle: skinny.c takes those. */
#include "gemm-kernel.h"
#include "panel.h"
#include "rounded.h"
#include "skinny.h"
#include "transpose.h"

enum {
  PANEL = 32,   /* rows of W at a time, forward */
  TOKENS = 96,  /* tokens at a time, forward */
  DEPTH = 2048, /* depth at a time, forward: [DEPTH, TOKENS] floats fit the L2 cache */
  GROUP = 256,  /* rows of W that share a packing of x when the depth is cut */
  GAP = 16,   /* between rows of a panel: strides of 4096 bytes would share cache sets */
  COLS = 64,  /* columns of W at a time, backward */
  ROWS = 512, /* rows of W at a time, backward */
  MANY = 384, /* tokens at a time, backward */
  FAR = 2048, /* rows of W this long are copied: each lies in a page of its own */
};

typedef struct {
  fx_cpu *cpu;
  fx_mat y, x; /* backward: dx, dy */
  const fx_weight *w;
  const float *direct; /* W in fp32, or NULL */
  bool beta;
  int64_t group; /* forward: rows of W an item covers; backward: tokens */
  int64_t count; /* items that share a block of tokens (forward), a panel (backward) */
} gemm_job;

/* Tokens that are packed together: one tile's vectors, dealt evenly (two of 2 rather than
 * 3 and 1), so that 256 rows of them stay in the first-level cache. */
static int64_t
even_width (int64_t tokens)
{
  int64_t vectors = tokens / FX_VL,
          groups = (vectors + FX_TILE_VECTORS - 1) / FX_TILE_VECTORS;

  return (vectors + groups - 1) / groups * FX_VL;
}

static void
forward_item (const gemm_job *job, int worker, int64_t block, int64_t first)
{
  fx_mat x = fx_rows (
             job->x, block * TOKENS, fx_smaller (TOKENS, job->x.rows - block * TOKENS)),
         y = fx_cols (fx_rows (job->y, block * TOKENS, x.rows), first,
             fx_smaller (job->group, job->w->n - first));
  fx_cpu_note *note = &job->cpu->notes[worker];
  int64_t k = x.cols, ld = fx_whole_vectors (x.rows), width = even_width (ld);
  float *xt = job->cpu->scratch[worker], *yt = xt + DEPTH * TOKENS,
        *panel = yt + GROUP * TOKENS;

  for (int64_t d = 0; d < k; d += DEPTH) {
    int64_t deep = fx_smaller (DEPTH, k - d);
    if (note->block != block || note->depth != d) {
      for (int64_t g = 0; g < x.rows; g += width)
        fx_pack_transposed (xt + g * deep, fx_smaller (width, ld - g),
            (const float *)x.p + g * x.ld + d, x.ld, fx_smaller (width, x.rows - g),
            deep);
      *note = (fx_cpu_note){block, d};
    }
    for (int64_t r = 0; r < y.cols; r += PANEL) {
      int64_t rows = fx_smaller (PANEL, y.cols - r);
      fx_product p = {.a_row = k, .a_depth = 1, .c_ld = ld};
      if (job->direct != NULL) {
        p.a = job->direct + (first + r) * k + d;
      } else {
        p.a = panel;
        p.a_row = deep + GAP;
        fx_panel_expand (job->w, first + r, rows, d, deep, panel, p.a_row);
      }
      for (int64_t g = 0; g < x.rows; g += width) {
        p.b_ld = fx_smaller (width, ld - g);
        p.b = xt + g * deep;
        p.c = yt + r * ld + g;
        fx_gemm_product (&p, rows, p.b_ld, deep, d > 0);
      }
    }
  }
  for (int64_t r = 0; r < y.cols; r += FX_VL) {
    int64_t n = fx_smaller (FX_VL, y.cols - r);
    fx_unpack_transposed (fx_cols (y, r, n), yt + r * ld, ld, n,
        job->w->bias == NULL ? NULL : job->w->bias + first + r, job->beta);
  }
}

static void
forward_items (void *arg, int worker, int64_t begin, int64_t end)
{
  const gemm_job *job = arg;

  for (int64_t i = begin; i < end; i++)
    forward_item (job, worker, i / job->count, i % job->count * job->group);
}

int
fx_cpu_gemm (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta)
{
  fx_cpu *cpu = fx_cpu_of (b);
  gemm_job job = {cpu, y, x, w, fx_panel_direct (w), beta, PANEL, 0};
  size_t floats = DEPTH * TOKENS + GROUP * TOKENS + PANEL * (DEPTH + GAP);

  if (w->rounds_inputs)
    FX_TRY (fx_round_operand (cpu, "gemm", &x, w, false));
  job.x = x;
  if (x.rows <= FX_SKINNY)
    return fx_skinny_gemm (cpu, y, x, w, beta);
  if (w->k > DEPTH)
    job.group = GROUP;
  job.count = (w->n + job.group - 1) / job.group;
  FX_TRY (fx_cpu_scratch (cpu, "gemm", floats * sizeof (float)));
  for (int i = 0; i < cpu->threads; i++)
    cpu->notes[i] = (fx_cpu_note){-1, -1};
  fx_pool_run_indexed (
      cpu->pool, (x.rows + TOKENS - 1) / TOKENS * job.count, 1, forward_items, &job);
  return FX_OK;
}

static void
backward_item (const gemm_job *job, int worker, int64_t col, int64_t first)
{
  int64_t n = job->w->n, k = job->w->k, cols = fx_smaller (COLS, k - col);
  fx_mat dy = fx_rows (job->x, first, fx_smaller (job->group, job->x.rows - first)),
         dx = fx_cols (fx_rows (job->y, first, dy.rows), col, cols);
  int64_t ld = fx_whole_vectors (cols);
  bool whole = ld == cols;
  float *panel = job->cpu->scratch[worker], *temp = panel + ROWS * COLS;
  fx_product p = {.a_row = dy.ld, .a_depth = 1, .c = dx.p, .c_ld = dx.ld};

  if (!whole) {
    p.c = temp;
    p.c_ld = ld;
  }
  for (int64_t r = 0; r < n; r += ROWS) {
    int64_t rows = fx_smaller (ROWS, n - r);
    if (job->direct != NULL && whole && k < FAR) {
      p.b = job->direct + r * k + col;
      p.b_ld = k;
    } else {
      p.b = panel;
      p.b_ld = ld;
      if (!whole)
        memset (panel, 0, (size_t)(rows * ld) * sizeof *panel);
      fx_panel_expand (job->w, r, rows, col, cols, panel, ld);
    }
    p.a = (const float *)dy.p + r;
    fx_gemm_product (&p, dy.rows, ld, rows, r > 0 || (job->beta && whole));
  }
  for (int64_t m = 0; m < dy.rows && !whole; m++) {
    float *at = (float *)dx.p + m * dx.ld;
    for (int64_t c = 0; c < cols; c++)
      at[c] = job->beta ? at[c] + temp[m * ld + c] : temp[m * ld + c];
  }
}

static void
backward_items (void *arg, int worker, int64_t begin, int64_t end)
{
  const gemm_job *job = arg;

  for (int64_t i = begin; i < end; i++)
    backward_item (job, worker, i / job->count * COLS, i % job->count * job->group);
}

int
fx_cpu_gemm_dgrad (fx_backend *b, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta)
{
  fx_cpu *cpu = fx_cpu_of (b);
  gemm_job job = {cpu, dx, dy, w, fx_panel_direct (w), beta, MANY, 0};
  int64_t panels = (w->k + COLS - 1) / COLS;
  size_t floats = ROWS * COLS + MANY * COLS;

  if (w->rounds_inputs)
    FX_TRY (fx_round_operand (cpu, "gemm_dgrad", &job.x, w, true));
  /* Few panels: cut the tokens too, so that every thread has work. */
  while (job.group > 4 * FX_TILE_ROWS &&
         panels * ((dy.rows + job.group - 1) / job.group) < 2 * cpu->threads)
    job.group /= 2;
  job.count = (dy.rows + job.group - 1) / job.group;
  FX_TRY (fx_cpu_scratch (cpu, "gemm_dgrad", floats * sizeof (float)));
  fx_pool_run_indexed (cpu->pool, panels * job.count, 1, backward_items, &job);
  return FX_OK;
}
