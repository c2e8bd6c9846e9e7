/* kernels/core/gemm-plans.h: which algorithm computes which product, as found by timing.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A table in memory and the bytes that keep it between processes. The bytes are of one
 * key, which names all that an algorithm depends on, and have a checksum: a process takes
 * all of them or none. */
#pragma once

#include "kernels/fx.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  FX_GEMM_KEY = 160,        /* bytes of a key with its end */
  FX_GEMM_ALGORITHM = 64,   /* of an algorithm: cublasLtMatmulAlgo_t */
  FX_GEMM_PLANS_MAX = 4096, /* products in a table; more are not kept */
};

/* Everything that tells one product from another; no padding, so that memcmp compares. */
typedef struct {
  int64_t m, n, k, ldx, ldw, ldy;
  int32_t dtype, operands;
  int32_t w_transposed, beta, bias, gelu;
} fx_gemm_shape;

typedef struct {
  fx_gemm_shape shape;
  uint8_t algorithm[FX_GEMM_ALGORITHM];
} fx_gemm_plan;

/* Starts as zeros with a key. */
typedef struct {
  char key[FX_GEMM_KEY];
  fx_gemm_plan *list;
  size_t n, room;
} fx_gemm_plans;

const fx_gemm_plan *
fx_gemm_plans_find (const fx_gemm_plans *self, const fx_gemm_shape *shape);
/* Sets the algorithm of a product; one that is there stays unless replace. False when
 * there is no room. */
bool fx_gemm_plans_add (fx_gemm_plans *self, const fx_gemm_plan *plan, bool replace);
void fx_gemm_plans_clear (fx_gemm_plans *self); /* the key stays */
/* As the op get_gemm_plans and set_gemm_plans. */
int fx_gemm_plans_save (const fx_gemm_plans *self, void *dst, size_t *bytes);
int fx_gemm_plans_load (fx_gemm_plans *self, const void *src, size_t bytes, bool replace);

#ifdef __cplusplus
}
#endif
