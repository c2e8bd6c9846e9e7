/* kernels/cuda/backend.c: life, memory and the op table. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>

#include "kernels/cuda/module.h"

int
fxc_failed (fx_cuda *c, cudaError_t e, const char *what, const char *file, int line)
{
  int status = e == cudaErrorMemoryAllocation ? FX_ERR_MEMORY : FX_ERR_DEVICE;

  cudaGetLastError (); /* what is not sticky is cleared */
  return c->error (
      status, "cuda: %s: %s (%s:%d)", what, cudaGetErrorString (e), file, line);
}

static int
cuda_alloc (fx_backend *b, size_t bytes, void **p)
{
  FXC_TRY (fxc (b), cudaMalloc (p, bytes > 0 ? bytes : 1));
  return FX_OK;
}

static void
cuda_free (fx_backend *b, void *p, size_t bytes)
{
  fxc_biases_forget (fxc (b), p, bytes);
  cudaStreamSynchronize (fxc (b)->queue.stream);
  if (fxc (b)->other.stream != NULL)
    cudaStreamSynchronize (fxc (b)->other.stream);
  if (fxc (b)->copies != NULL)
    cudaStreamSynchronize (fxc (b)->copies);
  cudaFree (p);
}

/* Pages that the device reads by itself. */
static int
cuda_alloc_host (fx_backend *b, size_t bytes, void **p)
{
  FXC_TRY (fxc (b), cudaHostAlloc (p, bytes > 0 ? bytes : 1, cudaHostAllocDefault));
  return FX_OK;
}

static void
cuda_free_host (fx_backend *b, void *p, size_t bytes)
{
  if (fxc (b)->copies != NULL)
    cudaStreamSynchronize (fxc (b)->copies);
  cudaFreeHost (p);
}

/* src is pageable: the call returns when it may be changed again. */
static int
cuda_upload (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  FXC_TRY (fxc (b),
      cudaMemcpyAsync (dst, src, bytes, cudaMemcpyHostToDevice, fxc (b)->queue.stream));
  return FX_OK;
}

static int
cuda_download (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  FXC_TRY (fxc (b),
      cudaMemcpyAsync (dst, src, bytes, cudaMemcpyDeviceToHost, fxc (b)->queue.stream));
  FXC_TRY (fxc (b), cudaStreamSynchronize (fxc (b)->queue.stream));
  return FX_OK;
}

static int
cuda_zero (fx_backend *b, void *dst, size_t bytes)
{
  FXC_TRY (fxc (b), cudaMemsetAsync (dst, 0, bytes, fxc (b)->queue.stream));
  return FX_OK;
}

static int
cuda_sync (fx_backend *b)
{
  FXC_TRY (fxc (b), cudaStreamSynchronize (fxc (b)->queue.stream));
  return FX_OK;
}

static int
cuda_free_memory (fx_backend *b, size_t *bytes)
{
  size_t total;

  FXC_TRY (fxc (b), cudaMemGetInfo (bytes, &total));
  return FX_OK;
}

static void
cuda_destroy (fx_backend *b)
{
  fx_cuda *c = fxc (b);

  if (c->queue.stream != NULL)
    cudaDeviceSynchronize ();
  fxc_plans_free (c);
  fxc_biases_free (c);
  fxc_queue_close (&c->queue);
  fxc_queue_close (&c->other);
  fxc_copies_close (c);
  if (c->forked != NULL)
    cudaEventDestroy (c->forked);
  if (c->done != NULL)
    cudaEventDestroy (c->done);
  if (c->lt != NULL)
    cublasLtDestroy (c->lt);
  free (c);
}

