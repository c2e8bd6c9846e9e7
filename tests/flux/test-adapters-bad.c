/* tests/flux/test-adapters-bad.c: adapter files that are wrong, or damaged.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <unistd.h>

#include "adapters-common.h"
#include "lora-file.h"

static FluxLora *
load (Fixture *f, File *file, gboolean strict, FluxLoraReport *report, GError **error)
{
  g_autofree char *path = file_write (file);
  FluxLora *lora = flux_lora_read (f->c, f->b, path, strict, FALSE, report, error);

  file_clear (file);
  g_unlink (path);
  return lora;
}

static void
test_unmatched_tensors (Fixture *f, gconstpointer data)
{
  FluxLoraReport report = {0};
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora = NULL;

  for (int strict = 1; strict >= 0; strict--) {
    File file;

    file_init (&file);
    file_add_module (&file, "transformer.transformer_blocks.0.attn.to_q", 64, 64, 2);
    file_add_module (&file, "transformer.transformer_blocks.1.attn.to_q", 64, 64, 2);
    file_add_module (&file, "transformer.transformer_blocks.2.attn.to_q", 64, 64, 2);
    lora = load (f, &file, strict, &report, &error);
    if (strict) {
      g_assert_null (lora);
      g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
      g_test_message ("%s", error->message);
      g_assert_nonnull (strstr (error->message, "4 of the 6"));
      g_assert_nonnull (strstr (error->message, "transformer_blocks.1.attn.to_q.lora_A"));
      g_clear_error (&error);
    }
  }
  g_assert_no_error (error);
  g_assert_cmpuint (report.n_left_out, ==, 4);
  g_assert_cmpuint (report.n_layers, ==, 1);
  g_assert_nonnull (strstr (report.left_out, "transformer_blocks.1"));
  flux_lora_report_clear (&report);
}

/* Not even a lenient reader takes these. */
static void
test_bad_files (Fixture *f, gconstpointer data)
{
  static const struct {
    const char *name;
    gint64 rows, cols;
    float value;
    const char *message;
  } cases[] = {
      {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", 2, 96, 1, "shape"},
      {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", 192, 3, 1, "ranks"},
      {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", 128, 2, 1, "shape"},
      {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", 192, 2, NAN, "NaN"},
      {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", 2, 64, INFINITY, "NaN"},
      {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", 0, 0, 1, "missing"},
      {"lora_unet_double_blocks_0_img_attn_qkv.dora_scale", 192, 0, 1, "DoRA"},
      {"lora_unet_double_blocks_0_img_attn_qkv.hada_w1_a", 2, 64, 1, "LyCORIS"},
      {"lora_unet_double_blocks_0_img_attn_qkv.lokr_w1", 2, 2, 1, "LyCORIS"},
      {"double_blocks.0.img_attn.qkv.lora_A.weight", 2, 64, 1, "both"}};
  const char *down = "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight";
  const char *up = "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight";

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    File file;

    file_init (&file);
    if (strcmp (cases[i].name, down) != 0)
      file_add (&file, down, 2, 64, 1);
    if (strcmp (cases[i].name, up) != 0)
      file_add (&file, up, 192, 2, 1);
    if (cases[i].rows > 0)
      file_add (&file, cases[i].name, cases[i].rows, cases[i].cols, cases[i].value);
    g_assert_null (load (f, &file, FALSE, NULL, &error));
    g_assert_nonnull (error);
    g_test_message ("%s", error->message);
    g_assert_nonnull (strstr (error->message, cases[i].message));
  }
}

/* to_q by itself and in the fused layer: which one is it? */
static void
test_two_modules_on_one_layer (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  File file;

  file_init (&file);
  file_add_module (&file, "transformer.transformer_blocks.0.attn.to_q", 64, 64, 2);
  file_add_module (&file, "diffusion_model.double_blocks.0.img_attn.qkv", 192, 64, 2);
  g_assert_null (load (f, &file, TRUE, NULL, &error));
  g_assert_nonnull (strstr (error->message, "one layer"));
}

static void
test_zero_biases_are_harmless (Fixture *f, gconstpointer data)
{
  for (int value = 0; value < 2; value++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) lora = NULL;
    File file;

    file_init (&file);
    file_add_module (&file, "diffusion_model.double_blocks.0.img_attn.proj", 64, 64, 2);
    file_add (&file, "diffusion_model.double_blocks.0.img_attn.proj.diff_b", 64, 0,
        (float)value);
    lora = load (f, &file, TRUE, NULL, &error);
    g_assert_true ((lora != NULL) == (value == 0));
    g_assert_true ((error == NULL) == (value == 0));
  }
}

/* ---- damage ---- */

static void
test_damaged_files (Fixture *f, gconstpointer data)
{
  static const char *const files[] = {
      "small-kohya.safetensors", "small-onetrainer.safetensors"};
  guint taken = 0, n = 0;

  for (guint i = 0; i < G_N_ELEMENTS (files); i++) {
    g_autofree char *from = data_path (files[i]), *bytes = NULL, *path = NULL;
    guint64 state = 7;
    gsize length;
    int fd = g_file_open_tmp ("flux-XXXXXX.safetensors", &path, NULL);

    g_assert_true (g_file_get_contents (from, &bytes, &length, NULL));
    for (guint j = 0; j < 400; j++, n++) {
      g_autoptr (GError) error = NULL;
      g_autoptr (FluxLora) lora = NULL;
      /* In the header, where the names are; every eighth time anywhere. */
      gsize at, span = j % 8 == 7 ? length : *(guint16 *)(void *)bytes;
      char old;

      state = state * 6364136223846793005u + 1442695040888963407u;
      at = (j % 8 == 7 ? 0 : 8) + (gsize)(state >> 33) % (span - 8);
      old = bytes[at];
      bytes[at] ^= (char)(1u << (j % 7));
      g_assert_cmpint (pwrite (fd, bytes, length, 0), ==, length);
      lora = flux_lora_read (f->c, f->b, path, j % 2 == 0, FALSE, NULL, &error);
      g_assert_true ((lora == NULL) == (error != NULL));
      g_assert_true (error == NULL || g_utf8_validate (error->message, -1, NULL));
      taken += lora != NULL;
      bytes[at] = old;
    }
    close (fd);
    g_unlink (path);
  }
  g_assert_cmpuint (taken, >, 0);
  g_assert_cmpuint (taken, <, n);
}

int
main (int argc, char **argv)
{
  static const struct {
    const char *name;
    void (*func) (Fixture *, gconstpointer);
  } tests[] = {{"unmatched-tensors", test_unmatched_tensors},
      {"bad-files", test_bad_files},
      {"two-modules-on-one-layer", test_two_modules_on_one_layer},
      {"zero-biases-are-harmless", test_zero_biases_are_harmless},
      {"damaged-files", test_damaged_files}};

  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (tests); i++) {
    g_autofree char *path = g_strconcat ("/adapters-bad/", tests[i].name, NULL);

    g_test_add (path, Fixture, NULL, set_up, tests[i].func, tear_down);
  }
  return g_test_run ();
}
