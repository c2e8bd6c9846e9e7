/* kernels/cuda/driver.c: is there a driver with this GPU, and if not, what is missing?
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>

static int
finds_no_gpu (fx_cuda *c)
{
  const char *visible = getenv ("CUDA_VISIBLE_DEVICES");

  if (visible != NULL)
    return c->error (FX_ERR_NO_DEVICE,
        "cuda: the NVIDIA driver finds no GPU, with CUDA_VISIBLE_DEVICES='%s'", visible);
  return c->error (FX_ERR_NO_DEVICE, "cuda: the NVIDIA driver finds no GPU");
}

/* The runtime has one error for a driver that is absent (whose version is then 0) and one
 * that is too old. */
static int
needs_driver (fx_cuda *c)
{
  int has = 0, needs = 0;

  if (cudaDriverGetVersion (&has) != cudaSuccess || has == 0)
    return c->error (FX_ERR_NO_DEVICE, "cuda: no NVIDIA driver is installed or loaded");
  cudaRuntimeGetVersion (&needs);
  return c->error (FX_ERR_DEVICE,
      "cuda: the NVIDIA driver is of CUDA %d.%d, and the module was built with CUDA "
      "%d.%d, which needs a newer one",
      has / 1000, has % 1000 / 10, needs / 1000, needs % 1000 / 10);
}

static int
count_gpus (fx_cuda *c, int *n)
{
  cudaError_t e = cudaGetDeviceCount (n);

  cudaGetLastError (); /* what is not sticky is cleared */
  if (e == cudaErrorInsufficientDriver)
    return needs_driver (c);
  if (e == cudaErrorNoDevice || (e == cudaSuccess && *n == 0))
    return finds_no_gpu (c);
  if (e != cudaSuccess)
    return c->error (FX_ERR_DEVICE, "cuda: the NVIDIA driver does not start: %s",
        cudaGetErrorString (e));
  return FX_OK;
}

int
fxc_set_device (fx_cuda *c, int device)
{
  cudaError_t e;
  int n = 0;

  FX_TRY (count_gpus (c, &n));
  if (device < 0 || device >= n)
    return c->error (FX_ERR_DEVICE,
        n == 1 ? "cuda: there is no GPU number %d, but one: number 0"
               : "cuda: there is no GPU number %d, but %d: numbers 0 to %d",
        device, n, n - 1);
  e = cudaSetDevice (device);
  cudaGetLastError ();
  if (e != cudaSuccess)
    return c->error (FX_ERR_DEVICE, "cuda: GPU number %d does not start: %s", device,
        cudaGetErrorString (e));
  return FX_OK;
}
