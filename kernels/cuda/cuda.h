/* kernels/cuda/cuda.h: the CUDA backend from inside. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Everything runs on one stream, or for a while on two; nothing here waits for the device
 * but upload, download and sync. Scratch grows at the first call that needs more of it,
 * so a step that has run once allocates nothing when it runs again. */
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include "kernels/fx.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int (*fxc_error_func) (int status, const char *format, ...);

typedef struct fxc_plans fxc_plans;
typedef struct fxc_biases fxc_biases;

/* An op may hold one of each at once. */
enum { FXC_SCRATCH_WEIGHT, FXC_SCRATCH_PARTIAL, FXC_SCRATCH_MATRIX, FXC_N_SCRATCH };

/* What a queue has to itself. */
typedef struct {
  cudaStream_t stream;
  void *workspace; /* cuBLASLt's */
  size_t workspace_size;
  void *scratch[FXC_N_SCRATCH];
  size_t scratch_size[FXC_N_SCRATCH];
  float *ones; /* [n_ones] */
  int64_t n_ones;
} fxc_queue;

typedef struct {
  fx_backend base;
  fxc_error_func error; /* fx_error() of whoever opened the module */
  cublasLtHandle_t lt;
  int n_sms;
  int arch;                /* what the code that runs was compiled for: 75, 80.. */
  bool has_mma;            /* sm_80 or newer: mma.sync m16n8k16, cp.async, bf16 */
  bool has_wgmma;          /* sm_90, and the module holds code for sm_90a */
  bool no_gelu;            /* cuBLASLt has refused a product with GELU */
  bool has_row_scales;     /* sm_90: cuBLASLt scales rows of 8-bit operands */
  void *encode_tensor_map; /* the driver's cuTensorMapEncodeTiled, once asked for */
  fxc_queue queue;         /* where ops go */
  fxc_queue other; /* the second of the two while ops go to the first, and the reverse */
  bool on_side;
  cudaEvent_t forked, done; /* made with the second queue */
  cudaStream_t copies;      /* what is fetched from the host; from its first use on */
  cudaEvent_t asked, arrived[FX_FETCHES];
  fxc_plans *plans;
  fxc_biases *biases;
} fx_cuda;

static inline fx_cuda *
fxc (fx_backend *b)
{
  return (fx_cuda *)b;
}

int fxc_failed (fx_cuda *c, cudaError_t e, const char *what, const char *file, int line);
/* Makes the GPU with this number the current one; else says what is missing to that. */
int fxc_set_device (fx_cuda *c, int device);
/* What the module's code for this device was compiled for, which may be less than the
 * device is: 75 for compute_75 PTX on a newer GPU. */
int fxc_compiled_arch (fx_cuda *c, int *arch);
int fxc_queue_open (fx_cuda *c, fxc_queue *q);
void fxc_queue_close (fxc_queue *q);
int fxc_side (fx_backend *b, bool on);
int fxc_join (fx_backend *b);
int fxc_fetch (fx_backend *b, int number, void *dst, const void *src, size_t bytes);
int fxc_fetched (fx_backend *b, int number);
void fxc_copies_close (fx_cuda *c);
int fxc_scratch (fx_cuda *c, int which, size_t bytes, void **p);

#define FXC_TRY(c, call)                                                                 \
  do {                                                                                   \
    cudaError_t fxc_try_ = (call);                                                       \
    if (fxc_try_ != cudaSuccess)                                                         \
      return fxc_failed (c, fxc_try_, #call, __FILE__, __LINE__);                        \
  } while (0)
/* After a launch; ends the function. */
#define FXC_LAUNCHED(c, op)                                                              \
  do {                                                                                   \
    cudaError_t fxc_try_ = cudaGetLastError ();                                          \
    if (fxc_try_ != cudaSuccess)                                                         \
      return fxc_failed (c, fxc_try_, op, __FILE__, __LINE__);                           \
    return FX_OK;                                                                        \
  } while (0)

/* The bias of a layer in the compute dtype (cuBLASLt's epilogue takes no other). */
int fxc_bias (fx_cuda *c, const float *bias, int64_t n, const void **out);
void fxc_biases_forget (fx_cuda *c, const void *p, size_t bytes);
void fxc_biases_free (fx_cuda *c);
int fxc_plans_open (fx_cuda *c);
void fxc_plans_free (fx_cuda *c);

/* e4m3 operands give a product of `dtype`: bare, or with a scale a row of x and of W;
 * int8 ones sums in FX_I32. */
typedef enum { FXC_SAME, FXC_E4M3, FXC_E4M3_ROWS, FXC_INT8 } fxc_operands;

/* y [m, n] = alpha x [m, k] W^T (w_transposed: W lies as [n, k]) or x W (W lies as [k,
 * n]), plus y when beta, plus bias [n], then GELU (tanh) of that. Everything of one dtype
 * but 8-bit operands, accumulated in fp32. */
typedef struct {
  int64_t m, n, k, ldx, ldw, ldy;
  fx_dtype dtype;
  bool w_transposed, beta, bias, gelu;
  fxc_operands operands;
  bool fast;                        /* 8 bits: partial sums of fewer bits */
  const float *x_scales, *w_scales; /* FXC_E4M3_ROWS: [m], [n]; not part of the plan */
} fxc_shape;
int fxc_matmul (fx_cuda *c, const fxc_shape *s, void *y, const void *x, const void *w,
    const void *bias, float alpha);

/* The ops, as in fx_ops. */
int fxc_get_gemm_plans (fx_backend *b, void *dst, size_t *bytes);
int fxc_set_gemm_plans (fx_backend *b, const void *src, size_t bytes, bool replace);
int fxc_expand (fx_backend *b, fx_mat dst, const fx_weight *w);
int fxc_gemm (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta);
int fxc_gemm_gelu (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w);
int fxc_gemm_dgrad (fx_backend *b, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta);
int fxc_gemv (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta);
int fxc_lora (fx_backend *b, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l, int n);
int fxc_lora_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n);
int fxc_adaln (fx_backend *b, fx_mat y, float *stats, fx_mat x, const float *shift,
    const float *scale, float eps);
