/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The checks of arguments that the fx_* front functions share. */
#pragma once

#include "kernels/fx.h"

/* Each returns FX_OK, or FX_ERR_SHAPE with a message naming op, argument and shapes. */
int fx_check_pointer (const char *op, const char *name, const void *p);
/* A non-empty matrix with a buffer. */
int fx_check_mat (const char *op, const char *name, fx_mat m);
/* The same, holding activations: the compute dtype, or F32 (residual streams). */
int fx_check_act (const fx_backend *b, const char *op, const char *name, fx_mat m);
/* fx_check_act() and exactly rows x cols. */
int fx_check_act_dims (const fx_backend *b, const char *op, const char *name, fx_mat m,
    int64_t rows, int64_t cols);
/* m, when it is there, has this dtype: it goes through one kernel with what has it. */
int fx_check_dtype (const char *op, const char *name, fx_mat m, fx_dtype dtype);
int fx_check_float (const char *op, const char *name, fx_mat m);
int fx_check_weight (const char *op, const fx_weight *w);
/* Room for a rounded matrix of rows x cols, cols a multiple of 16. */
int fx_check_rounded (const char *op, fx_rounded r, int64_t rows, int64_t cols);

#define FX_CHECK_BACKEND(op, b)                                                          \
  do {                                                                                   \
    if ((b) == NULL)                                                                     \
      return fx_error (FX_ERR_SHAPE, op ": no backend");                                 \
  } while (0)

/* The backend, and that it has the op. */
#define FX_CHECK_OP(op, b)                                                               \
  do {                                                                                   \
    FX_CHECK_BACKEND (#op, b);                                                           \
    if ((b)->ops->op == NULL)                                                            \
      return fx_error (                                                                  \
          FX_ERR_UNSUPPORTED, "%s: the %s backend does not have it", #op, (b)->name);    \
  } while (0)
