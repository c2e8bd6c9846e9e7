/* tests/golden/adam8.c: bitsandbytes' AdamW8bit. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * adam8.map_signed, .map_unsigned; adam8.N: p0, gradients g0.., parameters p1.. after
 * each step, .state at the end: fp32 below 4,096 elements, else codes and absmax. */
#include "tests/golden/parity.h"

#include <math.h>
#include <string.h>

enum { SMALLEST = 4096 /* elements with an 8-bit state: facts.md section 7 */ };

static const double BOUND = 3e-6, CODES_OFF = 1e-3;
/* How the golden data were made: data/golden/README.md. */
static const fx_adamw settings = {.lr = 1e-2f,
    .beta1 = 0.9f,
    .beta2 = 0.999f,
    .eps = 1e-8f,
    .weight_decay = 1e-2f,
    .grad_scale = 1};

/* One tensor's optimiser on the backend. */
typedef struct {
  fx_arena arena;
  gsize n, blocks;
  float *p, *g, *m, *v;
  fx_adam8_state s;
} Adam;

static int
take_all (Adam *a)
{
  fx_arena *arena = &a->arena;
  gsize bytes = a->n * sizeof (float), scales = a->blocks * sizeof (float);
  void *maps[2];

  FX_TRY (fx_arena_take (arena, bytes, (void **)&a->p));
  FX_TRY (fx_arena_take (arena, bytes, (void **)&a->g));
  FX_TRY (fx_arena_take (arena, bytes, (void **)&a->m));
  FX_TRY (fx_arena_take (arena, bytes, (void **)&a->v));
  FX_TRY (fx_arena_take (arena, a->n, (void **)&a->s.m));
  FX_TRY (fx_arena_take (arena, a->n, (void **)&a->s.v));
  FX_TRY (fx_arena_take (arena, scales, (void **)&a->s.absmax_m));
  FX_TRY (fx_arena_take (arena, scales, (void **)&a->s.absmax_v));
  FX_TRY (fx_arena_take (arena, 1024, &maps[0]));
  FX_TRY (fx_arena_take (arena, 1024, &maps[1]));
  if (arena->base == NULL)
    return FX_OK;
  FX_TRY (fx_zero (arena->backend, arena->base, arena->used));
  FX_TRY (fx_upload (arena->backend, maps[0], fx_dynamic_map (true), 1024));
  FX_TRY (fx_upload (arena->backend, maps[1], fx_dynamic_map (false), 1024));
  a->s.map_m = maps[0];
  a->s.map_v = maps[1];
  return FX_OK;
}

static int
adam_start (Adam *a, fx_backend *b, gsize n)
{
  a->n = n;
  a->blocks = (n + FX_ADAM8_BLOCK - 1) / FX_ADAM8_BLOCK;
  fx_arena_init (&a->arena, b, "adam8");
  FX_TRY (take_all (a));
  fx_arena_rewind (&a->arena, 0);
  FX_TRY (fx_arena_reserve (&a->arena, a->arena.high));
  return take_all (a);
}

static int
adam_step (Adam *a, const float *gradient, int step)
{
  fx_adamw o = settings;

  o.step = step;
  FX_TRY (fx_upload (a->arena.backend, a->g, gradient, a->n * sizeof (float)));
  if (a->n < SMALLEST)
    return fx_adamw_step (a->arena.backend, a->p, a->g, a->m, a->v, (int64_t)a->n, &o);
  return fx_adamw8_step (a->arena.backend, a->p, a->g, &a->s, (int64_t)a->n, &o);
}

/* ---- comparisons ---- */

static void
compare_floats (Parity *p, Adam *a, const char *group, const float *on_backend, gsize n)
{
  gsize n_want = 0;
  g_autofree float *want = parity_floats (p, &n_want, "%s", group);
  g_autofree float *got = g_new (float, n);

  if (want == NULL || n_want != n)
    parity_skip (p, group, "absent, or of another length");
  else if (fx_download (a->arena.backend, got, on_backend, n * sizeof (float)) != FX_OK)
    parity_fail_fx (p, group);
  else
    parity_compare (p, group, got, want, n, BOUND);
}

