/* flux/vae/blocks.c: the blocks that encoder and decoder are made of.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * diffusers models/resnet.py (ResnetBlock2D without time embedding),
 * attention_processor.py (Attention with group norm and residual connection),
 * downsampling.py, upsampling.py. */
#include "flux/vae/vae-private.h"

#include <math.h>

static const float EPS = 1e-6f;

/* ---- loading ---- */

gboolean
flux_vae_load_norm (
    FluxLoader *loader, const char *prefix, int channels, FluxVaeNorm *n, GError **error)
{
  g_autofree char *weight = g_strconcat (prefix, ".weight", NULL);
  g_autofree char *bias = g_strconcat (prefix, ".bias", NULL);

  return flux_load_vector (loader, weight, channels, &n->weight, error) &&
         flux_load_vector (loader, bias, channels, &n->bias, error);
}

gboolean
flux_vae_load_resnet (FluxLoader *loader, const char *prefix, int in, int out,
    FluxVaeResnet *r, GError **error)
{
  g_autofree char *norm1 = g_strconcat (prefix, ".norm1", NULL);
  g_autofree char *conv1 = g_strconcat (prefix, ".conv1", NULL);
  g_autofree char *norm2 = g_strconcat (prefix, ".norm2", NULL);
  g_autofree char *conv2 = g_strconcat (prefix, ".conv2", NULL);
  g_autofree char *shortcut = g_strconcat (prefix, ".conv_shortcut", NULL);

  r->in = in;
  r->out = out;
  return flux_vae_load_norm (loader, norm1, in, &r->norm1, error) &&
         flux_load_conv (loader, conv1, out, in, 3, &r->conv1, error) &&
         flux_vae_load_norm (loader, norm2, out, &r->norm2, error) &&
         flux_load_conv (loader, conv2, out, out, 3, &r->conv2, error) &&
         (in == out ||
             flux_load_conv (loader, shortcut, out, in, 1, &r->shortcut, error));
}

gboolean
flux_vae_load_attention (FluxLoader *loader, const char *prefix, int channels,
    FluxVaeAttention *a, GError **error)
{
  g_autofree char *norm = g_strconcat (prefix, ".group_norm", NULL);
  g_autofree char *q = g_strconcat (prefix, ".to_q", NULL);
  g_autofree char *k = g_strconcat (prefix, ".to_k", NULL);
  g_autofree char *v = g_strconcat (prefix, ".to_v", NULL);
  g_autofree char *out = g_strconcat (prefix, ".to_out.0", NULL);
  const char *const names[] = {q, k, v};
  const gint64 rows[] = {channels, channels, channels};

  return flux_vae_load_norm (loader, norm, channels, &a->norm, error) &&
         flux_load_linear_rows (loader, names, rows, 3, channels, TRUE, &a->qkv, error) &&
         flux_load_linear (loader, out, channels, channels, TRUE, &a->out, error);
}

/* ---- running ---- */

int
flux_vae_take (
    FluxVaePass *pass, int slot, int height, int width, int channels, FluxVaeImage *image)
{
  fx_dtype dtype = pass->dtype;
  gint64 pixels = (gint64)height * width;
  gsize bytes;

  if (__builtin_mul_overflow (
          (gsize)pixels, (gsize)channels * fx_dtype_size (dtype), &bytes))
    return fx_error (FX_ERR_MEMORY, "vae: an image of %d x %d", width, height);
  if (pass->measuring)
    pass->bytes[slot] = MAX (pass->bytes[slot], bytes);
  *image = (FluxVaeImage){
      fx_mat_new (pass->slots[slot], pixels, channels, dtype), slot, height, width};
  return FX_OK;
}

/* One of the slots that x is not in. */
static int
other_slot (const FluxVaeImage *x, int which)
{
  return (x->slot + which) % FLUX_VAE_SLOTS;
}

/* A "same" convolution of x into `slot`. */
int
flux_vae_conv (FluxVaePass *pass, FluxVaeImage *y, int slot, const FluxVaeImage *x,
    const fx_weight *w, int kernel)
{
  int pad = kernel / 2;
  fx_conv c = {x->height, x->width, kernel, 1, pad, pad, pad, pad};

  FX_TRY (flux_vae_take (pass, slot, x->height, x->width, (int)w->n, y));
  return pass->measuring ? FX_OK : fx_conv2d (pass->backend, y->m, x->m, w, &c);
}

