/* tests/bench/gpu-ops.c: every op on the GPU against the CPU backend.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *   gpu-ops MODULE [--small] [--float16]      exit status 1 when an op is beyond its
 * bound
 *
 * --float16: in fp16 and fp32 alone (sm_75 has no bf16).
 * --small: none of FLUX.1-dev's own shapes, for compute-sanitizer.
 *
 * Fresh random inputs, odd sizes, poisoned outputs; NMSE = sum (a - b)^2 / sum b^2. */
#include "gpu-ops.h"
#include "gpu-rounded.h"

static fx_weight
nf4 (side s, const float *w, int64_t n, int64_t k, bool twice, const float *bias)
{
  size_t count = (size_t)(n * k), blocks = count / 64, outer = (blocks + 255) / 256;
  uint8_t *packed = malloc (count / 2), *codes = malloc (blocks);
  float *absmax = malloc (blocks * 4), *absmax2 = malloc (outer * 4);
  float *offset2 = malloc (outer * 4), offset;
  fx_weight v = {
      .n = n, .k = k, .qtype = twice ? FX_Q_NF4_DOUBLE : FX_Q_NF4, .dtype = FX_BF16};

  fx_nf4_quantize (w, count, packed, absmax);
  v.data = put_bytes (s, packed, count / 2);
  v.absmax = put_bytes (s, absmax, blocks * 4);
  if (twice) {
    fx_absmax_quantize (absmax, blocks, codes, absmax2, &offset);
    for (size_t i = 0; i < outer; i++)
      offset2[i] = offset;
    v.absmax_q = put_bytes (s, codes, blocks);
    v.absmax2 = put_bytes (s, absmax2, outer * 4);
    v.offset2 = put_bytes (s, offset2, outer * 4);
    v.code8 = put_bytes (s, fx_dynamic_map (true), 1024);
  }
  v.bias = bias != NULL ? put_bytes (s, bias, (size_t)n * 4) : NULL;
  free (packed);
  free (codes);
  free (absmax);
  free (absmax2);
  free (offset2);
  return v;
}

static void
linear_ops (side gpu, side cpu, double bound)
{
  const int64_t m = 77, n = 192, k = 320;
  float *x = draw (m * k, 1), *w = draw (n * k, .05f), *bias = draw (n, 1),
        *dy = draw (m * n, 1);
  float *y0 = draw (m * n, 1);

  for (int twice = 0; twice < 2; twice++) {
    BOTH (twice ? "expand nf4-double" : "expand nf4", n, k, 0, {
      fx_weight v = nf4 (s, w, n, k, twice, NULL);
      result = poisoned (s, n, k, 0);
      st_ = fx_expand (s.b, result, &v);
    });
    BOTH (twice ? "gemm nf4-double" : "gemm nf4", m, n, bound, {
      fx_weight v = nf4 (s, w, n, k, twice, bias);
      result = poisoned (s, m, n, 64);
      st_ = fx_gemm (s.b, result, put (s, x, m, k, 0), &v, false);
    });
    BOTH (twice ? "gemv nf4-double" : "gemv nf4", 5, n, bound, {
      fx_weight v = nf4 (s, w, n, k, twice, bias);
      result = poisoned (s, 5, n, 0);
      st_ = fx_gemm (s.b, result, put (s, x, 5, k, 0), &v, false);
    });
  }
  for (int deep = 0; deep < 2; deep++) {
    const int64_t depth = deep ? 2120 : k, width = deep ? n * k / 2120 : n;

    BOTH ("gemv", 7, width, bound, {
      fx_weight v = {.n = width, .k = depth, .dtype = s.type};
      v.data = put (s, w, width, depth, 0).p;
      v.bias = put_bytes (s, bias, (size_t)width * 4);
      result = poisoned (s, 7, width, 0); /* as 4, 2 and 1 */
      st_ = fx_gemm (s.b, result, put (s, x, 7, depth, 0), &v, false);
    });
  }
  for (int i = 0; i < 4; i++) {
    const int64_t rows = i % 2 ? 5 : m;

    BOTH ("gemm_gelu", rows, n, bound, {
      fx_weight v = nf4 (s, w, n, k, false, i < 2 ? bias : NULL);
      result = poisoned (s, rows, n, 64);
      st_ = fx_gemm_gelu (s.b, result, put (s, x, rows, k, 0), &v);
    });
  }
  BOTH ("gemm accumulating", m, n, bound, {
    fx_weight v = nf4 (s, w, n, k, false, NULL);
    result = put (s, y0, m, n, 0);
    st_ = fx_gemm (s.b, result, put (s, x, m, k, 0), &v, true);
  });
  BOTH ("gemm_dgrad", m, k, bound, {
    fx_weight v = nf4 (s, w, n, k, false, NULL);
    result = poisoned (s, m, k, 0);
    st_ = fx_gemm_dgrad (s.b, result, put (s, dy, m, n, 64), &v, false);
  });
}

