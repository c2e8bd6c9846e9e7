/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Memory of the host that a device fetches from, as a backend without ops. */
#include "kernels/fx.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  fx_backend base;
  fx_backend *device;
} host;

static int
host_alloc (fx_backend *b, size_t bytes, void **p)
{
  fx_backend *device = ((host *)b)->device;

  if (device->ops->alloc_host != NULL)
    return device->ops->alloc_host (device, bytes, p);
  *p = NULL;
  if (bytes > SIZE_MAX - 256 ||
      (*p = aligned_alloc (256, (bytes / 256 + 1) * 256)) == NULL)
    return fx_error (FX_ERR_MEMORY, "host: %zu bytes asked for", bytes);
  return FX_OK;
}

static void
host_free (fx_backend *b, void *p, size_t bytes)
{
  fx_backend *device = ((host *)b)->device;

  if (device->ops->free_host != NULL)
    device->ops->free_host (device, p, bytes);
  else
    free (p);
}

static int
host_copy (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  memmove (dst, src, bytes);
  return FX_OK;
}

static int
host_zero (fx_backend *b, void *dst, size_t bytes)
{
  memset (dst, 0, bytes);
  return FX_OK;
}

static int
host_sync (fx_backend *b)
{
  return FX_OK;
}

static void
host_destroy (fx_backend *b)
{
  free (b);
}

static const fx_ops host_ops = {
    .alloc = host_alloc,
    .free = host_free,
    .upload = host_copy,
    .download = host_copy,
    .zero = host_zero,
    .sync = host_sync,
    .destroy = host_destroy,
};

fx_backend *
fx_host_new (fx_backend *device)
{
  host *self = calloc (1, sizeof *self);

  if (self == NULL) {
    fx_error (FX_ERR_MEMORY, "host: out of memory");
    return NULL;
  }
  self->base.ops = &host_ops;
  self->base.name = "host";
  self->base.compute = device->compute;
  self->device = device;
  return &self->base;
}
