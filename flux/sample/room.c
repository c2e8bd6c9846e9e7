/* flux/sample/room.c: whether a picture can be drawn, before weights are read.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/error.h"
#include "flux/sample/sampler.h"

/* Of the transformer and its run; 0 with *error set when it cannot be said. */
static gsize
plan (const fx_backend *b, const FluxModelKey *key, int text_tokens, int image_tokens,
    GError **error)
{
  g_autoptr (FluxModel) model = flux_model_new_planned (b, key, error);
  FluxTransformer *t;
  gsize bytes;

  if (model == NULL)
    return 0;
  t = flux_model_get_transformer (model);
  bytes = flux_run_measure (
      t, FLUX_RUN_FORWARD, text_tokens, image_tokens, 1, NULL, 0, error);
  return bytes > 0 ? bytes + flux_transformer_get_bytes (t) : 0;
}

gboolean
flux_sampler_check_room (fx_backend *b, const FluxModelKey *key, int width, int height,
    int text_tokens, GError **error)
{
  g_autofree char *hint = NULL, *what = NULL;
  gsize available, needed;

  if (fx_free_memory (b, &available) != FX_OK || available == G_MAXSIZE)
    return TRUE;
  needed = plan (b, key, text_tokens, width / 16 * (height / 16), error);
  if (needed > 0 && needed <= available)
    return TRUE;
  if (needed == 0)
    return FALSE;
  what = g_strdup_printf ("A picture of %dx%d", width, height);
  hint = g_strdup_printf ("end what else uses it, or use %s%ssmaller pictures",
      key->offload == FLUX_OFFLOAD_STREAM ? "" : "offload=stream, ",
      key->qtype == FX_Q_NONE || key->qtype == FX_Q_FP8 ? "quantization=nf4 or " : "");
  flux_error_no_room (error, what, needed, available, "free", hint);
  return FALSE;
}