typedef struct {
  int64_t m, k, part, pad; /* part: columns of y for each module */
  int n, rank;
} group;

/* The n modules' tensor as one: [n * each], their parts in p. */
static fx_mat
stacked (side s, const float *host, int n, int64_t each, float **p)
{
  fx_mat all = fx_mat_new (put_bytes (s, host, (size_t)(n * each) * 4), n, each, FX_F32);

  for (int i = 0; i < n; i++)
    p[i] = (float *)all.p + i * each;
  return all;
}

/* out: y, h, dx, dA, dB; host: x, y, dy, dx, A, B, dA, dB. */
static void
run_group (side s, const group *g, float *const *host, bool keep, float **out)
{
  const int64_t a = g->rank * g->k, b = g->part * g->rank, cols = g->n * g->part;
  float *p[4][3];
  fx_lora l[3];
  fx_mat x = put (s, host[0], g->m, g->k, g->pad), y = put (s, host[1], g->m, cols, 0),
         dy = put (s, host[2], g->m, cols, g->pad),
         dx = put (s, host[3], g->m, g->k, g->pad);
  fx_mat h = poisoned (s, g->m, (int64_t)g->n * g->rank, 0), none = {.dtype = s.type};
  fx_mat all[9] = {y, h, dx, stacked (s, host[6], g->n, a, p[0]),
      stacked (s, host[7], g->n, b, p[1]), stacked (s, host[4], g->n, a, p[2]),
      stacked (s, host[5], g->n, b, p[3]), x, dy};

  for (int i = 0; i < g->n; i++)
    l[i] = (fx_lora){p[2][i], p[3][i], p[0][i], p[1][i], g->rank, .7f + .3f * (float)i};
  if (fx_lora_fwd (s.b, y, h, x, l, g->n) != FX_OK ||
      fx_lora_bwd (s.b, dx, dy, x, keep ? h : none, l, g->n) != FX_OK) {
    printf ("FAIL lora on %s: %s\n", s.b->name, fx_error_message ());
    n_failed++;
  }
  for (int i = 0; i < 5; i++)
    out[i] = get (s, all[i]);
  for (int i = 0; i < 9; i++)
    s.b->ops->free (
        s.b, all[i].p, (size_t)(all[i].rows * all[i].ld) * fx_dtype_size (all[i].dtype));
}

static bool is_small;

static void
lora_ops (side gpu, side cpu, double bound)
{
  static const group groups[] = {{77, 320, 192, 0, 1, 6}, {77, 320, 192, 8, 3, 4},
      {130, 65, 33, 3, 3, 5}, {600, 264, 520, 0, 3, 16}, {40, 64, 56, 0, 2, 21},
      {77, 3072, 3072, 0, 1, 4}, {77, 3072, 3072, 0, 3, 4}, {77, 3072, 3072, 0, 3, 16},
      {1613, 3072, 3072, 0, 1, 4}, {1613, 3072, 3072, 0, 3, 4},
      {1613, 3072, 3072, 0, 3, 16}};

  /* The last six are FLUX.1-dev's own. */
  const size_t n_groups = sizeof groups / sizeof *groups - (is_small ? 6 : 0);

  for (size_t i = 0; i < 2 * n_groups; i++) {
    static const char *const names[5] = {"y", "h", "dx", "dA", "dB"};
    const group *g = &groups[i / 2];
    const int64_t xs = g->m * g->k, ys = g->m * g->part * g->n,
                  hs = g->m * g->n * g->rank, as = g->n * g->rank * g->k,
                  bs = g->n * g->rank * g->part;
    const int64_t sizes[8] = {xs, ys, ys, xs, as, bs, as, bs},
                  made[5] = {ys, hs, xs, as, bs};
    float *host[8], *out[2][5];

    for (int j = 0; j < 8; j++)
      host[j] = draw ((size_t)sizes[j], j == 4 || j == 5 ? .1f : 1);
    run_group (gpu, g, host, i % 2, out[0]);
    run_group (cpu, g, host, i % 2, out[1]);
    for (int j = 0; j < 5; j++) {
      char name[64];

      snprintf (name, sizeof name, "lora %s %dx r%d, %d x %d%s", names[j], g->n, g->rank,
          (int)g->m, (int)g->k, i % 2 ? ", h kept" : "");
      compare (name, out[0][j], out[1][j], (size_t)made[j], bound);
      free (out[0][j]);
      free (out[1][j]);
    }
    for (int j = 0; j < 8; j++)
      free (host[j]);
  }
}