int fxc_adaln_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, const float *stats,
    const float *scale);
int fxc_qknorm_rope (fx_backend *b, fx_mat qk, float *rstd, fx_mat qkv, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim, float eps);
int fxc_qknorm_rope_bwd (fx_backend *b, fx_mat dqkv, fx_mat dqk, fx_mat qkv,
    const float *rstd, const float *wq, const float *wk, const fx_rope *rope,
    int64_t rope_row, int head_dim);
int fxc_attention (
    fx_backend *b, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
int fxc_attention_bwd (fx_backend *b, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o,
    fx_mat o, const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
int fxc_act (fx_backend *b, fx_mat y, fx_mat x, fx_mat mul, fx_act kind);
int fxc_act_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_act kind);
int fxc_gate_residual (fx_backend *b, fx_mat out, fx_mat x, fx_mat y, const float *gate);
int fxc_gate_bwd (fx_backend *b, fx_mat dy, fx_mat dout, const float *gate);
int fxc_round_rows (fx_backend *b, fx_rounded r, fx_mat x, const float *factor);
int
fxc_gemm_rounded (fx_backend *b, fx_mat y, fx_rounded x, const fx_weight *w, bool beta);
int fxc_dgrad_rounded (
    fx_backend *b, fx_mat dx, fx_rounded dy, const fx_weight *w, bool beta);
int fxc_adaln_rounded (fx_backend *b, fx_mat y, fx_rounded r, float *stats, fx_mat x,
    const float *shift, const float *scale, float eps);
int fxc_act_rounded (
    fx_backend *b, fx_mat y, fx_rounded r, fx_mat left, fx_mat x, fx_act kind);
int fxc_act_bwd_rounded (fx_backend *b, fx_mat dx, fx_rounded r, const float *factor,
    fx_mat dy, fx_mat x, fx_act kind);
int fxc_gate_bwd_rounded (fx_backend *b, fx_mat dy, fx_rounded r, const float *factor,
    fx_mat dout, const float *gate);
int fxc_qknorm_rope_bwd_rounded (fx_backend *b, fx_mat dqkv, fx_rounded r,
    const float *factor, fx_mat dqk, fx_mat qkv, const float *rstd, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim);
int fxc_mse (fx_backend *b, double *loss, fx_mat dpred, fx_mat pred, fx_mat target,
    float weight, float grad_scale);
int fxc_sum_squares (fx_backend *b, double *sum, const float *x, int64_t n);
int fxc_adamw (fx_backend *b, float *p, const float *g, float *m, float *v, int64_t n,
    const fx_adamw *o);
int fxc_adamw8 (fx_backend *b, float *p, const float *g, const fx_adam8_state *s,
    int64_t n, const fx_adamw *o);
int fxc_conv2d (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *c);
int fxc_groupnorm (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu);
int fxc_layernorm (
    fx_backend *b, fx_mat y, fx_mat x, const float *weight, const float *bias, float eps);
int fxc_rmsnorm (fx_backend *b, fx_mat y, fx_mat x, const float *weight, float eps);
int fxc_upsample2 (fx_backend *b, fx_mat y, fx_mat x, int height, int width);
int fxc_gather (fx_backend *b, fx_mat y, fx_mat table, const int32_t *ids);
int fxc_copy (fx_backend *b, fx_mat y, fx_mat x);

#ifdef __cplusplus
}
#endif
