/* flux/text/text-encoder.c: prompt to embeddings, both encoders together.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/text-encoder.h"

#include "flux/error.h"
#include "flux/text/clip-tokenizer.h"
#include "flux/text/encoders.h"
#include "flux/text/t5-tokenizer.h"

enum { MAX_TOKENS = 512 /* FluxPipeline's own limit */ };

struct _FluxTextEncoder {
  FluxTextInfo info;
  FluxClipTokenizer *clip_tokenizer;
  FluxT5Tokenizer *t5_tokenizer;
  FluxClip *clip;
  FluxT5 *t5;
};

int
flux_text_download (fx_backend *b, fx_mat m, float *out)
{
  gsize n = (gsize)(m.rows * m.cols), bytes = n * fx_dtype_size (m.dtype);
  g_autofree guint8 *values = NULL;

  if (m.dtype == FX_F32)
    return fx_download (b, out, m.p, bytes);
  values = g_malloc (bytes);
  FX_TRY (fx_download (b, values, m.p, bytes));
  return fx_convert (out, FX_F32, values, m.dtype, n);
}

gboolean
flux_text_check_ids (
    const gint32 *ids, int n, int vocabulary, const char *what, GError **error)
{
  for (int i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= vocabulary) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
          "The tokenizer made the id %d, but %s's vocabulary has %d entries; tokenizer "
          "and text encoder belong to different models.",
          ids[i], what, vocabulary);
      return FALSE;
    }
  return TRUE;
}

gboolean
flux_text_may_go_on (
    const char *what, FluxProgressFunc progress, gpointer data, GError **error)
{
  if (progress == NULL || progress (what, -1, data))
    return TRUE;
  g_set_error (
      error, FLUX_ERROR, FLUX_ERROR_CANCELLED, "Encoding with %s was cancelled.", what);
  return FALSE;
}

gboolean
flux_text_read_info (const char *dir, FluxTextInfo *info, GError **error)
{
  g_autofree char *clip_dir = g_build_filename (dir, "text_encoder", NULL);
  g_autofree char *t5_dir = g_build_filename (dir, "text_encoder_2", NULL);
  FluxClipConfig clip;
  FluxT5Config t5;

  if (!flux_clip_config_read (clip_dir, &clip, error) ||
      !flux_t5_config_read (t5_dir, &t5, error))
    return FALSE;
  *info = (FluxTextInfo){.joint_dim = t5.d_model, .pooled_dim = clip.hidden};
  return TRUE;
}

FluxTextEncoder *
flux_text_encoder_load (const char *dir, fx_backend *b, fx_qtype qtype,
    FluxWeightsCache *cache, FluxProgressFunc progress, gpointer data, GError **error)
{
  g_autofree char *clip_dir = g_build_filename (dir, "text_encoder", NULL);
  g_autofree char *t5_dir = g_build_filename (dir, "text_encoder_2", NULL);
  g_autofree char *clip_tokens = g_build_filename (dir, "tokenizer", NULL);
  g_autofree char *t5_tokens = g_build_filename (dir, "tokenizer_2", NULL);
  g_autoptr (FluxTextEncoder) self = g_new0 (FluxTextEncoder, 1);

  if (!flux_text_read_info (dir, &self->info, error) ||
      (self->clip_tokenizer = flux_clip_tokenizer_new (clip_tokens, error)) == NULL ||
      (self->t5_tokenizer = flux_t5_tokenizer_new (t5_tokens, error)) == NULL ||
      (self->clip = flux_clip_load (clip_dir, b, progress, data, error)) == NULL ||
      (self->t5 = flux_t5_load (t5_dir, b, qtype, cache, progress, data, error)) == NULL)
    return NULL;
  return g_steal_pointer (&self);
}

void
flux_text_encoder_free (FluxTextEncoder *self)
{
  if (self == NULL)
    return;
  flux_t5_free (self->t5);
  flux_clip_free (self->clip);
  flux_t5_tokenizer_free (self->t5_tokenizer);
  flux_clip_tokenizer_free (self->clip_tokenizer);
  g_free (self);
}

const FluxTextInfo *
flux_text_encoder_get_info (FluxTextEncoder *self)
{
  return &self->info;
}

gboolean
flux_text_encode (FluxTextEncoder *self, const char *prompt, int max_sequence_length,
    float *prompt_embeds, float *pooled, FluxProgressFunc progress, gpointer data,
    GError **error)
{
  int positions = flux_clip_get_config (self->clip)->positions;
  g_autofree gint32 *clip_ids = g_new (gint32, (gsize)positions);
  g_autofree gint32 *t5_ids = NULL;

  if (max_sequence_length < 1 || max_sequence_length > MAX_TOKENS) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The text length must be within 1..%d tokens, not %d.", MAX_TOKENS,
        max_sequence_length);
    return FALSE;
  }
  t5_ids = g_new (gint32, (gsize)max_sequence_length);
  return flux_clip_tokenizer_encode (
             self->clip_tokenizer, prompt, -1, (guint)positions, clip_ids, NULL, error) &&
         flux_t5_tokenizer_encode (self->t5_tokenizer, prompt, -1,
             (guint)max_sequence_length, t5_ids, NULL, error) &&
         flux_clip_encode (self->clip, clip_ids, pooled, progress, data, error) &&
         flux_t5_encode (
             self->t5, t5_ids, max_sequence_length, prompt_embeds, progress, data, error);
}