void
parity_compare_codes (
    Parity *p, const char *group, const guint8 *got, const guint8 *want, gsize n)
{
  g_autofree char *what = NULL;
  gsize one = 0, more = 0;

  for (gsize i = 0; i < n; i++) {
    int difference = abs ((int)got[i] - (int)want[i]);
    one += difference == 1;
    more += difference > 1;
    if (difference > 1 && what == NULL)
      what = g_strdup_printf (
          "codes off by more than one (number %" G_GSIZE_FORMAT ": %d for %d):", i,
          got[i], want[i]);
  }
  parity_value (p, group, more > 0 ? what : "share off by one",
      more > 0 ? (double)more : (double)one / (double)MAX (n, 1),
      more > 0 ? 0 : CODES_OFF, FALSE);
}

static void
compare_codes (Parity *p, Adam *a, const char *group, const guint8 *on_backend)
{
  const FluxTensor *want = parity_find (p, "%s", group);
  g_autofree guint8 *got = g_new (guint8, a->n);

  if (want == NULL || want->dtype != FX_U8 || want->n_elements != a->n)
    parity_skip (p, group, "absent, or of another length");
  else if (fx_download (a->arena.backend, got, on_backend, a->n) != FX_OK)
    parity_fail_fx (p, group);
  else
    parity_compare_codes (p, group, got, want->data, a->n);
}

static void
compare_map (Parity *p, const char *group, gboolean is_signed)
{
  const FluxTensor *want = parity_find (p, "%s", group);

  if (want == NULL || want->dtype != FX_F32 || want->n_elements != 256)
    parity_skip (p, group, "absent, or not 256 floats");
  else
    parity_equal (p, group, fx_dynamic_map (is_signed), want->data, want->n_bytes);
}

static void
compare_state (Parity *p, Adam *a, const char *index)
{
  static const char *const names[] = {
      "state1", "state2", "absmax1", "absmax2", "qmap1", "qmap2"};
  char *groups[G_N_ELEMENTS (names)];

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    groups[i] = g_strdup_printf ("adam8.%s.state.%s", index, names[i]);
  if (a->n < SMALLEST) {
    compare_floats (p, a, groups[0], a->m, a->n);
    compare_floats (p, a, groups[1], a->v, a->n);
  } else {
    compare_codes (p, a, groups[0], a->s.m);
    compare_codes (p, a, groups[1], a->s.v);
    compare_floats (p, a, groups[2], a->s.absmax_m, a->blocks);
    compare_floats (p, a, groups[3], a->s.absmax_v, a->blocks);
    compare_map (p, groups[4], TRUE);
    compare_map (p, groups[5], FALSE);
  }
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    g_free (groups[i]);
}

/* Runs the steps for which there are gradients; FALSE when the backend failed. */
static gboolean
run (Parity *p, Adam *a, const char *index, const float *start)
{
  if (fx_upload (a->arena.backend, a->p, start, a->n * sizeof (float)) != FX_OK)
    return FALSE;
  for (int step = 1;; step++) {
    g_autofree char *group = g_strdup_printf ("adam8.%s.p%d", index, step);
    gsize n = 0;
    g_autofree float *gradient = parity_floats (p, &n, "adam8.%s.g%d", index, step - 1);
    if (gradient == NULL || n != a->n)
      break;
    if (adam_step (a, gradient, step) != FX_OK)
      return FALSE;
    compare_floats (p, a, group, a->p, a->n);
  }
  compare_state (p, a, index);
  return TRUE;
}

static void
compare_one (Parity *p, const char *index)
{
  g_autofree char *group = g_strdup_printf ("adam8.%s", index);
  gsize n = 0;
  g_autofree float *start = parity_floats (p, &n, "adam8.%s.p0", index);
  Adam a = {0};

  if (start == NULL || n == 0) {
    parity_skip (p, group, "there is no p0");
    return;
  }
  if (adam_start (&a, p->backend, n) != FX_OK || !run (p, &a, index, start))
    parity_fail_fx (p, group);
  fx_arena_clear (&a.arena);
}

void
parity_adam8 (Parity *p)
{
  g_auto (GStrv) indices = parity_indices (p, "adam8.");

  for (guint i = 0; indices[i] != NULL; i++) {
    g_autofree char *group = g_strdup_printf ("adam8.%s", indices[i]);
    if (strcmp (indices[i], "map_signed") == 0)
      compare_map (p, group, TRUE);
    else if (strcmp (indices[i], "map_unsigned") == 0)
      compare_map (p, group, FALSE);
    else
      compare_one (p, indices[i]);
  }
}
