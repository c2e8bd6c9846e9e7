/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Opens the CUDA module at first use, so that the plugin links no CUDA library. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/cuda/module.h"

#define MODULE_NAME "libfxcuda.so"
#define VARIABLE "FLUX_CUDA_MODULE"

/* Where it may be, seen from the folder of the shared object that this code is linked
 * into: installed, LIBDIR/gst-flux beside LIBDIR/gstreamer-1.0 (whose files GStreamer
 * takes for plugins); in a bundle, beside the plugin. */
static const char *const places[] = {"../gst-flux/" MODULE_NAME, MODULE_NAME};

/* Not when it only cannot be looked at: then opening it says why. */
static bool
is_missing (const char *path)
{
  return access (path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR);
}

/* The first of the places where there is a file; false with an error when none has. */
static bool
find_installed (char *path, size_t size)
{
  Dl_info info;
  const char *slash;
  int folder;

  if (dladdr ((void *)(uintptr_t)&fx_cuda_new, &info) == 0 || info.dli_fname == NULL) {
    fx_error (FX_ERR_NO_MODULE, "cuda: cannot tell where %s should be", MODULE_NAME);
    return false;
  }
  slash = strrchr (info.dli_fname, '/');
  folder = slash != NULL ? (int)(slash - info.dli_fname) + 1 : 0;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    int n = snprintf (path, size, "%s%.*s%s", folder > 0 ? "" : "./", folder,
        info.dli_fname, places[i]);

    if (n < (int)size && !is_missing (path))
      return true;
  }
  fx_error (FX_ERR_NO_MODULE, "cuda: there is no %s or %s in '%s%.*s'", places[0],
      places[1], folder > 0 ? "" : "./", folder, info.dli_fname);
  return false;
}

/* Why a file cannot be opened, in words that go after its name. */
static void
explain_open (const char *path, const char *reason, char *why, size_t size)
{
  size_t n = strlen (path);
  char here[1024];
  struct stat st;

  /* A name without a slash is one for the linker's folders. */
  if (strchr (path, '/') != NULL && is_missing (path)) {
    if (path[0] != '/' && getcwd (here, sizeof here) != NULL)
      snprintf (why, size, "is not there, seen from '%s'", here);
    else
      snprintf (why, size, "is not there");
  } else if (stat (path, &st) == 0 && S_ISDIR (st.st_mode)) {
    snprintf (why, size, "is a folder");
  } else {
    if (strncmp (reason, path, n) == 0 && strncmp (reason + n, ": ", 2) == 0)
      reason += n + 2;
    snprintf (why, size, "cannot be opened (%s)", reason);
  }
}

/* Whether calls may go through its tables. */
static bool
is_of_this_build (const fx_cuda_module *m, char *why, size_t size)
{
  if (strcmp (m->version, VERSION) != 0)
    snprintf (why, size, "is of gst-flux %s, this is %s: build both together", m->version,
        VERSION);
  else if (m->ops_size != sizeof (fx_ops) || m->backend_size != sizeof (fx_backend))
    snprintf (why, size,
        "is of another gst-flux %s (tables of %zu and %zu bytes, here %zu and %zu): "
        "build both together",
        VERSION, m->ops_size, m->backend_size, sizeof (fx_ops), sizeof (fx_backend));
  else
    return true;
  return false;
}

/* NULL: `why` says it. Never closed: the CUDA runtime keeps threads and atexit handlers
 * in it. */
static const fx_cuda_module *
open_module (const char *path, char *why, size_t size)
{
  void *file = dlopen (path, RTLD_NOW | RTLD_LOCAL);
  const fx_cuda_module *m;

  if (file == NULL) {
    explain_open (path, dlerror (), why, size);
    return NULL;
  }
  m = dlsym (file, FX_CUDA_MODULE_SYMBOL);
  if (m != NULL)
    return is_of_this_build (m, why, size) ? m : NULL;
  if (dlsym (file, "fx_cuda_backend_new") != NULL)
    snprintf (
        why, size, "is of an older gst-flux, this is %s: build both together", VERSION);
  else
    snprintf (why, size, "is not one of gst-flux");
  return NULL;
}

fx_backend *
fx_cuda_new (const char *module_path, int device, fx_dtype compute)
{
  const char *named = module_path == NULL ? getenv (VARIABLE) : NULL;
  const fx_cuda_module *module;
  char path[4096], why[1536];

  if (named != NULL && named[0] == '\0')
    named = NULL;
  if (module_path == NULL)
    module_path = named;
  if (module_path == NULL) {
    if (!find_installed (path, sizeof path))
      return NULL;
    module_path = path;
  }
  module = open_module (module_path, why, sizeof why);
  if (module != NULL)
    return module->backend_new (device, compute, fx_error);
  fx_error (FX_ERR_MODULE, "cuda: the CUDA module '%s'%s %s", module_path,
      named != NULL ? ", which " VARIABLE " names," : "", why);
  return NULL;
}
