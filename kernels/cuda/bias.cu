/* kernels/cuda/bias.cu: biases in the compute dtype. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * cuBLASLt adds a bias only in the dtype of the product. Each is converted once and kept
 * until the memory it lives in is freed. */
#include <stdlib.h>

#include "kernels/cuda/common.cuh"

typedef struct {
  const float *bias;
  void *converted;
} entry;

struct fxc_biases {
  entry *list;
  size_t n, room;
};

template <typename T>
static __global__ void
convert (T *out, const float *in, int64_t n)
{
  int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;

  if (i < n)
    out[i] = from_f<T> (in[i]);
}

static int
add (fx_cuda *c, const float *bias, int64_t n, const void **out)
{
  fxc_biases *all = c->biases;
  void *p;

  if (all == NULL && (all = c->biases = (fxc_biases *)calloc (1, sizeof *all)) == NULL)
    return c->error (FX_ERR_MEMORY, "cuda: out of memory for biases");
  if (all->n == all->room) {
    entry *more = (entry *)realloc (all->list, (all->room + 256) * sizeof *more);

    if (more == NULL)
      return c->error (FX_ERR_MEMORY, "cuda: out of memory for biases");
    all->list = more;
    all->room += 256;
  }
  FXC_TRY (c, cudaMalloc (&p, (size_t)n * fx_dtype_size (c->base.compute)));
  all->list[all->n].bias = bias;
  all->list[all->n++].converted = p;
  *out = p;
  FXC_WITH_TYPE (c, c->base.compute,
      { convert<T><<<fxc_blocks (n, 256), 256, 0, c->queue.stream>>> ((T *)p, bias, n); })
  /* Once a bias: the other queue may be the next to read it. */
  FXC_TRY (c, cudaStreamSynchronize (c->queue.stream));
  FXC_LAUNCHED (c, "bias");
}

extern "C" int
fxc_bias (fx_cuda *c, const float *bias, int64_t n, const void **out)
{
  if (c->base.compute == FX_F32) {
    *out = bias;
    return FX_OK;
  }
  for (size_t i = 0; c->biases != NULL && i < c->biases->n; i++) {
    if (c->biases->list[i].bias == bias) {
      *out = c->biases->list[i].converted;
      return FX_OK;
    }
  }
  return add (c, bias, n, out);
}

extern "C" void
fxc_biases_forget (fx_cuda *c, const void *p, size_t bytes)
{
  fxc_biases *all = c->biases;
  const char *from = (const char *)p;
  size_t kept = 0;

  if (all == NULL || p == NULL)
    return;
  cudaStreamSynchronize (c->queue.stream);
  for (size_t i = 0; i < all->n; i++) {
    const char *at = (const char *)all->list[i].bias;

    if (at >= from && at < from + bytes)
      cudaFree (all->list[i].converted);
    else
      all->list[kept++] = all->list[i];
  }
  all->n = kept;
}

extern "C" void
fxc_biases_free (fx_cuda *c)
{
  if (c->biases == NULL)
    return;
  for (size_t i = 0; i < c->biases->n; i++)
    cudaFree (c->biases->list[i].converted);
  free (c->biases->list);
  free (c->biases);
  c->biases = NULL;
}
