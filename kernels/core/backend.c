/* SPDX-License-Identifier: LGPL-2.1-or-later
 * What all backends share: memory calls and the end of a backend. */
#include "check.h"

void
fx_backend_free (fx_backend *b)
{
  if (b != NULL)
    b->ops->destroy (b);
}

int
fx_upload (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  FX_CHECK_BACKEND ("upload", b);
  if (bytes == 0)
    return FX_OK;
  FX_TRY (fx_check_pointer ("upload", "dst", dst));
  FX_TRY (fx_check_pointer ("upload", "src", src));
  return b->ops->upload (b, dst, src, bytes);
}

int
fx_download (fx_backend *b, void *dst, const void *src, size_t bytes)
{
  FX_CHECK_BACKEND ("download", b);
  if (bytes == 0)
    return FX_OK;
  FX_TRY (fx_check_pointer ("download", "dst", dst));
  FX_TRY (fx_check_pointer ("download", "src", src));
  return b->ops->download (b, dst, src, bytes);
}

int
fx_zero (fx_backend *b, void *dst, size_t bytes)
{
  FX_CHECK_BACKEND ("zero", b);
  if (bytes == 0)
    return FX_OK;
  FX_TRY (fx_check_pointer ("zero", "dst", dst));
  return b->ops->zero (b, dst, bytes);
}

int
fx_sync (fx_backend *b)
{
  FX_CHECK_BACKEND ("sync", b);
  return b->ops->sync (b);
}

int
fx_free_memory (fx_backend *b, size_t *bytes)
{
  FX_CHECK_BACKEND ("free_memory", b);
  FX_TRY (fx_check_pointer ("free_memory", "bytes", bytes));
  if (b->ops->free_memory != NULL)
    return b->ops->free_memory (b, bytes);
  *bytes = SIZE_MAX;
  return FX_OK;
}

/* A backend with one queue does everything in order. */
int
fx_side (fx_backend *b, bool on)
{
  FX_CHECK_BACKEND ("side", b);
  return b->ops->side != NULL ? b->ops->side (b, on) : FX_OK;
}

int
fx_join (fx_backend *b)
{
  FX_CHECK_BACKEND ("join", b);
  return b->ops->join != NULL ? b->ops->join (b) : FX_OK;
}

int
fx_get_gemm_plans (fx_backend *b, void *dst, size_t *bytes)
{
  FX_CHECK_BACKEND ("get_gemm_plans", b);
  FX_TRY (fx_check_pointer ("get_gemm_plans", "bytes", bytes));
  if (b->ops->get_gemm_plans != NULL)
    return b->ops->get_gemm_plans (b, dst, bytes);
  *bytes = 0;
  return FX_OK;
}

int
fx_set_gemm_plans (fx_backend *b, const void *src, size_t bytes, bool replace)
{
  FX_CHECK_OP (set_gemm_plans, b);
  FX_TRY (fx_check_pointer ("set_gemm_plans", "src", src));
  return b->ops->set_gemm_plans (b, src, bytes, replace);
}

static int
check_fetch (const char *op, int number)
{
  return number >= 0 && number < FX_FETCHES
             ? FX_OK
             : fx_error (FX_ERR_SHAPE, "%s: number %d of %d", op, number, FX_FETCHES);
}

int
fx_fetch (fx_backend *b, int number, void *dst, const void *src, size_t bytes)
{
  FX_CHECK_BACKEND ("fetch", b);
  FX_TRY (check_fetch ("fetch", number));
  FX_TRY (fx_check_pointer ("fetch", "dst", dst));
  FX_TRY (fx_check_pointer ("fetch", "src", src));
  return b->ops->fetch != NULL ? b->ops->fetch (b, number, dst, src, bytes)
                               : b->ops->upload (b, dst, src, bytes);
}

int
fx_fetched (fx_backend *b, int number)
{
  FX_CHECK_BACKEND ("fetched", b);
  FX_TRY (check_fetch ("fetched", number));
  return b->ops->fetched != NULL ? b->ops->fetched (b, number) : FX_OK;
}
