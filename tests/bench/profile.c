/* tests/bench/profile.c: where the time of a backend goes, op by op.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A table of ops that waits for the device before and after each call of the real one. */
#include "tests/bench/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ROWS = 256 };

typedef struct {
  char name[64];
  long calls;
  double seconds;
} row;

static const fx_ops *real;
static fx_ops timed;
static row rows[MAX_ROWS];
static int n_rows;

static double
now (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void
count (const char *name, double seconds)
{
  int i = 0;

  while (i < n_rows && strcmp (rows[i].name, name) != 0)
    i++;
  if (i == MAX_ROWS)
    return;
  if (i == n_rows)
    snprintf (rows[n_rows++].name, sizeof rows[i].name, "%s", name);
  rows[i].calls++;
  rows[i].seconds += seconds;
}

#define TIMED(b, call, ...)                                                              \
  do {                                                                                   \
    char name_[64];                                                                      \
    double start_;                                                                       \
    int status_;                                                                         \
                                                                                         \
    snprintf (name_, sizeof name_, __VA_ARGS__);                                         \
    real->sync (b);                                                                      \
    start_ = now ();                                                                     \
    status_ = real->call;                                                                \
    real->sync (b);                                                                      \
    count (name_, now () - start_);                                                      \
    return status_;                                                                      \
  } while (0)

static int
upload (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  TIMED (b, upload (b, dst, src, bytes), "upload");
}
static int
download (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  TIMED (b, download (b, dst, src, bytes), "download");
}
static int
zero (fx_backend *b, void *dst, size_t bytes)
{
  TIMED (b, zero (b, dst, bytes), "zero");
}
static int
expand (fx_backend *b, fx_mat dst, const fx_weight *w)
{
  TIMED (b, expand (b, dst, w), "expand %ldx%ld", (long)w->n, (long)w->k);
}
static int
gemm (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta)
{
  TIMED (b, gemm (b, y, x, w, beta), "gemm %ld: %ldx%ld", (long)x.rows, (long)w->n,
      (long)w->k);
}
static int
gemm_gelu (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w)
{
  TIMED (b, gemm_gelu (b, y, x, w), "gemm_gelu %ld: %ldx%ld", (long)x.rows, (long)w->n,
      (long)w->k);
}
static int
gemm_dgrad (fx_backend *b, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta)
{
  TIMED (b, gemm_dgrad (b, dx, dy, w, beta), "dgrad %ld: %ldx%ld%s", (long)dy.rows,
      (long)w->n, (long)w->k, beta ? " +" : "");
}
static int
adaln (fx_backend *b, fx_mat y, float *stats, fx_mat x, const float *shift,
    const float *scale, float eps)
{
  TIMED (b, adaln (b, y, stats, x, shift, scale, eps), "adaln %ld", (long)x.rows);
}
static int
adaln_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, const float *stats, const float *scale)
{
  TIMED (b, adaln_bwd (b, dx, dy, x, stats, scale), "adaln_bwd %ld", (long)x.rows);
}
static int
qknorm_rope (fx_backend *b, fx_mat qk, float *rstd, fx_mat qkv, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim, float eps)
{
  TIMED (b, qknorm_rope (b, qk, rstd, qkv, wq, wk, rope, rope_row, head_dim, eps),
      "qknorm_rope %ld", (long)qk.rows);
}
static int
qknorm_rope_bwd (fx_backend *b, fx_mat dqkv, fx_mat dqk, fx_mat qkv, const float *rstd,
    const float *wq, const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim)
{
  TIMED (b, qknorm_rope_bwd (b, dqkv, dqk, qkv, rstd, wq, wk, rope, rope_row, head_dim),
      "qknorm_rope_bwd %ld", (long)dqk.rows);
}
static int
attention (
    fx_backend *b, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  TIMED (b, attention (b, o, lse, q, k, v, a), "attention %ld", (long)q.rows);
}
static int
attention_bwd (fx_backend *b, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o, fx_mat o,
    const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  TIMED (b, attention_bwd (b, dq, dk, dv, d_o, o, lse, q, k, v, a), "attention_bwd %ld",
      (long)q.rows);
}
static int
act (fx_backend *b, fx_mat y, fx_mat x, fx_mat mul, fx_act kind)
{
  TIMED (b, act (b, y, x, mul, kind), "act %ldx%ld", (long)x.rows, (long)x.cols);
}
static int
act_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_act kind)
{
  TIMED (b, act_bwd (b, dx, dy, x, kind), "act_bwd %ldx%ld", (long)x.rows, (long)x.cols);
}
static int
gate_residual (fx_backend *b, fx_mat out, fx_mat x, fx_mat y, const float *gate)
{
  TIMED (b, gate_residual (b, out, x, y, gate), "gate_residual %ld", (long)x.rows);
}
static int
gate_bwd (fx_backend *b, fx_mat dy, fx_mat dout, const float *gate)
{
  TIMED (b, gate_bwd (b, dy, dout, gate), "gate_bwd %ld", (long)dy.rows);
}
static int
mse (fx_backend *b, double *loss, fx_mat dpred, fx_mat pred, fx_mat target, float weight,
    float grad_scale)
{
  TIMED (b, mse (b, loss, dpred, pred, target, weight, grad_scale), "mse");
}
static int
sum_squares (fx_backend *b, double *sum, const float *x, int64_t n)
{
  TIMED (b, sum_squares (b, sum, x, n), "sum_squares");
}
static int
adamw8 (fx_backend *b, float *p, const float *g, const fx_adam8_state *s, int64_t n,
    const fx_adamw *o)
{
  TIMED (b, adamw8 (b, p, g, s, n, o), "adamw8");
}
static int
copy (fx_backend *b, fx_mat y, fx_mat x)
{
  TIMED (b, copy (b, y, x), "copy %ldx%ld", (long)x.rows, (long)x.cols);
}
static int
conv2d (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *c)
{
  TIMED (b, conv2d (b, y, x, w, c), "conv2d %dx%d: %ldx%ld", c->width, c->height,
      (long)w->n, (long)w->k);
}
static int
groupnorm (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu)
{
  TIMED (b, groupnorm (b, y, x, groups, weight, bias, eps, silu), "groupnorm %ldx%ld",
      (long)x.rows, (long)x.cols);
}
static int
upsample2 (fx_backend *b, fx_mat y, fx_mat x, int height, int width)
{
  TIMED (b, upsample2 (b, y, x, height, width), "upsample2 %dx%d", width, height);
}

