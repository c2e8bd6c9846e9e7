/* SPDX-License-Identifier: LGPL-2.1-or-later
 * 2-D convolution of an image [pixels, channels].
 *
 * No image of patches is made: for one row of outputs and one tap of the kernel, the
 * inputs are rows of a matrix with a constant stride, and the outputs whose tap falls
 * outside the image are a prefix or a suffix. So a row is kernel^2 products of the inner
 * kernels added up in a buffer of SEGMENT x COLS floats. The weights are transposed once
 * a call into blocks of up to COLS outputs, [kernel * kernel * in, block's outputs], and
 * used DEPTH rows at a time, which stay in the first-level cache with the sums. */
#include <string.h>

#include "gemm-kernel.h"
#include "panel.h"

enum {
  COLS = FX_TILE_VECTORS * FX_VL, /* outputs at a time, at most */
  SEGMENT = 64,                   /* pixels at a time */
  DEPTH = 128,                    /* input channels at a time */
};

typedef struct {
  fx_cpu *cpu;
  fx_mat y, x;
  const fx_weight *w;
  fx_conv c;
  const float *direct;     /* W in fp32, or NULL */
  float *packed;           /* block after block */
  int64_t vectors, blocks; /* that hold an output pixel, and are dealt to the blocks */
  int64_t out_h, out_w, segments; /* of a row */
} conv_job;

static inline int64_t
smaller (int64_t a, int64_t b)
{
  return a < b ? a : b;
}

/* First output of a block, a multiple of FX_VL: 2 blocks of 2 vectors, not 3 and 1. */
static inline int64_t
block_start (const conv_job *job, int64_t block)
{
  return job->vectors * block / job->blocks * FX_VL;
}

/* A block's outputs of W, transposed; the missing ones of the last vector are 0. */
static void
pack_blocks (void *arg, int worker, int64_t begin, int64_t end)
{
  const conv_job *job = arg;
  int64_t k = job->w->k;
  float *row = job->cpu->scratch[worker];

  for (int64_t block = begin; block < end; block++) {
    int64_t first = block_start (job, block), ld = block_start (job, block + 1) - first;
    float *dst = job->packed + first * k;
    for (int64_t r = 0; r < ld; r++) {
      int64_t n = first + r;
      const float *src = job->direct == NULL ? row : job->direct + n * k;
      if (n < job->w->n && job->direct == NULL)
        fx_panel_expand (job->w, n, 1, 0, k, row, k);
      for (int64_t i = 0; i < k; i++)
        dst[i * ld + r] = n < job->w->n ? src[i] : 0.0f;
    }
  }
}

/* Outputs [lo, hi) of `count` from output `first` on, along one axis, whose tap lies
 * within the input. */
static void
inside (int64_t first, int64_t count, int64_t tap, int64_t pad, int64_t stride,
    int64_t size, int64_t *lo, int64_t *hi)
{
  /* 0 <= (first + i) * stride + tap - pad < size */
  int64_t below = pad - tap, above = size - 1 + pad - tap;

  *lo = below <= 0 ? 0 : (below + stride - 1) / stride - first;
  *hi = above < 0 ? 0 : above / stride + 1 - first;
  *lo = *lo < 0 ? 0 : *lo;
  *hi = smaller (*hi, count);
}

/* sum += the products of one tap: `rows` rows at a, [channels, ld] of weights at b. */
static void
add_tap (fx_product p, int64_t rows, int64_t channels)
{
  for (int64_t d = 0; d < channels; d += DEPTH) {
    fx_gemm_product (&p, rows, p.b_ld, smaller (DEPTH, channels - d), true);
    p.a += DEPTH;
    p.b += DEPTH * p.b_ld;
  }
}

