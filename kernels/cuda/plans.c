/* kernels/cuda/plans.c: matrix products and their plans. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Row-major y = x W^T is column-major y^T = W x^T, so W is cuBLASLt's A and x its B.
 *
 * Plans (descriptors and the algorithm) are kept by shape. At a shape's first call the
 * candidates of the heuristic are timed; only those whose result has the same bits as the
 * first's are let in, so that the choice, which depends on the clock, cannot change a
 * number. What was chosen in another process (core/gemm-plans.h) is taken as it is. */
#include "kernels/core/gemm-plans.h"
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CANDIDATES 12
#define TIMED_RUNS 3

typedef struct {
  fxc_shape shape;
  fx_gemm_shape key; /* what tells it from others */
  cublasLtMatmulDesc_t desc;
  cublasLtMatrixLayout_t a, b, d;
  cublasLtMatmulAlgo_t algo;
} plan;

struct fxc_plans {
  plan *list; /* that have run here */
  size_t n, room;
  fx_gemm_plans chosen; /* these, and what other processes chose */
};

static int
failed (fx_cuda *c, cublasStatus_t s, const fxc_shape *p, const char *what)
{
  return c->error (s == CUBLAS_STATUS_NOT_SUPPORTED ? FX_ERR_UNSUPPORTED : FX_ERR_DEVICE,
      "cuda: %s a product m %lld n %lld k %lld: cuBLASLt status %d", what,
      (long long)p->m, (long long)p->n, (long long)p->k, (int)s);
}

static fx_gemm_shape
key_of (const fxc_shape *s)
{
  return (fx_gemm_shape){s->m, s->n, s->k, s->ldx, s->ldw, s->ldy, s->dtype,
      (int32_t)s->operands, s->w_transposed, s->beta, s->bias, s->gelu};
}

static void
plan_clear (plan *p)
{
  if (p->desc != NULL)
    cublasLtMatmulDescDestroy (p->desc);
  if (p->a != NULL)
    cublasLtMatrixLayoutDestroy (p->a);
  if (p->b != NULL)
    cublasLtMatrixLayoutDestroy (p->b);
  if (p->d != NULL)
    cublasLtMatrixLayoutDestroy (p->d);
  memset (p, 0, sizeof *p);
}

int
fxc_plans_open (fx_cuda *c)
{
  struct cudaDeviceProp gpu;

  _Static_assert(sizeof (cublasLtMatmulAlgo_t) == FX_GEMM_ALGORITHM, "an algorithm");
  FXC_TRY (c, cudaGetDeviceProperties (&gpu, c->base.device));
  c->plans = calloc (1, sizeof *c->plans);
  if (c->plans == NULL)
    return c->error (FX_ERR_MEMORY, "cuda: out of memory for GEMM plans");
  snprintf (c->plans->chosen.key, FX_GEMM_KEY,
      "%.60s, sm_%d%d, %d SMs, cuBLASLt %zu, gst-flux %s", gpu.name, gpu.major, gpu.minor,
      gpu.multiProcessorCount, cublasLtGetVersion (), FXC_VERSION);
  c->base.plans_key = c->plans->chosen.key;
  return FX_OK;
}

void
fxc_plans_free (fx_cuda *c)
{
  if (c->plans == NULL)
    return;
  for (size_t i = 0; i < c->plans->n; i++)
    plan_clear (&c->plans->list[i]);
  fx_gemm_plans_clear (&c->plans->chosen);
  free (c->plans->list);
  free (c->plans);
  c->plans = NULL;
}

/* Partial sums of fewer bits cost an NMSE of 5e-8, where rounding the operands costs
 * 1e-3; torchao has them in the forward only. */
static cublasStatus_t
describe_fp8 (plan *p)
{
  const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
  const int8_t fast = 1;
  cublasStatus_t e = cublasLtMatmulDescSetAttribute (
      p->desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast);

  if (p->shape.operands != FXC_E4M3_ROWS)
    return e;
  if (e == CUBLAS_STATUS_SUCCESS)
    e = cublasLtMatmulDescSetAttribute (
        p->desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode);
  if (e == CUBLAS_STATUS_SUCCESS)
    e = cublasLtMatmulDescSetAttribute (
        p->desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode);
  return e;
}

