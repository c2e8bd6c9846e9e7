/* tests/bench/gpu-ops.c: every op on the GPU against the CPU backend.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *   gpu-ops MODULE      exit status 1 when an op is beyond its bound
 *
 * Fresh random inputs, odd sizes, poisoned outputs; NMSE = sum (a - b)^2 / sum b^2. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/fx.h"

typedef struct {
  fx_backend *b;
  fx_dtype type;
} side;

static uint32_t counter;
static int n_failed;

/* Values that every compute dtype holds exactly as bf16 holds them. */
static float *
draw (size_t n, float scale)
{
  float *v = malloc (n * sizeof *v);

  fx_philox_normal (1234, counter++, 0, 0, v, n);
  for (size_t i = 0; i < n; i++)
    v[i] = fx_bf16_to_f32 (fx_f32_to_bf16 (v[i] * scale));
  return v;
}

static void *
put_bytes (side s, const void *host, size_t bytes)
{
  void *p = NULL;

  if (s.b->ops->alloc (s.b, bytes, &p) != FX_OK ||
      fx_upload (s.b, p, host, bytes) != FX_OK) {
    fprintf (stderr, "%s\n", fx_error_message ());
    exit (2);
  }
  return p;
}

/* host: dense [rows, cols]; on the backend rows are `pad` elements longer. */
static fx_mat
put (side s, const float *host, int64_t rows, int64_t cols, int64_t pad)
{
  int64_t ld = cols + pad;
  float *wide = calloc ((size_t)(rows * ld), sizeof *wide);
  void *bytes = malloc ((size_t)(rows * ld) * 4);
  fx_mat m;

  for (int64_t r = 0; r < rows; r++)
    memcpy (wide + r * ld, host + r * cols, (size_t)cols * sizeof *wide);
  fx_convert (bytes, s.type, wide, FX_F32, (size_t)(rows * ld));
  m = fx_mat_new (put_bytes (s, bytes, (size_t)(rows * ld) * fx_dtype_size (s.type)),
      rows, cols, s.type);
  m.ld = ld;
  free (wide);
  free (bytes);
  return m;
}

static fx_mat
poisoned (side s, int64_t rows, int64_t cols, int64_t pad)
{
  float *nan_ = malloc ((size_t)(rows * cols) * sizeof *nan_);
  fx_mat m;

  for (int64_t i = 0; i < rows * cols; i++)
    nan_[i] = NAN;
  m = put (s, nan_, rows, cols, pad);
  free (nan_);
  return m;
}

static float *
get (side s, fx_mat m)
{
  size_t n = (size_t)(m.rows * m.ld);
  void *bytes = malloc (n * 4);
  float *wide = malloc (n * sizeof *wide), *out = malloc ((size_t)(m.rows * m.cols) * 4);

  if (fx_download (s.b, bytes, m.p, n * fx_dtype_size (m.dtype)) != FX_OK)
    fprintf (stderr, "%s\n", fx_error_message ());
  fx_convert (wide, FX_F32, bytes, m.dtype, n);
  for (int64_t r = 0; r < m.rows; r++)
    memcpy (out + r * m.cols, wide + r * m.ld, (size_t)m.cols * sizeof *out);
  free (bytes);
  free (wide);
  return out;
}

static void
compare (const char *name, const float *a, const float *b, size_t n, double bound)
{
  double num = 0, den = 0;

  for (size_t i = 0; i < n; i++) {
    num += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    den += (double)b[i] * b[i];
  }
  num = den > 0 ? num / den : num;
  if (!(num <= bound)) {
    n_failed++;
    printf ("FAIL %-34s NMSE %.3g  bound %.3g\n", name, num, bound);
  } else {
    printf ("ok   %-34s NMSE %.3g\n", name, num);
  }
}

/* Runs `body` (which sets result from side s) on both and compares. */
#define BOTH(label, rows, cols, bound, ...)                                              \
  do {                                                                                   \
    float *results_[2] = {NULL, NULL};                                                   \
    for (int i_ = 0; i_ < 2; i_++) {                                                     \
      side s = i_ ? cpu : gpu;                                                           \
      fx_mat result = {0};                                                               \
      int st_ = FX_OK;                                                                   \
      __VA_ARGS__;                                                                       \
      if (st_ != FX_OK || fx_sync (s.b) != FX_OK) {                                      \
        printf ("FAIL %s on %s: %s\n", label, s.b->name, fx_error_message ());           \
        n_failed++;                                                                      \
        break;                                                                           \
      }                                                                                  \
      results_[i_] = get (s, result);                                                    \
    }                                                                                    \
    if (results_[0] && results_[1])                                                      \
      compare (label, results_[0], results_[1], (size_t)((rows) * (cols)), bound);       \
    free (results_[0]);                                                                  \
    free (results_[1]);                                                                  \
  } while (0)

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
  float *a = draw (6 * k, .1f), *bb = draw (n * 6, .1f), *y0 = draw (m * n, 1);

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
  BOTH ("lora", m, n, bound, {
    fx_lora l = {
        put_bytes (s, a, 6 * k * 4), put_bytes (s, bb, n * 6 * 4), NULL, NULL, 6, .7f};
    result = put (s, y0, m, n, 0);
    st_ = fx_lora_fwd (s.b, result, poisoned (s, m, 6, 0), put (s, x, m, k, 0), &l);
  });
  for (int what = 0; what < 3; what++) {
    static const char *const names[3] = {"lora_bwd dx", "lora_bwd dA", "lora_bwd dB"};
    int64_t rows[3] = {m, 6, n}, cols[3] = {k, k, 6};

    BOTH (names[what], rows[what], cols[what], bound, {
      float *zeros = calloc (1, (size_t)(6 * (n + k)) * 4);
      fx_lora l = {put_bytes (s, a, 6 * k * 4), put_bytes (s, bb, n * 6 * 4),
          put_bytes (s, zeros, 6 * k * 4), put_bytes (s, zeros, n * 6 * 4), 6, .7f};
      fx_mat dx = put (s, x, m, k, 0), none = {NULL, 0, 0, 0, s.type};
      st_ = fx_lora_bwd (s.b, dx, put (s, dy, m, n, 0), put (s, x, m, k, 0), none, &l);
      result = what == 0   ? dx
               : what == 1 ? fx_mat_new (l.da, 6, k, FX_F32)
                           : fx_mat_new (l.db, n, 6, FX_F32);
      free (zeros);
    });
  }
}

