/* flux/vae/config.c: shape of an AutoencoderKL. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/vae/vae-private.h"

#include <string.h>

#include "flux/error.h"
#include "flux/files/config-json.h"

static gboolean
unlike_flux (GError **error, const char *dir, const char *what)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "'%s' is not the VAE of a FLUX.1 model: %s.", dir, what);
  return FALSE;
}

/* What FLUX.1's VAE has and this code relies on. Absent keys have diffusers' defaults. */
static gboolean
check_kind (FluxConfigJson *json, const char *dir, GError **error)
{
  const char *const quant[] = {"use_quant_conv", "use_post_quant_conv"};
  const char *text;

  if (flux_config_json_has (json, "_class_name")) {
    text = flux_config_json_string (json, "_class_name", error);
    if (text == NULL)
      return FALSE;
    if (strcmp (text, "AutoencoderKL") != 0)
      return unlike_flux (error, dir, "its class is not AutoencoderKL");
  }
  if (flux_config_json_has (json, "act_fn")) {
    text = flux_config_json_string (json, "act_fn", error);
    if (text == NULL)
      return FALSE;
    if (strcmp (text, "silu") != 0)
      return unlike_flux (error, dir, "its act_fn is not silu");
  }
  for (gsize i = 0; i < G_N_ELEMENTS (quant); i++) {
    gboolean used = TRUE;
    if (flux_config_json_has (json, quant[i]) &&
        !flux_config_json_bool (json, quant[i], &used, error))
      return FALSE;
    if (used)
      return unlike_flux (error, dir, "it has quantisation convolutions");
  }
  return TRUE;
}

/* key or, when absent, what *value holds. */
static gboolean
read_int (FluxConfigJson *json, const char *key, int max, int *value, GError **error)
{
  return !flux_config_json_has (json, key) ||
         flux_config_json_int (json, key, 1, max, value, error);
}

static gboolean
read_factor (
    FluxConfigJson *json, const char *key, double min, float *value, GError **error)
{
  double number;

  if (!flux_config_json_has (json, key))
    return TRUE;
  if (!flux_config_json_number (json, key, min, 1e6, &number, error))
    return FALSE;
  *value = (float)number;
  return TRUE;
}

/* vae/config.json of black-forest-labs/FLUX.1-dev. */
void
flux_vae_config_init (FluxVaeConfig *c)
{
  *c = (FluxVaeConfig){.in_channels = 3,
      .out_channels = 3,
      .latent_channels = 16,
      .channels = {128, 256, 512, 512},
      .n_blocks = 4,
      .layers = 2,
      .groups = 32,
      .attention = TRUE,
      .scaling_factor = 0.3611f,
      .shift_factor = 0.1159f,
      .sample_size = 1024};
}

gboolean
flux_vae_config_read (const char *dir, FluxVaeConfig *c, GError **error)
{
  g_autofree char *path = g_build_filename (dir, "config.json", NULL);
  g_autoptr (FluxConfigJson) json = flux_config_json_read (path, error);
  gint64 channels[FLUX_VAE_MAX_BLOCKS];
  guint n = FLUX_VAE_MAX_BLOCKS;

  *c = (FluxVaeConfig){.in_channels = 3,
      .out_channels = 3,
      .layers = 1,
      .groups = 32,
      .attention = TRUE,
      .scaling_factor = 0.18215f};
  if (json == NULL || !check_kind (json, dir, error) ||
      !flux_config_json_ints (
          json, "block_out_channels", 1, 1 << 16, channels, &n, error) ||
      !flux_config_json_int (
          json, "latent_channels", 1, 4096, &c->latent_channels, error) ||
      !read_int (json, "in_channels", 3, &c->in_channels, error) ||
      !read_int (json, "out_channels", 3, &c->out_channels, error) ||
      !read_int (json, "layers_per_block", FLUX_VAE_MAX_LAYERS, &c->layers, error) ||
      !read_int (json, "norm_num_groups", 1 << 16, &c->groups, error) ||
      !read_int (json, "sample_size", 65536, &c->sample_size, error) ||
      !read_factor (json, "scaling_factor", 1e-6, &c->scaling_factor, error) ||
      !read_factor (json, "shift_factor", -1e6, &c->shift_factor, error) ||
      (flux_config_json_has (json, "mid_block_add_attention") &&
          !flux_config_json_bool (json, "mid_block_add_attention", &c->attention, error)))
    return FALSE;
  if (c->in_channels != 3 || c->out_channels != 3)
    return unlike_flux (error, dir, "its images do not have three channels");
  c->n_blocks = (int)n;
  for (guint i = 0; i < n; i++) {
    c->channels[i] = (int)channels[i];
    if (c->channels[i] % c->groups != 0)
      return unlike_flux (
          error, dir, "norm_num_groups does not divide its block_out_channels");
  }
  return TRUE;
}
