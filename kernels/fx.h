/* gst-flux kernels: every public type and the op table. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The file to read first. kernels/ knows matrices, not models.
 *
 * Conventions
 *   - Matrices are row-major and passed by value: element (r, c) of m is at p[r * ld +
 * c].
 *     `[tokens, features]` in a comment is rows x cols.
 *   - Activations have the backend's compute dtype (FX_F32 on the CPU; FX_F32, FX_BF16 or
 *     FX_F16 on CUDA). Vectors (`const float *`: biases, norm weights, scale, shift,
 * gate) and statistics (mean, rstd, lse) are always fp32, as are LoRA parameters and
 * their gradients.
 *   - Pointers belong to the backend ("device pointers"): only fx_upload() and
 * fx_download() touch them from outside.
 *   - Every function returns FX_OK or a negative fx_status; fx_error_message() then says
 *     which op failed on which shapes. Nothing here prints, exits or aborts.
 *   - Calls on one backend come from one thread at a time. Results do not depend on the
 *     number of threads, and the same call gives the same bits.
 *   - "Accumulates" in a comment means y += ..., else the output is overwritten.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  FX_OK = 0,
  FX_ERR_SHAPE = -1,       /* shapes, dtypes or arguments do not fit together */
  FX_ERR_MEMORY = -2,      /* an arena or the device is full */
  FX_ERR_DEVICE = -3,      /* the device or its driver failed */
  FX_ERR_UNSUPPORTED = -4, /* this backend cannot do that */
  FX_ERR_NO_MODULE = -5,   /* the backend's module is not installed */
  FX_ERR_MODULE = -6,      /* a module that is there, or was named, cannot be used */
  FX_ERR_NO_DEVICE = -7,   /* the module finds no driver, or no device at all */
} fx_status;

/* Returns early with the status of a failing call. */
#define FX_TRY(call)                                                                     \
  do {                                                                                   \
    int fx_try_ = (call);                                                                \
    if (fx_try_ != FX_OK)                                                                \
      return fx_try_;                                                                    \
  } while (0)

typedef enum {
  FX_F32,
  FX_BF16,
  FX_F16,
  FX_F64,
  FX_U8,
  FX_I8,
  FX_I32,
  FX_I64,
  FX_E4M3,
  FX_E5M2,
  FX_BOOL,
  FX_I16,
  FX_U16,
  FX_N_DTYPES
} fx_dtype;

/* A view of a matrix; does not own p. */
typedef struct {
  void *p;
  int64_t rows, cols, ld; /* ld: elements from one row to the next, >= cols */
  fx_dtype dtype;
} fx_mat;

typedef enum {
  FX_Q_NONE,       /* data is [n, k] of `dtype` */
  FX_Q_NF4,        /* bitsandbytes NF4, block 64, fp32 absmax */
  FX_Q_NF4_DOUBLE, /* the same with absmax in 8 bits (block 256) */
  FX_Q_INT8, /* LLM.int8 layout: int8 rows, one fp32 absmax a row, w = q * absmax / 127 */
  FX_Q_FP8,  /* e4m3 rows, one fp32 scale a row (in absmax), w = q * scale */
} fx_qtype;

typedef enum { FX_HOME_DEVICE, FX_HOME_HOST, FX_HOME_FILE } fx_home;

enum { FX_NF4_BLOCK = 64, FX_ABSMAX_BLOCK = 256, FX_ADAM8_BLOCK = 256 };
enum { FX_FETCHES = 4 /* that can be under way at once */ };

/* One frozen matrix W [n, k] of a linear layer y = x W^T + bias.
 *
 * NF4 (bitsandbytes csrc/kernels.cu:26-153, 361-366): element i of the flat row-major W
 * is a nibble of data[i / 2], even i in the high nibble; W[i] = code[nibble] * absmax[i /
 * 64]. NF4_DOUBLE: absmax[j] = code8[absmax_q[j]] * absmax2[j / 256] + offset2[j / 256];
 * the offset is one a block so that the rows of several tensors can be concatenated. */