/* Where a residual stream comes in: in the compute dtype, or in fp32 beside it. */
static void
residual_ops (side gpu, side cpu, double bound, bool wide, int64_t m, int64_t d)
{
  float *x = draw (m * d, 2), *dy = draw (m * d, 1), *scale = draw (d, .3f),
        *shift = draw (d, .3f);
  float *dx0 = draw (m * d, 1);

#define RESIDUAL ((side){s.b, wide ? FX_F32 : s.type})
  BOTH (wide ? "adaln of fp32" : "adaln", m, d, bound, {
    float *st = put_bytes (s, dx0, m * 8);
    result = poisoned (s, m, d, 8);
    st_ = fx_adaln (s.b, result, st, put (RESIDUAL, x, m, d, 0),
        put_bytes (s, shift, d * 4), put_bytes (s, scale, d * 4), 1e-6f);
  });
  BOTH (wide ? "adaln_bwd of fp32" : "adaln_bwd", m, d, bound, {
    float *st = put_bytes (s, dx0, m * 8), *sc = put_bytes (s, scale, d * 4);
    fx_mat xm = put (RESIDUAL, x, m, d, 0);
    st_ = fx_adaln (
        s.b, poisoned (s, m, d, 0), st, xm, put_bytes (s, shift, d * 4), sc, 1e-6f);
    result = put (RESIDUAL, dx0, m, d, 0);
    if (st_ == FX_OK)
      st_ = fx_adaln_bwd (s.b, result, put (s, dy, m, d, 0), xm, st, sc);
  });
  BOTH (wide ? "gate_residual of fp32" : "gate_residual", m, d, bound, {
    result = poisoned (RESIDUAL, m, d, 0);
    st_ = fx_gate_residual (s.b, result, put (RESIDUAL, x, m, d, 0), put (s, dy, m, d, 8),
        put_bytes (s, scale, d * 4));
  });
  BOTH (wide ? "gate_bwd of fp32" : "gate_bwd", m, d, bound, {
    result = poisoned (s, m, d, 0);
    st_ = fx_gate_bwd (
        s.b, result, put (RESIDUAL, x, m, d, 0), put_bytes (s, scale, d * 4));
  });
  BOTH (wide ? "layernorm of fp32" : "layernorm", m, d, bound, {
    result = poisoned (s, m, d, 0);
    st_ = fx_layernorm (s.b, result, put (RESIDUAL, x, m, d, 0),
        put_bytes (s, scale, d * 4), put_bytes (s, shift, d * 4), 1e-5f);
  });
  BOTH (wide ? "rmsnorm of fp32" : "rmsnorm", m, d, bound, {
    result = poisoned (s, m, d, 0);
    st_ = fx_rmsnorm (
        s.b, result, put (RESIDUAL, x, m, d, 0), put_bytes (s, scale, d * 4), 1e-6f);
  });
#undef RESIDUAL
}

static void
act_ops (side gpu, side cpu, double bound)
{
  const int64_t m = 130, d = 384;
  float *x = draw (m * d, 2), *dy = draw (m * d, 1);

  for (int kind = FX_ACT_GELU_TANH; kind <= FX_ACT_RELU; kind++) {
    BOTH ("act", m, d, bound, {
      fx_mat none = {NULL, 0, 0, 0, s.type};
      result = poisoned (s, m, d, 0);
      st_ = fx_act_fwd (s.b, result, put (s, x, m, d, 3), none, kind);
    });
    BOTH ("act_bwd", m, d, bound, {
      result = poisoned (s, m, d, 0);
      st_ = fx_act_bwd (s.b, result, put (s, dy, m, d, 0), put (s, x, m, d, 0), kind);
    });
  }
}

