/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Opens the CUDA module at first use, so that the plugin links no CUDA library. */
#include "kernels/fx.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODULE_NAME "libfxcuda.so"

/* Messages of the module go to fx_error() of this library. */
typedef fx_backend *(*backend_new) (
    int device, fx_dtype compute, int (*error) (int status, const char *format, ...));

/* The module beside the shared object this code is linked into. */
static int
default_path (char *path, size_t size)
{
  Dl_info info;
  const char *slash;

  if (dladdr ((void *)(uintptr_t)&fx_cuda_new, &info) == 0 || info.dli_fname == NULL)
    return -1;
  slash = strrchr (info.dli_fname, '/');
  if (slash == NULL)
    return snprintf (path, size, "%s", MODULE_NAME) < (int)size ? 0 : -1;
  return snprintf (path, size, "%.*s/%s", (int)(slash - info.dli_fname), info.dli_fname,
             MODULE_NAME) < (int)size
             ? 0
             : -1;
}

fx_backend *
fx_cuda_new (const char *module_path, int device, fx_dtype compute)
{
  char path[4096];
  void *module;
  union {
    void *symbol;
    backend_new make;
  } entry;

  if (module_path == NULL)
    module_path = getenv ("FLUX_CUDA_MODULE");
  if (module_path == NULL) {
    if (default_path (path, sizeof path) != 0) {
      fx_error (FX_ERR_DEVICE, "cuda: cannot tell where %s should be", MODULE_NAME);
      return NULL;
    }
    module_path = path;
  }
  /* Never closed: the CUDA runtime keeps threads and atexit handlers in it. */
  module = dlopen (module_path, RTLD_NOW | RTLD_LOCAL);
  if (module == NULL) {
    fx_error (FX_ERR_DEVICE, "cuda: no module: %s", dlerror ());
    return NULL;
  }
  entry.symbol = dlsym (module, "fx_cuda_backend_new");
  if (entry.symbol == NULL) {
    fx_error (FX_ERR_DEVICE, "cuda: %s is not the CUDA module of gst-flux", module_path);
    return NULL;
  }
  return entry.make (device, compute, fx_error);
}
