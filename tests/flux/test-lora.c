/* tests/flux/test-lora.c: adapters in memory and on file. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "tests/testdata.h"
#include "lora-file.h"

/* ---- the shape of tests/data/transformer-small, on the CPU ---- */

typedef struct {
  fx_backend *b;
  FluxConfig c;
} Fixture;

static void
set_up (Fixture *f, gconstpointer data)
{
  g_autofree char *dir = test_small_dir ();
  g_autoptr (GError) error = NULL;

  f->b = test_backend ();
  flux_config_read (dir, &f->c, &error);
  g_assert_no_error (error);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  fx_backend_free (f->b);
}

static float *
parameters (Fixture *f, FluxLora *lora)
{
  gsize n = flux_lora_n_flat (lora);
  float *values = g_new (float, n);

  g_assert_cmpint (
      fx_download (f->b, values, flux_lora_parameters (lora), n * sizeof (float)), ==,
      FX_OK);
  return values;
}

/* Loads what has been put into `file`, which is cleared. */
static FluxLora *
load (Fixture *f, File *file, GError **error)
{
  g_autofree char *path = file_write (file);
  FluxLora *lora = flux_lora_load (&f->c, f->b, path, FALSE, error);

  file_clear (file);
  g_unlink (path);
  return lora;
}

static const fx_lora *
module (FluxLora *lora, const char *name)
{
  for (guint i = 0; flux_lora_get_slot (lora, i) != NULL; i++) {
    if (strcmp (flux_lora_get_slot (lora, i)->name, name) == 0)
      return flux_lora_module (lora, i);
  }
  g_assert_not_reached ();
}

/* ---- in memory ---- */

/* data/facts: 4,669,440 for attention at rank 4; 12 targets of the fal trainer. */
static void
test_counts_of_flux_dev (void)
{
  static const struct {
    const char *targets;
    int rank;
    gsize n;
  } cases[] = {{"attention", 4, 4669440}, {"attention", 16, 18677760}, {NULL, 4, 4669440},
      {"to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out,ff.net.0."
       "proj,"
       "ff.net.2,ff_context.net.0.proj,ff_context.net.2",
          4, 11206656},
      {"all-linear", 16, 65372160}};
  fx_backend *b = fx_plan_new (FX_BF16);
  FluxConfig c;

  flux_config_init_dev (&c);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) lora =
        flux_lora_new (&c, b, cases[i].rank, 4, cases[i].targets, FALSE, &error);
    g_assert_no_error (error);
    g_assert_cmpuint (flux_lora_n_parameters (lora), ==, cases[i].n);
  }
  fx_backend_free (b);
}

static void
test_tensors_are_padded_and_in_order (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora =
      flux_lora_new (&f->c, f->b, 3, 6, "attention-all", TRUE, &error);
  const FluxLoraTensor *tensors;
  gsize end = 0, sum = 0;
  guint n;

  g_assert_no_error (error);
  tensors = flux_lora_get_tensors (lora, &n);
  g_assert_cmpuint (n, ==, 2 * (8 + 2 * 3));
  for (guint i = 0; i < n; i++) {
    const fx_lora *m = flux_lora_module (lora, tensors[i].slot);
    const float *at = flux_lora_parameters (lora) + tensors[i].offset;
    g_assert_cmpuint (tensors[i].offset % 256, ==, 0);
    g_assert_cmpuint (tensors[i].offset, >=, end);
    g_assert_cmpint (tensors[i].is_b, ==, i % 2);
    g_assert_true ((tensors[i].is_b ? m->b : m->a) == at);
    g_assert_true ((tensors[i].is_b ? m->db : m->da) ==
                   flux_lora_gradients (lora) + tensors[i].offset);
    end = tensors[i].offset + tensors[i].n_elements;
    sum += tensors[i].n_elements;
  }
  g_assert_cmpuint (flux_lora_n_flat (lora), >=, end);
  g_assert_cmpuint (flux_lora_n_parameters (lora), ==, sum);
}

/* A view has the adapter's own values, and no way to change the adapter. */
static void
test_view (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora = flux_lora_new (&f->c, f->b, 4, 6, "to_q", TRUE, &error);
  g_autoptr (FluxLora) view = flux_lora_new_view (lora);
  guint n = 0, slot = flux_lora_get_tensors (lora, &n)[0].slot;
  const fx_lora *own = flux_lora_module (lora, slot),
                *seen = flux_lora_module (view, slot);

  g_assert_no_error (error);
  flux_lora_set_multiplier (view, 0.5f);
  g_assert_true (seen->a == own->a && seen->b == own->b);
  g_assert_null (seen->da);
  g_assert_null (seen->db);
  g_assert_null (flux_lora_gradients (view));
  g_assert_cmpfloat (seen->scale, ==, 0.75f);
  g_assert_cmpfloat (own->scale, ==, 1.5f);
}

