/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Memory of the CPU backend: buffers, scratch, and the end. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

int
fx_cpu_alloc (fx_backend *b, size_t bytes, void **p)
{
  *p = NULL;
  if (bytes > SIZE_MAX - 256 ||
      (*p = aligned_alloc (256, (bytes / 256 + 1) * 256)) == NULL)
    return fx_error (FX_ERR_MEMORY, "cpu: %zu bytes asked for", bytes);
  return FX_OK;
}

void
fx_cpu_free (fx_backend *b, void *p, size_t bytes)
{
  free (p);
}

int
fx_cpu_copy_bytes (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  memmove (dst, src, bytes);
  return FX_OK;
}

int
fx_cpu_zero (fx_backend *b, void *dst, size_t bytes)
{
  memset (dst, 0, bytes);
  return FX_OK;
}

int
fx_cpu_sync (fx_backend *b)
{
  return FX_OK;
}

static int
grow (void **p, size_t size, const char *op)
{
  free (*p);
  *p = aligned_alloc (256, size);
  if (*p == NULL)
    return fx_error (FX_ERR_MEMORY, "%s: %zu bytes of scratch asked for", op, size);
  return FX_OK;
}

int
fx_cpu_scratch (fx_cpu *cpu, const char *op, size_t bytes)
{
  size_t size = (bytes / 4096 + 1) * 4096;

  if (bytes <= cpu->scratch_size)
    return FX_OK;
  cpu->scratch_size = 0;
  for (int i = 0; i < cpu->threads; i++)
    FX_TRY (grow (&cpu->scratch[i], size, op));
  cpu->scratch_size = size;
  return FX_OK;
}

int
fx_cpu_shared (fx_cpu *cpu, const char *op, size_t bytes)
{
  size_t size = (bytes / 4096 + 1) * 4096;

  if (bytes <= cpu->shared_size)
    return FX_OK;
  cpu->shared_size = 0;
  FX_TRY (grow (&cpu->shared, size, op));
  cpu->shared_size = size;
  return FX_OK;
}

void
fx_cpu_destroy (fx_backend *b)
{
  fx_cpu *cpu = fx_cpu_of (b);

  fx_pool_free (cpu->pool);
  for (int i = 0; cpu->scratch != NULL && i < cpu->threads; i++)
    free (cpu->scratch[i]);
  free (cpu->scratch);
  free (cpu->shared);
  free (cpu->notes);
  free (cpu);
}
