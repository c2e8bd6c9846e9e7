/* tests/bench/random-folder.c: random-folder DIR [DOUBLE_BLOCKS SINGLE_BLOCKS]: writes a
 * transformer of FLUX.1-dev's width with random weights in bfloat16 into DIR/transformer,
 * and an adapter of rank 16 on every layer that is trained, DIR/lora.safetensors.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>

#include "flux/convert/folder.h"
#include "flux/error.h"
#include "flux/transformer/lora.h"

enum { RANK = 16, PERIOD = (1 << 24) + 37 /* values, then they come again */ };

static const float DEVIATION = 0.02f;

static void
add (GPtrArray *infos, const char *prefix, const char *name, guint n_dims, gint64 rows,
    gint64 cols)
{
  const gint64 dims[2] = {rows, cols};
  g_autofree char *whole = g_strconcat (prefix, name, NULL);

  g_ptr_array_add (infos, flux_tensor_info_new (whole, FX_BF16, n_dims, dims));
}

static GPtrArray *
list (const FluxConfig *c)
{
  static const char *const norms[] = {".attn.norm_q.weight", ".attn.norm_k.weight",
      ".attn.norm_added_q.weight", ".attn.norm_added_k.weight"};
  GPtrArray *infos = flux_tensor_infos_new ();
  guint n;
  g_autofree FluxLoraSlot *slots = flux_lora_slots (c, &n);

  for (guint i = 0; i < n; i++) {
    add (infos, slots[i].name, ".weight", 2, slots[i].n, slots[i].k);
    add (infos, slots[i].name, ".bias", 1, slots[i].n, 0);
  }
  for (int b = 0; b < c->num_layers + c->num_single_layers; b++) {
    const gboolean is_double = b < c->num_layers;
    g_autofree char *prefix = g_strdup_printf (
        is_double ? "transformer_blocks.%d" : "single_transformer_blocks.%d",
        is_double ? b : b - c->num_layers);

    for (guint i = 0; i < (is_double ? 4u : 2u); i++)
      add (infos, prefix, norms[i], 1, c->attention_head_dim, 0);
  }
  return infos;
}

/* Normal numbers in bfloat16, the same PERIOD values over and over. */
static guint16 *
make_values (gsize n)
{
  guint16 *values = g_new (guint16, PERIOD + n);
  g_autofree float *floats = g_new (float, PERIOD);

  fx_philox_normal (1, 0, 0, 0, floats, PERIOD);
  for (gsize i = 0; i < PERIOD + n; i++)
    values[i] = i < PERIOD ? fx_f32_to_bf16 (DEVIATION * floats[i]) : values[i - PERIOD];
  return values;
}

static gboolean
write_model (const FluxConfig *c, const char *dir, GError **error)
{
  g_autoptr (GPtrArray) infos = list (c);
  g_autofree char *location = g_build_filename (dir, "transformer", NULL);
  g_autofree char *config = g_strdup_printf (
      "{\"_class_name\": \"FluxTransformer2DModel\", \"guidance_embeds\": true, "
      "\"num_layers\": %d, \"num_single_layers\": %d}\n",
      c->num_layers, c->num_single_layers);
  const FluxFolderOptions options = {
      .location = location, .max_shard_size = 10000000000, .parts = FLUX_PARTS_NONE};
  FluxFolder *folder = flux_folder_new (&options, infos, error);
  g_autofree guint16 *values = NULL;
  gsize largest = 0, at = 0;

  if (folder == NULL)
    return FALSE;
  for (guint i = 0; i < infos->len; i++)
    largest = MAX (largest, ((FluxTensorInfo *)infos->pdata[i])->n_elements);
  values = make_values (largest);
  for (guint i = 0; i < infos->len; i++) {
    const FluxTensorInfo *info = infos->pdata[i];

    if (!flux_folder_put (folder, info->name, values + at, info->n_bytes, error)) {
      flux_folder_abort (folder);
      return FALSE;
    }
    at = (at + info->n_elements) % PERIOD;
  }
  return flux_folder_commit (folder, config, error);
}

static gboolean
write_lora (const FluxConfig *c, const char *dir, GError **error)
{
  g_autofree char *path = g_build_filename (dir, "lora.safetensors", NULL);
  fx_backend *b = fx_cpu_new (0);
  FluxLora *lora = flux_lora_new (c, b, RANK, RANK, "all-linear", FALSE, error);
  gboolean ok = lora != NULL;

  if (ok) {
    const gsize n = flux_lora_n_flat (lora);
    float *p = flux_lora_parameters (lora);

    fx_philox_normal (2, 0, 0, 0, p, n);
    for (gsize i = 0; i < n; i++)
      p[i] *= DEVIATION;
    ok = flux_lora_save (lora, path, error);
    flux_lora_free (lora);
  }
  fx_backend_free (b);
  return ok;
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  FluxConfig c;
  gint64 doubles, singles;

  flux_config_init_dev (&c);
  doubles = c.num_layers;
  singles = c.num_single_layers;
  if ((argc != 2 && argc != 4) || argv[1][0] == '-' ||
      (argc == 4 &&
          (!g_ascii_string_to_signed (argv[2], 10, 0, 1000, &doubles, NULL) ||
              !g_ascii_string_to_signed (argv[3], 10, 0, 1000, &singles, NULL)))) {
    fprintf (stderr, "usage: random-folder DIR [DOUBLE_BLOCKS SINGLE_BLOCKS]\n");
    return 2;
  }
  c.num_layers = (int)doubles;
  c.num_single_layers = (int)singles;
  if (write_model (&c, argv[1], &error) && write_lora (&c, argv[1], &error))
    return 0;
  fprintf (stderr, "random-folder: %s\n", error->message);
  return 1;
}
