/* kernels/cuda/lora-bwd.cu: gradients through low-rank adapters.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Four launches, and each matrix goes through once: x for h (lora-fwd.cu); dy for dh =
 * scale dy B and dB; x again for dA, with dx += dh A; then the partial sums of dA and dB
 * are added up. dh is a sum over columns and dA and dB are sums over rows: blocks own
 * tiles, leave partial sums of both, and whoever reads those adds them in order. */
#include "kernels/cuda/lora-bwd.cuh"

#define FEW_ROWS 512 /* below it, chunks of 32 rows; else of 64 and more */
#define MANY_CHUNKS 32
#define DY_BLOCKS 400 /* blocks that fill a GPU */

/* dA and dB of every module += what the chunks left. */
static __global__ void
add_chunks (const float *partial, int64_t stride, int chunks,
    const __grid_constant__ lora_group g)
{
  const int64_t at = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  const int64_t all_a = (int64_t)g.width * g.k;
  const bool is_a = at < all_a;
  const int64_t size = (int64_t)g.rank * (is_a ? g.k : g.part);
  const int64_t i = is_a ? at : at - all_a;

  if (at >= stride)
    return;
  const int part = (int)(i / size);
  float *out = is_a ? g.da[part] : g.db[part];

  if (out != NULL)
    out[i % size] += sum_of (partial + at, stride, chunks) * (is_a ? 1 : g.scale[part]);
}

/* Rows of a block of both passes: few enough to fill the GPU, and so many that partial
 * sums stay small beside what is read. */
static int
chunk_rows (int64_t rows)
{
  const int64_t of_64 = fxc_blocks (fxc_blocks (rows, MANY_CHUNKS), 64) * (int64_t)64;

  if (rows < FEW_ROWS)
    return 32;
  return of_64 < LORA_CHUNK ? (int)of_64 : LORA_CHUNK;
}

static int
plan (fx_cuda *c, lora_work *w, const lora_group *g, int64_t rows, bool needs_h,
    bool trained)
{
  const int64_t tile = g->rank <= 4 ? 256 : 128, tiles = fxc_blocks (g->part, tile);
  void *p;

  w->chunk = chunk_rows (rows);
  w->chunks = (int)fxc_blocks (rows, w->chunk);
  w->dy_tiles = lora_tiles_a_block (tiles * g->n * w->chunks, DY_BLOCKS, tiles);
  w->dy_pieces = (int)fxc_blocks (tiles, w->dy_tiles);
  w->h_splits = fxc_lora_splits (rows, g->k);
  w->stride = (int64_t)g->width * g->k + (int64_t)g->n * g->part * g->rank;
  FX_TRY (fxc_scratch (c, FXC_SCRATCH_MATRIX,
      sizeof (float) * (w->dy_pieces + (needs_h ? w->h_splits : 0)) *
          (size_t)(rows * g->width),
      &p));
  w->dh = (float *)p;
  w->h = needs_h ? w->dh + w->dy_pieces * rows * g->width : NULL;
  w->sums = NULL;
  if (trained) {
    FX_TRY (fxc_scratch (
        c, FXC_SCRATCH_PARTIAL, sizeof (float) * w->chunks * (size_t)w->stride, &p));
    w->sums = (float *)p;
  }
  return FX_OK;
}

static int
backward (fx_cuda *c, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const lora_group *g)
{
  const bool needs_h = g->db[0] != NULL && h.p == NULL;
  const bool trained = g->da[0] != NULL || g->db[0] != NULL;
  lora_work w;

  FX_TRY (plan (c, &w, g, x.rows, needs_h, trained));
  if (needs_h)
    FX_TRY (fxc_lora_down (c, w.h, x, g));
  FX_TRY (fxc_lora_bwd_dy (c, dy, h, g, &w));
  if (dx.p != NULL || g->da[0] != NULL)
    FX_TRY (fxc_lora_bwd_x (c, dx, x, g, &w));
  if (trained)
    add_chunks<<<fxc_blocks (w.stride, 256), 256, 0, c->queue.stream>>> (
        w.sums, w.stride, w.chunks, *g);
  FXC_LAUNCHED (c, "lora_bwd");
}

int
fxc_lora_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n)
{
  const int64_t part = dy.cols / n;

  FX_TRY (fxc_lora_dtype (fxc (b), "dy", dy, x));
  FX_TRY (fxc_lora_dtype (fxc (b), "dx", dx, x));
  FX_TRY (fxc_lora_dtype (fxc (b), "h", h, x));
  for (int i = 0; i < n; i += LORA_PARTS) {
    const int many = n - i < LORA_PARTS ? n - i : LORA_PARTS;
    const lora_group g = fxc_lora_group (l + i, many, x.cols, part);

    FX_TRY (backward (fxc (b), dx, fx_cols (dy, i * part, many * part), x,
        h.p == NULL ? h : fx_cols (h, i * (int64_t)l->rank, g.width), &g));
  }
  return FX_OK;
}
