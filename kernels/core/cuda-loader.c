/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Opens the CUDA module at first use, so that the plugin links no CUDA library. */
#include "kernels/fx.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE_NAME "libfxcuda.so"

/* Messages of the module go to fx_error() of this library. */
typedef fx_backend *(*backend_new) (
    int device, fx_dtype compute, int (*error) (int status, const char *format, ...));

/* Where it may be, seen from the folder of the shared object that this code is linked
 * into: installed, LIBDIR/gst-flux beside LIBDIR/gstreamer-1.0 (whose files GStreamer
 * takes for plugins); in a bundle, beside the plugin. */
static const char *const places[] = {"../gst-flux/" MODULE_NAME, MODULE_NAME};

/* The first of the places where there is a file, else the first. */
static int
default_path (char *path, size_t size)
{
  enum { N = sizeof places / sizeof *places };
  Dl_info info;
  const char *slash;
  int folder;

  if (dladdr ((void *)(uintptr_t)&fx_cuda_new, &info) == 0 || info.dli_fname == NULL)
    return -1;
  slash = strrchr (info.dli_fname, '/');
  folder = slash != NULL ? (int)(slash - info.dli_fname) + 1 : 0;
  for (int i = 0; i <= N; i++) {
    int n = snprintf (path, size, "%s%.*s%s", folder > 0 ? "" : "./", folder,
        info.dli_fname, places[i % N]);

    if (n >= (int)size)
      return -1;
    if (access (path, F_OK) == 0)
      break;
  }
  return 0;
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
