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

/* What a thread remembers from one piece of a job to the next. */
typedef struct {
  int64_t block, depth;
} fx_cpu_note;

typedef struct {
  fx_backend base; /* compute is FX_F32 */
  fx_pool *pool;
  int threads;
  void **scratch; /* one 64-byte aligned buffer a thread, of scratch_size bytes */
  size_t scratch_size;
  fx_cpu_note *notes; /* one a thread; an op that uses them resets them first */
  void *shared;       /* one more, for what the threads share within an op */
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
#define fx_cpu_expand FX_NAME (fx_cpu_expand)
#define fx_cpu_gemm FX_NAME (fx_cpu_gemm)
#define fx_cpu_gemm_dgrad FX_NAME (fx_cpu_gemm_dgrad)
#define fx_cpu_lora FX_NAME (fx_cpu_lora)
#define fx_cpu_lora_bwd FX_NAME (fx_cpu_lora_bwd)
#define fx_cpu_adaln FX_NAME (fx_cpu_adaln)
#define fx_cpu_adaln_bwd FX_NAME (fx_cpu_adaln_bwd)
#define fx_cpu_qknorm_rope FX_NAME (fx_cpu_qknorm_rope)
#define fx_cpu_qknorm_rope_bwd FX_NAME (fx_cpu_qknorm_rope_bwd)
#define fx_cpu_attention FX_NAME (fx_cpu_attention)
#define fx_cpu_attention_bwd FX_NAME (fx_cpu_attention_bwd)
#define fx_cpu_act FX_NAME (fx_cpu_act)
#define fx_cpu_act_bwd FX_NAME (fx_cpu_act_bwd)
#define fx_cpu_gate_residual FX_NAME (fx_cpu_gate_residual)
#define fx_cpu_gate_bwd FX_NAME (fx_cpu_gate_bwd)
#define fx_cpu_mse FX_NAME (fx_cpu_mse)
#define fx_cpu_sum_squares FX_NAME (fx_cpu_sum_squares)
#define fx_cpu_adamw FX_NAME (fx_cpu_adamw)
#define fx_cpu_adamw8 FX_NAME (fx_cpu_adamw8)
#define fx_cpu_conv2d FX_NAME (fx_cpu_conv2d)
#define fx_cpu_groupnorm FX_NAME (fx_cpu_groupnorm)
#define fx_cpu_layernorm FX_NAME (fx_cpu_layernorm)
#define fx_cpu_rmsnorm FX_NAME (fx_cpu_rmsnorm)
#define fx_cpu_upsample2 FX_NAME (fx_cpu_upsample2)
#define fx_cpu_gather FX_NAME (fx_cpu_gather)
#define fx_cpu_copy FX_NAME (fx_cpu_copy)

extern const fx_ops fx_cpu_ops;

/* The ops; fx.h says what they do. */
int fx_cpu_expand (fx_backend *b, fx_mat dst, const fx_weight *w);
int fx_cpu_gemm (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta);
int
fx_cpu_gemm_dgrad (fx_backend *b, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta);
int fx_cpu_lora (fx_backend *b, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l, int n);
int fx_cpu_lora_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n);
int fx_cpu_adaln (fx_backend *b, fx_mat y, float *stats, fx_mat x, const float *shift,
    const float *scale, float eps);
int fx_cpu_adaln_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, const float *stats,
    const float *scale);
int
fx_cpu_qknorm_rope (fx_backend *b, fx_mat qk, float *rstd, fx_mat qkv, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim, float eps);
int fx_cpu_qknorm_rope_bwd (fx_backend *b, fx_mat dqkv, fx_mat dqk, fx_mat qkv,
    const float *rstd, const float *wq, const float *wk, const fx_rope *rope,
    int64_t rope_row, int head_dim);
int fx_cpu_attention (
    fx_backend *b, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
int fx_cpu_attention_bwd (fx_backend *b, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o,
    fx_mat o, const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
int fx_cpu_act (fx_backend *b, fx_mat y, fx_mat x, fx_mat mul, fx_act kind);
int fx_cpu_act_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_act kind);
int
fx_cpu_gate_residual (fx_backend *b, fx_mat out, fx_mat x, fx_mat y, const float *gate);
int fx_cpu_gate_bwd (fx_backend *b, fx_mat dy, fx_mat dout, const float *gate);
int fx_cpu_mse (fx_backend *b, double *loss, fx_mat dpred, fx_mat pred, fx_mat target,
    float weight, float grad_scale);
int fx_cpu_sum_squares (fx_backend *b, double *sum, const float *x, int64_t n);
int fx_cpu_adamw (fx_backend *b, float *p, const float *g, float *m, float *v, int64_t n,
    const fx_adamw *o);
int fx_cpu_adamw8 (fx_backend *b, float *p, const float *g, const fx_adam8_state *s,
    int64_t n, const fx_adamw *o);
int
fx_cpu_conv2d (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *c);
int fx_cpu_groupnorm (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu);
int fx_cpu_layernorm (
    fx_backend *b, fx_mat y, fx_mat x, const float *weight, const float *bias, float eps);
int fx_cpu_rmsnorm (fx_backend *b, fx_mat y, fx_mat x, const float *weight, float eps);
int fx_cpu_upsample2 (fx_backend *b, fx_mat y, fx_mat x, int height, int width);
int fx_cpu_gather (fx_backend *b, fx_mat y, fx_mat table, const int32_t *ids);
int fx_cpu_copy (fx_backend *b, fx_mat y, fx_mat x);

/* Memory, the same for every instruction set (memory.c). */
int fx_cpu_alloc (fx_backend *b, size_t bytes, void **p);
void fx_cpu_free (fx_backend *b, void *p, size_t bytes);
int fx_cpu_copy_bytes (fx_backend *b, void *dst, const void *src, size_t bytes);
int fx_cpu_zero (fx_backend *b, void *dst, size_t bytes);
int fx_cpu_sync (fx_backend *b);
void fx_cpu_destroy (fx_backend *b);