static const fx_ops ops = {
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .zero = cuda_zero,
    .sync = cuda_sync,
    .free_memory = cuda_free_memory,
    .side = fxc_side,
    .join = fxc_join,
    .get_gemm_plans = fxc_get_gemm_plans,
    .set_gemm_plans = fxc_set_gemm_plans,
    .alloc_host = cuda_alloc_host,
    .free_host = cuda_free_host,
    .fetch = fxc_fetch,
    .fetched = fxc_fetched,
    .destroy = cuda_destroy,
    .expand = fxc_expand,
    .gemm = fxc_gemm,
    .gemm_gelu = fxc_gemm_gelu,
    .gemm_dgrad = fxc_gemm_dgrad,
    .lora = fxc_lora,
    .lora_bwd = fxc_lora_bwd,
    .adaln = fxc_adaln,
    .adaln_bwd = fxc_adaln_bwd,
    .qknorm_rope = fxc_qknorm_rope,
    .qknorm_rope_bwd = fxc_qknorm_rope_bwd,
    .attention = fxc_attention,
    .attention_bwd = fxc_attention_bwd,
    .act = fxc_act,
    .act_bwd = fxc_act_bwd,
    .gate_residual = fxc_gate_residual,
    .gate_bwd = fxc_gate_bwd,
    .round_rows = fxc_round_rows,
    .gemm_rounded = fxc_gemm_rounded,
    .dgrad_rounded = fxc_dgrad_rounded,
    .adaln_rounded = fxc_adaln_rounded,
    .act_rounded = fxc_act_rounded,
    .act_bwd_rounded = fxc_act_bwd_rounded,
    .gate_bwd_rounded = fxc_gate_bwd_rounded,
    .qknorm_rope_bwd_rounded = fxc_qknorm_rope_bwd_rounded,
    .mse = fxc_mse,
    .sum_squares = fxc_sum_squares,
    .adamw = fxc_adamw,
    .adamw8 = fxc_adamw8,
    .conv2d = fxc_conv2d,
    .groupnorm = fxc_groupnorm,
    .layernorm = fxc_layernorm,
    .rmsnorm = fxc_rmsnorm,
    .upsample2 = fxc_upsample2,
    .gather = fxc_gather,
    .copy = fxc_copy,
};

static int
start (fx_cuda *c, int device)
{
  cublasStatus_t s;
  int major = 0, minor = 0;

  FX_TRY (fxc_set_device (c, device));
  FXC_TRY (c, cudaDeviceGetAttribute (&major, cudaDevAttrComputeCapabilityMajor, device));
  FXC_TRY (c, cudaDeviceGetAttribute (&minor, cudaDevAttrComputeCapabilityMinor, device));
  FXC_TRY (c, cudaDeviceGetAttribute (&c->n_sms, cudaDevAttrMultiProcessorCount, device));
  FX_TRY (fxc_compiled_arch (c, &c->arch));
  c->has_mma = c->arch >= 80;
#ifdef FXC_HAVE_SM90A
  c->has_wgmma = major == 9 && c->arch >= 90;
#endif
  if (c->base.compute == FX_N_DTYPES)
    c->base.compute = c->has_mma ? FX_BF16 : FX_F16;
  if (c->base.compute == FX_BF16 && !c->has_mma)
    return c->error (FX_ERR_UNSUPPORTED,
        "cuda: this GPU, or a module built for sm_%d, has no bfloat16; use float16",
        c->arch);
  /* fp16 results would end at 65504 before their scales. */
  c->base.has_fp8 = 10 * major + minor >= 89 && c->base.compute != FX_F16;
  c->has_row_scales = major == 9;
  FX_TRY (fxc_queue_open (c, &c->queue));
  FX_TRY (fxc_plans_open (c));
  s = cublasLtCreate (&c->lt);
  if (s != CUBLAS_STATUS_SUCCESS)
    return c->error (FX_ERR_DEVICE, "cuda: cuBLASLt does not start: status %d", (int)s);
  return FX_OK;
}

static fx_backend *
backend_new (int device, fx_dtype compute, fxc_error_func error)
{
  fx_cuda *c = calloc (1, sizeof *c);

  if (c == NULL) {
    error (FX_ERR_MEMORY, "cuda: out of memory");
    return NULL;
  }
  c->error = error;
  c->base = (fx_backend){&ops, "cuda", compute, device, false, NULL};
  if (start (c, device) != FX_OK) {
    cuda_destroy (&c->base);
    return NULL;
  }
  return &c->base;
}

extern __attribute__ ((visibility ("default"))) const fx_cuda_module fx_cuda_module_info;

const fx_cuda_module fx_cuda_module_info = {
    FXC_VERSION, sizeof (fx_ops), sizeof (fx_backend), backend_new};
