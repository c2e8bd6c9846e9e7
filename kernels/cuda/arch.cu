/* kernels/cuda/arch.cu: which of the module's codes runs. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "kernels/cuda/common.cuh"

static __global__ void
probe (void)
{
}

extern "C" int
fxc_compiled_arch (fx_cuda *c, int *arch)
{
  cudaFuncAttributes a;
  cudaError_t e = cudaFuncGetAttributes (&a, probe);

  if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorUnsupportedPtxVersion) {
    cudaGetLastError ();
    return c->error (FX_ERR_DEVICE,
        "cuda: the module has no code for this GPU: build it with its architecture in "
        "gpu_archs");
  }
  FXC_TRY (c, e);
  *arch = a.ptxVersion;
  return FX_OK;
}
