/* flux/adapters/names.c: what tools call the linear layers of the transformer.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Names of the original model (black-forest-labs/flux model.py, layers.py) beside those
 * of diffusers: diffusers scripts/convert_flux_to_diffusers.py and
 * loaders/lora_conversion_utils.py:380-1590; kohya-ss/sd-scripts
 * networks/convert_flux_lora.py. XLabs: x-flux src/flux/modules/layers.py. */
#include "flux/adapters/names.h"

#include <string.h>

typedef struct {
  const char *original; /* after "double_blocks.N." */
  int slots[FLUX_FUSED_MAX], n;
} Layer;

static const Layer double_layers[] = {{"img_attn.qkv", {FLUX_D_Q, FLUX_D_K, FLUX_D_V}, 3},
    {"txt_attn.qkv", {FLUX_D_ADD_Q, FLUX_D_ADD_K, FLUX_D_ADD_V}, 3},
    {"img_attn.proj", {FLUX_D_OUT}, 1}, {"txt_attn.proj", {FLUX_D_ADD_OUT}, 1},
    {"img_mlp.0", {FLUX_D_FC1}, 1}, {"txt_mlp.0", {FLUX_D_FC1_CONTEXT}, 1},
    {"img_mlp.2", {FLUX_D_FC2}, 1}, {"txt_mlp.2", {FLUX_D_FC2_CONTEXT}, 1},
    {"img_mod.lin", {FLUX_D_MOD}, 1}, {"txt_mod.lin", {FLUX_D_MOD_CONTEXT}, 1}};

static const Layer single_layers[] = {
    {"linear1", {FLUX_S_Q, FLUX_S_K, FLUX_S_V, FLUX_S_MLP}, 4},
    {"linear2", {FLUX_S_OUT}, 1}, {"modulation.lin", {FLUX_S_MOD}, 1}};

/* In XLabs' layout adapters sit on the attention processors only. */
static const Layer double_xlabs[] = {
    {"processor.qkv_lora1", {FLUX_D_Q, FLUX_D_K, FLUX_D_V}, 3},
    {"processor.qkv_lora2", {FLUX_D_ADD_Q, FLUX_D_ADD_K, FLUX_D_ADD_V}, 3},
    {"processor.proj_lora1", {FLUX_D_OUT}, 1},
    {"processor.proj_lora2", {FLUX_D_ADD_OUT}, 1}};

static const Layer single_xlabs[] = {
    {"processor.qkv_lora", {FLUX_S_Q, FLUX_S_K, FLUX_S_V}, 3},
    {"processor.proj_lora", {FLUX_S_OUT}, 1}};

static const Layer end_layers[] = {{"img_in", {FLUX_E_IMAGE}, 1},
    {"txt_in", {FLUX_E_TEXT}, 1}, {"time_in.in_layer", {FLUX_E_TIME_1}, 1},
    {"time_in.out_layer", {FLUX_E_TIME_2}, 1},
    {"vector_in.in_layer", {FLUX_E_POOLED_1}, 1},
    {"vector_in.out_layer", {FLUX_E_POOLED_2}, 1},
    {"guidance_in.in_layer", {FLUX_E_GUIDANCE_1}, 1},
    {"guidance_in.out_layer", {FLUX_E_GUIDANCE_2}, 1},
    {"final_layer.linear", {FLUX_E_OUT}, 1},
    {"final_layer.adaLN_modulation.1", {FLUX_E_NORM}, 1}};

/* How each tool spells a name; the first that fits gives the format its name. */
typedef enum { DIFFUSERS, ORIGINAL, XLABS } Naming;