/* What has overflowed in fp16 counts as the largest number it has, and what T5's wo reads
 * is in fp32. */
static void
overflow_ops (side gpu, side cpu)
{
  const int64_t m = 9, d = 64;
  float *x = draw (m * d, 2), *y[2] = {draw (m * d, 1), malloc (m * d * 4)};

  for (int64_t i = 0; i < m * d; i++) {
    if (i % 3 == 0)
      y[0][i] = copysignf (1e9f, y[0][i]);
    y[1][i] = fmaxf (-65504, fminf (65504, y[0][i]));
  }
  BOTH ("gate_residual, overflow", m, d, 1e-10, {
    result = poisoned ((side){s.b, FX_F32}, m, d, 0);
    st_ = fx_gate_residual (s.b, result, put ((side){s.b, FX_F32}, x, m, d, 0),
        put (s, y[s.b == cpu.b], m, d, 0), NULL);
  });
  BOTH ("gated act to fp32, overflow", m, d, 1e-10, {
    fx_mat mul = put (s, y[s.b == cpu.b], m, d, 0);
    result = poisoned ((side){s.b, FX_F32}, m, d, 0);
    st_ = fx_act_fwd (s.b, result, put (s, x, m, d, 0), mul, FX_ACT_GELU_TANH);
  });
  BOTH ("act_bwd, overflow", m, d, 1e-6, {
    fx_mat at = put (s, y[s.b == cpu.b], m, d, 0);
    result = poisoned (s, m, d, 0);
    st_ = fx_act_bwd (s.b, result, put (s, x, m, d, 0), at, FX_ACT_GELU_TANH);
  });
}

static void
attention_ops (side gpu, side cpu, double bound, int heads, int hd, int64_t m)
{
  const int64_t d = heads * (int64_t)hd, pairs = hd / 2;
  float *qkv = draw (m * 3 * d, 1), *d_o = draw (m * d, 1), *w = draw (2 * hd, .5f);
  float *angles = draw (m * pairs, 3), *cosines = malloc (m * pairs * 4),
        *sines = malloc (m * pairs * 4);
  fx_attn a = {.heads = heads, .head_dim = hd, .scale = 1 / sqrtf (hd)};
  char name[64];

  for (int64_t i = 0; i < m * pairs; i++) {
    cosines[i] = cosf (angles[i]);
    sines[i] = sinf (angles[i]);
  }
  for (int what = 0; what < 6; what++) {
    static const char *const names[6] = {"qknorm_rope", "qknorm_rope_bwd", "attention",
        "attention_bwd dq", "attention_bwd dk", "attention_bwd dv"};
    int64_t cols = what == 0 ? 2 * d : what == 1 ? 2 * d : d;

    snprintf (name, sizeof name, "%s %dx%d, %d", names[what], heads, hd, (int)m);
    BOTH (name, m, cols, what >= 3 && bound > 1e-9 ? 1e-4 : bound, {
      fx_rope rope = {
          put_bytes (s, cosines, m * pairs * 4), put_bytes (s, sines, m * pairs * 4), m};
      float *wq = put_bytes (s, w, hd * 4), *wk = put_bytes (s, w + hd, hd * 4);
      float *rstd = put_bytes (s, qkv, m * 2 * heads * 4),
            *lse = put_bytes (s, qkv, m * heads * 4);
      fx_mat in = put (s, qkv, m, 3 * d, 0), qk = poisoned (s, m, 2 * d, 0);
      fx_mat o = poisoned (s, m, d, 0), g = put (s, d_o, m, d, 0);
      fx_mat q = fx_cols (in, 0, d), k = fx_cols (in, d, d), v = fx_cols (in, 2 * d, d);
      fx_mat dq = poisoned (s, m, d, 0), dk = poisoned (s, m, d, 0),
             dv = poisoned (s, m, d, 0);

      if (what < 2) {
        st_ = fx_qknorm_rope (s.b, qk, rstd, in, wq, wk, &rope, 0, hd, 1e-6f);
        result = qk;
        if (what == 1 && st_ == FX_OK) {
          fx_mat dqkv = poisoned (s, m, 3 * d, 0);
          st_ = fx_qknorm_rope_bwd (
              s.b, dqkv, fx_cols (in, 0, 2 * d), in, rstd, wq, wk, &rope, 0, hd);
          result = fx_cols (dqkv, 0, 2 * d);
        }
      } else {
        st_ = fx_attention (s.b, o, lse, q, k, v, &a);
        if (st_ == FX_OK && what > 2)
          st_ = fx_attention_bwd (s.b, dq, dk, dv, g, o, lse, q, k, v, &a);
        result = what == 2 ? o : what == 3 ? dq : what == 4 ? dk : dv;
      }
    });
  }
}

