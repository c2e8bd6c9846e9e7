/* flux/transformer/stream.c: blocks whose weights come from the host while the blocks
 * before them are computed. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A run has a few slots on the device, each for one block. When a block is opened, all
 * that the block before it does has been asked for, so that one's slot can take the block
 * after the next: the copy begins when the slot is free, and runs beside the block that
 * has been opened. Only what products multiply with travels: biases and norms stay. */
#include "flux/transformer/transformer-private.h"

G_STATIC_ASSERT ((int)FLUX_SLOTS <= (int)FX_FETCHES);

gsize
flux_stream_slot_bytes (const FluxTransformer *t)
{
  const int n = t->config.num_layers + t->config.num_single_layers;
  gsize most = 0;

  for (int i = 0; t->block_at != NULL && i < n; i++)
    most = MAX (most, t->block_at[i + 1] - t->block_at[i]);
  return most;
}

/* The slot that holds the block, or is to; -1: none. */
static int
find_slot (const FluxRun *r, int block)
{
  for (int i = 0; i < FLUX_SLOTS; i++)
    if (r->slots[i].block == block)
      return i;
  return -1;
}

static gboolean
is_wanted (const int *wanted, int block)
{
  for (int i = 0; i < FLUX_SLOTS; i++)
    if (wanted[i] == block)
      return TRUE;
  return FALSE;
}

/* Into a slot whose block is not wanted: there is one, as wanted has no more blocks than
 * there are slots. */
static int
fetch (FluxRun *r, const int *wanted, int block)
{
  const FluxTransformer *t = r->t;
  int i = 0, status;

  while (is_wanted (wanted, r->slots[i].block))
    i++;
  r->slots[i].block = block;
  status = fx_fetch (r->b, i, r->slots[i].p, t->host.base + t->block_at[block],
      t->block_at[block + 1] - t->block_at[block]);
  if (status != FX_OK)
    r->slots[i].block = FLUX_NO_BLOCK;
  return status;
}

/* The block, and those that come after it this way: from the end of a forward pass on
 * those of the next one. */
static void
want (const FluxRun *r, int block, gboolean backward, int *wanted)
{
  for (int i = 0; i < FLUX_SLOTS; i++) {
    int next = backward ? block - i : block + i;

    if (r->mode == FLUX_RUN_FORWARD)
      next %= r->n_blocks;
    wanted[i] =
        next >= (backward ? r->first_trained : 0) && next < r->n_blocks ? next : block;
  }
}

int
flux_stream_open (FluxRun *r, int block, gboolean backward)
{
  int wanted[FLUX_SLOTS];

  if (r->slot_bytes == 0)
    return FX_OK;
  want (r, block, backward, wanted);
  for (int i = 0; i < FLUX_SLOTS; i++)
    if (find_slot (r, wanted[i]) < 0)
      FX_TRY (fetch (r, wanted, wanted[i]));
  return fx_fetched (r->b, find_slot (r, block));
}

/* ---- a block where it lies now ---- */

static void
move (fx_weight *w, const char *from, char *to)
{
#define MOVE(field)                                                                      \
  if (w->field != NULL)                                                                  \
  w->field = (void *)(to + ((const char *)w->field - from))
  MOVE (data);
  MOVE (absmax);
  MOVE (absmax_q);
  MOVE (absmax2);
  MOVE (offset2);
  MOVE (code8);
#undef MOVE
  w->home = FX_HOME_DEVICE;
}

/* Where the block's weights lie in host memory and in its slot; FALSE: they lie on the
 * device. */
static gboolean
find_places (FluxRun *r, int block, const char **from, char **to)
{
  if (r->slot_bytes == 0)
    return FALSE;
  *from = r->t->host.base + r->t->block_at[block];
  *to = r->slots[find_slot (r, block)].p;
  return TRUE;
}

void
flux_stream_double (FluxRun *r, int block, FluxDouble *copy)
{
  const char *from;
  char *to;

  *copy = r->t->doubles[block];
  if (!find_places (r, block, &from, &to))
    return;
  for (int s = 0; s < FLUX_N_STREAMS; s++) {
    move (&copy->mod[s], from, to);
    move (&copy->qkv[s], from, to);
    move (&copy->out[s], from, to);
    move (&copy->fc1[s], from, to);
    move (&copy->fc2[s], from, to);
  }
}

void
flux_stream_single (FluxRun *r, int block, FluxSingle *copy)
{
  const char *from;
  char *to;

  *copy = r->t->singles[block];
  if (!find_places (r, r->t->config.num_layers + block, &from, &to))
    return;
  move (&copy->mod, from, to);
  move (&copy->qkv, from, to);
  move (&copy->mlp, from, to);
  move (&copy->out, from, to);
}