static void
test_targets (Fixture *f, gconstpointer data)
{
  static const struct {
    const char *targets;
    guint modules; /* 0: refused */
  } cases[] = {{"to_q", 3}, {" to_q , to_k ", 6}, {"attn.to_q", 3},
      {"transformer_blocks.0.attn.to_q", 1}, {"proj_out", 2}, {"ff.net.0.proj", 1},
      {"net.0.proj", 2}, {"o_q", 0}, {"to_q,", 0}, {",", 0}, {"to_x", 0},
      {"norm1.linear", 0}, {"to_q,norm.linear", 0}, {"x_embedder", 0}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) lora =
        flux_lora_new (&f->c, f->b, 2, 2, cases[i].targets, FALSE, &error);
    guint n;
    if (cases[i].modules == 0) {
      g_assert_null (lora);
      g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
      continue;
    }
    g_assert_no_error (error);
    flux_lora_get_tensors (lora, &n);
    g_assert_cmpuint (n, ==, 2 * cases[i].modules);
  }
}

static void
test_rank_out_of_range (Fixture *f, gconstpointer data)
{
  static const int ranks[] = {0, -1, 4097, G_MAXINT};

  for (guint i = 0; i < G_N_ELEMENTS (ranks); i++) {
    g_autoptr (GError) error = NULL;
    g_assert_null (flux_lora_new (&f->c, f->b, ranks[i], 4, "attention", FALSE, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  }
}

static void
test_gaussian_init (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora =
      flux_lora_new (&f->c, f->b, 4, 4, "all-linear", FALSE, &error);
  g_autofree float *first = NULL, *again = NULL, *other = NULL;
  const FluxLoraTensor *tensors;
  double sum = 0, squares = 0;
  gsize n_a = 0;
  guint n;

  g_assert_true (flux_lora_init_gaussian (lora, 5, &error));
  first = parameters (f, lora);
  g_assert_true (flux_lora_init_gaussian (lora, 5, &error));
  again = parameters (f, lora);
  g_assert_true (flux_lora_init_gaussian (lora, 6, &error));
  other = parameters (f, lora);
  tensors = flux_lora_get_tensors (lora, &n);
  for (guint i = 0; i < n; i++) {
    const float *v = first + tensors[i].offset;
    gsize count = tensors[i].n_elements;
    for (gsize j = 0; j < count; j++) {
      if (tensors[i].is_b)
        g_assert_cmpfloat (v[j], ==, 0);
      else {
        sum += (double)v[j];
        squares += (double)v[j] * (double)v[j];
        n_a++;
      }
    }
    if (tensors[i].is_b)
      continue;
    g_assert_cmpmem (
        v, count * sizeof (float), again + tensors[i].offset, count * sizeof (float));
    g_assert_cmpint (
        memcmp (v, other + tensors[i].offset, count * sizeof (float)), !=, 0);
    /* No tensor repeats the one before. */
    if (i >= 2)
      g_assert_cmpint (memcmp (v, first + tensors[i - 2].offset, 16), !=, 0);
  }
  /* Standard deviation 1 / rank; 4 sigma. */
  g_assert_cmpfloat (fabs (sum / (double)n_a), <, 4 * 0.25 / sqrt ((double)n_a));
  g_assert_cmpfloat (
      fabs (squares / (double)n_a / (0.25 * 0.25) - 1), <, 4 * sqrt (2.0 / (double)n_a));
}

static void
test_multiplier (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora = flux_lora_new (&f->c, f->b, 4, 6, "to_q", FALSE, &error);

  g_assert_cmpfloat (
      module (lora, "single_transformer_blocks.1.attn.to_q")->scale, ==, 1.5f);
  flux_lora_set_multiplier (lora, -0.5f);
  g_assert_cmpfloat (
      module (lora, "single_transformer_blocks.1.attn.to_q")->scale, ==, -0.75f);
  g_assert_null (module (lora, "single_transformer_blocks.1.attn.to_k"));
}

/* ---- on file ---- */

static void
test_round_trip (Fixture *f, gconstpointer data)
{
  static const char *const targets[] = {
      "attention", "all-linear", "transformer_blocks.0.attn.to_q,proj_out"};

  for (guint i = 0; i < G_N_ELEMENTS (targets); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) saved =
        flux_lora_new (&f->c, f->b, 3, 4.5f, targets[i], FALSE, &error);
    g_autoptr (FluxLora) loaded = NULL;
    g_autofree char *dir = g_dir_make_tmp ("flux-XXXXXX", &error);
    g_autofree char *path =
        g_build_filename (dir, "pytorch_lora_weights.safetensors", NULL);
    g_autofree float *random = NULL, *before = NULL, *after = NULL;
    gsize n;

    g_assert_no_error (error);
    n = flux_lora_n_flat (saved);
    random = test_floats (i, n, 1);
    g_assert_cmpint (
        fx_upload (f->b, flux_lora_parameters (saved), random, n * sizeof (float)), ==,
        FX_OK);
    g_assert_true (flux_lora_save (saved, path, &error));
    /* By file and by folder. */
    loaded = flux_lora_load (&f->c, f->b, i == 0 ? dir : path, TRUE, &error);
    g_assert_no_error (error);
    g_assert_cmpuint (flux_lora_n_flat (loaded), ==, n);
    g_assert_cmpint (flux_lora_get_rank (loaded), ==, 3);
    g_assert_cmpfloat (flux_lora_get_alpha (loaded), ==, 4.5f);
    before = parameters (f, saved);
    after = parameters (f, loaded);
    for (guint t = 0, count = 0; flux_lora_get_tensors (saved, &count) && t < count;
         t++) {
      const FluxLoraTensor *tensor = &flux_lora_get_tensors (saved, &count)[t];
      g_assert_cmpmem (before + tensor->offset, tensor->n_elements * sizeof (float),
          after + tensor->offset, tensor->n_elements * sizeof (float));
    }
    g_unlink (path);
    g_rmdir (dir);
  }
}

/* What tests/reference/check_adapters.py has shown diffusers to load. */
static void
test_saved_file_is_diffusers (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora =
      flux_lora_new (&f->c, f->b, 2, 8, "attention", FALSE, &error);
  g_autofree char *path =
      g_build_filename (g_get_tmp_dir (), "flux-lora.safetensors", NULL);
  g_autoptr (FluxSafetensors) file = NULL;
  const char *config;

  g_assert_true (flux_lora_save (lora, path, &error));
  file = flux_safetensors_open (path, &error);
  g_assert_no_error (error);
  g_unlink (path);
  g_assert_cmpuint (flux_safetensors_get_n_tensors (file), ==, 2 * (4 + 2 * 3));
  for (guint i = 0; i < flux_safetensors_get_n_tensors (file); i++) {
    const FluxTensor *t = flux_safetensors_get_nth (file, i);
    g_assert_true (g_str_has_prefix (t->name, "transformer."));
    g_assert_true (g_str_has_suffix (t->name, ".lora_A.weight") ||
                   g_str_has_suffix (t->name, ".lora_B.weight"));
    g_assert_cmpint (t->dtype, ==, FX_F32);
  }
  g_assert_cmpstr (flux_safetensors_get_metadata (file, "format"), ==, "pt");
  config = flux_safetensors_get_metadata (file, "lora_adapter_metadata");
  g_assert_nonnull (config);
  g_assert_nonnull (strstr (config, "\"transformer.lora_alpha\" : 8"));
  g_assert_nonnull (strstr (config, "\"transformer.r\" : 2"));
  g_assert_nonnull (strstr (config, "\"attn.to_out.0\""));
}

/* Files that diffusers wrote in its two ways. */
static void
test_files_of_diffusers (void)
{
  static const char *const folders[] = {"lora", "adapter"};
  g_autofree char *shared = flux_test_shared (), *model = flux_test_model ();
  fx_backend *b = test_backend ();
  g_autofree float *values[2] = {NULL, NULL};
  g_autoptr (GError) error = NULL;
  FluxConfig c;
  gsize n = 0;

  if (shared == NULL || model == NULL) {
    fx_backend_free (b);
    g_test_skip ("no golden data");
    return;
  }
  flux_config_read (model, &c, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < 2; i++) {
    g_autofree char *path = g_build_filename (shared, "golden", folders[i], NULL);
    g_autoptr (FluxLora) lora = flux_lora_load (&c, b, path, FALSE, &error);
    g_assert_no_error (error);
    n = flux_lora_n_flat (lora);
    values[i] = g_new (float, n);
    g_assert_cmpint (
        fx_download (b, values[i], flux_lora_parameters (lora), n * sizeof (float)), ==,
        FX_OK);
  }
  g_assert_cmpmem (values[0], n * sizeof (float), values[1], n * sizeof (float));
  g_free (g_steal_pointer (&values[1]));
  fx_backend_free (b);
}

static void
test_prefixes (Fixture *f, gconstpointer data)
{
  static const char *const prefixes[] = {"", "transformer.", "base_model.model."};

  for (guint i = 0; i < G_N_ELEMENTS (prefixes); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) lora = NULL;
    g_autofree char *name =
        g_strconcat (prefixes[i], "transformer_blocks.0.attn.to_q", NULL);
    File file;
    file_init (&file);
    file_add_module (&file, name, 64, 64, 2);
    lora = load (f, &file, &error);
    g_assert_no_error (error);
    g_assert_nonnull (module (lora, "transformer_blocks.0.attn.to_q"));
  }
}

