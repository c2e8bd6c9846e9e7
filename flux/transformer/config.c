/* flux/transformer/config.c: config.json of a FLUX transformer.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/transformer/config.h"

#include "flux/error.h"
#include "flux/files/config-json.h"

enum { MAX_BLOCKS = 1024, MAX_FEATURES = 1 << 16, TIME_FEATURES = 256 };

static gboolean
check_class (FluxConfigJson *json, const char *path, GError **error)
{
  const char *name = NULL;

  if (flux_config_json_has (json, "_class_name")) {
    name = flux_config_json_string (json, "_class_name", error);
    if (name == NULL)
      return FALSE;
  }
  if (g_strcmp0 (name, "FluxTransformer2DModel") == 0)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "'%s' is a model of another architecture (%s); a FluxTransformer2DModel is needed.",
      path, name != NULL ? name : "no _class_name");
  return FALSE;
}

/* Reads an int, or leaves *value where the key is absent. */
static gboolean
optional_int (FluxConfigJson *json, const char *key, gint64 min, gint64 max, int *value,
    GError **error)
{
  return !flux_config_json_has (json, key) ||
         flux_config_json_int (json, key, min, max, value, error);
}

static gboolean
read_axes (FluxConfigJson *json, FluxConfig *c, const char *path, GError **error)
{
  gint64 axes[4] = {0};
  guint n = G_N_ELEMENTS (axes);
  gint64 sum = 0;
  gboolean even = TRUE;

  if (flux_config_json_has (json, "axes_dims_rope")) {
    if (!flux_config_json_ints (
            json, "axes_dims_rope", 0, c->attention_head_dim, axes, &n, error))
      return FALSE;
    if (n != 3) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
          "axes_dims_rope of '%s' has %u entries; FLUX has 3.", path, n);
      return FALSE;
    }
    for (int i = 0; i < 3; i++)
      c->axes_dims_rope[i] = (int)axes[i];
  }
  for (int i = 0; i < 3; i++) {
    sum += c->axes_dims_rope[i];
    even = even && c->axes_dims_rope[i] % 2 == 0;
  }
  if (even && sum == c->attention_head_dim)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "axes_dims_rope of '%s' must be three even numbers that sum to "
      "attention_head_dim, %d.",
      path, c->attention_head_dim);
  return FALSE;
}

static gboolean
check_sizes (const FluxConfig *c, int patch_size, const char *path, GError **error)
{
  const char *why = NULL;

  if (patch_size != 1)
    why = "patch_size is not 1";
  else if (c->attention_head_dim % 2 != 0)
    why = "attention_head_dim is odd";
  else if ((gint64)c->num_attention_heads * c->attention_head_dim > MAX_FEATURES)
    why = "num_attention_heads times attention_head_dim is over 65536";
  else if (c->num_layers + c->num_single_layers < 1)
    why = "there are no blocks";
  if (why == NULL)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "'%s' describes a transformer that is not FLUX.1's: %s.", path, why);
  return FALSE;
}

static gboolean
read_fields (FluxConfigJson *json, const char *path, FluxConfig *c, GError **error)
{
  int patch_size = 1;

  if (!optional_int (json, "patch_size", 1, 64, &patch_size, error) ||
      !optional_int (json, "in_channels", 1, MAX_FEATURES, &c->in_channels, error))
    return FALSE;
  c->out_channels = c->in_channels;
  if (!optional_int (json, "out_channels", 1, MAX_FEATURES, &c->out_channels, error) ||
      !optional_int (json, "num_layers", 0, MAX_BLOCKS, &c->num_layers, error) ||
      !optional_int (
          json, "num_single_layers", 0, MAX_BLOCKS, &c->num_single_layers, error) ||
      !optional_int (
          json, "num_attention_heads", 1, MAX_FEATURES, &c->num_attention_heads, error) ||
      !optional_int (
          json, "attention_head_dim", 2, 1024, &c->attention_head_dim, error) ||
      !optional_int (
          json, "joint_attention_dim", 1, MAX_FEATURES, &c->joint_attention_dim, error) ||
      !optional_int (json, "pooled_projection_dim", 1, MAX_FEATURES,
          &c->pooled_projection_dim, error))
    return FALSE;
  c->guidance_embeds = FALSE;
  if (flux_config_json_has (json, "guidance_embeds") &&
      !flux_config_json_bool (json, "guidance_embeds", &c->guidance_embeds, error))
    return FALSE;
  return check_sizes (c, patch_size, path, error) && read_axes (json, c, path, error);
}

gboolean
flux_config_read (const char *dir, FluxConfig *config, GError **error)
{
  g_autofree char *sub = g_build_filename (dir, "transformer", NULL);
  g_autofree char *path = g_build_filename (
      g_file_test (sub, G_FILE_TEST_IS_DIR) ? sub : dir, "config.json", NULL);
  g_autoptr (FluxConfigJson) json = NULL;

  json = flux_config_json_read (path, error);
  if (json == NULL || !check_class (json, path, error))
    return FALSE;
  flux_config_init_dev (config);
  return read_fields (json, path, config, error);
}

void
flux_config_init_dev (FluxConfig *config)
{
  /* Also the defaults of FluxTransformer2DModel, guidance_embeds excepted. */
  *config = (FluxConfig){.in_channels = 64,
      .out_channels = 64,
      .num_layers = 19,
      .num_single_layers = 38,
      .num_attention_heads = 24,
      .attention_head_dim = 128,
      .joint_attention_dim = 4096,
      .pooled_projection_dim = 768,
      .guidance_embeds = TRUE,
      .axes_dims_rope = {16, 56, 56}};
}

static gint64
linear (gint64 n, gint64 k)
{
  return n * k + n;
}

gint64
flux_config_n_parameters (const FluxConfig *c)
{
  gint64 d = flux_config_dim (c), head = c->attention_head_dim;
  gint64 embedder = linear (d, TIME_FEATURES) + linear (d, d);
  gint64 stream = linear (6 * d, d) + 4 * linear (d, d) + linear (4 * d, d) +
                  linear (d, 4 * d) + 2 * head;
  gint64 single = linear (3 * d, d) + 3 * linear (d, d) + linear (4 * d, d) +
                  linear (d, 5 * d) + 2 * head;
  gint64 total = linear (d, c->in_channels) + linear (d, c->joint_attention_dim);

  total += embedder + (c->guidance_embeds ? embedder : 0);
  total += linear (d, c->pooled_projection_dim) + linear (d, d);
  total += c->num_layers * 2 * stream + c->num_single_layers * single;
  return total + linear (2 * d, d) + linear (c->out_channels, d);
}
