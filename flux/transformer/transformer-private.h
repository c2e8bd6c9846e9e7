/* flux/transformer/transformer-private.h: the inside of FluxTransformer and FluxRun.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: T text tokens, I image tokens, S = T + I, D the model's width, H heads. */
#pragma once

#include "flux/transformer/slots.h"
#include "flux/transformer/transformer.h"

G_BEGIN_DECLS

enum { FLUX_TEXT, FLUX_IMAGE, FLUX_N_STREAMS };
enum { FLUX_SLOTS = 3, FLUX_NO_BLOCK = -1 };

#define FLUX_NORM_EPS 1e-6f

/* A double block; [FLUX_TEXT] are diffusers' "context" and "added" layers. */
typedef struct {
  fx_weight mod[FLUX_N_STREAMS];                                /* [6 D, D] */
  fx_weight qkv[FLUX_N_STREAMS];                                /* [3 D, D] */
  fx_weight out[FLUX_N_STREAMS];                                /* [D, D] */
  fx_weight fc1[FLUX_N_STREAMS];                                /* [4 D, D] */
  fx_weight fc2[FLUX_N_STREAMS];                                /* [D, 4 D] */
  const float *norm_q[FLUX_N_STREAMS], *norm_k[FLUX_N_STREAMS]; /* [head_dim] */
} FluxDouble;

typedef struct {
  fx_weight mod;                /* [3 D, D] */
  fx_weight qkv;                /* [3 D, D] */
  fx_weight mlp;                /* [4 D, D] */
  fx_weight out;                /* [D, 5 D]: attention's columns, then the MLP's */
  const float *norm_q, *norm_k; /* [head_dim] */
} FluxSingle;

/* linear_1, SiLU, linear_2 */
typedef struct {
  fx_weight first, second;
} FluxMlp;

struct _FluxTransformer {
  gatomicrefcount ref_count;
  FluxConfig config;
  fx_backend *backend;
  fx_arena arena;
  fx_weight x_embedder, context_embedder, norm_out, proj_out;
  FluxMlp time, guidance, text;
  FluxDouble *doubles;
  FluxSingle *singles;
  /* FX_HOME_HOST: where the blocks' weights are, block i from block_at[i] on. */
  fx_backend *host_backend;
  fx_arena host;
  gsize *block_at; /* [n_blocks + 1], else NULL */
};

/* What a block leaves for its backward. Kept a block and sample in FLUX_RUN_STORE, else
 * one set is shared by all. */
typedef struct {
  fx_mat qkv; /* [S, 3 D] before the norms */
  fx_mat o;   /* [S, D] attention's output */
  fx_mat u;   /* [S, 4 D] before GELU */
  fx_mat x1;  /* [S, D] double blocks: between attention and MLP */
  float *lse; /* [H, S] */
} FluxActs;

/* One sample in flight. */
typedef struct {
  int text_tokens, image_tokens, tokens;
  int grid_height, grid_width; /* what the rotary table below is for */
  float *cos, *sin;            /* [S, head_dim / 2] */
  fx_rope rope;
  fx_mat mods;    /* [1, all modulation vectors], fp32 */
  fx_mat *x;      /* [n_blocks + 1] input of each block, and of the last layer */
  FluxActs *acts; /* [n_blocks] */
  fx_mat dx;      /* [S, D] gradient of the residual stream */
  fx_mat pred;    /* [I, out_channels] */
} FluxLane;

struct _FluxRun {
  FluxTransformer *t;
  fx_backend *b;
  FluxRunMode mode;
  int max_text, max_image, max_samples, n_blocks;
  FluxLora **loras;
  guint n_loras;
  int first_trained; /* the lowest block with a trained module; n_blocks: none */
  gboolean train_n2, train_cat; /* a trained module reads n2, or cat */
  int max_rank;
  fx_arena arena;
  GArray *names; /* of Named, for flux_run_describe() */
  FluxLane *lanes;
  double *losses; /* [max_samples] on the backend */
  /* Work of one block, shared. What is never live at once shares memory: run-layout.c. */
  fx_mat n;                  /* [S, D] after adaLN */
  fx_mat n2;                 /* [S, D] after the second adaLN of a double block */
  fx_mat qk;                 /* [S, 2 D] after norm and RoPE */
  fx_mat cat;                /* [S, 5 D] attention | GELU */
  fx_mat y;                  /* [S, D] what a gate adds */
  fx_mat h;                  /* [S, 3 rank] */
  gpointer narrow8, wide8;   /* [S, D] and [S, 5 D] in 8 bits: rounded.c; or NULL */
  gint64 h_row;              /* where in h the stream at work has its rows */
  float *stats, *stats2;     /* [S, 2] */
  float *final_stats;        /* [I, 2] */
  float *rstd;               /* [S, 2 H] */
  fx_mat dy, dn, dqkv, dcat; /* backward */
  fx_mat dpred, target;
  /* Conditioning of all samples at once. */
  fx_mat features, pooled, temb, hidden, mod; /* [samples, ...] */
  fx_mat mods;                                /* [samples, n_mods] fp32 */
  fx_mat tokens_in;                           /* [max tokens, widest input] */
  /* One block's weights in the compute dtype, when that pays. */
  gboolean keep_expanded;
  fx_arena resident; /* of the last n_resident blocks, all single */
  int n_resident;
  gboolean *filled; /* [n_resident] */
  gboolean beside;  /* the streams of a double block on two queues: a lean run has memory
                     * for the scratch of one only */
  char *expanded;
  /* Of a transformer whose blocks are on the host. */
  gsize slot_bytes; /* 0: they are not */
  struct {
    char *p;
    int block; /* that is in it, or will be; FLUX_NO_BLOCK */
  } slots[FLUX_SLOTS];
  guint n_inputs;            /* of the conditioning */
  int n_modulated;           /* blocks that have their modulation vectors */
  FluxProgressFunc progress; /* or NULL */
  gpointer progress_data;
  void *staging; /* host */
  gsize staging_bytes;
};

