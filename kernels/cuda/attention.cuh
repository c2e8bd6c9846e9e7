/* kernels/cuda/attention.cuh: the implementations of attention. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "kernels/cuda/common.cuh"

int fxc_attention_any (
    fx_cuda *c, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
int fxc_attention_any_bwd (fx_cuda *c, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o,
    fx_mat o, const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
/* 16-bit, heads of 64 or 128, rows aligned to 16 bytes; bf16 on sm_80 or newer. */
int fxc_attention_flash (
    fx_cuda *c, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
/* The same with heads of 128 on sm_90a. */
int fxc_attention_sm90 (
    fx_cuda *c, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
int fxc_attention_sm90_bwd (fx_cuda *c, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o,
    fx_mat o, const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
int fxc_attention_flash_bwd (fx_cuda *c, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o,
    fx_mat o, const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a);
