/* tests/golden/compare.c: one line a comparison. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "tests/golden/parity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "flux/error.h"

static void
count (Parity *p, gboolean ok)
{
  if (ok)
    p->n_ok++;
  else
    p->n_failed++;
  fflush (stdout);
}

void
parity_add (
    ParityError *e, const char *name, const float *got, const float *want, gsize n)
{
  double absolute = 0, largest = 0, relative;

  for (gsize i = 0; i < n; i++) {
    double difference = fabs ((double)got[i] - (double)want[i]);
    /* A NaN on one side only is as wrong as can be. */
    if (isnan (difference) && !(isnan (got[i]) && isnan (want[i])))
      difference = INFINITY;
    absolute = fmax (absolute, difference);
    largest = fmax (largest, fabs ((double)want[i]));
  }
  relative = absolute == 0 ? 0 : absolute / largest;
  if (e->n++ == 0 || relative > e->relative) {
    e->relative = relative;
    g_strlcpy (e->worst, name, sizeof e->worst);
  }
  e->absolute = fmax (e->absolute, absolute);
}

void
parity_judge (Parity *p, const char *group, const ParityError *e, double bound)
{
  gboolean ok;

  if (p->compute == FX_F32)
    bound *= p->slack;
  ok = e->n > 0 && e->relative <= bound;
  printf ("%-8s %-44s abs %.3e  rel %.3e  bound %.1e", ok ? "ok" : "FAIL", group,
      e->absolute, e->relative, bound);
  if (e->n > 1)
    printf ("  (%u tensors, worst %s)", e->n, e->worst);
  printf ("\n");
  count (p, ok);
}

/* The error of diffusers in bf16, twice, or for fp16 half of it; negative without it. */
static double
bf16_bound (Parity *p, const char *group, const float *want, gsize n)
{
  g_autofree char *name = g_strndup (group, strcspn (group, " "));
  gsize n_theirs = 0;
  g_autofree float *theirs = parity_floats (p, &n_theirs, "bf16.%s", name);
  ParityError e = {0};

  if (theirs == NULL || n_theirs != n)
    return -1;
  parity_add (&e, name, theirs, want, n);
  return (p->compute == FX_F16 ? 0.5 : 2) * e.relative;
}

void
parity_compare (Parity *p, const char *group, const float *got, const float *want,
    gsize n, double bound)
{
  ParityError e = {0};

  if (p->compute != FX_F32 && (bound = bf16_bound (p, group, want, n)) < 0) {
    parity_skip (p, group, "the golden data have no bf16 yardstick for it");
    return;
  }
  parity_add (&e, group, got, want, n);
  parity_judge (p, group, &e, bound);
}

void
parity_equal (
    Parity *p, const char *group, gconstpointer got, gconstpointer want, gsize bytes)
{
  const guint8 *a = got, *b = want;
  gsize differ = 0;

  for (gsize i = 0; i < bytes; i++)
    differ += a[i] != b[i];
  printf ("%-8s %-44s %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT " bytes differ  bound 0\n",
      differ == 0 ? "ok" : "FAIL", group, differ, bytes);
  count (p, differ == 0);
}

void
parity_value (Parity *p, const char *group, const char *what, double value, double bound,
    gboolean at_least)
{
  gboolean ok = at_least ? value >= bound : value <= bound;

  printf ("%-8s %-44s %s %.4g  bound %s %.4g\n", ok ? "ok" : "FAIL", group, what, value,
      at_least ? ">=" : "<=", bound);
  count (p, ok);
}

void
parity_skip (Parity *p, const char *group, const char *reason)
{
  if (!g_hash_table_add (p->reported, g_strdup (group)))
    return;
  printf ("skipped  %s: %s\n", group, reason);
  p->n_skipped++;
}

/* What is absent is no failure. */
void
parity_fail (Parity *p, const char *group, GError **error)
{
  const char *message =
      *error != NULL ? (*error)->message : "the golden data are incomplete";

  if (g_error_matches (*error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND)) {
    parity_skip (p, group, message);
  } else {
    printf ("FAIL     %-44s %s\n", group, message);
    count (p, FALSE);
  }
  g_clear_error (error);
}

void
parity_fail_fx (Parity *p, const char *group)
{
  printf ("FAIL     %-44s %s\n", group, fx_error_message ());
  count (p, FALSE);
}
