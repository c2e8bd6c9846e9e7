/* tests/flux/test-vae.c: the VAE against diffusers. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "flux/error.h"
#include "flux/vae/vae.h"
#include "tests/flux/golden.h"

static const double BOUND = 2e-5;

static FluxVae *
load (fx_backend *b, FluxVaeParts parts)
{
  g_autofree char *model = flux_test_model ();
  g_autoptr (GError) error = NULL;
  FluxVae *vae;

  if (model == NULL) {
    g_test_skip ("tiny-flux-emoji is missing");
    return NULL;
  }
  vae = flux_vae_load (model, b, parts, NULL, NULL, &error);
  g_assert_no_error (error);
  return vae;
}

/* mean, logvar and latent of the picture PREFIX.pixels_u8. */
static void
check_encode (FluxVae *vae, FluxSafetensors *file, const char *prefix)
{
  g_autofree char *pixels_key = g_strconcat (prefix, ".pixels_u8", NULL);
  g_autofree char *mean_key = g_strconcat (prefix, ".mean", NULL);
  g_autofree char *logvar_key = g_strconcat (prefix, ".logvar", NULL);
  g_autofree char *latent_key = g_strconcat (prefix, ".latent", NULL);
  const FluxTensor *pixels = flux_safetensors_lookup (file, pixels_key);
  const FluxVaeInfo *info = flux_vae_get_info (vae);
  int height = (int)pixels->dims[0], width = (int)pixels->dims[1];
  gsize n = (gsize)(info->latent_channels * (height / 8) * (width / 8));
  g_autofree float *moments = g_new (float, 2 * n);
  g_autoptr (GError) error = NULL;

  flux_vae_encode (vae, pixels->data, width, height, 3 * width, moments, &error);
  g_assert_no_error (error);
  g_assert_cmpfloat (golden_relative_error (file, mean_key, moments, n), <=, BOUND);
  g_assert_cmpfloat (golden_relative_error (file, logvar_key, moments + n, n), <=, BOUND);
  for (gsize i = 0; i < n; i++)
    moments[i] = (moments[i] - info->shift_factor) * info->scaling_factor;
  g_assert_cmpfloat (golden_relative_error (file, latent_key, moments, n), <=, BOUND);
}

static void
check_decode (FluxVae *vae, FluxSafetensors *file, const char *prefix)
{
  g_autofree char *mean_key = g_strconcat (prefix, ".mean", NULL);
  g_autofree char *image_key = g_strconcat (prefix, ".decoded_mean", NULL);
  const FluxTensor *mean = flux_safetensors_lookup (file, mean_key);
  g_autofree float *latents = golden_floats (file, mean_key, NULL);
  int h = (int)mean->dims[2], w = (int)mean->dims[3];
  gsize n = (gsize)(3 * 64 * h * w);
  g_autofree float *image = g_new (float, n);
  g_autoptr (GError) error = NULL;

  flux_vae_decode (vae, latents, w, h, image, &error);
  g_assert_no_error (error);
  g_assert_cmpfloat (golden_relative_error (file, image_key, image, n), <=, BOUND);
}

static void
run_golden (const char *name, const char *const *prefixes, FluxVaeParts part)
{
  g_autoptr (FluxSafetensors) file = golden_open (name);
  fx_backend *b = fx_cpu_new (0);
  g_autoptr (FluxVae) vae = file != NULL ? load (b, part) : NULL;

  for (guint i = 0; vae != NULL && prefixes[i] != NULL; i++)
    if (part == FLUX_VAE_ENCODER)
      check_encode (vae, file, prefixes[i]);
    else
      check_decode (vae, file, prefixes[i]);
  g_clear_pointer (&vae, flux_vae_free);
  fx_backend_free (b);
}

static const char *const square[] = {"vae.0", "vae.1", NULL};
static const char *const square4[] = {"vae.0", "vae.1", "vae.2", "vae.3", NULL};
static const char *const oblong[] = {"oblong.vae", NULL};

static void
test_encode (void)
{
  run_golden ("golden.safetensors", square4, FLUX_VAE_ENCODER);
}

static void
test_encode_oblong (void)
{
  run_golden ("golden_more.safetensors", oblong, FLUX_VAE_ENCODER);
}

static void
test_decode (void)
{
  run_golden ("golden.safetensors", square, FLUX_VAE_DECODER);
}

static void
test_decode_oblong (void)
{
  run_golden ("golden_more.safetensors", oblong, FLUX_VAE_DECODER);
}