static inline fx_mat
flux_none (void)
{
  fx_mat m = {NULL, 0, 0, 0, FX_F32};

  return m;
}

static inline fx_rounded
flux_unrounded (void)
{
  fx_rounded m = {0};

  return m;
}

/* No matrix of m's dtype. */
static inline fx_mat
flux_none_of (fx_mat m)
{
  m.p = NULL;
  return m;
}

/* ---- layout of the modulation vectors of one sample ---- */
static inline gint64
flux_mods_double (const FluxConfig *c, int block, int stream)
{
  return (gint64)flux_config_dim (c) * 6 * (2 * block + stream);
}
static inline gint64
flux_mods_single (const FluxConfig *c, int block)
{
  return (gint64)flux_config_dim (c) * (12 * c->num_layers + 3 * block);
}
static inline gint64
flux_mods_final (const FluxConfig *c)
{
  return flux_mods_single (c, c->num_single_layers);
}
static inline gint64
flux_n_mods (const FluxConfig *c)
{
  return flux_mods_final (c) + 2 * (gint64)flux_config_dim (c);
}

/* Rows of a stream in a matrix over all tokens. */
static inline fx_mat
flux_stream (const FluxLane *lane, fx_mat m, int stream)
{
  return stream == FLUX_TEXT ? fx_rows (m, 0, lane->text_tokens)
                             : fx_rows (m, lane->text_tokens, lane->image_tokens);
}
static inline int
flux_stream_row (const FluxLane *lane, int stream)
{
  return stream == FLUX_TEXT ? 0 : lane->text_tokens;
}

/* ---- linear.c: a layer and the adapters on it. They return fx_status. ---- */

/* y += the adapters' share on x, for the n equal column parts of y, whose slots follow
 * each other. */
int flux_adapters (FluxRun *r, fx_mat y, fx_mat x, guint slot, guint n);
/* y = x W^T + bias + adapters. x8, dy8: x, dy in 8 bits, where the op that made them has
 * rounded them (q not NULL); x and dy are then read only when flux_has_module (). */
int flux_linear (
    FluxRun *r, fx_mat y, fx_mat x, fx_rounded x8, const fx_weight *w, guint slot);
/* The same for q, k, v in one product; slots are slot, slot + 1, slot + 2. */
int flux_linear_qkv (
    FluxRun *r, fx_mat qkv, fx_mat x, fx_rounded x8, const fx_weight *w, guint slot);
/* y = gelu (x W^T + bias) when flux_gelu_is_fused (), where nothing else needs to know
 * what goes into GELU; else as flux_linear (). */
gboolean flux_gelu_is_fused (FluxRun *r, const fx_weight *w, guint slot);
int flux_linear_before_gelu (
    FluxRun *r, fx_mat y, fx_mat x, fx_rounded x8, const fx_weight *w, guint slot);
/* dx (+)= dy W and the adapters' share; gradients of the trained one. dx.p NULL: only
 * those. x is read only when flux_is_trained (). */
int flux_linear_bwd (FluxRun *r, fx_mat dx, fx_mat dy, fx_rounded dy8, fx_mat x,
    const fx_weight *w, guint slot, gboolean beta);
int flux_linear_qkv_bwd (FluxRun *r, fx_mat dx, fx_mat dqkv, fx_rounded dqkv8, fx_mat x,
    const fx_weight *w, guint slot, gboolean beta);
/* Has the slot a module with gradients? */
gboolean flux_is_trained (FluxRun *r, guint slot);
/* Has it any? */
gboolean flux_has_module (FluxRun *r, guint slot);

/* ---- rounded.c: operands of products in 8 bits ---- */

typedef enum { FLUX_ROWS_TEXT, FLUX_ROWS_IMAGE, FLUX_ROWS_ALL } FluxRows;

gsize flux_rounded_bytes (gint64 rows, gint64 cols);
/* The lane's rows (FLUX_TEXT, FLUX_IMAGE or all) of a buffer of flux_rounded_bytes() for
 * the other operand of w; q is NULL where the product is to round by itself. */