int
flux_vae_norm (FluxVaePass *pass, const FluxVaeImage *y, const FluxVaeImage *x,
    const FluxVaeNorm *n, bool silu)
{
  if (pass->measuring)
    return FX_OK;
  return fx_groupnorm (
      pass->backend, y->m, x->m, pass->groups, n->weight, n->bias, EPS, silu);
}

/* out += y */
static int
add (FluxVaePass *pass, const FluxVaeImage *out, const FluxVaeImage *y)
{
  return pass->measuring ? FX_OK
                         : fx_gate_residual (pass->backend, out->m, out->m, y->m, NULL);
}

/* x + conv2 (silu (norm2 (conv1 (silu (norm1 (x)))))), x through `shortcut` if there is
 * one. */
int
flux_vae_resnet (FluxVaePass *pass, FluxVaeImage *x, const FluxVaeResnet *r)
{
  int a = other_slot (x, 1), b = other_slot (x, 2);
  FluxVaeImage n, h, y, s;

  FX_TRY (flux_vae_take (pass, a, x->height, x->width, r->in, &n));
  FX_TRY (flux_vae_norm (pass, &n, x, &r->norm1, true));
  FX_TRY (flux_vae_conv (pass, &h, b, &n, &r->conv1, 3));
  FX_TRY (flux_vae_norm (pass, &h, &h, &r->norm2, true));
  FX_TRY (flux_vae_conv (pass, &y, a, &h, &r->conv2, 3));
  if (r->in == r->out)
    return add (pass, x, &y);
  FX_TRY (flux_vae_conv (pass, &s, b, x, &r->shortcut, 1));
  FX_TRY (add (pass, &y, &s));
  *x = y;
  return FX_OK;
}

/* x + out (attention (norm (x))): one head as wide as the channels. */
int
flux_vae_attention (FluxVaePass *pass, FluxVaeImage *x, const FluxVaeAttention *a)
{
  int slot_a = other_slot (x, 1), slot_b = other_slot (x, 2);
  int channels = (int)x->m.cols;
  fx_attn attn = {
      .heads = 1, .head_dim = channels, .scale = 1.0f / sqrtf ((float)channels)};
  FluxVaeImage n, qkv, y;

  FX_TRY (flux_vae_take (pass, slot_a, x->height, x->width, channels, &n));
  FX_TRY (flux_vae_norm (pass, &n, x, &a->norm, false));
  FX_TRY (flux_vae_take (pass, slot_b, x->height, x->width, 3 * channels, &qkv));
  FX_TRY (flux_vae_take (pass, slot_b, x->height, x->width, channels, &y));
  if (!pass->measuring) {
    fx_backend *b = pass->backend;
    FX_TRY (fx_gemm (b, qkv.m, n.m, &a->qkv, false));
    FX_TRY (fx_attention (b, n.m, NULL, fx_cols (qkv.m, 0, channels),
        fx_cols (qkv.m, channels, channels), fx_cols (qkv.m, 2 * channels, channels),
        &attn));
    FX_TRY (fx_gemm (b, y.m, n.m, &a->out, false));
  }
  return add (pass, x, &y);
}

/* Half as large: padded by one pixel on the right and below, stride 2. */
int
flux_vae_downsample (FluxVaePass *pass, FluxVaeImage *x, const fx_weight *w)
{
  fx_conv c = {.height = x->height,
      .width = x->width,
      .kernel = 3,
      .stride = 2,
      .pad_bottom = 1,
      .pad_right = 1};
  FluxVaeImage y;

  FX_TRY (flux_vae_take (
      pass, other_slot (x, 1), x->height / 2, x->width / 2, (int)w->n, &y));
  if (!pass->measuring)
    FX_TRY (fx_conv2d (pass->backend, y.m, x->m, w, &c));
  *x = y;
  return FX_OK;
}

/* Twice as large: nearest neighbour, then a convolution. */
int
flux_vae_upsample (FluxVaePass *pass, FluxVaeImage *x, const fx_weight *w)
{
  FluxVaeImage y;

  FX_TRY (flux_vae_take (
      pass, other_slot (x, 1), 2 * x->height, 2 * x->width, (int)x->m.cols, &y));
  if (!pass->measuring)
    FX_TRY (fx_upsample2 (pass->backend, y.m, x->m, x->height, x->width));
  return flux_vae_conv (pass, x, x->slot, &y, w, 3);
}
