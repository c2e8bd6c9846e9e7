/* kernels/cuda/move.cu: copies: dtype conversion, rows of a table, twice as large.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernels/cuda/common.cuh"

#define THREADS 256

template <typename T, typename S>
static __global__ void
copy (T *y, int64_t ldy, const S *x, int64_t ldx, int64_t rows, int64_t cols)
{
  const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;

  if (i < rows * cols)
    y[i / cols * ldy + i % cols] = from_f<T> (to_f (x[i / cols * ldx + i % cols]));
}

/* V elements of a row at a time. */
template <typename T, int V>
static __global__ void
copy_wide (T *y, int64_t ldy, const T *x, int64_t ldx, int64_t rows, int cols)
{
  const int per_row = cols / V;
  const int64_t unit = blockIdx.x * (int64_t)THREADS + threadIdx.x;
  const int64_t row = unit / per_row, i = unit % per_row * V;

  if (row < rows)
    *reinterpret_cast<pack<T, V> *> (y + row * ldy + i) =
        *reinterpret_cast<const pack<T, V> *> (x + row * ldx + i);
}

template <typename T, typename S>
static __global__ void
gather (T *y, int64_t ldy, const S *table, int64_t ld, const int32_t *ids, int64_t cols)
{
  const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;

  if (i < cols)
    y[blockIdx.y * ldy + i] = from_f<T> (to_f (table[ids[blockIdx.y] * ld + i]));
}

template <typename T>
static __global__ void
upsample (
    T *y, int64_t ldy, const T *x, int64_t ldx, int width, int64_t pixels, int channels)
{
  const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;
  const int64_t pixel = i / channels;
  const int ch = (int)(i % channels);

  if (pixel >= pixels)
    return;
  const int64_t row = pixel / (2 * width), col = pixel % (2 * width);

  y[pixel * ldy + ch] = x[(row / 2 * width + col / 2) * ldx + ch];
}

int
fxc_copy (fx_backend *b, fx_mat y, fx_mat x)
{
  fx_cuda *c = fxc (b);
  const unsigned blocks = fxc_blocks (x.rows * x.cols, THREADS);

#define COPY(S)                                                                          \
  copy<T, S><<<blocks, THREADS, 0, c->queue.stream>>> (                                  \
      (T *)y.p, y.ld, (const S *)x.p, x.ld, x.rows, x.cols)
  FXC_WITH_TYPE (c, y.dtype, {
    constexpr int V = 16 / sizeof (T);

    if (x.dtype == y.dtype && fxc_aligned (x, sizeof (T)) && fxc_aligned (y, sizeof (T)))
      copy_wide<T, V>
          <<<fxc_blocks (x.rows * (x.cols / V), THREADS), THREADS, 0, c->queue.stream>>> (
              (T *)y.p, y.ld, (const T *)x.p, x.ld, x.rows, (int)x.cols);
    else if (x.dtype == FX_F32)
      COPY (float);
    else if (x.dtype == FX_BF16)
      COPY (bf16);
    else
      COPY (f16);
  })
  FXC_LAUNCHED (c, "copy");
}

int
fxc_gather (fx_backend *b, fx_mat y, fx_mat table, const int32_t *ids)
{
  fx_cuda *c = fxc (b);
  const dim3 grid (fxc_blocks (y.cols, THREADS), (unsigned)y.rows);
  void *device;

  FX_TRY (fxc_scratch (c, FXC_SCRATCH_PARTIAL, y.rows * sizeof *ids, &device));
  FXC_TRY (c, cudaMemcpyAsync (device, ids, y.rows * sizeof *ids, cudaMemcpyHostToDevice,
                  c->queue.stream));
#define GATHER(S)                                                                        \
  gather<T, S><<<grid, THREADS, 0, c->queue.stream>>> (                                  \
      (T *)y.p, y.ld, (const S *)table.p, table.ld, (const int32_t *)device, y.cols)
  FXC_WITH_TYPE (c, y.dtype, {
    if (table.dtype == FX_F32)
      GATHER (float);
    else if (table.dtype == FX_BF16)
      GATHER (bf16);
    else
      GATHER (f16);
  })
  FXC_LAUNCHED (c, "gather");
}

int
fxc_upsample2 (fx_backend *b, fx_mat y, fx_mat x, int height, int width)
{
  fx_cuda *c = fxc (b);

  FXC_WITH_TYPE (c, x.dtype, {
    upsample<T><<<fxc_blocks (y.rows * y.cols, THREADS), THREADS, 0, c->queue.stream>>> (
        (T *)y.p, y.ld, (const T *)x.p, x.ld, width, y.rows, (int)y.cols);
  })
  FXC_LAUNCHED (c, "upsample2");
}