typedef struct {
  int64_t n, k; /* output features, input features; k % 64 == 0 for the 4-bit types */
  fx_qtype qtype;
  fx_dtype dtype; /* FX_Q_NONE: type of data. Else: the type an expanded value is rounded
                   * to before use (what bitsandbytes calls the weight's dtype) */
  fx_home home;   /* ops take FX_HOME_DEVICE only; bias is there in any case */
  void *data;     /* [n, k], or [n * k / 2] bytes for the 4-bit types */
  float *absmax;  /* NF4: [n * k / 64]; INT8, FP8: [n] */
  uint8_t *absmax_q;  /* NF4_DOUBLE: [n * k / 64] */
  float *absmax2;     /* NF4_DOUBLE: [ceil (n * k / 64 / 256)] */
  float *offset2;     /* the same length */
  const float *code8; /* NF4_DOUBLE: the 256 values of the 8-bit map */
  const float *bias;  /* [n] or NULL */
  /* FX_Q_FP8, FX_Q_INT8: the other operand of a product is rounded to the same 8 bits,
   * each of its rows with a scale of its own (fx_fp8_scale, or absmax / 127): rows of x
   * in gemm, rows of dy times W's scales in gemm_dgrad. n and k are then multiples of
   * 16. */
  bool rounds_inputs;
  /* W in the compute dtype, [n, k], or with rounds_inputs W^T in its 8 bits, [k, n], when
   * fx_expand() has been asked for it and it still stands; NULL otherwise, then gemm
   * expands piecewise into scratch of its own. */
  void *expanded;
} fx_weight;

/* Rows in 8 bits, each with a scale of its own: the operand of a product with
 * rounds_inputs, as the op that makes it can leave it. */
typedef struct {
  void *q;       /* [rows, cols], dense; NULL: not wanted */
  float *scales; /* [rows]: a product is to be multiplied by them, and by W's in gemm */
  int64_t rows, cols;
  fx_dtype dtype; /* fx_rounded_dtype() of the weight */
} fx_rounded;

/* Activation functions. */
typedef enum {
  FX_ACT_GELU_TANH, /* 0.5 x (1 + tanh (sqrt (2/pi) (x + 0.044715 x^3))): FLUX, T5
                       "gelu_new" */
  FX_ACT_GELU_ERF,
  FX_ACT_QUICK_GELU, /* x sigmoid (1.702 x): CLIP */
  FX_ACT_SILU,
  FX_ACT_RELU,
} fx_act;

/* Attention over all tokens of one sample: o = softmax (scale q k^T + bias + mask) v.
 * Head h uses columns [h * head_dim, (h + 1) * head_dim) of q, k, v and o. */
typedef struct {
  int heads, head_dim;
  float scale;
  bool causal;       /* token i sees tokens 0..i */
  const float *bias; /* [heads, q.rows, k.rows] or NULL (T5's relative positions) */
} fx_attn;

/* Rotary tables: [tokens, head_dim / 2] cosines and sines for consecutive pairs
 * (x0, x1) -> (x0 c - x1 s, x1 c + x0 s); diffusers embeddings.py:1221-1234. */
typedef struct {
  const float *cos, *sin;
  int64_t tokens;
} fx_rope;

/* One LoRA module on a linear layer with k inputs and n outputs: y += scale * (x A^T)
 * B^T. */
typedef struct {
  float *a, *b;   /* [rank, k], [n, rank] */
  float *da, *db; /* gradients of the same shapes, or NULL when not trained */
  int rank;
  float scale; /* alpha / rank */
} fx_lora;

/* 2-D convolution on one image held as [height * width, channels] ("channels last").
 * Weights are [out, kernel, kernel, in] flattened to [out, kernel * kernel * in]. */
typedef struct {
  int height, width; /* of the input */
  int kernel, stride;
  int pad_top, pad_left, pad_bottom, pad_right;
} fx_conv;

/* AdamW of one step over one tensor. decay_first: torch's order (decay before the
 * update); else bitsandbytes' (after). grad_scale multiplies the gradient first (clipping
 * and accumulation). step counts from 1. */
typedef struct {
  float lr, beta1, beta2, eps, weight_decay, grad_scale;
  int step;
  bool decay_first;
} fx_adamw;

/* 8-bit Adam state of one tensor of n elements (bitsandbytes optimizer.py:161-187): codes
 * into the signed and the unsigned dynamic map, one absmax for each 256 elements. */