static int
round_rows (fx_backend *b, fx_rounded r, fx_mat x, const float *factor)
{
  TIMED (
      b, round_rows (b, r, x, factor), "round_rows %ldx%ld", (long)r.rows, (long)r.cols);
}
static int
gemm_rounded (fx_backend *b, fx_mat y, fx_rounded x, const fx_weight *w, bool beta)
{
  TIMED (b, gemm_rounded (b, y, x, w, beta), "gemm_rounded %ld: %ldx%ld", (long)x.rows,
      (long)w->n, (long)w->k);
}
static int
dgrad_rounded (fx_backend *b, fx_mat dx, fx_rounded dy, const fx_weight *w, bool beta)
{
  TIMED (b, dgrad_rounded (b, dx, dy, w, beta), "dgrad_rounded %ld: %ldx%ld%s",
      (long)dy.rows, (long)w->n, (long)w->k, beta ? " +" : "");
}
static int
adaln_rounded (fx_backend *b, fx_mat y, fx_rounded r, float *stats, fx_mat x,
    const float *shift, const float *scale, float eps)
{
  TIMED (b, adaln_rounded (b, y, r, stats, x, shift, scale, eps), "adaln_rounded %ld",
      (long)x.rows);
}
static int
act_rounded (fx_backend *b, fx_mat y, fx_rounded r, fx_mat left, fx_mat x, fx_act kind)
{
  TIMED (b, act_rounded (b, y, r, left, x, kind), "act_rounded %ldx%ld", (long)r.rows,
      (long)r.cols);
}
static int
act_bwd_rounded (fx_backend *b, fx_mat dx, fx_rounded r, const float *factor, fx_mat dy,
    fx_mat x, fx_act kind)
{
  TIMED (b, act_bwd_rounded (b, dx, r, factor, dy, x, kind), "act_bwd_rounded %ldx%ld",
      (long)r.rows, (long)r.cols);
}
static int
gate_bwd_rounded (fx_backend *b, fx_mat dy, fx_rounded r, const float *factor,
    fx_mat dout, const float *gate)
{
  TIMED (b, gate_bwd_rounded (b, dy, r, factor, dout, gate), "gate_bwd_rounded %ld",
      (long)r.rows);
}

