/* tests/golden/adapter.c: bases and adapters of the golden data.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "flux/error.h"
#include "tests/golden/parity.h"

FluxTransformer *
parity_base (Parity *p, ParityBase which, GError **error)
{
  g_autofree char *stored = g_build_filename (p->golden_dir, "transformer-nf4", NULL);
  const char *dir = which == PARITY_BASE_STORED ? stored : p->model_dir;

  if (p->bases[which] == NULL && p->base_errors[which] == NULL) {
    if (which == PARITY_BASE_STORED && !g_file_test (stored, G_FILE_TEST_IS_DIR))
      g_set_error (&p->base_errors[which], FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
          "there is no '%s'", stored);
    else
      p->bases[which] = flux_transformer_load (dir, p->backend,
          which == PARITY_BASE_FLOAT ? FX_Q_NONE : FX_Q_NF4, FX_HOME_DEVICE, NULL, NULL,
          NULL, &p->base_errors[which]);
  }
  if (p->bases[which] == NULL && error != NULL)
    *error = g_error_copy (p->base_errors[which]);
  return p->bases[which];
}

ParityBase
parity_base_of (JsonObject *settings, const char *name)
{
  const char *base =
      settings != NULL && json_object_has_member (settings, "base")
          ? json_object_get_string_member_with_default (settings, "base", NULL)
          : NULL;

  return strstr (base != NULL ? base : name, "nf4") != NULL ? PARITY_BASE_QUANTISED
                                                            : PARITY_BASE_FLOAT;
}

FluxModel *
parity_model (Parity *p, ParityBase which, GError **error)
{
  FluxModelKey key = {.path = p->model_dir,
      .qtype = which == PARITY_BASE_FLOAT ? FX_Q_NONE : FX_Q_NF4,
      .compute = p->compute,
      .device = p->device};

  return flux_model_acquire (&key, NULL, NULL, error);
}

static char *
key_of (FluxLora *lora, const FluxLoraTensor *t, const char *prefix)
{
  return g_strdup_printf ("%s.transformer.%s.lora_%c.weight", prefix,
      flux_lora_get_slot (lora, t->slot)->name, t->is_b ? 'B' : 'A');
}

float *
parity_read_adapter (Parity *p, FluxLora *lora, const char *prefix, GError **error)
{
  g_autofree float *flat = g_new0 (float, flux_lora_n_flat (lora));
  g_autofree char *all = g_strdup_printf ("%s.", prefix);
  g_auto (GStrv) names = parity_names (p, all);
  guint n;
  const FluxLoraTensor *tensors = flux_lora_get_tensors (lora, &n);

  for (guint i = 0; i < n; i++) {
    g_autofree char *key = key_of (lora, &tensors[i], prefix);
    gsize length = 0;
    g_autofree float *values = parity_floats (p, &length, "%s", key);
    if (values == NULL || length != tensors[i].n_elements) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
          "the golden data have no '%s' of %" G_GSIZE_FORMAT " values", key,
          tensors[i].n_elements);
      return NULL;
    }
    memcpy (flat + tensors[i].offset, values, length * sizeof (float));
  }
  if (g_strv_length (names) != n) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "'%s' has %u tensors in the golden data; the adapter has %u", prefix,
        g_strv_length (names), n);
    return NULL;
  }
  return g_steal_pointer (&flat);
}

gboolean
parity_set_adapter (
    Parity *p, fx_backend *b, FluxLora *lora, const char *prefix, GError **error)
{
  g_autofree float *flat = parity_read_adapter (p, lora, prefix, error);
  int status;

  if (flat == NULL)
    return FALSE;
  status = fx_upload (
      b, flux_lora_parameters (lora), flat, flux_lora_n_flat (lora) * sizeof (float));
  if (status != FX_OK)
    flux_error_from_fx (error, status, prefix);
  return status == FX_OK;
}

gboolean
parity_add_adapter (Parity *p, ParityError *e, FluxLora *lora, const char *prefix,
    const float *flat, GError **error)
{
  g_autofree float *want = parity_read_adapter (p, lora, prefix, error);
  guint n;
  const FluxLoraTensor *tensors = flux_lora_get_tensors (lora, &n);

  if (want == NULL)
    return FALSE;
  for (guint i = 0; i < n; i++) {
    const FluxLoraTensor *t = &tensors[i];
    g_autofree char *key = key_of (lora, t, prefix);
    parity_add (e, key + strlen (prefix) + strlen (".transformer."), flat + t->offset,
        want + t->offset, t->n_elements);
  }
  return TRUE;
}

/* What follows "blocks.N." */
static const char *
layer_of (const char *slot)
{
  const char *dot = strchr (slot, '.');

  dot = dot != NULL ? strchr (dot + 1, '.') : NULL;
  return dot != NULL ? dot + 1 : slot;
}

/* Has every slot of this layer a tensor? */
static gboolean
layer_is_complete (
    Parity *p, const FluxLoraSlot *slots, guint n, const char *layer, const char *prefix)
{
  for (guint i = 0; i < n; i++) {
    if (strcmp (layer_of (slots[i].name), layer) == 0 &&
        parity_find (p, "%s.transformer.%s.lora_A.weight", prefix, slots[i].name) == NULL)
      return FALSE;
  }
  return TRUE;
}

char *
parity_targets (Parity *p, FluxTransformer *base, const char *prefix)
{
  guint n;
  g_autofree FluxLoraSlot *slots =
      flux_lora_slots (flux_transformer_get_config (base), &n);
  g_autoptr (GHashTable) once = g_hash_table_new (g_str_hash, g_str_equal);
  GString *targets = g_string_new (NULL);

  for (guint i = 0; i < n; i++) {
    const char *name = slots[i].name;
    if (parity_find (p, "%s.transformer.%s.lora_A.weight", prefix, name) == NULL)
      continue;
    if (layer_is_complete (p, slots, n, layer_of (name), prefix))
      name = layer_of (name);
    if (g_hash_table_add (once, (gpointer)name))
      g_string_append_printf (targets, "%s%s", targets->len > 0 ? "," : "", name);
  }
  return g_string_free (targets, FALSE);
}

int
parity_rank (Parity *p, const char *prefix)
{
  g_autofree char *all = g_strdup_printf ("%s.", prefix);
  g_auto (GStrv) names = parity_names (p, all);

  for (guint i = 0; names[i] != NULL; i++) {
    const FluxTensor *t = parity_find (p, "%s", names[i]);
    if (g_str_has_suffix (names[i], ".lora_A.weight") && t->n_dims == 2 &&
        t->dims[0] > 0 && t->dims[0] <= G_MAXINT)
      return (int)t->dims[0];
  }
  return 0;
}

FluxLora *
parity_new_adapter (Parity *p, FluxTransformer *base, const char *prefix, float alpha,
    gboolean with_gradients, GError **error)
{
  g_autofree char *targets = parity_targets (p, base, prefix);
  g_autoptr (FluxLora) lora = NULL;
  int rank = parity_rank (p, prefix);
  fx_backend *b;

  if (rank == 0 || *targets == '\0') {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "the golden data have no adapter '%s' for this model", prefix);
    return NULL;
  }
  b = flux_transformer_get_backend (base);
  lora = flux_lora_new (
      flux_transformer_get_config (base), b, rank, alpha, targets, with_gradients, error);
  if (lora == NULL || !parity_set_adapter (p, b, lora, prefix, error))
    return NULL;
  return g_steal_pointer (&lora);
}
