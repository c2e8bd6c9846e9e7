/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The CPU backend's inside.
 *
 * Every op file is compiled once for each instruction set (meson.build): x86-64's
 * baseline, AVX2 + FMA and AVX-512 on x86, one on other machines. FX_ISA names the one
 * being compiled and becomes a suffix of every shared name, by the macros below; op files
 * are written in plain names. backend.c picks the table of ops at run time, so there are
 * no resolvers and it all works under sanitizers.
 *
 * Adding an op file: add it to cpu_op_files in meson.build, declare its ops here with
 * FX_NAME, and put them into the table of ops.c.
 */
#pragma once

#include "kernels/fx.h"
#include "pool.h"

#ifndef FX_ISA
#define FX_ISA base
#endif
#define FX_JOIN_(a, b) a##_##b
#define FX_JOIN(a, b) FX_JOIN_ (a, b)
#define FX_NAME(name) FX_JOIN (name, FX_ISA)

typedef struct {
  fx_backend base; /* compute is FX_F32 */
  fx_pool *pool;
  int threads;
  void **scratch; /* one 64-byte aligned buffer a thread, of scratch_size bytes */
  size_t scratch_size;
  void *shared; /* one more, for what the threads share within an op */
  size_t shared_size;
} fx_cpu;

static inline fx_cpu *
fx_cpu_of (fx_backend *b)
{
  return (fx_cpu *)b;
}

/* A backend with the ops of one instruction set ("base", "avx2", "avx512"), for tests;
 * NULL when this machine has it not. */
fx_backend *fx_cpu_new_isa (int threads, const char *isa);

/* Makes scratch[worker] at least `bytes` long for every thread. Contents are lost. To be
 * called before fx_pool_run_indexed(), never within. */
int fx_cpu_scratch (fx_cpu *cpu, const char *op, size_t bytes);
/* The same for `shared`. */
int fx_cpu_shared (fx_cpu *cpu, const char *op, size_t bytes);

/* Item count of one piece such that a piece is worth about `work` of `per_item` each. */
static inline int64_t
fx_cpu_grain (int64_t per_item, int64_t work)
{
  return per_item >= work ? 1 : work / (per_item < 1 ? 1 : per_item);
}

#define fx_cpu_ops FX_NAME (fx_cpu_ops)
#define fx_cpu_conv2d FX_NAME (fx_cpu_conv2d)
#define fx_cpu_groupnorm FX_NAME (fx_cpu_groupnorm)
#define fx_cpu_upsample2 FX_NAME (fx_cpu_upsample2)

extern const fx_ops fx_cpu_ops;

int
fx_cpu_conv2d (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *c);
int fx_cpu_groupnorm (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu);
int fx_cpu_upsample2 (fx_backend *b, fx_mat y, fx_mat x, int height, int width);

/* Memory, the same for every instruction set (memory.c). */
int fx_cpu_alloc (fx_backend *b, size_t bytes, void **p);
void fx_cpu_free (fx_backend *b, void *p, size_t bytes);
int fx_cpu_copy_bytes (fx_backend *b, void *dst, const void *src, size_t bytes);
int fx_cpu_zero (fx_backend *b, void *dst, size_t bytes);
int fx_cpu_sync (fx_backend *b);
void fx_cpu_destroy (fx_backend *b);
