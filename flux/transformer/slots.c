/* flux/transformer/slots.c: the linear layers an adapter can sit on, and the names that
 * choose among them. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/transformer/slots.h"

#include <string.h>

#include "flux/error.h"

typedef struct {
  const char *name;
  int n, k; /* in units of the model's width */
  gboolean trainable;
} Layer;

/* diffusers transformer_flux.py's names, in the order of FluxDoubleSlot. */
static const Layer double_layers[FLUX_DOUBLE_SLOTS] = {
    {"norm1.linear", 6, 1, FALSE},
    {"norm1_context.linear", 6, 1, FALSE},
    {"attn.to_q", 1, 1, TRUE},
    {"attn.to_k", 1, 1, TRUE},
    {"attn.to_v", 1, 1, TRUE},
    {"attn.add_q_proj", 1, 1, TRUE},
    {"attn.add_k_proj", 1, 1, TRUE},
    {"attn.add_v_proj", 1, 1, TRUE},
    {"attn.to_out.0", 1, 1, TRUE},
    {"attn.to_add_out", 1, 1, TRUE},
    {"ff.net.0.proj", 4, 1, TRUE},
    {"ff_context.net.0.proj", 4, 1, TRUE},
    {"ff.net.2", 1, 4, TRUE},
    {"ff_context.net.2", 1, 4, TRUE},
};

/* In the order of FluxSingleSlot. */
static const Layer single_layers[FLUX_SINGLE_SLOTS] = {
    {"norm.linear", 3, 1, FALSE},
    {"proj_mlp", 4, 1, TRUE},
    {"attn.to_q", 1, 1, TRUE},
    {"attn.to_k", 1, 1, TRUE},
    {"attn.to_v", 1, 1, TRUE},
    {"proj_out", 1, 5, TRUE},
};

static void
fill (FluxLoraSlot *slots, const char *block, int index, const Layer *layers, guint n,
    gint64 dim)
{
  for (guint i = 0; i < n; i++) {
    slots[i].n = layers[i].n * dim;
    slots[i].k = layers[i].k * dim;
    slots[i].trainable = layers[i].trainable;
    g_snprintf (
        slots[i].name, sizeof slots[i].name, "%s.%d.%s", block, index, layers[i].name);
  }
}

/* The layers outside the blocks, in the order of FluxEndSlot. */
static void
fill_ends (FluxLoraSlot *slots, const FluxConfig *c)
{
  const gint64 dim = flux_config_dim (c), features = FLUX_TIME_FEATURES;
  const struct {
    const char *name;
    gint64 n, k;
  } ends[FLUX_END_SLOTS] = {
      {"x_embedder", dim, c->in_channels},
      {"context_embedder", dim, c->joint_attention_dim},
      {"time_text_embed.timestep_embedder.linear_1", dim, features},
      {"time_text_embed.timestep_embedder.linear_2", dim, dim},
      {"time_text_embed.text_embedder.linear_1", dim, c->pooled_projection_dim},
      {"time_text_embed.text_embedder.linear_2", dim, dim},
      {"norm_out.linear", 2 * dim, dim},
      {"proj_out", c->out_channels, dim},
      {"time_text_embed.guidance_embedder.linear_1", dim, features},
      {"time_text_embed.guidance_embedder.linear_2", dim, dim},
  };

  for (guint i = 0; i < flux_slot_count (c) - flux_slot_end (c, 0); i++) {
    g_strlcpy (slots[i].name, ends[i].name, sizeof slots[i].name);
    slots[i].n = ends[i].n;
    slots[i].k = ends[i].k;
  }
}

FluxLoraSlot *
flux_lora_slots (const FluxConfig *c, guint *n_slots)
{
  guint n = flux_slot_count (c);
  FluxLoraSlot *slots = g_new0 (FluxLoraSlot, MAX (n, 1));

  for (int i = 0; i < c->num_layers; i++)
    fill (slots + flux_slot_double (i, 0), "transformer_blocks", i, double_layers,
        FLUX_DOUBLE_SLOTS, flux_config_dim (c));
  for (int i = 0; i < c->num_single_layers; i++)
    fill (slots + flux_slot_single (c, i, 0), "single_transformer_blocks", i,
        single_layers, FLUX_SINGLE_SLOTS, flux_config_dim (c));
  fill_ends (slots + flux_slot_end (c, 0), c);
  *n_slots = n;
  return slots;
}

gboolean
flux_slot_matches (const char *name, const char *suffix)
{
  gsize n = strlen (name), s = strlen (suffix);

  if (s > n || strcmp (name + n - s, suffix) != 0)
    return FALSE;
  return s == n || name[n - s - 1] == '.';
}

static const char *
expand_preset (const char *targets)
{
  if (targets == NULL || *targets == '\0' || strcmp (targets, "attention") == 0)
    return "to_q,to_k,to_v,to_out.0";
  if (strcmp (targets, "attention-all") == 0)
    return "to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out";
  return targets;
}

static gboolean
choose_entry (const FluxLoraSlot *slots, guint n, const char *entry, gboolean *chosen,
    GError **error)
{
  guint trained = 0, matches = 0;

  /* "proj_out" also ends the name of the output layer, which stays frozen. */
  for (guint i = 0; i < n; i++) {
    if (!flux_slot_matches (slots[i].name, entry))
      continue;
    matches++;
    if (slots[i].trainable) {
      chosen[i] = TRUE;
      trained++;
    }
  }
  if (*entry == '\0' || matches == 0)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "LoRA target '%s' matches no linear layer of this transformer; use "
        "\"attention\", "
        "\"attention-all\", \"all-linear\" or names such as \"to_q,to_k\".",
        entry);
  else if (trained == 0)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "LoRA target '%s' is a modulation or embedding layer; an adapter can be loaded "
        "on it but not trained.",
        entry);
  return *entry != '\0' && trained > 0;
}

gboolean
flux_slots_choose (const FluxLoraSlot *slots, guint n, const char *targets,
    gboolean *chosen, GError **error)
{
  g_auto (GStrv) entries = NULL;

  if (g_strcmp0 (targets, "all-linear") == 0) {
    for (guint i = 0; i < n; i++)
      chosen[i] = slots[i].trainable;
    return TRUE;
  }
  entries = g_strsplit (expand_preset (targets), ",", 0);
  for (guint i = 0; entries[i] != NULL; i++) {
    if (!choose_entry (slots, n, g_strstrip (entries[i]), chosen, error))
      return FALSE;
  }
  return TRUE;
}