static const struct {
  const char *format, *prefix;
  Naming naming;
  char separator; /* in place of the dots */
} spellings[] = {{"diffusers", "transformer.", DIFFUSERS, '.'},
    {"peft", "base_model.model.transformer.", DIFFUSERS, '.'},
    {"peft", "base_model.model.", DIFFUSERS, '.'}, {"diffusers", "", DIFFUSERS, '.'},
    {"kohya", "lora_unet_", ORIGINAL, '_'},
    {"OneTrainer", "lora_transformer_", DIFFUSERS, '_'},
    {"comfy", "diffusion_model.", ORIGINAL, '.'},
    {"comfy", "diffusion_model.", DIFFUSERS, '.'},
    {"xlabs", "diffusion_model.", XLABS, '.'}, {"xlabs", "", XLABS, '.'},
    {"fal", "base_model.model.", ORIGINAL, '.'}, {"bfl", "", ORIGINAL, '.'}};

static const struct {
  const char *end;
  FluxAdapterPart part;
} ends[] = {{".lora_A.weight", FLUX_PART_A}, {".lora_B.weight", FLUX_PART_B},
    {".lora_A.default.weight", FLUX_PART_A}, {".lora_B.default.weight", FLUX_PART_B},
    {".lora_down.weight", FLUX_PART_A}, {".lora_up.weight", FLUX_PART_B},
    {".lora.down.weight", FLUX_PART_A}, {".lora.up.weight", FLUX_PART_B},
    {".alpha", FLUX_PART_ALPHA}, {".lora_A.bias", FLUX_PART_EXTRA},
    {".lora_B.bias", FLUX_PART_EXTRA}, {".diff", FLUX_PART_EXTRA},
    {".diff_b", FLUX_PART_EXTRA},
    /* XLabs; after the longer ones that end so. */
    {".down.weight", FLUX_PART_A}, {".up.weight", FLUX_PART_B}};

struct _FluxAdapterNames {
  FluxLoraSlot *slots;
  guint n_slots;
  GArray *modules; /* FluxAdapterModule: the slots' own first, then those of others */
  GHashTable *names[3]; /* [Naming]: owned name, '_' for '.' -> module + 1 */
  GHashTable *dotted[3];
  guint *originals;    /* [n_slots] module of the original model */
  const char **titles; /* [n_slots] its name */
  GStringChunk *strings;
};

static char *
underscored (const char *name)
{
  return g_strdelimit (g_strdup (name), ".", '_');
}

static void
add_name (FluxAdapterNames *self, Naming naming, const char *name, guint module)
{
  g_hash_table_insert (
      self->dotted[naming], g_strdup (name), GUINT_TO_POINTER (module + 1));
  g_hash_table_insert (
      self->names[naming], underscored (name), GUINT_TO_POINTER (module + 1));
}

/* A layer whose slots count from `first`. */
static void
add_layer (FluxAdapterNames *self, Naming naming, const Layer *layer, guint first,
    const char *name)
{
  FluxAdapterModule m = {.n_slots = (guint)layer->n,
      .swapped = strstr (name, "adaLN_modulation") != NULL,
      .name = g_string_chunk_insert (self->strings, name)};
  guint module = first + (guint)layer->slots[0];

  if (module >= self->n_slots) /* a guidance embedder where there is none */
    return;
  for (guint i = 0; i < m.n_slots; i++)
    m.slots[i] = first + (guint)layer->slots[i];
  if (m.n_slots > 1 || m.swapped) {
    module = self->modules->len;
    g_array_append_val (self->modules, m);
  }
  add_name (self, naming, name, module);
  for (guint i = 0; naming == ORIGINAL && i < m.n_slots; i++) {
    self->originals[m.slots[i]] = module;
    self->titles[m.slots[i]] = m.name;
  }
}

static void
add_layers (FluxAdapterNames *self, Naming naming, const char *block, int index,
    const Layer *layers, guint n, guint first)
{
  for (guint i = 0; i < n; i++) {
    g_autofree char *name =
        g_strdup_printf ("%s.%d.%s", block, index, layers[i].original);

    add_layer (self, naming, &layers[i], first, name);
  }
}