/* One segment of a row of outputs, one block of outputs. */
static void
conv_item (const conv_job *job, float *sum, int64_t block, int64_t oy, int64_t ox)
{
  const fx_conv *c = &job->c;
  int64_t channels = job->x.cols, count = smaller (SEGMENT, job->out_w - ox);
  int64_t first = block_start (job, block), ld = block_start (job, block + 1) - first;
  const float *b = job->packed + first * job->w->k;
  fx_product p = {.a_row = c->stride * job->x.ld, .a_depth = 1, .b_ld = ld, .c_ld = ld};

  memset (sum, 0, (size_t)(count * ld) * sizeof *sum);
  for (int64_t ky = 0; ky < c->kernel; ky++) {
    int64_t iy = oy * c->stride + ky - c->pad_top, lo, hi;
    for (int64_t kx = 0; kx < c->kernel; kx++, b += channels * ld) {
      inside (ox, count, kx, c->pad_left, c->stride, c->width, &lo, &hi);
      if (iy < 0 || iy >= c->height || lo >= hi)
        continue;
      p.a = (const float *)job->x.p +
            (iy * c->width + (ox + lo) * c->stride + kx - c->pad_left) * job->x.ld;
      p.b = b;
      p.c = sum + lo * ld;
      add_tap (p, hi - lo, channels);
    }
  }
  for (int64_t i = 0; i < count; i++) {
    float *y = (float *)job->y.p + (oy * job->out_w + ox + i) * job->y.ld + first;
    for (int64_t v = 0; v < ld; v += FX_VL) {
      int64_t wide = smaller (FX_VL, job->w->n - first - v);
      vf at = vf_load (sum + i * ld + v);
      if (job->w->bias != NULL)
        at += VF_LOAD (job->w->bias + first + v, wide);
      VF_STORE (y + v, at, wide);
    }
  }
}

static void
conv_items (void *arg, int worker, int64_t begin, int64_t end)
{
  const conv_job *job = arg;
  int64_t items = job->out_h * job->segments;

  for (int64_t i = begin; i < end; i++) {
    int64_t at = i % items;
    conv_item (job, job->cpu->scratch[worker], i / items, at / job->segments,
        at % job->segments * SEGMENT);
  }
}

int
fx_cpu_conv2d (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *c)
{
  fx_cpu *cpu = fx_cpu_of (b);
  conv_job job = {.cpu = cpu, .y = y, .x = x, .w = w, .c = *c};
  int64_t k = w->k;
  size_t scratch = SEGMENT * COLS;

  /* A 1 x 1 convolution knows no rows: long segments. */
  if (c->kernel == 1 && c->stride == 1 && y.rows == x.rows) {
    job.c.height = 1;
    job.c.width = (int)smaller (x.rows, INT32_MAX);
    if (job.c.width != x.rows)
      job.c = *c;
  }
  job.out_w =
      (job.c.width + job.c.pad_left + job.c.pad_right - c->kernel) / c->stride + 1;
  job.out_h = y.rows / job.out_w;
  job.vectors = (w->n + FX_VL - 1) / FX_VL;
  job.blocks = (job.vectors + FX_TILE_VECTORS - 1) / FX_TILE_VECTORS;
  job.segments = (job.out_w + SEGMENT - 1) / SEGMENT;
  job.direct = fx_panel_direct (w);
  if (job.direct == NULL && scratch < (size_t)k)
    scratch = (size_t)k;
  FX_TRY (fx_cpu_scratch (cpu, "conv2d", scratch * sizeof (float)));
  FX_TRY (
      fx_cpu_shared (cpu, "conv2d", (size_t)(job.vectors * FX_VL * k) * sizeof (float)));
  job.packed = cpu->shared;
  fx_pool_run_indexed (cpu->pool, job.blocks, 1, pack_blocks, &job);
  fx_pool_run_indexed (cpu->pool, job.blocks * job.out_h * job.segments,
      fx_cpu_grain (smaller (SEGMENT, job.out_w) * k * smaller (COLS, w->n), 1 << 20),
      conv_items, &job);
  return FX_OK;
}
