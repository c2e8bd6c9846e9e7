/* kernels/cuda/queue.c: streams, what belongs to them, and how they wait for each other.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernels/cuda/cuda.h"

#define WORKSPACE_BYTES ((size_t)32 << 20)

int
fxc_queue_open (fx_cuda *c, fxc_queue *q)
{
  FXC_TRY (c, cudaStreamCreateWithFlags (&q->stream, cudaStreamNonBlocking));
  FXC_TRY (c, cudaMalloc (&q->workspace, WORKSPACE_BYTES));
  q->workspace_size = WORKSPACE_BYTES;
  return FX_OK;
}

void
fxc_queue_close (fxc_queue *q)
{
  for (int i = 0; i < FXC_N_SCRATCH; i++)
    cudaFree (q->scratch[i]);
  cudaFree (q->ones);
  cudaFree (q->workspace);
  if (q->stream != NULL)
    cudaStreamDestroy (q->stream);
}

/* Grows at the first call that needs more. */
int
fxc_scratch (fx_cuda *c, int which, size_t bytes, void **p)
{
  fxc_queue *q = &c->queue;

  if (bytes > q->scratch_size[which]) {
    FXC_TRY (c, cudaStreamSynchronize (q->stream));
    FXC_TRY (c, cudaFree (q->scratch[which]));
    q->scratch[which] = NULL;
    q->scratch_size[which] = 0;
    FXC_TRY (c, cudaMalloc (&q->scratch[which], bytes));
    q->scratch_size[which] = bytes;
  }
  *p = q->scratch[which];
  return FX_OK;
}

/* The second stream exists from its first use on. */
static int
open_other (fx_cuda *c)
{
  if (c->other.stream != NULL)
    return FX_OK;
  if (c->forked == NULL)
    FXC_TRY (c, cudaEventCreateWithFlags (&c->forked, cudaEventDisableTiming));
  if (c->done == NULL)
    FXC_TRY (c, cudaEventCreateWithFlags (&c->done, cudaEventDisableTiming));
  return fxc_queue_open (c, &c->other);
}

static void
swap (fx_cuda *c, bool on_side)
{
  fxc_queue q = c->queue;

  c->queue = c->other;
  c->other = q;
  c->on_side = on_side;
}

int
fxc_side (fx_backend *b, bool on)
{
  fx_cuda *c = fxc (b);

  if (on == c->on_side)
    return FX_OK;
  if (on) {
    FX_TRY (open_other (c));
    FXC_TRY (c, cudaEventRecord (c->forked, c->queue.stream));
    FXC_TRY (c, cudaStreamWaitEvent (c->other.stream, c->forked, 0));
  } else {
    FXC_TRY (c, cudaEventRecord (c->done, c->queue.stream));
  }
  swap (c, on);
  return FX_OK;
}

int
fxc_join (fx_backend *b)
{
  fx_cuda *c = fxc (b);

  if (c->on_side)
    FX_TRY (fxc_side (b, false));
  if (c->other.stream != NULL)
    FXC_TRY (c, cudaStreamWaitEvent (c->queue.stream, c->done, 0));
  return FX_OK;
}

/* ---- from the host ---- */

static int
open_copies (fx_cuda *c)
{
  if (c->copies != NULL)
    return FX_OK;
  if (c->asked == NULL)
    FXC_TRY (c, cudaEventCreateWithFlags (&c->asked, cudaEventDisableTiming));
  for (int i = 0; i < FX_FETCHES; i++)
    if (c->arrived[i] == NULL)
      FXC_TRY (c, cudaEventCreateWithFlags (&c->arrived[i], cudaEventDisableTiming));
  FXC_TRY (c, cudaStreamCreateWithFlags (&c->copies, cudaStreamNonBlocking));
  return FX_OK;
}

void
fxc_copies_close (fx_cuda *c)
{
  if (c->asked != NULL)
    cudaEventDestroy (c->asked);
  for (int i = 0; i < FX_FETCHES; i++)
    if (c->arrived[i] != NULL)
      cudaEventDestroy (c->arrived[i]);
  if (c->copies != NULL)
    cudaStreamDestroy (c->copies);
}

int
fxc_fetch (fx_backend *b, int number, void *dst, const void *src, size_t bytes)
{
  fx_cuda *c = fxc (b);

  FX_TRY (open_copies (c));
  FXC_TRY (c, cudaEventRecord (c->asked, c->queue.stream));
  FXC_TRY (c, cudaStreamWaitEvent (c->copies, c->asked, 0));
  FXC_TRY (c, cudaMemcpyAsync (dst, src, bytes, cudaMemcpyHostToDevice, c->copies));
  FXC_TRY (c, cudaEventRecord (c->arrived[number], c->copies));
  return FX_OK;
}

int
fxc_fetched (fx_backend *b, int number)
{
  fx_cuda *c = fxc (b);

  FX_TRY (open_copies (c));
  FXC_TRY (c, cudaStreamWaitEvent (c->queue.stream, c->arrived[number], 0));
  return FX_OK;
}
