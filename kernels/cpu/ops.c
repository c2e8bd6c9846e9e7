/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The CPU's op table, once for each instruction set. */
#include "cpu.h"

const fx_ops fx_cpu_ops = {
    .alloc = fx_cpu_alloc,
    .free = fx_cpu_free,
    .upload = fx_cpu_copy_bytes,
    .download = fx_cpu_copy_bytes,
    .zero = fx_cpu_zero,
    .sync = fx_cpu_sync,
    .destroy = fx_cpu_destroy,
};