static cublasStatus_t
set_scales (const plan *p, const fxc_shape *s)
{
  cublasStatus_t e = cublasLtMatmulDescSetAttribute (
      p->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &s->w_scales, sizeof s->w_scales);

  if (e == CUBLAS_STATUS_SUCCESS)
    e = cublasLtMatmulDescSetAttribute (
        p->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &s->x_scales, sizeof s->x_scales);
  return e;
}

static cublasStatus_t
plan_describe (plan *p)
{
  const fxc_shape *s = &p->shape;
  cublasOperation_t op_w = s->w_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  cudaDataType type = s->dtype == FX_BF16  ? CUDA_R_16BF
                      : s->dtype == FX_F16 ? CUDA_R_16F
                      : s->dtype == FX_I32 ? CUDA_R_32I
                                           : CUDA_R_32F;
  cudaDataType operand = s->operands == FXC_SAME   ? type
                         : s->operands == FXC_INT8 ? CUDA_R_8I
                                                   : CUDA_R_8F_E4M3;
  const bool is_int8 = s->operands == FXC_INT8;
  const cublasLtEpilogue_t epilogue = !s->gelu  ? CUBLASLT_EPILOGUE_BIAS
                                      : s->bias ? CUBLASLT_EPILOGUE_GELU_BIAS
                                                : CUBLASLT_EPILOGUE_GELU;
  cublasStatus_t e;

  e = cublasLtMatmulDescCreate (&p->desc,
      is_int8 ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
      is_int8 ? CUDA_R_32I : CUDA_R_32F);
  if (e == CUBLAS_STATUS_SUCCESS)
    e = cublasLtMatmulDescSetAttribute (
        p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &op_w, sizeof op_w);
  if (e == CUBLAS_STATUS_SUCCESS && (s->bias || s->gelu))
    e = cublasLtMatmulDescSetAttribute (
        p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
  if (e == CUBLAS_STATUS_SUCCESS && s->operands != FXC_SAME && !is_int8)
    e = describe_fp8 (p);
  if (e == CUBLAS_STATUS_SUCCESS)
    e = s->w_transposed ? cublasLtMatrixLayoutCreate (&p->a, operand, s->k, s->n, s->ldw)
                        : cublasLtMatrixLayoutCreate (&p->a, operand, s->n, s->k, s->ldw);
  if (e == CUBLAS_STATUS_SUCCESS)
    e = cublasLtMatrixLayoutCreate (&p->b, operand, s->k, s->m, s->ldx);
  if (e == CUBLAS_STATUS_SUCCESS)
    e = cublasLtMatrixLayoutCreate (&p->d, type, s->n, s->m, s->ldy);
  return e;
}

static cublasStatus_t
plan_run (fx_cuda *c, const plan *p, const cublasLtMatmulAlgo_t *algo, void *y,
    const void *x, const void *w, const void *bias, float alpha)
{
  const float beta = p->shape.beta ? 1 : 0;
  const int32_t one = 1, none = 0; /* sums in int32 are bare */
  const bool is_int8 = p->shape.operands == FXC_INT8;
  cublasStatus_t e = CUBLAS_STATUS_SUCCESS;

  if (p->shape.bias)
    e = cublasLtMatmulDescSetAttribute (
        p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
  if (e == CUBLAS_STATUS_SUCCESS)
    e = cublasLtMatmul (c->lt, p->desc, is_int8 ? (const void *)&one : &alpha, w, p->a, x,
        p->b, is_int8 ? (const void *)&none : &beta, y, p->d, y, p->d, algo,
        c->queue.workspace, c->queue.workspace_size, c->queue.stream);
  return e;
}

/* Milliseconds of one run, the best of a few; negative when it fails. */
static float
plan_time (fx_cuda *c, const plan *p, const cublasLtMatmulAlgo_t *algo, void *y,
    const void *x, const void *w, const void *bias)
{
  cudaEvent_t from, to;
  float best = -1;

  if (cudaEventCreate (&from) != cudaSuccess)
    return -1;
  if (cudaEventCreate (&to) != cudaSuccess) {
    cudaEventDestroy (from);
    return -1;
  }
  for (int i = 0; i < TIMED_RUNS; i++) {
    float ms = 0;

    cudaEventRecord (from, c->queue.stream);
    if (plan_run (c, p, algo, y, x, w, bias, 1) != CUBLAS_STATUS_SUCCESS)
      break;
    cudaEventRecord (to, c->queue.stream);
    if (cudaEventSynchronize (to) != cudaSuccess ||
        cudaEventElapsedTime (&ms, from, to) != cudaSuccess)
      break;
    if (best < 0 || ms < best)
      best = ms;
  }
  cudaEventDestroy (from);
  cudaEventDestroy (to);
  return best;
}

/* One run of a candidate into `device`, and its result in `host`. */
static bool
plan_try (fx_cuda *c, const plan *p, const cublasLtMatmulAlgo_t *algo, void *device,
    void *host, size_t bytes, const void *x, const void *w, const void *bias)
{
  bool ok = cudaMemsetAsync (device, 0, bytes, c->queue.stream) == cudaSuccess &&
            plan_run (c, p, algo, device, x, w, bias, 1) == CUBLAS_STATUS_SUCCESS &&
            cudaMemcpyAsync (host, device, bytes, cudaMemcpyDeviceToHost,
                c->queue.stream) == cudaSuccess &&
            cudaStreamSynchronize (c->queue.stream) == cudaSuccess;

  if (!ok)
    cudaGetLastError ();
  return ok;
}

/* Times the candidates into memory of its own (y is not touched) and keeps the fastest of
 * those that agree with the first. Without room to compare, the first it is. */
static void
plan_tune (fx_cuda *c, plan *p, const cublasLtMatmulHeuristicResult_t *found, int n,
    const void *x, const void *w, const void *bias)
{
  size_t bytes = (size_t)(p->shape.m * p->shape.ldy) * fx_dtype_size (p->shape.dtype);
  char *device = NULL, *first = malloc (bytes), *other = malloc (bytes);
  float best = -1;

  p->algo = found[0].algo;
  if (first == NULL || other == NULL ||
      cudaMalloc ((void **)&device, bytes) != cudaSuccess) {
    cudaGetLastError ();
    n = 0;
  }
  for (int i = 0; i < n; i++) {
    float ms;

    if (!plan_try (
            c, p, &found[i].algo, device, i == 0 ? first : other, bytes, x, w, bias) ||
        (i > 0 && memcmp (first, other, bytes) != 0))
      continue;
    ms = plan_time (c, p, &found[i].algo, device, x, w, bias);
    if (ms >= 0 && (best < 0 || ms < best)) {
      best = ms;
      p->algo = found[i].algo;
    }
  }
  cudaFree (device);
  free (first);
  free (other);
}

static fx_gemm_plan
kept_plan (const plan *p)
{
  fx_gemm_plan kept = {.shape = p->key};

  memcpy (kept.algorithm, &p->algo, sizeof p->algo);
  return kept;
}

/* Takes the algorithm that is kept for p, if cuBLASLt agrees that it can run. */
static bool
recall (fx_cuda *c, plan *p)
{
  const fx_gemm_plan *kept = fx_gemm_plans_find (&c->plans->chosen, &p->key);
  cublasLtMatmulHeuristicResult_t result = {0};
  cublasLtMatmulAlgo_t algo;

  if (kept == NULL)
    return false;
  memcpy (&algo, kept->algorithm, sizeof algo);
  if (cublasLtMatmulAlgoCheck (c->lt, p->desc, p->a, p->b, p->d, p->d, &algo, &result) !=
          CUBLAS_STATUS_SUCCESS ||
      result.state != CUBLAS_STATUS_SUCCESS ||
      result.workspaceSize > c->queue.workspace_size)
    return false;
  p->algo = algo;
  return true;
}

int
fxc_get_gemm_plans (fx_backend *b, void *dst, size_t *bytes)
{
  return fx_gemm_plans_save (&fxc (b)->plans->chosen, dst, bytes);
}

int
fxc_set_gemm_plans (fx_backend *b, const void *src, size_t bytes, bool replace)
{
  fx_cuda *c = fxc (b);
  int status = fx_gemm_plans_load (&c->plans->chosen, src, bytes, replace);

  for (size_t i = 0; status == FX_OK && replace && i < c->plans->n; i++)
    recall (c, &c->plans->list[i]);
  return status == FX_OK
             ? FX_OK
             : c->error (status, "cuda: these are no GEMM plans for this GPU");
}

/* The heuristic's candidates, timed. */
static cublasStatus_t
choose (fx_cuda *c, plan *p, const void *x, const void *w, const void *bias)
{
  cublasLtMatmulHeuristicResult_t found[CANDIDATES];
  cublasLtMatmulPreference_t preference = NULL;
  cublasStatus_t e = cublasLtMatmulPreferenceCreate (&preference);
  int n = 0;

  if (e == CUBLAS_STATUS_SUCCESS)
    e = cublasLtMatmulPreferenceSetAttribute (preference,
        CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &c->queue.workspace_size,
        sizeof c->queue.workspace_size);
  if (e == CUBLAS_STATUS_SUCCESS)
    e = cublasLtMatmulAlgoGetHeuristic (
        c->lt, p->desc, p->a, p->b, p->d, p->d, preference, CANDIDATES, found, &n);
  if (preference != NULL)
    cublasLtMatmulPreferenceDestroy (preference);
  if (e != CUBLAS_STATUS_SUCCESS)
    return e;
  if (n == 0)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  plan_tune (c, p, found, n, x, w, bias);
  return CUBLAS_STATUS_SUCCESS;
}

static int
plan_make (fx_cuda *c, const fxc_shape *shape, const void *x, const void *w,
    const void *bias, plan **out)
{
  fxc_plans *all = c->plans;
  fx_gemm_plan kept;
  cublasStatus_t e;
  plan *p;

  if (all->n == all->room) {
    plan *more = realloc (all->list, (all->room + 64) * sizeof *more);

    if (more == NULL)
      return c->error (FX_ERR_MEMORY, "cuda: out of memory for GEMM plans");
    all->list = more;
    all->room += 64;
  }
  p = &all->list[all->n];
  *p = (plan){.shape = *shape, .key = key_of (shape)};
  e = plan_describe (p);
  if (e == CUBLAS_STATUS_SUCCESS && shape->operands == FXC_E4M3_ROWS)
    e = set_scales (p, shape);
  if (e == CUBLAS_STATUS_SUCCESS && !recall (c, p))
    e = choose (c, p, x, w, bias);
  if (e != CUBLAS_STATUS_SUCCESS) {
    plan_clear (p);
    if (shape->operands == FXC_E4M3_ROWS || shape->gelu) /* invalid, says an older one */
      e = CUBLAS_STATUS_NOT_SUPPORTED;
    return failed (c, e, shape, "planning");
  }
  kept = kept_plan (p);
  fx_gemm_plans_add (&all->chosen, &kept, true);
  all->n++;
  *out = p;
  return FX_OK;
}

int
fxc_matmul (fx_cuda *c, const fxc_shape *s, void *y, const void *x, const void *w,
    const void *bias, float alpha)
{
  const fx_gemm_shape key = key_of (s);
  plan *p = NULL;
  cublasStatus_t e;

  for (size_t i = 0; i < c->plans->n && p == NULL; i++) {
    if (memcmp (&c->plans->list[i].key, &key, sizeof key) == 0)
      p = &c->plans->list[i];
  }
  if (p == NULL)
    FX_TRY (plan_make (c, s, x, w, bias, &p));
  if (s->operands == FXC_E4M3_ROWS && (e = set_scales (p, s)) != CUBLAS_STATUS_SUCCESS)
    return failed (c, e, s, "scaling");
  e = plan_run (c, p, &p->algo, y, x, w, bias, alpha);
  return e == CUBLAS_STATUS_SUCCESS ? FX_OK : failed (c, e, s, "running");
}
