/* tests/bench/profile.h: where the time of a backend goes, op by op.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "kernels/fx.h"

/* From here on every op of b is waited for and timed, which is slower than running
 * freely; one backend at a time. */
void profile_start (fx_backend *b);
/* Prints ops and shapes, the dearest first, with calls and milliseconds divided by
 * `parts` (micro-steps, say), and restores b. */
void profile_stop (fx_backend *b, const char *title, double parts);

/* From here on the time inside calls of b that may wait for the device (upload, download,
 * sync) is added up; the rest of the wall time is the host's own. */
void profile_waits_start (fx_backend *b);
/* Seconds since then, and restores b. */
double profile_waits_stop (fx_backend *b);
