/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Bump allocators on a backend, which also measure what will be needed. */
#include "kernels/fx.h"

#include <inttypes.h>

enum { ALIGNMENT = 256 };

/* What takes of a measuring arena start from: aligned, and not NULL. */
#define MEASURING_BASE ((char *)(uintptr_t)0x10000)

void
fx_arena_init (fx_arena *a, fx_backend *b, const char *name)
{
  fx_arena arena = {.backend = b, .name = name};
  *a = arena;
}

int
fx_arena_reserve (fx_arena *a, size_t size)
{
  void *p = NULL;
  int status;

  if (a->base != NULL)
    return fx_error (FX_ERR_SHAPE, "arena %s: reserved while in use", a->name);
  if (size > SIZE_MAX - ALIGNMENT)
    return fx_error (FX_ERR_MEMORY, "arena %s: %zu bytes asked for", a->name, size);
  if (size == 0)
    size = ALIGNMENT;
  size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  status = a->backend->ops->alloc (a->backend, size, &p);
  if (status != FX_OK)
    return status;
  a->base = p;
  a->size = size;
  a->used = a->high = 0;
  return FX_OK;
}

int
fx_arena_take (fx_arena *a, size_t bytes, void **p)
{
  size_t rounded, used;

  *p = NULL;
  if (bytes > SIZE_MAX - ALIGNMENT)
    return fx_error (FX_ERR_MEMORY, "arena %s: %zu bytes asked for", a->name, bytes);
  rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (rounded == 0)
    rounded = ALIGNMENT;
  if (__builtin_add_overflow (a->used, rounded, &used) ||
      (a->base != NULL && used > a->size))
    return fx_error (FX_ERR_MEMORY,
        "arena %s is full: %zu bytes asked for, %zu of %zu in use", a->name, bytes,
        a->used, a->size);
  *p = (a->base != NULL ? a->base : MEASURING_BASE) + a->used;
  a->used = used;
  if (used > a->high)
    a->high = used;
  return FX_OK;
}

int
fx_arena_mat (fx_arena *a, int64_t rows, int64_t cols, fx_dtype dtype, fx_mat *m)
{
  size_t bytes;
  void *p;

  *m = fx_mat_new (NULL, rows, cols, dtype);
  if (rows < 0 || cols < 0 ||
      __builtin_mul_overflow ((size_t)rows, (size_t)cols, &bytes) ||
      __builtin_mul_overflow (bytes, fx_dtype_size (dtype), &bytes))
    return fx_error (FX_ERR_MEMORY, "arena %s: a matrix of %" PRId64 " x %" PRId64 " %s",
        a->name, rows, cols, fx_dtype_name (dtype));
  FX_TRY (fx_arena_take (a, bytes, &p));
  m->p = p;
  return FX_OK;
}

void
fx_arena_clear (fx_arena *a)
{
  if (a->base != NULL)
    a->backend->ops->free (a->backend, a->base, a->size);
  a->base = NULL;
  a->size = a->used = 0;
}
