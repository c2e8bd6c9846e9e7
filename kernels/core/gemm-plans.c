/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The table of GEMM plans and its bytes: a head, then the plans as they lie in memory (of
 * one machine's byte order: they are of one GPU model anyway). */
#include "kernels/core/gemm-plans.h"

#include <stdlib.h>
#include <string.h>

#define MAGIC "FXGEMM01"

typedef struct {
  char magic[8];
  uint64_t checksum; /* of all that follows it */
  char key[FX_GEMM_KEY];
  uint64_t n;
} head;

/* FNV-1a. */
static uint64_t
checksum (uint64_t h, const void *p, size_t bytes)
{
  const uint8_t *b = p;

  for (size_t i = 0; i < bytes; i++)
    h = (h ^ b[i]) * 0x100000001b3u;
  return h;
}

static uint64_t
checksum_of (const head *h, const void *plans)
{
  uint64_t sum = checksum (0xcbf29ce484222325u, h->key, sizeof h->key);

  sum = checksum (sum, &h->n, sizeof h->n);
  return checksum (sum, plans, (size_t)h->n * sizeof (fx_gemm_plan));
}

const fx_gemm_plan *
fx_gemm_plans_find (const fx_gemm_plans *self, const fx_gemm_shape *shape)
{
  for (size_t i = 0; i < self->n; i++)
    if (memcmp (&self->list[i].shape, shape, sizeof *shape) == 0)
      return &self->list[i];
  return NULL;
}

bool
fx_gemm_plans_add (fx_gemm_plans *self, const fx_gemm_plan *plan, bool replace)
{
  fx_gemm_plan *there = (fx_gemm_plan *)fx_gemm_plans_find (self, &plan->shape);

  if (there != NULL) {
    if (replace)
      *there = *plan;
    return true;
  }
  if (self->n == FX_GEMM_PLANS_MAX)
    return false;
  if (self->n == self->room) {
    fx_gemm_plan *more = realloc (self->list, (self->room + 64) * sizeof *more);

    if (more == NULL)
      return false;
    self->list = more;
    self->room += 64;
  }
  self->list[self->n++] = *plan;
  return true;
}

void
fx_gemm_plans_clear (fx_gemm_plans *self)
{
  free (self->list);
  self->list = NULL;
  self->n = self->room = 0;
}

int
fx_gemm_plans_save (const fx_gemm_plans *self, void *dst, size_t *bytes)
{
  const size_t size = self->n > 0 ? sizeof (head) + self->n * sizeof (fx_gemm_plan) : 0;
  head h = {.magic = MAGIC, .n = self->n};

  if (dst != NULL && *bytes < size)
    return fx_error (FX_ERR_SHAPE, "GEMM plans: %zu bytes for %zu", *bytes, size);
  *bytes = size;
  if (dst == NULL || size == 0)
    return FX_OK;
  memcpy (h.key, self->key, sizeof h.key);
  h.checksum = checksum_of (&h, self->list);
  memcpy (dst, &h, sizeof h);
  memcpy ((char *)dst + sizeof h, self->list, size - sizeof h);
  return FX_OK;
}

int
fx_gemm_plans_load (fx_gemm_plans *self, const void *src, size_t bytes, bool replace)
{
  const char *plans = (const char *)src + sizeof (head);
  head h;

  if (bytes < sizeof h)
    return fx_error (FX_ERR_SHAPE, "GEMM plans: only %zu bytes", bytes);
  memcpy (&h, src, sizeof h);
  if (memcmp (h.magic, MAGIC, sizeof h.magic) != 0)
    return fx_error (FX_ERR_UNSUPPORTED, "GEMM plans: of another kind or version");
  if (h.n > FX_GEMM_PLANS_MAX ||
      bytes != sizeof h + (size_t)h.n * sizeof (fx_gemm_plan) ||
      h.checksum != checksum_of (&h, plans))
    return fx_error (FX_ERR_SHAPE, "GEMM plans: %zu damaged bytes", bytes);
  if (memcmp (h.key, self->key, sizeof h.key) != 0)
    return fx_error (
        FX_ERR_UNSUPPORTED, "GEMM plans: of another GPU, cuBLASLt or version");
  for (size_t i = 0; i < h.n; i++) {
    fx_gemm_plan plan;

    memcpy (&plan, plans + i * sizeof plan, sizeof plan);
    (void)fx_gemm_plans_add (self, &plan, replace); /* full: it is timed again */
  }
  return FX_OK;
}
