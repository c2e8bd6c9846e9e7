/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Times the CPU's ops at the shapes of the tiny model: a benchmark, not a test.
 *
 *     kernels [threads [isa]]
 *
 * Each line is the best of many runs: products in GFLOP/s and microseconds, the other ops
 * in microseconds. */
#include "kernels/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOKENS = 96, D = 256, MLP = 1024, HEADS = 4, WIDE = 6 * D };

typedef struct {
  fx_backend *b;
  fx_mat a, c, d, e, f; /* [TOKENS, WIDE] each */
  fx_weight w;
  float *vector;
  int64_t m;
  fx_lora lora;
  fx_rope rope;
  double loss;
} bench;

static double
now (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef int (*op) (bench *s);

static double
best_of (bench *s, op fn)
{
  double best = 1e9, total = 0;

  for (int run = 0; run < 2000 && (run < 20 || total < 0.15); run++) {
    double start = now (), t;
    if (fn (s) != FX_OK) {
      fprintf (stderr, "%s\n", fx_error_message ());
      exit (1);
    }
    t = now () - start;
    total += t;
    best = t < best ? t : best;
  }
  return best;
}

static fx_mat
view (fx_mat m, int64_t rows, int64_t cols)
{
  m.rows = rows;
  m.cols = m.ld = cols;
  return m;
}

static int
run_gemm (bench *s)
{
  return fx_gemm (
      s->b, view (s->c, s->m, s->w.n), view (s->a, s->m, s->w.k), &s->w, false);
}

static int
run_dgrad (bench *s)
{
  return fx_gemm_dgrad (
      s->b, view (s->c, s->m, s->w.k), view (s->a, s->m, s->w.n), &s->w, false);
}

static int
run_expand (bench *s)
{
  static float *dst;

  if (dst == NULL)
    dst = malloc ((size_t)MLP * WIDE * sizeof (float));
  return fx_expand (s->b, fx_mat_new (dst, s->w.n, s->w.k, FX_F32), &s->w);
}

static int
run_lora (bench *s)
{
  return fx_lora_fwd (s->b, view (s->c, s->m, D), view (s->d, s->m, s->lora.rank),
      view (s->a, s->m, D), &s->lora, 1);
}

static int
run_lora_bwd (bench *s)
{
  return fx_lora_bwd (s->b, view (s->e, s->m, D), view (s->c, s->m, D),
      view (s->a, s->m, D), view (s->d, s->m, s->lora.rank), &s->lora, 1);
}

static int
run_adaln (bench *s)
{
  return fx_adaln (s->b, view (s->c, s->m, D), s->e.p, view (s->a, s->m, D), s->vector,
      s->vector, 1e-6f);
}

static int
run_adaln_bwd (bench *s)
{
  return fx_adaln_bwd (s->b, view (s->c, s->m, D), view (s->d, s->m, D),
      view (s->a, s->m, D), s->e.p, s->vector);
}

static int
run_rope (bench *s)
{
  return fx_qknorm_rope (s->b, view (s->c, s->m, 2 * D), s->e.p, view (s->a, s->m, 3 * D),
      s->vector, s->vector, &s->rope, 0, D / HEADS, 1e-6f);
}

static int
run_rope_bwd (bench *s)
{
  return fx_qknorm_rope_bwd (s->b, view (s->c, s->m, 3 * D), view (s->d, s->m, 2 * D),
      view (s->a, s->m, 3 * D), s->e.p, s->vector, s->vector, &s->rope, 0, D / HEADS);
}

static const fx_attn attn = {HEADS, D / HEADS, 0.125f, false, NULL};

static int
run_attention (bench *s)
{
  return fx_attention (s->b, view (s->c, s->m, D), s->e.p, view (s->a, s->m, D),
      view (s->a, s->m, D), view (s->a, s->m, D), &attn);
}

static int
run_attention_bwd (bench *s)
{
  fx_mat d = view (s->d, s->m, D);

  return fx_attention_bwd (s->b, d, view (s->f, s->m, D),
      fx_cols (view (s->f, s->m, WIDE), D, D), view (s->a, s->m, D), view (s->c, s->m, D),
      s->e.p, view (s->a, s->m, D), view (s->a, s->m, D), view (s->a, s->m, D), &attn);
}

static int
run_gelu (bench *s)
{
  fx_mat none = {NULL};

  return fx_act_fwd (
      s->b, view (s->c, s->m, MLP), view (s->a, s->m, MLP), none, FX_ACT_GELU_TANH);
}

static int
run_gelu_bwd (bench *s)
{
  return fx_act_bwd (s->b, view (s->c, s->m, MLP), view (s->d, s->m, MLP),
      view (s->a, s->m, MLP), FX_ACT_GELU_TANH);
}

static int
run_gate (bench *s)
{
  return fx_gate_residual (
      s->b, view (s->c, s->m, D), view (s->a, s->m, D), view (s->d, s->m, D), s->vector);
}

static int
run_gate_bwd (bench *s)
{
  return fx_gate_bwd (s->b, view (s->c, s->m, D), view (s->d, s->m, D), s->vector);
}

static int
run_mse (bench *s)
{
  return fx_mse (s->b, &s->loss, view (s->c, 64, 64), view (s->a, 64, 64),
      view (s->d, 64, 64), 1, 1);
}

static int
run_empty (bench *s)
{
  return fx_gate_bwd (s->b, view (s->c, 1, 16), view (s->d, 1, 16), s->vector);
}

static void
fill (float *p, int64_t n, uint32_t stream)
{
  fx_philox_normal (1, 0, 0, stream, p, (size_t)n);
}

static fx_mat
new_mat (uint32_t stream)
{
  fx_mat m = fx_mat_new (
      aligned_alloc (256, TOKENS * WIDE * sizeof (float)), TOKENS, WIDE, FX_F32);

  fill (m.p, TOKENS * WIDE, stream);
  return m;
}

static void
make_weight (fx_weight *w, int64_t n, int64_t k, fx_qtype q)
{
  float *x = malloc ((size_t)(n * k) * sizeof *x);

  *w =
      (fx_weight){.n = n, .k = k, .qtype = q, .dtype = q == FX_Q_NONE ? FX_F32 : FX_BF16};
  fill (x, n * k, 9);
  w->data = x;
  if (q == FX_Q_NF4) {
    w->data = malloc ((size_t)(n * k) / 2);
    w->absmax = malloc ((size_t)(n * k) / FX_NF4_BLOCK * sizeof (float));
    fx_nf4_quantize (x, (size_t)(n * k), w->data, w->absmax);
    free (x);
  }
}

static void
bench_linear (bench *s)
{
  static const int64_t shapes[][3] = {{96, D, D}, {96, 3 * D, D}, {96, MLP, D},
      {96, D, MLP}, {96, D, D + MLP}, {64, 3 * D, D}, {64, MLP, D}, {64, D, MLP},
      {32, 3 * D, D}, {32, MLP, D}, {32, D, MLP}, {64, D, 64}, {64, 64, D},
      {1, 6 * D, D}};

  for (int q = 0; q < 2; q++)
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
      int64_t n = shapes[i][1], k = shapes[i][2];
      double forward, backward, expand, flop;
      s->m = shapes[i][0];
      make_weight (&s->w, n, k, q ? FX_Q_NF4 : FX_Q_NONE);
      flop = 2e-9 * (double)(s->m * n * k);
      forward = best_of (s, run_gemm);
      backward = best_of (s, run_dgrad);
      expand = best_of (s, run_expand);
      printf (
          "%-4s %3d x %4d x %4d  forward %7.1f us %6.1f GF/s  backward %7.1f us %6.1f "
          "GF/s  expand %6.1f us\n",
          q ? "nf4" : "f32", (int)s->m, (int)n, (int)k, 1e6 * forward, flop / forward,
          1e6 * backward, flop / backward, 1e6 * expand);
      free (s->w.data);
      free (s->w.absmax);
    }
}