static void
test_alphas (Fixture *f, gconstpointer data)
{
  static const struct {
    const char *metadata;
    float tensor; /* .alpha of to_k, 0: none */
    double scale_q, scale_k;
  } cases[] = {{NULL, 0, 1, 1}, {NULL, 8, 1, 2},
      {"{\"transformer.lora_alpha\": 6, \"transformer.r\": 2}", 0, 3, 1.5},
      {"{\"lora_alpha\": 6}", 0, 3, 1.5}, {"{\"lora_alpha\": 6}", 8, 3, 2},
      {"{\"lora_alpha\": 6, \"alpha_pattern\": {\"attn.to_k\": 12, \"o_q\": 99}}", 0, 3,
          3},
      {"{\"lora_alpha\": 6, \"use_rslora\": true}", 0, 6 / M_SQRT2, 3},
      {"{\"r\": 2, \"use_rslora\": null}", 0, 1, 1}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) lora = NULL;
    File file;
    file_init (&file);
    file.metadata = g_strdup (cases[i].metadata);
    file_add_module (&file, "transformer.transformer_blocks.0.attn.to_q", 64, 64, 2);
    file_add_module (&file, "transformer.transformer_blocks.0.attn.to_k", 64, 64, 4);
    if (cases[i].tensor > 0)
      file_add (&file, "transformer.transformer_blocks.0.attn.to_k.alpha", 1, 0,
          cases[i].tensor);
    lora = load (f, &file, &error);
    g_assert_no_error (error);
    g_assert_cmpfloat_with_epsilon (
        module (lora, "transformer_blocks.0.attn.to_q")->scale, cases[i].scale_q, 1e-6);
    g_assert_cmpfloat_with_epsilon (
        module (lora, "transformer_blocks.0.attn.to_k")->scale, cases[i].scale_k, 1e-6);
    g_assert_cmpint (module (lora, "transformer_blocks.0.attn.to_k")->rank, ==, 4);
  }
}