static int
qknorm_rope_bwd_rounded (fx_backend *b, fx_mat dqkv, fx_rounded r, const float *factor,
    fx_mat dqk, fx_mat qkv, const float *rstd, const float *wq, const float *wk,
    const fx_rope *rope, int64_t rope_row, int head_dim)
{
  TIMED (b,
      qknorm_rope_bwd_rounded (
          b, dqkv, r, factor, dqk, qkv, rstd, wq, wk, rope, rope_row, head_dim),
      "qknorm_rope_bwd_rounded %ld", (long)dqk.rows);
}

static int
lora (fx_backend *b, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l, int n)
{
  TIMED (b, lora (b, y, h, x, l, n), "lora %ld x%d", (long)x.rows, n);
}
static int
lora_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n)
{
  TIMED (b, lora_bwd (b, dx, dy, x, h, l, n), "lora_bwd %ld x%d", (long)x.rows, n);
}

/* Beside each other nothing could be told apart. */
static int
in_order (fx_backend *b, bool on)
{
  return FX_OK;
}

void
profile_start (fx_backend *b)
{
  real = b->ops;
  timed = *real;
  timed.upload = upload;
  timed.download = download;
  timed.zero = zero;
  timed.expand = expand;
  timed.gemm = gemm;
  timed.gemm_gelu = gemm_gelu;
  timed.gemm_dgrad = gemm_dgrad;
  timed.lora = lora;
  timed.lora_bwd = lora_bwd;
  timed.adaln = adaln;
  timed.adaln_bwd = adaln_bwd;
  timed.qknorm_rope = qknorm_rope;
  timed.qknorm_rope_bwd = qknorm_rope_bwd;
  timed.attention = attention;
  timed.attention_bwd = attention_bwd;
  timed.act = act;
  timed.act_bwd = act_bwd;
  timed.gate_residual = gate_residual;
  timed.gate_bwd = gate_bwd;
  timed.round_rows = round_rows;
  timed.gemm_rounded = gemm_rounded;
  timed.dgrad_rounded = dgrad_rounded;
  timed.adaln_rounded = adaln_rounded;
  timed.act_rounded = act_rounded;
  timed.act_bwd_rounded = act_bwd_rounded;
  timed.gate_bwd_rounded = gate_bwd_rounded;
  timed.qknorm_rope_bwd_rounded = qknorm_rope_bwd_rounded;
  timed.mse = mse;
  timed.sum_squares = sum_squares;
  timed.adamw8 = adamw8;
  timed.copy = copy;
  timed.side = in_order;
  timed.conv2d = conv2d;
  timed.groupnorm = groupnorm;
  timed.upsample2 = upsample2;
  b->ops = &timed;
  n_rows = 0;
}

static int
dearer (const void *a, const void *b)
{
  const row *x = a, *y = b;

  return x->seconds < y->seconds ? 1 : x->seconds > y->seconds ? -1 : 0;
}

/* What waiting itself costs. */
static double
overhead (fx_backend *b)
{
  double start = now ();

  for (int i = 0; i < 1000; i++)
    real->sync (b);
  return (now () - start) / 1000;
}

void
profile_stop (fx_backend *b, const char *title, double parts)
{
  double wait = overhead (b), sum = 0;

  b->ops = real;
  qsort (rows, (size_t)n_rows, sizeof *rows, dearer);
  for (int i = 0; i < n_rows; i++)
    sum += rows[i].seconds - wait * (double)rows[i].calls;
  printf ("%s, op by op, each waited for: %.2f ms\n", title, sum * 1e3 / parts);
  for (int i = 0; i < n_rows; i++) {
    double s = rows[i].seconds - wait * (double)rows[i].calls;

    printf ("  %-28s %7.1f calls %9.3f ms %8.4f ms each\n", rows[i].name,
        (double)rows[i].calls / parts, s * 1e3 / parts, s * 1e3 / (double)rows[i].calls);
  }
}

static double waited;

#define WAITED(call)                                                                     \
  do {                                                                                   \
    double start_ = now ();                                                              \
    int status_ = real->call;                                                            \
                                                                                         \
    waited += now () - start_;                                                           \
    return status_;                                                                      \
  } while (0)

static int
wait_upload (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  WAITED (upload (b, dst, src, bytes));
}
static int
wait_download (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  WAITED (download (b, dst, src, bytes));
}
static int
wait_sync (fx_backend *b)
{
  WAITED (sync (b));
}

void
profile_waits_start (fx_backend *b)
{
  real = b->ops;
  timed = *real;
  timed.upload = wait_upload;
  timed.download = wait_download;
  timed.sync = wait_sync;
  b->ops = &timed;
  waited = 0;
}

double
profile_waits_stop (fx_backend *b)
{
  b->ops = real;
  return waited;
}