fx_rounded flux_rounded (const FluxRun *r, const FluxLane *lane, FluxRows which,
    gpointer buffer, gint64 cols, const fx_weight *w);
int flux_norm (FluxRun *r, fx_mat n, fx_rounded n8, float *stats, fx_mat x,
    const float *shift, const float *scale);
/* y = [left | gelu (u)], the input of the layer at slot; left.p may be NULL, or y.p. */
int flux_gelu (FluxRun *r, fx_mat y, fx_rounded y8, fx_mat left, fx_mat u, guint slot);
/* du = du gelu' (u), in place, for w's gradient; w's layer is at slot. */
int flux_gelu_bwd (
    FluxRun *r, fx_mat du, fx_rounded du8, fx_mat u, const fx_weight *w, guint slot);
/* dy = gate dx, for w's gradient. */
int flux_gate_bwd (FluxRun *r, fx_mat dy, fx_rounded dy8, fx_mat dx, const float *gate,
    const fx_weight *w, guint slot);

/* Between begin and end the streams of a double block do not meet: text goes beside the
 * image, where the backend can, and comes first, because it is short. */
static inline int
flux_stream_begin (FluxRun *r, const FluxLane *lane, int stream)
{
  r->h_row = flux_stream_row (lane, stream);
  return r->beside ? fx_side (r->b, stream == FLUX_TEXT) : FX_OK;
}
static inline int
flux_streams_end (FluxRun *r)
{
  r->h_row = 0;
  return r->beside ? fx_join (r->b) : FX_OK;
}

/* ---- blocks: index counts within their kind ---- */

typedef enum {
  FLUX_PASS_PLAIN, /* the output; nothing is kept */
  FLUX_PASS_KEEP,  /* the output, and what the backward needs */
  FLUX_PASS_REDO   /* only what the backward needs: x_out is not written */
} FluxPass;

/* x_out may be x. */
int flux_double_forward (FluxRun *r, FluxLane *lane, const FluxDouble *d, int index,
    FluxActs *a, fx_mat x, fx_mat x_out, FluxPass pass);
int flux_single_forward (FluxRun *r, FluxLane *lane, const FluxSingle *s, int index,
    FluxActs *a, fx_mat x, fx_mat x_out, FluxPass pass);
/* lane->dx: gradient of the output in, of the input out (when want_dx). fresh: n, stats,
 * qk and rstd are still those of this block's forward. */
int flux_double_backward (FluxRun *r, FluxLane *lane, const FluxDouble *d, int index,
    FluxActs *a, fx_mat x, gboolean fresh, gboolean want_dx);
int flux_single_backward (FluxRun *r, FluxLane *lane, const FluxSingle *s, int index,
    FluxActs *a, fx_mat x, gboolean fresh, gboolean want_dx);

/* ---- ends.c, condition.c, rope.c ---- */

int flux_upload_f32 (FluxRun *r, fx_mat dst, const float *src);
/* Modulation vectors of n samples; with slots, those of the blocks come with the blocks.
 */
int flux_condition (FluxRun *r, const FluxInput *const *inputs, guint n);
int flux_condition_double (FluxRun *r, int block, const FluxDouble *d);
int flux_condition_single (FluxRun *r, int block, const FluxSingle *s);
int flux_rope_update (FluxRun *r, FluxLane *lane, int grid_height, int grid_width);
/* lane->x[0] from latents and prompt. */
int flux_embed_tokens (FluxRun *r, FluxLane *lane, const FluxInput *in);
/* lane->pred from the last x; leaves n, stats, qk and rstd alone. */
int flux_final_forward (FluxRun *r, FluxLane *lane);
/* Loss of lane->pred, and lane->dx from it; right after the forward of the same lane. */
int flux_final_backward (FluxRun *r, FluxLane *lane, guint index, const float *target,
    float weight, float grad_scale);

/* ---- stream.c ---- */

/* Bytes of the largest block on the host; 0: they are on the device. */
gsize flux_stream_slot_bytes (const FluxTransformer *t);
/* Before a block (counted over both kinds) is used; backward: those before it are next.
 */
int flux_stream_open (FluxRun *r, int block, gboolean backward);
/* A copy of the block that was opened, with its weights on the device. */
void flux_stream_double (FluxRun *r, int block, FluxDouble *copy);
void flux_stream_single (FluxRun *r, int block, FluxSingle *copy);

/* ---- expand.c ---- */

/* Bytes for the token layers of the largest block in the compute dtype. */
gsize flux_expanded_bytes (FluxTransformer *t);
/* A copy of the block's weights, expanded into r->expanded when r->keep_expanded; weights
 * for 8-bit products only for a backward. */
int flux_expand_double (FluxRun *r, int block, gboolean backward, FluxDouble *copy);
int flux_expand_single (FluxRun *r, int block, gboolean backward, FluxSingle *copy);

G_END_DECLS