static void
bench_others (bench *s)
{
  static const struct {
    const char *name;
    op fn;
  } ops[] = {{"smallest op", run_empty}, {"lora", run_lora}, {"lora_bwd", run_lora_bwd},
      {"adaln", run_adaln}, {"adaln_bwd", run_adaln_bwd}, {"qknorm_rope", run_rope},
      {"qknorm_rope_bwd", run_rope_bwd}, {"attention", run_attention},
      {"attention_bwd", run_attention_bwd}, {"gelu", run_gelu},
      {"gelu_bwd", run_gelu_bwd}, {"gate_residual", run_gate}, {"gate_bwd", run_gate_bwd},
      {"mse 64 x 64", run_mse}};

  s->m = TOKENS;
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    fill (s->a.p, TOKENS * WIDE, 1);
    fill (s->c.p, TOKENS * WIDE, 2);
    fill (s->d.p, TOKENS * WIDE, 3);
    printf ("%-16s %7.1f us\n", ops[i].name, 1e6 * best_of (s, ops[i].fn));
  }
}

int
main (int argc, char **argv)
{
  bench s = {
      .b = fx_cpu_new_isa (argc > 1 ? atoi (argv[1]) : 2, argc > 2 ? argv[2] : NULL)};
  float *table = malloc (2 * TOKENS * D * sizeof (float));

  if (s.b == NULL || table == NULL)
    return 1;
  s.a = new_mat (1);
  s.c = new_mat (2);
  s.d = new_mat (3);
  s.e = new_mat (4);
  s.f = new_mat (5);
  fill (table, 2 * TOKENS * D, 6);
  s.rope = (fx_rope){table, table + TOKENS * D, TOKENS};
  s.vector = malloc (WIDE * sizeof (float));
  fill (s.vector, WIDE, 7);
  s.lora = (fx_lora){malloc (16 * WIDE * 4), malloc (16 * WIDE * 4),
      malloc (16 * WIDE * 4), malloc (16 * WIDE * 4), 4, 1e-6f};
  fill (s.lora.a, 16 * WIDE, 8);
  fill (s.lora.b, 16 * WIDE, 9);
  memset (s.lora.da, 0, 16 * WIDE * 4);
  memset (s.lora.db, 0, 16 * WIDE * 4);
  bench_linear (&s);
  bench_others (&s);
  fx_backend_free (s.b);
  return 0;
}
