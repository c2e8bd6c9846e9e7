/* tests/flux/test-text.c: the text encoders against transformers.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <string.h>
#include <unistd.h>

#include "flux/error.h"
#include "flux/text/clip-tokenizer.h"
#include "flux/text/encoders.h"
#include "flux/text/t5-tokenizer.h"
#include "flux/text/text-encoder.h"
#include "tests/flux/golden.h"

static const double BOUND = 2e-5;

static char *
data_path (const char *name)
{
  return g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "text", name, NULL);
}

/* The golden folder's prompts. */
static JsonArray *
read_prompts (FluxSafetensors *file, JsonParser *parser)
{
  const char *text = flux_safetensors_get_metadata (file, "prompts");

  g_assert_true (json_parser_load_from_data (parser, text, -1, NULL));
  return json_node_get_array (json_parser_get_root (parser));
}

static void
check_ids (FluxSafetensors *file, guint i, const char *suffix, const gint32 *ids, gsize n)
{
  g_autofree char *key = g_strdup_printf ("text.%u.%s", i, suffix);
  const FluxTensor *t = flux_safetensors_lookup (file, key);

  g_assert_nonnull (t);
  g_assert_cmpmem (ids, n * sizeof *ids, t->data, t->n_bytes);
}

static void
test_embeddings (void)
{
  g_autofree char *model = flux_test_model ();
  g_autoptr (FluxSafetensors) file = golden_open ("golden.safetensors");
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (FluxTextEncoder) encoder = NULL;
  g_autoptr (GError) error = NULL;
  fx_backend *b = fx_cpu_new (0);
  JsonArray *prompts;
  int length;

  if (file != NULL && model == NULL)
    g_test_skip ("tiny-flux-emoji is missing");
  if (file == NULL || model == NULL) {
    fx_backend_free (b);
    return;
  }
  encoder = flux_text_encoder_load (model, b, FX_Q_NONE, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  prompts = read_prompts (file, parser);
  length = atoi (flux_safetensors_get_metadata (file, "max_sequence_length"));
  for (guint i = 0; i < json_array_get_length (prompts); i++) {
    const FluxTextInfo *info = flux_text_encoder_get_info (encoder);
    g_autofree char *embeds_key = g_strdup_printf ("text.%u.prompt_embeds", i);
    g_autofree char *pooled_key = g_strdup_printf ("text.%u.pooled", i);
    gsize n = (gsize)(length * info->joint_dim);
    g_autofree float *embeds = g_new (float, n);
    g_autofree float *pooled = g_new (float, (gsize)info->pooled_dim);
    flux_text_encode (encoder, json_array_get_string_element (prompts, i), length, embeds,
        pooled, NULL, NULL, &error);
    g_assert_no_error (error);
    g_assert_cmpfloat (golden_relative_error (file, embeds_key, embeds, n), <=, BOUND);
    g_assert_cmpfloat (
        golden_relative_error (file, pooled_key, pooled, (gsize)info->pooled_dim), <=,
        BOUND);
  }
  g_clear_pointer (&encoder, flux_text_encoder_free);
  fx_backend_free (b);
}

static void
test_ids (void)
{
  g_autofree char *model = flux_test_model ();
  g_autoptr (FluxSafetensors) file = golden_open ("golden.safetensors");
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autofree char *clip_dir = g_build_filename (model, "tokenizer", NULL);
  g_autofree char *t5_dir = g_build_filename (model, "tokenizer_2", NULL);
  g_autoptr (FluxClipTokenizer) clip = NULL;
  g_autoptr (FluxT5Tokenizer) t5 = NULL;
  g_autoptr (GError) error = NULL;
  JsonArray *prompts;
  guint length;

  if (file == NULL || model == NULL)
    return;
  clip = flux_clip_tokenizer_new (clip_dir, &error);
  g_assert_no_error (error);
  t5 = flux_t5_tokenizer_new (t5_dir, &error);
  g_assert_no_error (error);
  prompts = read_prompts (file, parser);
  length = (guint)atoi (flux_safetensors_get_metadata (file, "max_sequence_length"));
  for (guint i = 0; i < json_array_get_length (prompts); i++) {
    const char *prompt = json_array_get_string_element (prompts, i);
    gint32 clip_ids[77];
    g_autofree gint32 *t5_ids = g_new (gint32, length);
    g_assert_true (
        flux_clip_tokenizer_encode (clip, prompt, -1, 77, clip_ids, NULL, &error));
    g_assert_true (
        flux_t5_tokenizer_encode (t5, prompt, -1, length, t5_ids, NULL, &error));
    check_ids (file, i, "clip_ids", clip_ids, 77);
    check_ids (file, i, "t5_ids", t5_ids, length);
  }
}

static void
check_clip (const char *name)
{
  g_autofree char *dir = data_path (name);
  g_autofree char *path = data_path ("expected.safetensors");
  g_autofree char *ids_key = g_strconcat (name, ".ids", NULL);
  g_autofree char *pooled_key = g_strconcat (name, ".pooled", NULL);
  g_autoptr (FluxSafetensors) expected = flux_safetensors_open (path, NULL);
  g_autoptr (FluxClip) clip = NULL;
  g_autoptr (GError) error = NULL;
  fx_backend *b = fx_cpu_new (1);
  float pooled[20];
  gint32 ids[10];

  g_assert_nonnull (expected);
  clip = flux_clip_load (dir, b, NULL, NULL, &error);
  g_assert_no_error (error);
  memcpy (ids, flux_safetensors_lookup (expected, ids_key)->data, sizeof ids);
  flux_clip_encode (clip, ids, pooled, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpfloat (golden_relative_error (expected, pooled_key, pooled, 20), <=, BOUND);
  ids[3] = 64; /* beyond the vocabulary */
  g_assert_false (flux_clip_encode (clip, ids, pooled, NULL, NULL, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_clear_pointer (&clip, flux_clip_free);
  fx_backend_free (b);
}

static void
test_clip_with_an_eos_id (void)
{
  check_clip ("clip");
}

static void
test_clip_with_the_historical_eos_id (void)
{
  check_clip ("clip2");
}

static void
test_t5_of_300_tokens (void)
{
  enum { TOKENS = 300, DIM = 64 };
  g_autofree char *dir = data_path ("t5"), *path = data_path ("expected.safetensors");
  g_autoptr (FluxSafetensors) expected = flux_safetensors_open (path, NULL);
  g_autoptr (FluxT5) t5 = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree float *embeds = g_new (float, TOKENS *DIM);
  g_autofree float *again = g_new (float, TOKENS *DIM);
  gint32 ids[TOKENS];
  fx_backend *b = fx_cpu_new (1);

  g_assert_nonnull (expected);
  t5 = flux_t5_load (dir, b, FX_Q_NONE, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  memcpy (ids, flux_safetensors_lookup (expected, "t5.ids")->data, sizeof ids);
  flux_t5_encode (t5, ids, TOKENS, embeds, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpfloat (
      golden_relative_error (expected, "t5.embeds", embeds, TOKENS * DIM), <=, BOUND);
  /* A short text in between changes nothing. */
  flux_t5_encode (t5, ids, 5, again, NULL, NULL, &error);
  g_assert_no_error (error);
  flux_t5_encode (t5, ids, TOKENS, again, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpmem (embeds, TOKENS * DIM * 4, again, TOKENS * DIM * 4);
  g_clear_pointer (&t5, flux_t5_free);
  fx_backend_free (b);
}

/* Weights quantised on load compute what their round trips do. */
static void
check_t5_quantised (fx_qtype qtype, const char *key)
{
  enum { TOKENS = 20, DIM = 64 };
  g_autofree char *dir = data_path ("t5"), *path = data_path ("expected.safetensors");
  g_autoptr (FluxSafetensors) expected = flux_safetensors_open (path, NULL);
  g_autoptr (FluxT5) t5 = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree float *embeds = g_new (float, TOKENS *DIM);
  gint32 ids[TOKENS];
  fx_backend *b = fx_cpu_new (1);

  g_assert_nonnull (expected);
  t5 = flux_t5_load (dir, b, qtype, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  memcpy (ids, flux_safetensors_lookup (expected, "t5.ids")->data, sizeof ids);
  flux_t5_encode (t5, ids, TOKENS, embeds, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpfloat (
      golden_relative_error (expected, key, embeds, TOKENS * DIM), <=, BOUND);
  g_clear_pointer (&t5, flux_t5_free);
  fx_backend_free (b);
}

static void
test_t5_int8 (void)
{
  check_t5_quantised (FX_Q_INT8, "t5.int8");
}

static void
test_t5_nf4 (void)
{
  check_t5_quantised (FX_Q_NF4, "t5.nf4");
}

static void
test_buckets (void)
{
  g_autofree char *path = data_path ("expected.safetensors");
  g_autoptr (FluxSafetensors) expected = flux_safetensors_open (path, NULL);
  gint32 want[1023];

  g_assert_nonnull (expected);
  memcpy (want, flux_safetensors_lookup (expected, "t5.buckets")->data, sizeof want);
  for (int d = -511; d <= 511; d++)
    g_assert_cmpint (flux_t5_bucket (d, 32, 128), ==, want[d + 511]);
}

static void
test_limits_are_named (void)
{
  g_autofree char *model = flux_test_model ();
  g_autoptr (FluxTextEncoder) encoder = NULL;
  g_autoptr (GError) error = NULL;
  fx_backend *b = fx_cpu_new (1);
  float embeds[192], pooled[128];
  FluxTextInfo info;

  if (model == NULL)
    g_test_skip ("tiny-flux-emoji is missing");
  else {
    encoder = flux_text_encoder_load (model, b, FX_Q_NONE, NULL, NULL, NULL, &error);
    g_assert_no_error (error);
    g_assert_true (flux_text_read_info (model, &info, &error));
    g_assert_cmpint (info.joint_dim, ==, 192);
    g_assert_cmpint (info.pooled_dim, ==, 128);
    g_assert_true (
        flux_text_encode (encoder, "a", 1, embeds, pooled, NULL, NULL, &error));
    g_assert_false (
        flux_text_encode (encoder, "a", 513, embeds, pooled, NULL, NULL, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
    g_clear_error (&error);
    g_assert_false (
        flux_text_encode (encoder, "a", 0, embeds, pooled, NULL, NULL, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
    g_clear_pointer (&encoder, flux_text_encoder_free);
  }
  fx_backend_free (b);
}

static char *
example_model (void)
{
  return g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "..", "examples", "models", "tiny-flux-emoji", NULL);
}

typedef struct {
  int calls, stop_at; /* the call that says no; 0: none */
  int asked;          /* of calls, those without a percentage */
} Progress;

static gboolean
count_progress (const char *what, gint percent, gpointer data)
{
  Progress *p = data;

  p->asked += percent < 0;
  return ++p->calls != p->stop_at;
}

/* At the first call, in CLIP's, in T5's, at the last: nothing is called afterwards. */
static void
test_loading_can_be_cancelled (void)
{
  g_autofree char *model = example_model ();
  fx_backend *b = fx_cpu_new (1);
  g_autoptr (FluxTextEncoder) encoder = NULL;
  g_autoptr (GError) error = NULL;
  Progress whole = {0};

  encoder =
      flux_text_encoder_load (model, b, FX_Q_NF4, NULL, count_progress, &whole, &error);
  g_assert_no_error (error);
  g_assert_cmpint (whole.asked, ==, 0);
  for (int i = 0; i <= 4; i++) {
    Progress p = {.stop_at = MAX (1, whole.calls * i / 4)};

    g_assert_null (
        flux_text_encoder_load (model, b, FX_Q_NF4, NULL, count_progress, &p, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
    g_assert_cmpint (p.calls, ==, p.stop_at);
    g_clear_error (&error);
  }
  g_clear_pointer (&encoder, flux_text_encoder_free);
  fx_backend_free (b);
}

/* Before each of the 3 layers of CLIP and of T5, without a trace in what comes next. */
static void
test_encoding_can_be_cancelled (void)
{
  enum { TOKENS = 7, LAYERS = 6 };
  g_autofree char *model = example_model ();
  fx_backend *b = fx_cpu_new (1);
  g_autoptr (FluxTextEncoder) encoder = NULL;
  g_autoptr (GError) error = NULL;
  float want[TOKENS * 192], embeds[TOKENS * 192], pooled[128];

  encoder = flux_text_encoder_load (model, b, FX_Q_NONE, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_true (
      flux_text_encode (encoder, "a", TOKENS, want, pooled, NULL, NULL, &error));
  for (int i = 1; i <= LAYERS; i++) {
    Progress p = {.stop_at = i};

    g_assert_false (flux_text_encode (
        encoder, "b", TOKENS, embeds, pooled, count_progress, &p, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
    g_assert_cmpint (p.calls, ==, i);
    g_clear_error (&error);
    p = (Progress){0};
    g_assert_true (flux_text_encode (
        encoder, "a", TOKENS, embeds, pooled, count_progress, &p, &error));
    g_assert_cmpint (p.calls, ==, LAYERS);
    g_assert_cmpint (p.asked, ==, LAYERS);
    g_assert_cmpmem (embeds, sizeof embeds, want, sizeof want);
  }
  g_clear_pointer (&encoder, flux_text_encoder_free);
  fx_backend_free (b);
}

/* The plan backend in bf16: every op's shapes and types fit a GPU too. */
static void
plan_in (fx_dtype compute)
{
  g_autofree char *model = flux_test_model ();
  fx_backend *b = fx_plan_new (compute);
  g_autoptr (GError) error = NULL;
  float embeds[7 * 192], pooled[128];

  if (model == NULL)
    g_test_skip ("tiny-flux-emoji is missing");
  else {
    FluxTextEncoder *encoder =
        flux_text_encoder_load (model, b, FX_Q_NF4, NULL, NULL, NULL, &error);
    g_assert_no_error (error);
    flux_text_encode (encoder, "a", 7, embeds, pooled, NULL, NULL, &error);
    g_assert_no_error (error);
    flux_text_encoder_free (encoder);
  }
  fx_backend_free (b);
}

/* Each edit of a good configuration is refused with the file's name. */
static void
test_bad_configurations_are_named (void)
{
  static const struct {
    const char *folder, *from, *to;
  } edits[] = {
      {"clip", "\"gelu\"", "\"swish\""},
      {"clip", "\"hidden_size\": 20", "\"hidden_size\": 21"},
      {"clip", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"},
      {"clip", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2000000"},
      {"clip", "\"vocab_size\": 64", "\"vocab_size\": 65"},
      {"t5", "\"gated-gelu\"", "\"relu\""},
      {"t5", "\"d_kv\": 32", "\"d_kv\": 16"},
      {"t5", "\"d_ff\": 64", "\"d_ff\": -64"},
      {"t5", "\"relative_attention_num_buckets\": 32",
          "\"relative_attention_num_buckets\": 36"},
  };

  for (gsize i = 0; i < G_N_ELEMENTS (edits); i++) {
    gboolean is_clip = strcmp (edits[i].folder, "clip") == 0;
    g_autofree char *good = data_path (edits[i].folder);
    g_autofree char *config = g_build_filename (good, "config.json", NULL);
    g_autofree char *weights = g_build_filename (good, "model.safetensors", NULL);
    g_autofree char *dir = g_dir_make_tmp ("flux-text-XXXXXX", NULL);
    g_autofree char *copy = g_build_filename (dir, "config.json", NULL);
    g_autofree char *link = g_build_filename (dir, "model.safetensors", NULL);
    g_autofree char *text = NULL;
    g_autoptr (GString) edited = NULL;
    g_autoptr (GError) error = NULL;
    fx_backend *b = fx_cpu_new (1);

    g_assert_true (g_file_get_contents (config, &text, NULL, NULL));
    edited = g_string_new (text);
    g_assert_cmpuint (g_string_replace (edited, edits[i].from, edits[i].to, 0), ==, 1);
    g_assert_true (g_file_set_contents (copy, edited->str, -1, NULL));
    g_assert_cmpint (symlink (weights, link), ==, 0);
    if (is_clip)
      g_assert_null (flux_clip_load (dir, b, NULL, NULL, &error));
    else
      g_assert_null (flux_t5_load (dir, b, FX_Q_NONE, NULL, NULL, NULL, &error));
    g_assert_nonnull (error);
    g_assert_nonnull (strstr (error->message, dir));
    fx_backend_free (b);
    g_remove (link);
    g_remove (copy);
    g_rmdir (dir);
  }
}

static void
test_plan_in_bf16 (void)
{
  plan_in (FX_BF16);
}

/* Matrices of fp16 and of fp32 meet only where they may. */
static void
test_plan_in_fp16 (void)
{
  plan_in (FX_F16);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/text/ids-equal-transformers", test_ids);
  g_test_add_func ("/text/embeddings-equal-transformers", test_embeddings);
  g_test_add_func ("/text/t5-int8-equals-its-round-trip", test_t5_int8);
  g_test_add_func ("/text/t5-nf4-equals-its-round-trip", test_t5_nf4);
  g_test_add_func ("/text/clip-with-an-eos-id", test_clip_with_an_eos_id);
  g_test_add_func (
      "/text/clip-with-the-historical-eos-id", test_clip_with_the_historical_eos_id);
  g_test_add_func ("/text/t5-of-300-tokens", test_t5_of_300_tokens);
  g_test_add_func ("/text/buckets-equal-transformers", test_buckets);
  g_test_add_func ("/text/limits-are-named", test_limits_are_named);
  g_test_add_func (
      "/text/bad-configurations-are-named", test_bad_configurations_are_named);
  g_test_add_func ("/text/loading-can-be-cancelled", test_loading_can_be_cancelled);
  g_test_add_func ("/text/encoding-can-be-cancelled", test_encoding_can_be_cancelled);
  g_test_add_func ("/text/plan-in-bf16", test_plan_in_bf16);
  g_test_add_func ("/text/plan-in-fp16", test_plan_in_fp16);
  return g_test_run ();
}
