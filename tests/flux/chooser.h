/* tests/flux/chooser.h: a CPU backend that has GEMM plans. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * As a GPU's: products of whose algorithms there is a table. It computes as the CPU
 * does. */
#pragma once

#include <glib.h>

#include "kernels/core/gemm-plans.h"

typedef struct {
  fx_ops ops;
  const fx_ops *cpu;
  fx_gemm_plans plans;
} Chooser;

/* One at a time in a test. */
static Chooser chooser;

static inline int
chooser_get (fx_backend *b, void *dst, size_t *bytes)
{
  return fx_gemm_plans_save (&chooser.plans, dst, bytes);
}

static inline int
chooser_set (fx_backend *b, const void *src, size_t bytes, bool replace)
{
  return fx_gemm_plans_load (&chooser.plans, src, bytes, replace);
}

/* Makes a CPU backend one; undone by chooser_close(). */
static inline void
chooser_open (fx_backend *b, const char *key)
{
  chooser = (Chooser){.ops = *b->ops, .cpu = b->ops};
  chooser.ops.get_gemm_plans = chooser_get;
  chooser.ops.set_gemm_plans = chooser_set;
  g_strlcpy (chooser.plans.key, key, sizeof chooser.plans.key);
  b->ops = &chooser.ops;
  b->plans_key = chooser.plans.key;
}

static inline void
chooser_close (fx_backend *b)
{
  b->ops = chooser.cpu;
  b->plans_key = NULL;
  fx_gemm_plans_clear (&chooser.plans);
}

/* As if a product of m rows had been timed. */
static inline void
chooser_choose (int m, guint8 algorithm)
{
  fx_gemm_plan p = {{m, 64, 32, 32, 32, 64, FX_F32, 0, 1, 0, 1, 0}, {algorithm}};

  g_assert_true (fx_gemm_plans_add (&chooser.plans, &p, true));
}

/* -1: none. */
static inline int
chooser_chosen (int m)
{
  fx_gemm_shape s = {m, 64, 32, 32, 32, 64, FX_F32, 0, 1, 0, 1, 0};
  const fx_gemm_plan *p = fx_gemm_plans_find (&chooser.plans, &s);

  return p != NULL ? p->algorithm[0] : -1;
}
