/* tests/bench/floor.c: products and attention alone, without which no version can do.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/bench/floor.h"

#include <stdio.h>

#include "flux/model.h"
#include "tests/bench/random-model.h"

enum { DIM = 3072, HEADS = 24, DOUBLES = 19, SINGLES = 38 };

typedef struct {
  fx_backend *b;
  int rounds;
  double forward, dgrad; /* ms a pass */
} Floor;

static void *
take (Floor *f, gsize n)
{
  void *p = NULL;
  g_autofree float *values = random_normals (7, MIN (n, 1 << 22));
  g_autofree guint16 *half = g_new (guint16, MIN (n, 1 << 22));

  if (f->b->ops->alloc (f->b, n * 2, &p) != FX_OK)
    g_error ("%s", fx_error_message ());
  fx_convert (half, FX_BF16, values, FX_F32, MIN (n, 1 << 22));
  for (gsize i = 0; i < n; i += 1 << 22)
    fx_upload (f->b, (guint16 *)p + i, half, MIN (n - i, 1 << 22) * 2);
  return p;
}

static void
release (Floor *f, void *p, gsize n)
{
  f->b->ops->free (f->b, p, n * 2);
}

static double
milliseconds (gint64 start, int rounds)
{
  return (double)(g_get_monotonic_time () - start) * 1e-3 / rounds;
}

/* count layers of [n, k] on m rows. */
static void
product (Floor *f, gint64 m, gint64 n, gint64 k, int count)
{
  fx_weight w = {.n = n, .k = k, .qtype = FX_Q_NONE, .dtype = FX_BF16};
  fx_mat x = fx_mat_new (take (f, (gsize)(m * k)), m, k, FX_BF16);
  fx_mat y = fx_mat_new (take (f, (gsize)(m * n)), m, n, FX_BF16);
  double forward, dgrad;
  gint64 start = 0;

  w.data = take (f, (gsize)(n * k));
  for (int way = 0; way < 2; way++) {
    for (int i = -2; i < f->rounds; i++) {
      if (i == 0) {
        fx_sync (f->b);
        start = g_get_monotonic_time ();
      }
      if (way == 0)
        fx_gemm (f->b, y, x, &w, false);
      else
        fx_gemm_dgrad (f->b, x, y, &w, false);
    }
    fx_sync (f->b);
    *(way == 0 ? &forward : &dgrad) = milliseconds (start, f->rounds);
  }
  printf (
      "  %5d x %6dx%5d, %3d times: %.3f ms %.0f TFLOP/s, dgrad %.3f ms %.0f TFLOP/s\n",
      (int)m, (int)n, (int)k, count, forward, 2e-9 * (double)(m * n * k) / forward, dgrad,
      2e-9 * (double)(m * n * k) / dgrad);
  f->forward += forward * count;
  f->dgrad += dgrad * count;
  release (f, x.p, (gsize)(m * k));
  release (f, y.p, (gsize)(m * n));
  release (f, w.data, (gsize)(n * k));
}

static void
attention (Floor *f, gint64 s, double *forward, double *backward)
{
  fx_attn a = {.heads = HEADS, .head_dim = 128, .scale = 0.08838834764f};
  fx_mat all = fx_mat_new (take (f, (gsize)(s * 8 * DIM)), s, 8 * DIM, FX_BF16), m[8];
  void *lse = take (f, (gsize)(2 * HEADS * s));
  const double flop = 4.0 * (double)s * (double)s * DIM;
  gint64 start = 0;

  for (int i = 0; i < 8; i++)
    m[i] = fx_cols (all, i * DIM, DIM);
  for (int way = 0; way < 2; way++) {
    for (int i = -2; i < f->rounds; i++) {
      if (i == 0) {
        fx_sync (f->b);
        start = g_get_monotonic_time ();
      }
      if (way == 0)
        fx_attention (f->b, m[3], lse, m[0], m[1], m[2], &a);
      else
        fx_attention_bwd (f->b, m[5], m[6], m[7], m[4], m[3], lse, m[0], m[1], m[2], &a);
    }
    fx_sync (f->b);
    *(way == 0 ? forward : backward) = milliseconds (start, f->rounds);
  }
  printf ("  attention: %.3f ms %.0f TFLOP/s, backward %.3f ms %.0f TFLOP/s of 2.5 times "
          "that\n",
      *forward, flop * 1e-9 / *forward, *backward, flop * 2.5e-9 / *backward);
  release (f, all.p, (gsize)(s * 8 * DIM));
  release (f, lse, (gsize)(2 * HEADS * s));
}

gboolean
floor_measure (const char *name, int image_tokens, int text_tokens, int rounds)
{
  Floor f = {.rounds = rounds};
  const gint64 s = image_tokens + text_tokens, rows[2] = {image_tokens, text_tokens};
  double forward, backward, blocks = DOUBLES + SINGLES;
  g_autoptr (GError) error = NULL;

  f.b = flux_backend_new (0, FX_BF16, &error);
  if (f.b == NULL) {
    fprintf (stderr, "%s\n", error->message);
    return FALSE;
  }
  printf ("%s\n", name);
  for (int i = 0; i < 2; i++) {
    product (&f, rows[i], 3 * DIM, DIM, DOUBLES);
    product (&f, rows[i], DIM, DIM, DOUBLES);
    product (&f, rows[i], 4 * DIM, DIM, DOUBLES);
    product (&f, rows[i], DIM, 4 * DIM, DOUBLES);
  }
  product (&f, s, 3 * DIM, DIM, SINGLES);
  product (&f, s, 4 * DIM, DIM, SINGLES);
  product (&f, s, DIM, 5 * DIM, SINGLES);
  attention (&f, s, &forward, &backward);
  printf (
      "  forward: products %.1f + attention %.1f = %.1f ms; dgrad %.1f + %.1f ms; with "
      "full recomputation %.1f ms, without %.1f ms\n",
      f.forward, forward * blocks, f.forward + forward * blocks, f.dgrad,
      backward * blocks, 2 * (f.forward + forward * blocks) + f.dgrad + backward * blocks,
      f.forward + forward * blocks + f.dgrad + backward * blocks);
  fx_backend_free (f.b);
  return TRUE;
}
