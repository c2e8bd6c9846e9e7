/* kernels/cuda/conv2d.cu: convolution as a matrix product. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Patches of a band of output rows are laid out as [pixels, kernel * kernel * channels]
 * and multiplied with the weights; the band is as high as BAND_BYTES of patches allow, so
 * that a large picture needs no gigabytes. A 1 x 1 convolution needs no patches. Rows of
 * patches and weights are filled up with zeros where a tensor-core product's alignment
 * asks for it (three input channels: the first layer). Three output channels (the last
 * layer) have a kernel of their own. */
#include "kernels/cuda/weight.cuh"

#define THREADS 256
#define FEW 4
#define BAND_BYTES ((size_t)96 << 20)

typedef struct {
  fx_conv c;
  int out_width, channels;
  int row; /* elements of a pixel's patch, zeros after the last tap included */
} shape;

/* A thread copies V channels of one tap of one pixel; a band has fewer than 2^31
 * elements. */
template <typename T, int V>
static __global__ void
patches (T *out, const T *x, int64_t ld, shape s, int first_pixel, int pixels)
{
  const int k = s.c.kernel, row_packs = s.row / V;
  const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
  const int p = i / row_packs, at = i % row_packs * V;
  const int tap = at / s.channels, ch = at % s.channels;

  if (p >= pixels)
    return;
  const int pixel = first_pixel + p;
  const int row = pixel / s.out_width * s.c.stride - s.c.pad_top + tap / k;
  const int col = pixel % s.out_width * s.c.stride - s.c.pad_left + tap % k;
  pack<T, V> v;

  if (tap < k * k && row >= 0 && row < s.c.height && col >= 0 && col < s.c.width) {
    v = *reinterpret_cast<const pack<T, V> *> (
        &x[((int64_t)row * s.c.width + col) * ld + ch]);
  } else {
#pragma unroll
    for (int j = 0; j < V; j++)
      v.v[j] = from_f<T> (0);
  }
  *reinterpret_cast<pack<T, V> *> (out + (int64_t)i * V) = v;
}

/* A warp makes all (few) output channels of one pixel, up to FEW of them at a time. */
template <typename T>
static __global__ void
narrow (T *y, int64_t ldy, const T *x, int64_t ld, fxc_weight w, const float *bias,
    shape s, int64_t pixels)
{
  const int k = s.c.kernel, lane = threadIdx.x & 31;
  const int64_t pixel = (blockIdx.x * (int64_t)THREADS + threadIdx.x) / 32;

  if (pixel >= pixels)
    return;
  const int top = (int)pixel / s.out_width * s.c.stride - s.c.pad_top;
  const int left = (int)pixel % s.out_width * s.c.stride - s.c.pad_left;

  for (int n = 0; n < w.n; n += FEW) {
    float sum[FEW] = {};

    for (int tap = 0; tap < k * k; tap++) {
      const int row = top + tap / k, col = left + tap % k;

      if (row < 0 || row >= s.c.height || col < 0 || col >= s.c.width)
        continue;
      for (int ch = lane; ch < s.channels; ch += 32) {
        const float v = to_f (x[((int64_t)row * s.c.width + col) * ld + ch]);

#pragma unroll
        for (int j = 0; j < FEW; j++)
          if (n + j < w.n)
            sum[j] =
                fmaf (v, fxc_element (w, (n + j) * w.k + tap * s.channels + ch), sum[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < FEW; j++) {
      const float total = warp_sum (sum[j]);

      if (lane == 0 && n + j < w.n)
        y[pixel * ldy + n + j] = from_f<T> (total + (bias != NULL ? bias[n + j] : 0));
    }
  }
}

/* w with rows of `row` elements, the last of them zeros. */
static int
widen (fx_cuda *c, fx_weight *w, int row)
{
  const size_t size = fx_dtype_size (w->dtype), pitch = (size_t)row * size;
  void *wide;

  FX_TRY (fxc_scratch (c, FXC_SCRATCH_PARTIAL, (size_t)w->n * pitch, &wide));
  FXC_TRY (c, cudaMemsetAsync (wide, 0, (size_t)w->n * pitch, c->queue.stream));
  FXC_TRY (c,
      cudaMemcpy2DAsync (wide, pitch, w->data, (size_t)w->k * size, (size_t)w->k * size,
          (size_t)w->n, cudaMemcpyDeviceToDevice, c->queue.stream));
  w->data = wide;
  w->k = row;
  return FX_OK;
}

static int
bands (fx_cuda *c, fx_mat y, fx_mat x, const fx_weight *w, shape s)
{
  const size_t row_bytes = (size_t)w->k * fx_dtype_size (x.dtype);
  int64_t band = (int64_t)(BAND_BYTES / row_bytes);
  void *scratch;

  band = band < y.rows ? (band > 0 ? band : 1) : y.rows;
  FX_TRY (fxc_scratch (c, FXC_SCRATCH_MATRIX, (size_t)band * row_bytes, &scratch));
  for (int64_t first = 0; first < y.rows; first += band) {
    int64_t n = y.rows - first < band ? y.rows - first : band;

    FXC_WITH_TYPE (c, x.dtype, {
      constexpr int V = 16 / sizeof (T);

      if (fxc_aligned (x, sizeof (T)))
        patches<T, V>
            <<<fxc_blocks (n * w->k / V, THREADS), THREADS, 0, c->queue.stream>>> (
                (T *)scratch, (const T *)x.p, x.ld, s, (int)first, (int)n);
      else
        patches<T, 1><<<fxc_blocks (n * w->k, THREADS), THREADS, 0, c->queue.stream>>> (
            (T *)scratch, (const T *)x.p, x.ld, s, (int)first, (int)n);
    })
    FXC_TRY (c, cudaGetLastError ());
    FX_TRY (fxc_gemm (&c->base, fx_rows (y, first, n),
        fx_mat_new (scratch, n, w->k, x.dtype), w, false));
  }
  return FX_OK;
}

int
fxc_conv2d (fx_backend *b, fx_mat y, fx_mat x, const fx_weight *w, const fx_conv *conv)
{
  fx_cuda *c = fxc (b);
  shape s = {*conv, 0, (int)x.cols, 0};
  const int align = 16 / (int)fx_dtype_size (x.dtype);
  fx_weight wide = *w;

  s.out_width =
      (conv->width + conv->pad_left + conv->pad_right - conv->kernel) / conv->stride + 1;
  s.row = ((int)w->k + align - 1) / align * align;
  if (w->n % align != 0 ||
      (s.row != w->k && (w->qtype != FX_Q_NONE || w->dtype != x.dtype))) {
    FXC_WITH_TYPE (c, x.dtype, {
      narrow<T><<<fxc_blocks (y.rows * 32, THREADS), THREADS, 0, c->queue.stream>>> (
          (T *)y.p, y.ld, (const T *)x.p, x.ld, fxc_weight_of (w), w->bias, s, y.rows);
    })
    FXC_LAUNCHED (c, "conv2d");
  }
  if (conv->kernel == 1 && conv->stride == 1)
    return fxc_gemm (b, y, x, w, false);
  if (s.row != w->k)
    FX_TRY (widen (c, &wide, s.row));
  return bands (c, y, x, &wide, s);
}
