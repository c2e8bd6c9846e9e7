/* kernels/cuda/module.h: what the CUDA module shows to whoever opens it.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Both sides are built from the same fx.h, or calls would go through shifted pointers. So
 * the module's one symbol is data, which is compared before anything of it is called. */
#pragma once

#include "kernels/fx.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The fields before backend_new stay as they are in every version. */
typedef struct {
  const char *version; /* of gst-flux */
  size_t ops_size;     /* sizeof (fx_ops) */
  size_t backend_size; /* sizeof (fx_backend) */
  /* error: where messages go, fx_error() of whoever opened the module. */
  fx_backend *(*backend_new) (
      int device, fx_dtype compute, int (*error) (int status, const char *format, ...));
} fx_cuda_module;

/* The symbol is called as this macro says. */
#define FX_CUDA_MODULE_SYMBOL "fx_cuda_module_info"

#ifdef __cplusplus
}
#endif
