/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Dequantisation of weights, whole (the expand op) and in pieces (panel.h). Values are
 * those of bitsandbytes: code * absmax in fp32, rounded to the weight's dtype. */
#include "panel.h"
#include "simd.h"

enum { BLOCK = FX_NF4_BLOCK };

FX_INLINE vf
round_bf16 (vf v)
{
  vi u = (vi)v;
  u += ((u >> 16) & 1) + 0x7fff;
  return (vf)(u & (int32_t)0xffff0000);
}

FX_INLINE vf
round_f16 (vf v)
{
#if FX_VL == 16
  return (vf)_mm512_cvtph_ps (_mm512_cvtps_ph ((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif FX_VL == 8
  return (vf)_mm256_cvtph_ps (_mm256_cvtps_ph ((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < FX_VL; i++)
    v[i] = fx_f16_to_f32 (fx_f32_to_f16 (v[i]));
  return v;
#endif
}

FX_INLINE vf
round_to (vf v, fx_dtype dtype)
{
  return dtype == FX_BF16 ? round_bf16 (v) : dtype == FX_F16 ? round_f16 (v) : v;
}

/* The 16 values of a block: code * absmax, rounded. */
FX_INLINE void
nf4_table (vf table[16 / FX_VL], float absmax, fx_dtype dtype)
{
  for (int i = 0; i < 16 / FX_VL; i++)
    table[i] = round_to (vf_load (fx_nf4_code + i * FX_VL) * absmax, dtype);
}

/* One block of 64 weights from 32 bytes; the even one is the high nibble. */
FX_INLINE void
nf4_block (float *dst, const uint8_t *src, const vf table[16 / FX_VL])
{
#if FX_VL == 16
  for (int i = 0; i < BLOCK / 16; i++) {
    __m512i b = _mm512_cvtepu8_epi64 (_mm_loadl_epi64 ((const __m128i *)(src + i * 8)));
    /* Each byte in 64 bits: low half b >> 4, high half b; the permutation reads 4 bits.
     */
    b = _mm512_or_si512 (_mm512_srli_epi64 (b, 4), _mm512_slli_epi64 (b, 32));
    vf_store (dst + i * 16, (vf)_mm512_permutexvar_ps (b, (__m512)table[0]));
  }
#elif FX_VL == 8
  for (int i = 0; i < BLOCK / 8; i++) {
    int32_t four;
    __m256i b;
    __m256 low, high;
    memcpy (&four, src + i * 4, 4);
    b = _mm256_cvtepu8_epi64 (_mm_cvtsi32_si128 (four));
    b = _mm256_or_si256 (_mm256_srli_epi64 (b, 4), _mm256_slli_epi64 (b, 32));
    low = _mm256_permutevar8x32_ps ((__m256)table[0], b);
    high = _mm256_permutevar8x32_ps ((__m256)table[1], b);
    /* Bit 3, moved to the sign, picks the half of the table. */
    vf_store (dst + i * 8, (vf)_mm256_blendv_ps (low, high,
                               _mm256_castsi256_ps (_mm256_slli_epi32 (b, 28))));
  }
#else
  float value[16];
  for (int i = 0; i < 16 / FX_VL; i++)
    vf_store (value + i * FX_VL, table[i]);
  for (int i = 0; i < BLOCK / 2; i++) {
    dst[2 * i] = value[src[i] >> 4];
    dst[2 * i + 1] = value[src[i] & 15];
  }
#endif
}

static void
expand_nf4 (const fx_weight *w, int64_t first, int64_t count, float *dst)
{
  const uint8_t *src = (const uint8_t *)w->data + first / 2;
  int64_t block = first / BLOCK;

  for (int64_t i = 0; i < count; i += BLOCK, block++, src += BLOCK / 2) {
    float absmax;
    vf table[16 / FX_VL];
    if (w->qtype == FX_Q_NF4) {
      absmax = w->absmax[block];
    } else {
      absmax = w->code8[w->absmax_q[block]] * w->absmax2[block / FX_ABSMAX_BLOCK];
      /* The product is rounded before the sum, as bitsandbytes does: no fused add. */
      __asm__ volatile("" : "+m"(absmax));
      absmax += w->offset2[block / FX_ABSMAX_BLOCK];
    }
    nf4_table (table, absmax, w->dtype);
    nf4_block (dst + i, src, table);
  }
}

static void
expand_int8 (const fx_weight *w, int64_t row, int64_t col, int64_t cols, float *dst)
{
  const int8_t *src = (const int8_t *)w->data + row * w->k + col;
  float absmax = w->absmax[row];

  for (int64_t i = 0; i < cols; i++)
    dst[i] = (float)src[i] * absmax * 7.874015718698502e-3f;
}

static void
expand_fp8 (const fx_weight *w, int64_t row, int64_t col, int64_t cols, float *dst)
{
  const uint8_t *src = (const uint8_t *)w->data + row * w->k + col;
  float scale = w->absmax[row];

  fx_convert (dst, FX_F32, src, FX_E4M3, (size_t)cols);
  for (int64_t i = 0; i < cols; i++)
    dst[i] *= scale;
}

static void
expand_float (const fx_weight *w, int64_t row, int64_t col, int64_t cols, float *dst)
{
  int64_t at = row * w->k + col;

  if (w->dtype == FX_BF16) {
    const uint16_t *src = (const uint16_t *)w->data + at;
    for (int64_t i = 0; i < cols; i++) {
      uint32_t u = (uint32_t)src[i] << 16;
      memcpy (dst + i, &u, 4);
    }
  } else if (w->dtype == FX_F32) {
    memcpy (dst, (const float *)w->data + at, (size_t)cols * sizeof *dst);
  } else {
    fx_convert (dst, FX_F32, (const uint16_t *)w->data + at, FX_F16, (size_t)cols);
  }
}

static void
round_row (float *row, int64_t n, fx_dtype dtype)
{
  int64_t i = 0;

  if (dtype == FX_F32)
    return;
  for (; i + FX_VL <= n; i += FX_VL)
    vf_store (row + i, round_to (vf_load (row + i), dtype));
  if (i < n)
    vf_store_part (row + i, round_to (vf_load_part (row + i, n - i, 0), dtype), n - i);
}

static void
expand_row (const fx_weight *w, int64_t row, int64_t col, int64_t cols, float *dst)
{
  if (w->expanded != NULL) {
    memcpy (
        dst, (const float *)w->expanded + row * w->k + col, (size_t)cols * sizeof *dst);
    return;
  }
  switch (w->qtype) {
    case FX_Q_NONE:
      expand_float (w, row, col, cols, dst);
      break;
    case FX_Q_NF4:
    case FX_Q_NF4_DOUBLE:
      expand_nf4 (w, row * w->k + col, cols, dst);
      break;
    case FX_Q_INT8:
      expand_int8 (w, row, col, cols, dst);
      if (!w->rounds_inputs) /* else the integers themselves are multiplied */
        round_row (dst, cols, w->dtype);
      break;
    case FX_Q_FP8:
      expand_fp8 (w, row, col, cols, dst);
      round_row (dst, cols, w->dtype);
      break;
  }
}

void
fx_panel_expand (const fx_weight *w, int64_t row, int64_t rows, int64_t col, int64_t cols,
    float *dst, int64_t ld)
{
  for (int64_t r = 0; r < rows; r++)
    expand_row (w, row + r, col, cols, dst + r * ld);
}

typedef struct {
  fx_cpu *cpu;
  fx_mat dst;
  fx_weight w;
} expand_job;

static void
expand_rows (void *arg, int worker, int64_t begin, int64_t end)
{
  const expand_job *job = arg;
  fx_mat dst = fx_rows (job->dst, begin, end - begin);

  if (dst.dtype == FX_F32) {
    fx_panel_expand (&job->w, begin, end - begin, 0, dst.cols, dst.p, dst.ld);
    return;
  }
  for (int64_t r = begin; r < end; r++) {
    float *row = job->cpu->scratch[worker];
    expand_row (&job->w, r, 0, dst.cols, row);
    fx_convert (fx_rows (job->dst, r, 1).p, dst.dtype, row, FX_F32, (size_t)dst.cols);
  }
}

int
fx_cpu_expand (fx_backend *b, fx_mat dst, const fx_weight *w)
{
  fx_cpu *cpu = fx_cpu_of (b);
  expand_job job = {cpu, dst, *w};

  if (dst.dtype == FX_E4M3 || dst.dtype == FX_I8)
    return fx_error (FX_ERR_UNSUPPORTED, "expand: the CPU multiplies W as it lies");
  job.w.expanded = NULL; /* which dst may be about to become */
  FX_TRY (fx_cpu_scratch (cpu, "expand", (size_t)w->k * sizeof (float)));
  fx_pool_run_indexed (cpu->pool, w->n, fx_cpu_grain (w->k, 1 << 15), expand_rows, &job);
  return FX_OK;
}
