/* kernels/cuda/attention.cu: which attention runs. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * flash-*.cu: 16-bit, heads of 64 or 128, no mask: the transformer; flash-sm90-*.cu: the
 * same with what sm_90a alone has. attention-any.cu:
 * everything up to 256 wide. Here: the VAE's middle block, one head as wide as its
 * channels (512), through products of bands of queries with all keys. */
#include "kernels/cuda/attention.cuh"

#define THREADS 256
#define BAND_BYTES ((size_t)64 << 20)

/* Softmax of each row of s [rows, cols], in place; a block a row. */
template <typename T>
static __global__ void
softmax (T *s, int64_t ld, int cols)
{
  __shared__ float shared[THREADS / 32];
  T *row = s + blockIdx.x * ld;
  float top = -INFINITY, sum = 0;

  for (int i = threadIdx.x; i < cols; i += THREADS)
    top = fmaxf (top, to_f (row[i]));
  top = warp_max (top);
  if ((threadIdx.x & 31) == 0)
    shared[threadIdx.x >> 5] = top;
  __syncthreads ();
  for (int i = 0; i < THREADS / 32; i++)
    top = fmaxf (top, shared[i]);
  for (int i = threadIdx.x; i < cols; i += THREADS)
    sum += expf (to_f (row[i]) - top);
  sum = block_sum (sum, shared);
  for (int i = threadIdx.x; i < cols; i += THREADS)
    row[i] = from_f<T> (expf (to_f (row[i]) - top) / sum);
}

/* One head, in bands: scores, softmax, weighted sum. */
static int
one_wide_head (fx_cuda *c, fx_mat o, fx_mat q, fx_mat k, fx_mat v, float scale)
{
  const size_t e = fx_dtype_size (q.dtype), align = 16 / e;
  const int64_t ld = (int64_t)((k.rows + align - 1) / align * align);
  int64_t band = (int64_t)(BAND_BYTES / (ld * e));
  void *scratch;

  band = band < 1 ? 1 : band < q.rows ? band : q.rows;
  FX_TRY (fxc_scratch (c, FXC_SCRATCH_MATRIX, (size_t)(band * ld) * e, &scratch));
  for (int64_t first = 0; first < q.rows; first += band) {
    const int64_t n = q.rows - first < band ? q.rows - first : band;
    fx_mat qb = fx_rows (q, first, n), ob = fx_rows (o, first, n);
    const fxc_shape scores = {
        n, k.rows, q.cols, q.ld, k.ld, ld, q.dtype, true, false, false};
    const fxc_shape values = {
        n, v.cols, k.rows, ld, v.ld, o.ld, q.dtype, false, false, false};

    FX_TRY (fxc_matmul (c, &scores, scratch, qb.p, k.p, NULL, scale));
    FXC_WITH_TYPE (c, q.dtype, {
      softmax<T>
          <<<(unsigned)n, THREADS, 0, c->queue.stream>>> ((T *)scratch, ld, (int)k.rows);
    })
    FX_TRY (fxc_matmul (c, &values, ob.p, scratch, v.p, NULL, 1));
  }
  FXC_LAUNCHED (c, "attention");
}

static bool
fits_flash (const fx_cuda *c, const fx_attn *a, fx_mat q, fx_mat k, fx_mat v)
{
  return (q.dtype == FX_F16 || (c->has_mma && q.dtype == FX_BF16)) &&
         (a->head_dim == 64 || a->head_dim == 128) && !a->causal && a->bias == NULL &&
         fxc_aligned (q, 2) && fxc_aligned (k, 2) && fxc_aligned (v, 2);
}

int
fxc_attention (
    fx_backend *b, fx_mat o, float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  fx_cuda *c = fxc (b);

  if (fits_flash (c, a, q, k, v) && c->has_wgmma && a->head_dim == 128)
    return fxc_attention_sm90 (c, o, lse, q, k, v, a);
  if (fits_flash (c, a, q, k, v))
    return fxc_attention_flash (c, o, lse, q, k, v, a);
  if (a->head_dim > 256 && a->heads == 1 && !a->causal && a->bias == NULL && lse == NULL)
    return one_wide_head (c, o, q, k, v, a->scale);
  return fxc_attention_any (c, o, lse, q, k, v, a);
}

int
fxc_attention_bwd (fx_backend *b, fx_mat dq, fx_mat dk, fx_mat dv, fx_mat d_o, fx_mat o,
    const float *lse, fx_mat q, fx_mat k, fx_mat v, const fx_attn *a)
{
  fx_cuda *c = fxc (b);

  if (fits_flash (c, a, q, k, v) && fxc_aligned (d_o, 2) && fxc_aligned (dq, 2) &&
      fxc_aligned (dk, 2) && fxc_aligned (dv, 2))
    return c->has_wgmma && a->head_dim == 128
               ? fxc_attention_sm90_bwd (c, dq, dk, dv, d_o, o, lse, q, k, v, a)
               : fxc_attention_flash_bwd (c, dq, dk, dv, d_o, o, lse, q, k, v, a);
  return fxc_attention_any_bwd (c, dq, dk, dv, d_o, o, lse, q, k, v, a);
}
