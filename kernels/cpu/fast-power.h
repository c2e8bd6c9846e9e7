/* kernels/cpu/fast-power.h: powers of Adam's betas as bitsandbytes' kernels have them.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bitsandbytes is compiled with --use_fast_math: beta^step is ex2.approx (step *
 * lg2.approx (beta)) of a GPU. Next to 1, lg2.approx is off by up to 2^-22 (PTX ISA), and
 * 1 - 0.999^step magnifies that: each step is about 5e-5 shorter than torch's. For the
 * beta that everyone uses the difference is reproduced: lg2.approx.ftz.f32 (0.999f), read
 * off an H100 with the operand in a register, is -0.00144332600757, 7.22694e-8 above the
 * logarithm. ex2.approx is not reproduced. Any other beta has the power itself. */
#pragma once

#include <math.h>

static inline float
fx_fast_power (float beta, int step)
{
  const double excess = beta == 0.999f ? 7.22694e-8 : 0.0;
  float log_2 = (float)(log2 (beta) + excess);

  return (float)exp2 (log_2 * (float)step);
}