static void
optimiser_ops (side gpu, side cpu)
{
  const int64_t n = 5000;
  float *p = draw (n, 1), *g = draw (n, .1f), *x = draw (n, 1);
  fx_adamw o = {1e-2f, .9f, .999f, 1e-8f, 1e-2f, .5f, 3, false};
  uint8_t codes[5000];
  float ones[20];

  for (int i = 0; i < n; i++)
    codes[i] = (uint8_t)(i * 37);
  for (int i = 0; i < 20; i++)
    ones[i] = .01f * (i + 1);
  BOTH ("adamw", 1, n, 1e-10, {
    fx_mat pm = fx_mat_new (put_bytes (s, p, n * 4), 1, n, FX_F32);
    float *v = malloc (n * 4);
    for (int i = 0; i < n; i++)
      v[i] = x[i] * x[i] * .01f;
    st_ = fx_adamw_step (s.b, pm.p, put_bytes (s, g, n * 4), put_bytes (s, x, n * 4),
        put_bytes (s, v, n * 4), n, &o);
    result = pm;
    free (v);
  });
  BOTH ("adamw8", 1, n, 1e-10, {
    fx_mat pm = fx_mat_new (put_bytes (s, p, n * 4), 1, n, FX_F32);
    fx_adam8_state st = {put_bytes (s, codes, n), put_bytes (s, codes, n),
        put_bytes (s, ones, 80), put_bytes (s, ones, 80),
        s.b == cpu.b ? fx_dynamic_map (true) : put_bytes (s, fx_dynamic_map (true), 1024),
        s.b == cpu.b ? fx_dynamic_map (false)
                     : put_bytes (s, fx_dynamic_map (false), 1024)};
    st_ = fx_adamw8_step (s.b, pm.p, put_bytes (s, g, n * 4), &st, n, &o);
    result = pm;
  });
  BOTH ("sum_squares", 1, 1, 1e-10, {
    double zero = 0, *sum = put_bytes (s, &zero, 8), host;
    float out;
    st_ = fx_sum_squares (s.b, sum, put_bytes (s, x, n * 4), n);
    fx_download (s.b, &host, sum, 8);
    out = (float)host;
    result = fx_mat_new (put_bytes (s, &out, 4), 1, 1, FX_F32);
  });
}