static void
block_ops (side gpu, side cpu, double bound)
{
  const int64_t m = 130, d = 384;
  float *x = draw (m * d, 2), *dy = draw (m * d, 1), *scale = draw (d, .3f),
        *shift = draw (d, .3f);
  float *dx0 = draw (m * d, 1);

  BOTH ("adaln", m, d, bound, {
    float *st = put_bytes (s, dx0, m * 8);
    result = poisoned (s, m, d, 8);
    st_ = fx_adaln (s.b, result, st, put (s, x, m, d, 0), put_bytes (s, shift, d * 4),
        put_bytes (s, scale, d * 4), 1e-6f);
  });
  BOTH ("adaln_bwd", m, d, bound, {
    float *st = put_bytes (s, dx0, m * 8), *sc = put_bytes (s, scale, d * 4);
    fx_mat xm = put (s, x, m, d, 0);
    st_ = fx_adaln (
        s.b, poisoned (s, m, d, 0), st, xm, put_bytes (s, shift, d * 4), sc, 1e-6f);
    result = put (s, dx0, m, d, 0);
    if (st_ == FX_OK)
      st_ = fx_adaln_bwd (s.b, result, put (s, dy, m, d, 0), xm, st, sc);
  });
  BOTH ("gate_residual", m, d, bound, {
    result = poisoned (s, m, d, 0);
    st_ = fx_gate_residual (s.b, result, put (s, x, m, d, 0), put (s, dy, m, d, 8),
        put_bytes (s, scale, d * 4));
  });
  BOTH ("gate_bwd", m, d, bound, {
    result = poisoned (s, m, d, 0);
    st_ = fx_gate_bwd (s.b, result, put (s, x, m, d, 0), put_bytes (s, scale, d * 4));
  });
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
    for (int narrow = 0; narrow < 2; narrow++) {
      int out = narrow ? 3 : n;
      BOTH ("conv2d", oh * ow, out, bound, {
        fx_conv cv = {h, wd, 3, stride, stride == 1, stride == 1, 1, 1};
        fx_mat wm = put (s, w, out, 9 * c, 0);
        fx_weight v = {.n = out,
            .k = 9 * c,
            .dtype = s.type,
            .data = wm.p,
            .bias = put_bytes (s, bias, n * 4)};
        result = poisoned (s, oh * ow, out, 0);
        st_ = fx_conv2d (s.b, result, put (s, x, h * wd, c, 0), &v, &cv);
      });
    }
  }
  BOTH ("groupnorm", h * wd, c, bound, {
    result = poisoned (s, h * wd, c, 0);
    st_ = fx_groupnorm (s.b, result, put (s, x, h * wd, c, 0), 16,
        put_bytes (s, g, c * 4), put_bytes (s, bb, c * 4), 1e-6f, true);
  });
  BOTH ("layernorm", h * wd, c, bound, {
    result = poisoned (s, h * wd, c, 0);
    st_ = fx_layernorm (s.b, result, put (s, x, h * wd, c, 0), put_bytes (s, g, c * 4),
        put_bytes (s, bb, c * 4), 1e-5f);
  });
  BOTH ("rmsnorm", h * wd, c, bound, {
    result = poisoned (s, h * wd, c, 0);
    st_ = fx_rmsnorm (
        s.b, result, put (s, x, h * wd, c, 0), put_bytes (s, g, c * 4), 1e-6f);
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

  if (argc < 2 || cpu.b == NULL)
    return 2;
  for (int bf16 = 0; bf16 < 2; bf16++) {
    fx_dtype type = bf16 ? FX_BF16 : FX_F32;
    side gpu = {fx_cuda_new (argv[1], 0, type), type};
    double bound = bf16 ? 1e-5 : 1e-10;

    if (gpu.b == NULL) {
      fprintf (stderr, "%s\n", fx_error_message ());
      return 77;
    }
    printf ("== %s\n", fx_dtype_name (type));
    linear_ops (gpu, cpu, bound);
    block_ops (gpu, cpu, bound);
    attention_ops (gpu, cpu, bound, 3, 64, 96);
    attention_ops (gpu, cpu, bound, 2, 128, 203);
    optimiser_ops (gpu, cpu);
    frozen_ops (gpu, cpu, bound);
    fx_backend_free (gpu.b);
  }
  printf ("%d beyond their bound\n", n_failed);
  return n_failed > 0;
}
