/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The mean of a vector as PyTorch has it on a GPU (internal). */
#pragma once

#include <stddef.h>

float fx_torch_mean (const float *x, size_t n);