static void
frozen_ops (side gpu, side cpu, double bound)
{
  const int h = 10, wd = 14, c = 64, n = 96;
  float *x = draw (h * wd * c, 1), *w = draw (n * 9 * c, .05f), *bias = draw (n, 1);
  float *g = draw (c, 1), *bb = draw (c, 1);

  for (int stride = 1; stride <= 2; stride++) {
    int oh = stride == 1 ? h : h / 2, ow = stride == 1 ? wd : wd / 2;
    for (int kind = 0; kind < 3; kind++) { /* wide, three out of it, three into it */
      int out = kind == 1 ? 3 : n, in = kind == 2 ? 3 : c;
      BOTH ("conv2d", oh * ow, out, bound, {
        fx_conv cv = {h, wd, 3, stride, stride == 1, stride == 1, 1, 1};
        fx_mat wm = put (s, w, out, 9 * in, 0);
        fx_weight v = {.n = out,
            .k = 9 * in,
            .dtype = s.type,
            .data = wm.p,
            .bias = put_bytes (s, bias, n * 4)};
        result = poisoned (s, oh * ow, out, 0);
        st_ = fx_conv2d (s.b, result, put (s, x, h * wd, in, 0), &v, &cv);
      });
    }
  }
  BOTH ("groupnorm", h * wd, c, bound, {
    result = poisoned (s, h * wd, c, 0);
    st_ = fx_groupnorm (s.b, result, put (s, x, h * wd, c, 0), 16,
        put_bytes (s, g, c * 4), put_bytes (s, bb, c * 4), 1e-6f, true);
  });
  BOTH ("groupnorm, odd", h * wd, 20, bound, {
    result = poisoned (s, h * wd, 20, 0);
    st_ = fx_groupnorm (s.b, result, put (s, x, h * wd, 20, 0), 4,
        put_bytes (s, g, 20 * 4), put_bytes (s, bb, 20 * 4), 1e-6f, false);
  });
  BOTH ("upsample2", 4 * h * wd, c, 0, {
    result = poisoned (s, 4 * h * wd, c, 0);
    st_ = fx_upsample2 (s.b, result, put (s, x, h * wd, c, 0), h, wd);
  });
  for (int causal = 0; causal < 2; causal++) {
    BOTH ("attention, odd", 77, 96, bound, {
      fx_attn a = {.heads = 2,
          .head_dim = 48,
          .scale = .2f,
          .causal = causal,
          .bias =
              put_bytes (s, x, 2 * 77 * 77 * 4 < h * wd * c * 4 ? 2 * 77 * 77 * 4 : 4)};
      fx_mat q = put (s, x, 77, 96, 0), k = put (s, w, 77, 96, 0);
      if (2 * 77 * 77 > h * wd * c)
        a.bias = NULL;
      result = poisoned (s, 77, 96, 0);
      st_ = fx_attention (s.b, result, NULL, q, k, q, &a);
    });
  }
  BOTH ("attention, one wide head", 70, 512, bound, {
    fx_attn a = {.heads = 1, .head_dim = 512, .scale = .05f};
    fx_mat q = put (s, w, 70, 512, 0), k = put (s, w + 3000, 70, 512, 0);
    result = poisoned (s, 70, 512, 0);
    st_ = fx_attention (s.b, result, NULL, q, k, q, &a);
  });
}

int
main (int argc, char **argv)
{
  side cpu = {fx_cpu_new (0), FX_F32};
  bool no_bf16 = false;

  if (argc < 2 || cpu.b == NULL)
    return 2;
  for (int i = 2; i < argc; i++) {
    is_small = is_small || strcmp (argv[i], "--small") == 0;
    no_bf16 = no_bf16 || strcmp (argv[i], "--float16") == 0;
  }
  for (int i = 0; i < 3; i++) {
    static const fx_dtype types[] = {FX_F32, FX_F16, FX_BF16};
    static const double bounds[] = {1e-10, 1e-6, 1e-5};
    const fx_dtype type = types[i];
    const double bound = bounds[i];

    if (type == FX_BF16 && no_bf16)
      continue;
    side gpu = {fx_cuda_new (argv[1], 0, type), type};

    if (gpu.b == NULL) {
      fprintf (stderr, "%s\n", fx_error_message ());
      return 77;
    }
    printf ("== %s\n", fx_dtype_name (type));
    linear_ops (gpu, cpu, bound);
    eight_bit_ops (gpu, cpu, bound);
    lora_ops (gpu, cpu, bound);
    for (int wide = 0; wide < 2; wide++) {
      residual_ops (gpu, cpu, bound, wide, 130, 384);
      residual_ops (gpu, cpu, bound, wide, 601, 3072);
      residual_ops (gpu, cpu, bound, wide, 33, 4608);
      residual_ops (gpu, cpu, bound, wide, 65, 321);
    }
    act_ops (gpu, cpu, bound);
    attention_ops (gpu, cpu, bound, 3, 64, 96);
    attention_ops (gpu, cpu, bound, 2, 128, 203);
    if (!is_small)
      attention_ops (gpu, cpu, bound, 3, 128, 1613);
    optimiser_ops (gpu, cpu);
    frozen_ops (gpu, cpu, bound);
    if (type == FX_F16) {
      overflow_ops (gpu, cpu);
      /* The VAE's, and T5's wo. */
      linear_ops ((side){gpu.b, FX_F32}, cpu, 1e-10);
      eight_bit_ops ((side){gpu.b, FX_F32}, cpu, 1e-10);
      frozen_ops ((side){gpu.b, FX_F32}, cpu, 1e-10);
    }
    fx_backend_free (gpu.b);
  }
  printf ("%d beyond their bound\n", n_failed);
  return n_failed > 0;
}