typedef struct {
  uint8_t *m, *v;             /* [n] */
  float *absmax_m, *absmax_v; /* [ceil (n / 256)] */
  const float *map_m, *map_v; /* 256 values each: fx_dynamic_map (true / false) */
} fx_adam8_state;

typedef struct fx_backend fx_backend;

/* The op table. b is the backend itself; shapes have been checked by the fx_* functions
 * below, which are what callers use. */
typedef struct {
  /* --- memory --- */
  int (*alloc) (fx_backend *b, size_t bytes, void **p); /* 256-byte aligned */
  void (*free) (fx_backend *b, void *p, size_t bytes);
  int (*upload) (fx_backend *b, void *dst, const void *src, size_t bytes);
  int (*download) (fx_backend *b, void *dst, const void *src, size_t bytes);
  int (*zero) (fx_backend *b, void *dst, size_t bytes);
  int (*sync) (fx_backend *b);
  /* Bytes of the device that nobody has taken; NULL where memory is the host's. */
  int (*free_memory) (fx_backend *b, size_t *bytes);
  /* Two queues; NULL where a backend has one. Between side (true) and side (false) ops go
   * to the second, which starts after all that was asked for before; what follows runs
   * beside them until join. Not nested. */
  int (*side) (fx_backend *b, bool on);
  int (*join) (fx_backend *b);
  /* How products are computed, where that is chosen by timing; NULL elsewhere. What was
   * chosen so far as bytes that a backend with the same plans_key can be given, in
   * another process too: at most *bytes of them to dst, and *bytes says how many; with
   * dst NULL it only says. */
  int (*get_gemm_plans) (fx_backend *b, void *dst, size_t *bytes);
  /* replace: for products too that something has been chosen for. Damaged bytes are
   * FX_ERR_SHAPE, those of another GPU, library or version FX_ERR_UNSUPPORTED, and then
   * everything is as before. */
  int (*set_gemm_plans) (fx_backend *b, const void *src, size_t bytes, bool replace);
  /* Memory of the host that fetch copies from at full speed; NULL: any is. */
  int (*alloc_host) (fx_backend *b, size_t bytes, void **p);
  void (*free_host) (fx_backend *b, void *p, size_t bytes);
  /* dst = src, which is from alloc_host, on a queue of its own that starts after all that
   * was asked for before. What follows runs beside it, and must neither read nor write
   * dst until fetched (number). number: 0..FX_FETCHES. Both NULL: copied at once. */
  int (*fetch) (fx_backend *b, int number, void *dst, const void *src, size_t bytes);
  int (*fetched) (fx_backend *b, int number);
  void (*destroy) (fx_backend *b);

  /* --- linear layers --- */
  /* dst [n, k] = W in dst's dtype, rounded to w->dtype on the way. Of a weight with
   * rounds_inputs and for dst [k, n] of fx_rounded_dtype (): its bytes the other way
   * round, which is what gemm_dgrad multiplies (CUDA only). */
  int (*expand) (fx_backend *b, fx_mat dst, const fx_weight *w);
  /* y [m, n] = x [m, k] W^T (+ bias); beta 1 accumulates into y. */
  int (*gemm) (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta);
  /* y = gelu (x W^T (+ bias)), as FX_ACT_GELU_TANH; what goes into GELU need not be
   * rounded. NULL or FX_ERR_UNSUPPORTED: gemm and act. */
  int (*gemm_gelu) (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w);
  /* dx [m, k] = dy [m, n] W; beta 1 accumulates into dx. */
  int (*gemm_dgrad) (fx_backend *b, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta);
  /* n modules l[0..n) that read the same x [m, k], each on one of the n equal column
   * parts of y [m, n * outputs] (q, k and v in one matrix): part i of y += scale (x A^T)
   * B^T. h [m, n * rank] keeps x A^T in the compute dtype, module i's in columns
   * [i * rank, (i + 1) * rank). The modules have one rank, and all or none of them have
   * each gradient; their scales may differ. */
  int (*lora) (fx_backend *b, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l, int n);
  /* With dh = scale dy B of a module's part of dy: dB += scale dy^T h, dA += dh^T x, and
   * dx += dh A of all modules (dx.p may be NULL). h is recomputed from x when h.p is
   * NULL. */
  int (*lora_bwd) (
      fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n);

  /* --- transformer --- */
  /* y = (x - mean) rstd (1 + scale) + shift; stats [rows, 2] = mean, rstd
   * (NULL: not wanted). */
  int (*adaln) (fx_backend *b, fx_mat y, float *stats, fx_mat x, const float *shift,
      const float *scale, float eps);
  /* dx += gradient through adaln. */
  int (*adaln_bwd) (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, const float *stats,
      const float *scale);
  /* qk [m, 2 d] = RoPE (RMSNorm (first 2 d columns of qkv [m, 3 d])), each head of
   * head_dim by itself, q with wq [head_dim], k with wk; rstd [m, 2 heads] keeps 1 / rms
   * (NULL: not wanted).
   * Row i uses row rope_row + i of the table. */
  int (*qknorm_rope) (fx_backend *b, fx_mat qk, float *rstd, fx_mat qkv, const float *wq,
      const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim, float eps);
  /* First 2 d columns of dqkv = gradient through qknorm_rope. */
  int (*qknorm_rope_bwd) (fx_backend *b, fx_mat dqkv, fx_mat dqk, fx_mat qkv,
      const float *rstd, const float *wq, const float *wk, const fx_rope *rope,
      int64_t rope_row, int head_dim);
  /* o [m, d]; lse [heads, m] = natural log of the softmax denominators (NULL: not
   * wanted). */
  int (*attention) (fx_backend *b, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v,
      const fx_attn *a);
  /* dq, dk, dv from d_o; no mask and no bias. */
  int (*attention_bwd) (fx_backend *b, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o,
      fx_mat o, const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
  /* y = act (x), or act (x) * mul when mul.p is set (T5's gated GELU). y may be x. */
  int (*act) (fx_backend *b, fx_mat y, fx_mat x, fx_mat mul, fx_act kind);
  /* dx = dy act' (x); dx may be dy. */
  int (*act_bwd) (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_act kind);
  /* out = x + gate * y; out may be x. gate NULL: ones. */
  int (*gate_residual) (fx_backend *b, fx_mat out, fx_mat x, fx_mat y, const float *gate);
  /* dy = gate * dout (the gradient of x is dout itself). */
  int (*gate_bwd) (fx_backend *b, fx_mat dy, fx_mat dout, const float *gate);
  /* *loss = mean (weight (pred - target)^2) in fp64; dpred = 2 weight (pred - target) /
   * count * grad_scale (dpred.p may be NULL). target is fp32. loss is a device pointer.
   */
  int (*mse) (fx_backend *b, double *loss, fx_mat dpred, fx_mat pred, fx_mat target,
      float weight, float grad_scale);

  /* --- operands of products in 8 bits, rounded where they are made ---
   * NULL in a backend whose products alone round; the bits are the same either way.
   * factor [cols] (NULL: ones) multiplies what is rounded: W's absmax for gemm_dgrad. y
   * (dx, dy) is the result as it is without rounding, not wanted when its p is NULL. */
  int (*round_rows) (fx_backend *b, fx_rounded r, fx_mat x, const float *factor);
  int (*gemm_rounded) (
      fx_backend *b, fx_mat y, fx_rounded x, const fx_weight *w, bool beta);
  int (*dgrad_rounded) (
      fx_backend *b, fx_mat dx, fx_rounded dy, const fx_weight *w, bool beta);
  int (*adaln_rounded) (fx_backend *b, fx_mat y, fx_rounded r, float *stats, fx_mat x,
      const float *shift, const float *scale, float eps);
  /* Rows of [left | act (x)]; left.p may be NULL, and be the left part of y. */
  int (*act_rounded) (
      fx_backend *b, fx_mat y, fx_rounded r, fx_mat left, fx_mat x, fx_act kind);
  int (*act_bwd_rounded) (fx_backend *b, fx_mat dx, fx_rounded r, const float *factor,
      fx_mat dy, fx_mat x, fx_act kind);
  /* Rounds all of dqkv, whose last d columns are there. */
  int (*qknorm_rope_bwd_rounded) (fx_backend *b, fx_mat dqkv, fx_rounded r,
      const float *factor, fx_mat dqk, fx_mat qkv, const float *rstd, const float *wq,
      const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim);
  int (*gate_bwd_rounded) (fx_backend *b, fx_mat dy, fx_rounded r, const float *factor,
      fx_mat dout, const float *gate);

  /* --- optimiser --- */
  /* *sum += sum of squares of x, in fp64. */
  int (*sum_squares) (fx_backend *b, double *sum, const float *x, int64_t n);
  int (*adamw) (fx_backend *b, float *p, const float *g, float *m, float *v, int64_t n,
      const fx_adamw *o);
  int (*adamw8) (fx_backend *b, float *p, const float *g, const fx_adam8_state *s,
      int64_t n, const fx_adamw *o);

  /* --- frozen models --- */
  /* y [out_h * out_w, w->n] = convolution of x [height * width, channels] + bias. */
  int (*conv2d) (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *c);
  /* Group norm over [pixels, channels], then SiLU when silu. y may be x. */
  int (*groupnorm) (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
      const float *bias, float eps, bool silu);
  int (*layernorm) (fx_backend *b, fx_mat y, fx_mat x, const float *weight,
      const float *bias, float eps);
  /* y = x / sqrt (mean (x^2) + eps) * weight: T5. */
  int (*rmsnorm) (fx_backend *b, fx_mat y, fx_mat x, const float *weight, float eps);
  /* Nearest, twice as large each way: x [h * w, c] -> y [4 h w, c]. */
  int (*upsample2) (fx_backend *b, fx_mat y, fx_mat x, int height, int width);
  /* y [n, features] = rows ids[0..n) of table (any float dtype); ids is a host pointer.
   */
  int (*gather) (fx_backend *b, fx_mat y, fx_mat table, const int32_t *ids);
  /* y = x with conversion of dtype. */
  int (*copy) (fx_backend *b, fx_mat y, fx_mat x);
} fx_ops;

/* What a backend starts with; backends extend it. */
struct fx_backend {
  const fx_ops *ops;
  const char *name; /* "cpu", "cuda", "plan" */
  fx_dtype compute; /* dtype of activations */
  int device;       /* ordinal, 0 for the CPU */
  bool has_fp8;     /* multiplies FX_Q_FP8 weights with rounds_inputs */
  /* What the choice of GEMM plans depends on: GPU, library and version; NULL where
   * nothing is chosen. */
  const char *plans_key;
};

/* Do ops beside the products round their operands, too? */
static inline bool
fx_rounds_early (const fx_backend *b)
{
  return b->ops->gemm_rounded != NULL;
}

/* ---- backends ---- */

/* The CPU; threads 0 = one a core. NULL when out of memory. */
fx_backend *fx_cpu_new (int threads);
/* Runs nothing: alloc hands out addresses that are never read, so that arenas record
 * their sizes for a device whose compute dtype is `compute`. */
fx_backend *fx_plan_new (fx_dtype compute);
/* A GPU; opens the CUDA module at first use: module_path, or when NULL what the
 * environment variable FLUX_CUDA_MODULE names, or when that is unset or empty
 * libfxcuda.so in ../gst-flux as seen from the plugin's folder, or beside the plugin.
 * NULL when there is none, fx_error_message() says why and fx_error_status() what kind of
 * failure it is: FX_ERR_NO_MODULE, FX_ERR_MODULE (also a module of another version),
 * FX_ERR_NO_DEVICE, else the device's. */
fx_backend *fx_cuda_new (const char *module_path, int device, fx_dtype compute);
/* Memory of the host that `device` fetches from, as a backend that has the memory calls
 * and no ops, for arenas. device must outlive it. NULL when out of memory. */
fx_backend *fx_host_new (fx_backend *device);
void fx_backend_free (fx_backend *b);

/* ---- errors ---- */

/* The last error of this thread: op, shapes, cause. Never NULL. */
const char *fx_error_message (void);
int fx_error_status (void); /* of the same; FX_OK before the first */
int
fx_error (int status, const char *format, ...) __attribute__ ((format (printf, 2, 3)));

/* ---- dtypes ---- */

size_t fx_dtype_size (fx_dtype d); /* bytes of one element */
const char *
fx_dtype_name (fx_dtype d); /* "F32", "BF16", ... as safetensors spells them */
const char *fx_qtype_name (fx_qtype q); /* none, nf4, nf4-double, int8, fp8 */
float fx_bf16_to_f32 (uint16_t v);
uint16_t fx_f32_to_bf16 (float v); /* nearest even */
float fx_f16_to_f32 (uint16_t v);
uint16_t fx_f32_to_f16 (float v); /* nearest even */
/* Host buffers: n elements of any float dtype to any other. */
int
fx_convert (void *dst, fx_dtype dst_type, const void *src, fx_dtype src_type, size_t n);

/* Neither NaN nor Inf in x [n]? */
bool fx_all_finite (const float *x, size_t n);

/* ---- matrices ---- */

/* What the other operand of a product with w is rounded to. */
static inline fx_dtype
fx_rounded_dtype (const fx_weight *w)
{
  return w->qtype == FX_Q_INT8 ? FX_I8 : FX_E4M3;
}

static inline fx_mat
fx_mat_new (void *p, int64_t rows, int64_t cols, fx_dtype dtype)
{
  fx_mat m = {p, rows, cols, cols, dtype};
  return m;
}

/* What a residual stream beside activations of this dtype is kept in: fp16 ends at 65504,
 * and streams of FLUX and T5 go beyond (diffusers clips them there, transformer_flux.py
 * 408 and 494). */
static inline fx_dtype
fx_residual_dtype (fx_dtype compute)
{
  return compute == FX_F16 ? FX_F32 : compute;
}

static inline fx_mat
fx_rows (fx_mat m, int64_t first, int64_t count)
{
  m.p = (char *)m.p + (size_t)(first * m.ld) * fx_dtype_size (m.dtype);
  m.rows = count;
  return m;
}

static inline fx_mat
fx_cols (fx_mat m, int64_t first, int64_t count)
{
  m.p = (char *)m.p + (size_t)first * fx_dtype_size (m.dtype);
  m.cols = count;
  return m;
}

/* ---- arenas ---- */

/* A bump allocator on a backend. With `base` NULL it only measures: fx_arena_take()
 * returns addresses that must not be read, and `high` tells the size to reserve. */
typedef struct {
  fx_backend *backend;
  const char *name;
  char *base;
  size_t size, used, high;
} fx_arena;

void fx_arena_init (fx_arena *a, fx_backend *b, const char *name);
/* Allocates `size` bytes (what a measuring run left in `high`) and starts from empty;
 * later takes come from there. */
int fx_arena_reserve (fx_arena *a, size_t size);
int fx_arena_take (fx_arena *a, size_t bytes, void **p); /* 256-byte aligned */
int fx_arena_mat (fx_arena *a, int64_t rows, int64_t cols, fx_dtype dtype, fx_mat *m);
static inline size_t
fx_arena_mark (const fx_arena *a)
{
  return a->used;
}
static inline void
fx_arena_rewind (fx_arena *a, size_t mark)
{
  a->used = mark;
}
void fx_arena_clear (fx_arena *a); /* gives the memory back */

/* ---- checked ops: what callers use ---- */

int fx_upload (fx_backend *b, void *dst, const void *src, size_t bytes);
int fx_download (fx_backend *b, void *dst, const void *src, size_t bytes);
int fx_zero (fx_backend *b, void *dst, size_t bytes);
int fx_sync (fx_backend *b);
int fx_free_memory (fx_backend *b, size_t *bytes); /* without the op: SIZE_MAX */
int fx_side (fx_backend *b, bool on);
int fx_join (fx_backend *b);
/* Without the op: no bytes, and FX_ERR_UNSUPPORTED. */
int fx_get_gemm_plans (fx_backend *b, void *dst, size_t *bytes);
int fx_set_gemm_plans (fx_backend *b, const void *src, size_t bytes, bool replace);
int fx_fetch (fx_backend *b, int number, void *dst, const void *src, size_t bytes);
int fx_fetched (fx_backend *b, int number);
int fx_expand (fx_backend *b, fx_mat dst, const fx_weight *w);
int fx_gemm (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, bool beta);
int fx_gemm_gelu (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w);
int fx_gemm_dgrad (fx_backend *b, fx_mat dx, fx_mat dy, const fx_weight *w, bool beta);
int fx_lora_fwd (fx_backend *b, fx_mat y, fx_mat h, fx_mat x, const fx_lora *l, int n);
int fx_lora_bwd (
    fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_mat h, const fx_lora *l, int n);
int fx_adaln (fx_backend *b, fx_mat y, float *stats, fx_mat x, const float *shift,
    const float *scale, float eps);
int fx_adaln_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, const float *stats,
    const float *scale);
