/* tests/golden/text.c: token ids and embeddings. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * text.I.{clip_ids,t5_ids,prompt_embeds,pooled,text_ids} of metadata prompts[I]. */
#include "flux/text/text-encoder.h"

#include <string.h>

#include "flux/text/clip-tokenizer.h"
#include "flux/text/t5-tokenizer.h"
#include "tests/golden/parity.h"

static const double BOUND = 2e-5;

typedef struct {
  Parity *p;
  FluxClipTokenizer *clip;
  FluxT5Tokenizer *t5;
  FluxTextEncoder *encoder;
  FluxTextInfo info;
} Text;

static char **
read_prompts (Parity *p)
{
  const char *text = parity_metadata (p, "prompts");
  g_autoptr (JsonParser) parser = json_parser_new ();
  GPtrArray *prompts = g_ptr_array_new ();
  JsonNode *root;

  if (text != NULL && json_parser_load_from_data (parser, text, -1, NULL) &&
      (root = json_parser_get_root (parser)) != NULL && JSON_NODE_HOLDS_ARRAY (root)) {
    JsonArray *array = json_node_get_array (root);
    for (guint i = 0; i < json_array_get_length (array); i++)
      g_ptr_array_add (prompts, g_strdup (json_array_get_string_element (array, i)));
  }
  g_ptr_array_add (prompts, NULL);
  return (char **)g_ptr_array_free (prompts, FALSE);
}

/* ids: what a tokeniser made, in the tensor's length. */
static void
compare_ids (Text *t, const char *index, const char *name, const char *prompt)
{
  g_autofree char *group = g_strdup_printf ("text.%s.%s", index, name);
  const FluxTensor *want = parity_find (t->p, "%s", group);
  gboolean clip = strcmp (name, "clip_ids") == 0, ok;
  g_autoptr (GError) error = NULL;
  g_autofree gint32 *ids = NULL;
  guint length;

  if (want == NULL || want->dtype != FX_I32 || (clip ? t->clip == NULL : t->t5 == NULL))
    return;
  length = (guint)want->n_elements;
  ids = g_new0 (gint32, length);
  ok = clip ? flux_clip_tokenizer_encode (t->clip, prompt, -1, length, ids, NULL, &error)
            : flux_t5_tokenizer_encode (t->t5, prompt, -1, length, ids, NULL, &error);
  if (ok)
    parity_equal (t->p, group, ids, want->data, want->n_bytes);
  else
    parity_fail (t->p, group, &error);
}

static void
compare_embeddings (Text *t, const char *index, const char *prompt)
{
  g_autofree char *embeds_name = g_strdup_printf ("text.%s.prompt_embeds", index);
  g_autofree char *pooled_name = g_strdup_printf ("text.%s.pooled", index);
  gsize n_embeds = 0, n_pooled = 0;
  g_autofree float *embeds = parity_floats (t->p, &n_embeds, "%s", embeds_name);
  g_autofree float *pooled = parity_floats (t->p, &n_pooled, "%s", pooled_name);
  g_autofree float *got_embeds = NULL, *got_pooled = NULL;
  g_autoptr (GError) error = NULL;

  if (t->encoder == NULL || embeds == NULL || pooled == NULL)
    return;
  if (n_pooled != (gsize)t->info.pooled_dim || n_embeds % (gsize)t->info.joint_dim != 0) {
    parity_skip (t->p, embeds_name, "it is of another text encoder");
    return;
  }
  got_embeds = g_new (float, n_embeds);
  got_pooled = g_new (float, n_pooled);
  if (!flux_text_encode (t->encoder, prompt, (int)(n_embeds / (gsize)t->info.joint_dim),
          got_embeds, got_pooled, NULL, NULL, &error)) {
    parity_fail (t->p, embeds_name, &error);
    return;
  }
  parity_compare (t->p, embeds_name, got_embeds, embeds, n_embeds, BOUND);
  parity_compare (t->p, pooled_name, got_pooled, pooled, n_pooled, BOUND);
}

/* The position ids of text, which the transformer takes to be zero. */
static void
compare_text_ids (Text *t, const char *index)
{
  g_autofree char *group = g_strdup_printf ("text.%s.text_ids", index);
  gsize n = 0;
  g_autofree float *want = parity_floats (t->p, &n, "%s", group);
  g_autofree float *zeros = g_new0 (float, MAX (n, 1));

  if (want != NULL)
    parity_equal (t->p, group, zeros, want, n * sizeof (float));
}

static void
start (Text *t)
{
  g_autofree char *clip = g_build_filename (t->p->model_dir, "tokenizer", NULL);
  g_autofree char *t5 = g_build_filename (t->p->model_dir, "tokenizer_2", NULL);
  g_autoptr (GError) error = NULL;

  t->clip = flux_clip_tokenizer_new (clip, &error);
  if (t->clip == NULL)
    parity_fail (t->p, "text.clip_ids", &error);
  t->t5 = flux_t5_tokenizer_new (t5, &error);
  if (t->t5 == NULL)
    parity_fail (t->p, "text.t5_ids", &error);
  t->encoder = flux_text_encoder_load (
      t->p->model_dir, t->p->backend, FX_Q_NONE, NULL, NULL, NULL, &error);
  if (t->encoder == NULL)
    parity_fail (t->p, "text.prompt_embeds", &error);
  else
    t->info = *flux_text_encoder_get_info (t->encoder);
}

void
parity_text (Parity *p)
{
  g_auto (GStrv) indices = parity_indices (p, "text.");
  g_auto (GStrv) prompts = read_prompts (p);
  Text t = {.p = p};

  if (indices[0] == NULL)
    return;
  start (&t);
  for (guint i = 0; indices[i] != NULL; i++) {
    guint64 number;
    if (!g_ascii_string_to_unsigned (
            indices[i], 10, 0, (guint64)g_strv_length (prompts) - 1, &number, NULL)) {
      g_autofree char *group = g_strdup_printf ("text.%s", indices[i]);
      parity_skip (p, group, "the metadata have no prompt for it");
      continue;
    }
    compare_ids (&t, indices[i], "clip_ids", prompts[number]);
    compare_ids (&t, indices[i], "t5_ids", prompts[number]);
    compare_embeddings (&t, indices[i], prompts[number]);
    compare_text_ids (&t, indices[i]);
  }
  g_clear_pointer (&t.clip, flux_clip_tokenizer_free);
  g_clear_pointer (&t.t5, flux_t5_tokenizer_free);
  g_clear_pointer (&t.encoder, flux_text_encoder_free);
}
