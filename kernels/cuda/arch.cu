/* kernels/cuda/arch.cu: which of the module's codes runs. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The code itself is asked: attributes of a function say less clearly what PTX that the
 * driver has compiled was made for. */
#include "kernels/cuda/common.cuh"

static __global__ void
probe (int *arch)
{
#ifdef __CUDA_ARCH__
  *arch = __CUDA_ARCH__ / 10;
#endif
}

extern "C" int
fxc_compiled_arch (fx_cuda *c, int *arch)
{
  int *device = NULL;
  cudaError_t e;

  FXC_TRY (c, cudaMalloc ((void **)&device, sizeof *device));
  probe<<<1, 1>>> (device);
  e = cudaGetLastError ();
  if (e == cudaSuccess)
    e = cudaMemcpy (arch, device, sizeof *device, cudaMemcpyDeviceToHost);
  cudaFree (device);
  if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorUnsupportedPtxVersion)
    return c->error (FX_ERR_DEVICE,
        "cuda: the module has no code for this GPU: build it with the GPU's architecture "
        "in gpu_archs");
  FXC_TRY (c, e);
  return FX_OK;
}