int fx_qknorm_rope (fx_backend *b, fx_mat qk, float *rstd, fx_mat qkv, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim, float eps);
int fx_qknorm_rope_bwd (fx_backend *b, fx_mat dqkv, fx_mat dqk, fx_mat qkv,
    const float *rstd, const float *wq, const float *wk, const fx_rope *rope,
    int64_t rope_row, int head_dim);
int fx_attention (
    fx_backend *b, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
int fx_attention_bwd (fx_backend *b, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o,
    fx_mat o, const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
int fx_act_fwd (fx_backend *b, fx_mat y, fx_mat x, fx_mat mul, fx_act kind);
int fx_act_bwd (fx_backend *b, fx_mat dx, fx_mat dy, fx_mat x, fx_act kind);
int fx_gate_residual (fx_backend *b, fx_mat out, fx_mat x, fx_mat y, const float *gate);
int fx_gate_bwd (fx_backend *b, fx_mat dy, fx_mat dout, const float *gate);
int fx_mse (fx_backend *b, double *loss, fx_mat dpred, fx_mat pred, fx_mat target,
    float weight, float grad_scale);
int fx_round_rows (fx_backend *b, fx_rounded r, fx_mat x, const float *factor);
int
fx_gemm_rounded (fx_backend *b, fx_mat y, fx_rounded x, const fx_weight *w, bool beta);
int
fx_dgrad_rounded (fx_backend *b, fx_mat dx, fx_rounded dy, const fx_weight *w, bool beta);
int fx_adaln_rounded (fx_backend *b, fx_mat y, fx_rounded r, float *stats, fx_mat x,
    const float *shift, const float *scale, float eps);
int fx_act_rounded (
    fx_backend *b, fx_mat y, fx_rounded r, fx_mat left, fx_mat x, fx_act kind);
int fx_act_bwd_rounded (fx_backend *b, fx_mat dx, fx_rounded r, const float *factor,
    fx_mat dy, fx_mat x, fx_act kind);
int fx_qknorm_rope_bwd_rounded (fx_backend *b, fx_mat dqkv, fx_rounded r,
    const float *factor, fx_mat dqk, fx_mat qkv, const float *rstd, const float *wq,
    const float *wk, const fx_rope *rope, int64_t rope_row, int head_dim);
int fx_gate_bwd_rounded (fx_backend *b, fx_mat dy, fx_rounded r, const float *factor,
    fx_mat dout, const float *gate);
int fx_sum_squares (fx_backend *b, double *sum, const float *x, int64_t n);
int fx_adamw_step (fx_backend *b, float *p, const float *g, float *m, float *v, int64_t n,
    const fx_adamw *o);
int fx_adamw8_step (fx_backend *b, float *p, const float *g, const fx_adam8_state *s,
    int64_t n, const fx_adamw *o);
int fx_conv2d (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *c);
int fx_groupnorm (fx_backend *b, fx_mat y, fx_mat x, int groups, const float *weight,
    const float *bias, float eps, bool silu);
int fx_layernorm (
    fx_backend *b, fx_mat y, fx_mat x, const float *weight, const float *bias, float eps);
int fx_rmsnorm (fx_backend *b, fx_mat y, fx_mat x, const float *weight, float eps);
int fx_upsample2 (fx_backend *b, fx_mat y, fx_mat x, int height, int width);
int fx_gather (fx_backend *b, fx_mat y, fx_mat table, const int32_t *ids);
int fx_copy (fx_backend *b, fx_mat y, fx_mat x);

#ifdef __cplusplus
}
#endif

#include "kernels/fx-host.h"