/* One thing wrong in a file that is otherwise right; the message names it. */
static void
test_bad_files (Fixture *f, gconstpointer data)
{
  static const struct {
    const char *name;
    gint64 rows, cols;
    float value;
    const char *metadata, *message;
  } cases[] = {{"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", 2, 64, 1,
                   NULL, "(lora_up) is missing"},
      {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", 2, 64, 1, NULL,
          "fit no layer"},
      {"transformer.transformer_blocks.0.attn.to_k.lora_magnitude_vector", 64, 0, 1, NULL,
          "DoRA"},
      {"lora_unet_double_blocks_0_img_attn_proj.dora_scale", 64, 0, 1, NULL, "DoRA"},
      {"transformer.transformer_blocks.0.attn.to_k.hada_w1_a", 2, 64, 1, NULL, "LyCORIS"},
      {"lora_unet_double_blocks_0_img_attn_proj.lokr_w1", 2, 2, 1, NULL, "LyCORIS"},
      {"double_blocks.0.img_attn.norm.query_norm.scale", 32, 0, 1, NULL, "control"},
      {"transformer.transformer_blocks.0.attn.to_q.lora_B.bias", 64, 0, 1, NULL,
          "fit no layer"},
      {"lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", 1, 0, 1, NULL,
          "text encoder"},
      {"transformer.transformer_blocks.7.attn.to_k.lora_A.weight", 2, 64, 1, NULL,
          "transformer_blocks.7"},
      {"transformer.transformer_blocks.0.attn.to_k.lora_A.weight", 2, 64, 1, NULL,
          "lora_B.weight (lora_up) is missing"},
      {"transformer.transformer_blocks.0.attn.to_k.lora_B.weight", 64, 2, 1, NULL,
          "lora_A.weight (lora_down) is missing"},
      {"transformer.transformer_blocks.0.attn.to_k.alpha", 1, 0, 1, NULL, "is missing"},
      {"transformer_blocks.0.attn.to_q.lora_A.weight", 2, 64, 1, NULL, "has both"},
      {"transformer.transformer_blocks.0.attn.to_q.alpha", 1, 0, NAN, NULL, "finite"},
      {"transformer.transformer_blocks.0.attn.to_q.alpha", 3, 0, 1, NULL, "one number"},
      {NULL, 0, 0, 0, "{\"use_dora\": true}", "DoRA"},
      {NULL, 0, 0, 0, "{\"lora_alpha\": \"four\"}", "lora_alpha"},
      {NULL, 0, 0, 0, "{\"lora_alpha\"", "JSON"}, {NULL, 0, 0, 0, "[]", "JSON"}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    File file;
    file_init (&file);
    file_add_module (&file, "transformer.transformer_blocks.0.attn.to_q", 64, 64, 2);
    if (cases[i].name != NULL)
      file_add (&file, cases[i].name, cases[i].rows, cases[i].cols, cases[i].value);
    file.metadata = g_strdup (cases[i].metadata);
    g_assert_null (load (f, &file, &error));
    g_assert_nonnull (error);
    g_test_message ("%s", error->message);
    g_assert_nonnull (strstr (error->message, cases[i].message));
    g_assert_nonnull (strstr (error->message, ".safetensors"));
  }
}

