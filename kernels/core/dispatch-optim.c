/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Checked front functions of the optimisers. */
#include "check.h"

#include <inttypes.h>

int
fx_sum_squares (fx_backend *b, double *sum, const float *x, int64_t n)
{
  FX_CHECK_OP (sum_squares, b);
  FX_TRY (fx_check_pointer ("sum_squares", "sum", sum));
  if (n < 0)
    return fx_error (FX_ERR_SHAPE, "sum_squares: of %" PRId64 " elements", n);
  if (n == 0)
    return FX_OK;
  FX_TRY (fx_check_pointer ("sum_squares", "x", x));
  return b->ops->sum_squares (b, sum, x, n);
}

static int
check_adamw (const char *op, const float *p, const float *g, int64_t n, const fx_adamw *o)
{
  FX_TRY (fx_check_pointer (op, "the settings", o));
  FX_TRY (fx_check_pointer (op, "p", p));
  FX_TRY (fx_check_pointer (op, "g", g));
  if (n < 1)
    return fx_error (FX_ERR_SHAPE, "%s: of %" PRId64 " elements", op, n);
  if (o->step < 1)
    return fx_error (FX_ERR_SHAPE, "%s: step %d, the first is 1", op, o->step);
  return FX_OK;
}

int
fx_adamw_step (fx_backend *b, float *p, const float *g, float *m, float *v, int64_t n,
    const fx_adamw *o)
{
  FX_CHECK_OP (adamw, b);
  FX_TRY (check_adamw ("adamw", p, g, n, o));
  FX_TRY (fx_check_pointer ("adamw", "m", m));
  FX_TRY (fx_check_pointer ("adamw", "v", v));
  return b->ops->adamw (b, p, g, m, v, n, o);
}

int
fx_adamw8_step (fx_backend *b, float *p, const float *g, const fx_adam8_state *s,
    int64_t n, const fx_adamw *o)
{
  FX_CHECK_OP (adamw8, b);
  FX_TRY (check_adamw ("adamw8", p, g, n, o));
  FX_TRY (fx_check_pointer ("adamw8", "the state", s));
  FX_TRY (fx_check_pointer ("adamw8", "m", s->m));
  FX_TRY (fx_check_pointer ("adamw8", "v", s->v));
  FX_TRY (fx_check_pointer ("adamw8", "absmax_m", s->absmax_m));
  FX_TRY (fx_check_pointer ("adamw8", "absmax_v", s->absmax_v));
  FX_TRY (fx_check_pointer ("adamw8", "map_m", s->map_m));
  FX_TRY (fx_check_pointer ("adamw8", "map_v", s->map_v));
  return b->ops->adamw8 (b, p, g, s, n, o);
}