/* A padded row stride, and a large picture before a small one, change no bit. */
static void
test_stride_and_size_change_nothing (void)
{
  enum { W = 32, H = 16, STRIDE = 3 * W + 5, N = 32 * 4 * 2 };
  fx_backend *b = fx_cpu_new (0);
  FluxVae *vae = load (b, FLUX_VAE_ENCODER);
  g_autofree guint8 *packed = g_malloc0 (3 * W * H), *loose = g_malloc0 (STRIDE * H);
  g_autofree guint8 *large = g_malloc0 (64 * 64 * 3);
  float first[N], second[N], ignored[32 * 64];
  g_autoptr (GError) error = NULL;

  if (vae == NULL) {
    fx_backend_free (b);
    return;
  }
  for (int y = 0; y < H; y++)
    for (int x = 0; x < 3 * W; x++)
      packed[y * 3 * W + x] = loose[y * STRIDE + x] = (guint8)(x * 7 + y * 31);
  flux_vae_encode (vae, packed, W, H, 3 * W, first, &error);
  g_assert_no_error (error);
  flux_vae_encode (vae, large, 64, 64, 192, ignored, &error);
  g_assert_no_error (error);
  flux_vae_encode (vae, loose, W, H, STRIDE, second, &error);
  g_assert_no_error (error);
  g_assert_cmpmem (first, sizeof first, second, sizeof second);
  g_assert_false (flux_vae_encode (vae, packed, W, H - 1, 3 * W, first, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_clear_error (&error);
  g_assert_false (flux_vae_decode (vae, first, 4, 2, ignored, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  flux_vae_free (vae);
  fx_backend_free (b);
}

/* The x near `guess` whose byte value is `half` exactly. */
static float
find_half (float guess, float half)
{
  float x = guess - 1e-6f;

  while ((x / 2.0f + 0.5f) * 255.0f != half && x < guess + 1e-6f)
    x = nextafterf (x, 2.0f);
  g_assert_cmpfloat ((x / 2.0f + 0.5f) * 255.0f, ==, half);
  return x;
}

static void
test_rgb_rounds_half_to_even (void)
{
  const float in[] = {-1.0f, -2.0f, 1.0f, 3.0f, NAN, find_half (-0.4f, 76.5f), 0.0f};
  const guint8 want[] = {0, 0, 255, 255, 0, 76, 128};
  float image[21];
  guint8 rgb[21];

  for (int i = 0; i < 7; i++)
    image[i] = image[7 + i] = image[14 + i] = in[i];
  flux_vae_image_to_rgb (image, 7, 1, rgb, 21);
  for (int i = 0; i < 21; i++)
    g_assert_cmpint (rgb[i], ==, want[i / 3]);
}

static void
write_config (const char *dir, const char *text)
{
  g_autofree char *path = g_build_filename (dir, "config.json", NULL);

  g_assert_true (g_file_set_contents (path, text, -1, NULL));
}

#define CONFIG(extra)                                                                    \
  "{\"block_out_channels\":[32,64],\"latent_channels\":16,\"norm_num_groups\":16,"       \
  "\"use_quant_conv\":false,\"use_post_quant_conv\":false" extra "}"

static void
test_bad_configurations_are_named (void)
{
  static const char *const bad[] = {"", "[]", "{", "{\"latent_channels\":16}",
      CONFIG (",\"act_fn\":\"relu\""), CONFIG (",\"norm_num_groups\":0"),
      CONFIG (",\"layers_per_block\":1000"), CONFIG (",\"in_channels\":1"),
      CONFIG (",\"scaling_factor\":\"x\""),
      CONFIG (",\"_class_name\":\"AutoencoderTiny\""), CONFIG (",\"norm_num_groups\":5")};
  g_autofree char *dir = g_dir_make_tmp ("flux-vae-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "config.json", NULL);
  g_autoptr (GError) error = NULL;
  FluxVaeInfo info;

  g_assert_false (flux_vae_read_info (dir, &info, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
  g_clear_error (&error);
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    write_config (dir, bad[i]);
    g_assert_false (flux_vae_read_info (dir, &info, &error));
    g_assert_nonnull (strstr (error->message, dir));
    g_clear_error (&error);
  }
  write_config (dir, CONFIG (",\"shift_factor\":null,\"scaling_factor\":0.5"));
  g_assert_true (flux_vae_read_info (dir, &info, &error));
  g_assert_no_error (error);
  g_assert_cmpint (info.downscale, ==, 2);
  g_assert_cmpfloat (info.scaling_factor, ==, 0.5f);
  g_assert_cmpfloat (info.shift_factor, ==, 0.0f);
  g_remove (path);
  g_rmdir (dir);
}

/* A configuration of another size than the file's: the error names file and tensor. */
static void
test_mismatched_weights_are_named (void)
{
  g_autofree char *model = flux_test_model ();
  g_autofree char *dir = g_dir_make_tmp ("flux-vae-XXXXXX", NULL);
  g_autofree char *config = g_build_filename (dir, "config.json", NULL);
  g_autofree char *link =
      g_build_filename (dir, "diffusion_pytorch_model.safetensors", NULL);
  fx_backend *b = fx_cpu_new (1);
  g_autoptr (GError) error = NULL;

  if (model == NULL)
    g_test_skip ("tiny-flux-emoji is missing");
  else {
    g_autofree char *target =
        g_build_filename (model, "vae", "diffusion_pytorch_model.safetensors", NULL);
    FluxVae *vae;
    g_assert_cmpint (symlink (target, link), ==, 0);
    write_config (dir, CONFIG (""));
    vae = flux_vae_load (dir, b, FLUX_VAE_ENCODER, NULL, NULL, &error);
    g_assert_null (vae);
    g_assert_nonnull (strstr (error->message, "encoder."));
    g_assert_nonnull (strstr (error->message, ".safetensors"));
    g_remove (link);
    g_remove (config);
  }
  g_rmdir (dir);
  fx_backend_free (b);
}

static gboolean
cancel_at_half (const char *what, gint percent, gpointer data)
{
  gint *calls = data;

  ++*calls;
  return percent < 50;
}

static void
test_loading_can_be_cancelled (void)
{
  g_autofree char *model = flux_test_model ();
  fx_backend *b = fx_cpu_new (1);
  g_autoptr (GError) error = NULL;
  gint calls = 0;

  if (model == NULL)
    g_test_skip ("tiny-flux-emoji is missing");
  else {
    g_assert_null (flux_vae_load (
        model, b, FLUX_VAE_ENCODER | FLUX_VAE_DECODER, cancel_at_half, &calls, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
    g_assert_cmpint (calls, >, 10);
    g_assert_cmpint (calls, <=, 51);
  }
  fx_backend_free (b);
}

static void
test_fingerprint_needs_no_weights (void)
{
  g_autofree char *model = flux_test_model ();
  g_autofree char *sub = NULL, *a = NULL, *b = NULL;
  g_autoptr (GError) error = NULL;

  if (model == NULL) {
    g_test_skip ("tiny-flux-emoji is missing");
    return;
  }
  sub = g_build_filename (model, "vae", NULL);
  a = flux_vae_fingerprint (model, &error);
  g_assert_no_error (error);
  b = flux_vae_fingerprint (sub, &error);
  g_assert_no_error (error);
  g_assert_cmpstr (a, ==, b);
  g_assert_cmpuint (strlen (a), ==, 16);
}

/* The plan backend in bf16: every op's shapes and types fit a GPU too. */
static void
plan_in (fx_dtype compute)
{
  g_autofree char *model = flux_test_model ();
  fx_backend *b = fx_plan_new (compute);
  g_autoptr (GError) error = NULL;

  if (model == NULL)
    g_test_skip ("tiny-flux-emoji is missing");
  else {
    g_autofree guint8 *rgb = g_malloc0 (64 * 64 * 3);
    g_autofree float *image = g_new (float, 64 * 64 * 3);
    float moments[32 * 64] = {0};
    FluxVae *vae =
        flux_vae_load (model, b, FLUX_VAE_ENCODER | FLUX_VAE_DECODER, NULL, NULL, &error);
    g_assert_no_error (error);
    flux_vae_encode (vae, rgb, 64, 64, 192, moments, &error);
    g_assert_no_error (error);
    flux_vae_decode (vae, moments, 8, 8, image, &error);
    g_assert_no_error (error);
    flux_vae_free (vae);
  }
  fx_backend_free (b);
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
  g_test_add_func ("/vae/encode-equals-diffusers", test_encode);
  g_test_add_func ("/vae/encode-oblong-equals-diffusers", test_encode_oblong);
  g_test_add_func ("/vae/decode-equals-diffusers", test_decode);
  g_test_add_func ("/vae/decode-oblong-equals-diffusers", test_decode_oblong);
  g_test_add_func (
      "/vae/stride-and-size-change-nothing", test_stride_and_size_change_nothing);
  g_test_add_func ("/vae/rgb-rounds-half-to-even", test_rgb_rounds_half_to_even);
  g_test_add_func (
      "/vae/bad-configurations-are-named", test_bad_configurations_are_named);
  g_test_add_func (
      "/vae/mismatched-weights-are-named", test_mismatched_weights_are_named);
  g_test_add_func ("/vae/loading-can-be-cancelled", test_loading_can_be_cancelled);
  g_test_add_func (
      "/vae/fingerprint-needs-no-weights", test_fingerprint_needs_no_weights);
  g_test_add_func ("/vae/plan-in-bf16", test_plan_in_bf16);
  g_test_add_func ("/vae/plan-in-fp16", test_plan_in_fp16);
  return g_test_run ();
}
