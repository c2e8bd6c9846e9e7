/* SPDX-License-Identifier: LGPL-2.1-or-later
 * What the loader takes for a CUDA module, of the right build or a wrong one:
 * FAKE_VERSION, FAKE_OPS_SIZE and FAKE_BACKEND_SIZE are what it says of itself, FAKE_OLD
 * is one from before modules said that. Only FAKE_WORKS and FAKE_NONE may be called: the
 * first has one GPU, number 0, which is the CPU, the second no driver. */
#include "config.h"

#include <stdlib.h>

#include "kernels/cuda/module.h"

#ifndef FAKE_OPS_SIZE
#define FAKE_OPS_SIZE sizeof (fx_ops)
#endif
#ifndef FAKE_BACKEND_SIZE
#define FAKE_BACKEND_SIZE sizeof (fx_backend)
#endif

#define VISIBLE __attribute__ ((visibility ("default")))

#ifdef FAKE_OLD
extern VISIBLE void fx_cuda_backend_new (void);

void
fx_cuda_backend_new (void)
{
  abort ();
}
#else
static fx_backend *
backend_new (
    int device, fx_dtype compute, int (*error) (int status, const char *format, ...))
{
#ifdef FAKE_WORKS
  fx_backend *b = device == 0 ? fx_cpu_new (1) : NULL;

  if (b != NULL)
    b->name = "cuda";
  else
    error (FX_ERR_DEVICE, "cuda: there is no GPU number %d, but one: number 0", device);
  return b;
#elif defined(FAKE_NONE)
  error (FX_ERR_NO_DEVICE, "cuda: there is no driver");
  return NULL;
#else
  abort ();
#endif
}

extern VISIBLE const fx_cuda_module fx_cuda_module_info;

const fx_cuda_module fx_cuda_module_info = {
    FAKE_VERSION, FAKE_OPS_SIZE, FAKE_BACKEND_SIZE, backend_new};
#endif