static void
add_foreign (FluxAdapterNames *self, const FluxConfig *c)
{
  for (int i = 0; i < c->num_layers; i++) {
    const guint first = flux_slot_double (i, 0);

    add_layers (self, ORIGINAL, "double_blocks", i, double_layers,
        G_N_ELEMENTS (double_layers), first);
    add_layers (self, XLABS, "double_blocks", i, double_xlabs,
        G_N_ELEMENTS (double_xlabs), first);
  }
  for (int i = 0; i < c->num_single_layers; i++) {
    const guint first = flux_slot_single (c, i, 0);

    add_layers (self, ORIGINAL, "single_blocks", i, single_layers,
        G_N_ELEMENTS (single_layers), first);
    add_layers (self, XLABS, "single_blocks", i, single_xlabs,
        G_N_ELEMENTS (single_xlabs), first);
  }
  for (guint i = 0; i < G_N_ELEMENTS (end_layers); i++)
    add_layer (
        self, ORIGINAL, &end_layers[i], flux_slot_end (c, 0), end_layers[i].original);
}

FluxAdapterNames *
flux_adapter_names_new (const FluxConfig *c)
{
  FluxAdapterNames *self = g_new0 (FluxAdapterNames, 1);

  self->slots = flux_lora_slots (c, &self->n_slots);
  self->modules = g_array_new (FALSE, TRUE, sizeof (FluxAdapterModule));
  self->originals = g_new0 (guint, MAX (self->n_slots, 1));
  self->titles = g_new0 (const char *, MAX (self->n_slots, 1));
  self->strings = g_string_chunk_new (4096);
  for (guint i = 0; i < G_N_ELEMENTS (self->names); i++) {
    self->names[i] = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
    self->dotted[i] = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  }
  for (guint i = 0; i < self->n_slots; i++) {
    FluxAdapterModule m = {.slots = {i}, .n_slots = 1, .name = self->slots[i].name};

    g_array_append_val (self->modules, m);
    add_name (self, DIFFUSERS, m.name, i);
  }
  add_foreign (self, c);
  return self;
}

void
flux_adapter_names_free (FluxAdapterNames *self)
{
  for (guint i = 0; i < G_N_ELEMENTS (self->names); i++) {
    g_hash_table_unref (self->names[i]);
    g_hash_table_unref (self->dotted[i]);
  }
  g_array_unref (self->modules);
  g_free (self->originals);
  g_free (self->titles);
  g_string_chunk_free (self->strings);
  g_free (self->slots);
  g_free (self);
}

guint
flux_adapter_names_count (FluxAdapterNames *self)
{
  return self->modules->len;
}

const FluxAdapterModule *
flux_adapter_names_get (FluxAdapterNames *self, guint module)
{
  return &g_array_index (self->modules, FluxAdapterModule, module);
}

static gboolean
find_module (FluxAdapterNames *self, const char *name, guint *module, const char **format)
{
  for (guint i = 0; i < G_N_ELEMENTS (spellings); i++) {
    const Naming naming = spellings[i].naming;
    GHashTable *table =
        spellings[i].separator == '.' ? self->dotted[naming] : self->names[naming];
    gpointer found;

    if (!g_str_has_prefix (name, spellings[i].prefix))
      continue;
    found = g_hash_table_lookup (table, name + strlen (spellings[i].prefix));
    if (found == NULL)
      continue;
    *module = GPOINTER_TO_UINT (found) - 1;
    *format = spellings[i].format;
    return TRUE;
  }
  return FALSE;
}

gboolean
flux_adapter_names_find (FluxAdapterNames *self, const char *key, guint *module,
    FluxAdapterPart *part, const char **format)
{
  for (guint i = 0; i < G_N_ELEMENTS (ends); i++) {
    g_autofree char *name = NULL;

    if (!g_str_has_suffix (key, ends[i].end))
      continue;
    name = g_strndup (key, strlen (key) - strlen (ends[i].end));
    if (!find_module (self, name, module, format))
      continue;
    *part = ends[i].part;
    return TRUE;
  }
  return FALSE;
}

const FluxAdapterModule *
flux_adapter_names_original (FluxAdapterNames *self, guint slot, const char **name)
{
  *name = self->titles[slot];
  return flux_adapter_names_get (self, self->originals[slot]);
}