static void
test_bad_shapes_and_values (Fixture *f, gconstpointer data)
{
  static const struct {
    gint64 a_rows, a_cols, b_rows, b_cols;
    float value;
    const char *message;
  } cases[] = {{2, 64, 64, 3, 1, "ranks"}, {2, 65, 64, 2, 1, "shape"},
      {2, 64, 63, 2, 1, "shape"}, {2, 0, 64, 2, 1, "rank"},
      {5000, 64, 64, 5000, 1, "rank"}, {2, 64, 64, 2, INFINITY, "NaN or Inf"},
      {2, 64, 64, 2, NAN, "NaN or Inf"}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    File file;
    file_init (&file);
    file_add (&file, "transformer_blocks.0.attn.to_q.lora_A.weight", cases[i].a_rows,
        cases[i].a_cols, 1);
    file_add (&file, "transformer_blocks.0.attn.to_q.lora_B.weight", cases[i].b_rows,
        cases[i].b_cols, cases[i].value);
    g_assert_null (load (f, &file, &error));
    g_assert_nonnull (error);
    g_test_message ("%s", error->message);
    g_assert_nonnull (strstr (error->message, cases[i].message));
  }
}

static void
test_absent_file (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (flux_lora_load (&f->c, f->b, "/nowhere/x.safetensors", FALSE, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
}

int
main (int argc, char **argv)
{
  static const struct {
    const char *name;
    void (*func) (Fixture *, gconstpointer);
  } tests[] = {{"tensors-are-padded-and-in-order", test_tensors_are_padded_and_in_order},
      {"view", test_view}, {"targets", test_targets},
      {"rank-out-of-range", test_rank_out_of_range},
      {"gaussian-init", test_gaussian_init}, {"multiplier", test_multiplier},
      {"round-trip", test_round_trip},
      {"saved-file-is-diffusers", test_saved_file_is_diffusers},
      {"prefixes", test_prefixes}, {"alphas", test_alphas}, {"bad-files", test_bad_files},
      {"bad-shapes-and-values", test_bad_shapes_and_values},
      {"absent-file", test_absent_file}};

  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/lora/counts-of-flux-dev", test_counts_of_flux_dev);
  g_test_add_func ("/lora/files-of-diffusers", test_files_of_diffusers);
  for (guint i = 0; i < G_N_ELEMENTS (tests); i++) {
    g_autofree char *path = g_strconcat ("/lora/", tests[i].name, NULL);
    g_test_add (path, Fixture, NULL, set_up, tests[i].func, tear_down);
  }
  return g_test_run ();
}
