/* flux/transformer/lora-load.c: reads adapters in the layout of diffusers and peft.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Names: [transformer.|base_model.model.]MODULE.lora_A.weight [r, k] and .lora_B.weight
 * [n, r] (peft may put ".default" before ".weight"), and optionally MODULE.alpha. */
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/transformer/lora-alpha.h"
#include "flux/transformer/lora-private.h"

enum { MAX_RANK = 4096, NAMED = 3 /* unmatched keys that an error spells out */ };

typedef enum { PART_A, PART_B, PART_ALPHA, N_PARTS } Part;

typedef struct {
  const FluxTensor *parts[N_PARTS];
} Found;

typedef struct {
  FluxSafetensors *file;
  const char *path;
  FluxLoraSlot *slots;
  guint n_slots;
  GHashTable *by_name; /* slot name -> index + 1 */
  Found *found;        /* [n_slots] */
} Reader;

/* ---- names ---- */

typedef struct {
  const char *part, *kind;
} Foreign;

/* Pieces of names that other formats use. */
static const Foreign foreign[] = {{"dora_scale", "DoRA"}, {"magnitude_vector", "DoRA"},
    {".hada_", "LyCORIS"}, {".lokr_", "LyCORIS"}, {"lora_unet_", "kohya"},
    {"lora_te", "kohya"}, {".lora_down.", "kohya"}, {".lora_up.", "kohya"},
    {"diffusion_model.", "ComfyUI"}, {".processor.", "XLabs"}, {"double_blocks.", "BFL"},
    {"query_norm.scale", "BFL"}};

static gboolean
reject_foreign (Reader *r, const char *name, GError **error)
{
  if (g_str_has_prefix (name, "text_encoder")) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "'%s' also adapts a text encoder ('%s'), which is not supported; leave those "
        "tensors out of the file.",
        r->path, name);
    return FALSE;
  }
  for (guint i = 0; i < G_N_ELEMENTS (foreign); i++) {
    if (strstr (name, foreign[i].part) == NULL)
      continue;
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "'%s' is not a diffusers/PEFT LoRA of the transformer: it has the %s key '%s'; "
        "convert it to the diffusers layout first.",
        r->path, foreign[i].kind, name);
    return FALSE;
  }
  return TRUE;
}

/* Splits a key into its module and what it is of it. */
static gboolean
split_name (const char *name, char **module, Part *part)
{
  static const struct {
    const char *end;
    Part part;
  } ends[] = {{".lora_A.weight", PART_A}, {".lora_B.weight", PART_B},
      {".lora_A.default.weight", PART_A}, {".lora_B.default.weight", PART_B},
      {".alpha", PART_ALPHA}};
  static const char *const prefixes[] = {"base_model.model.", "transformer."};

  for (guint i = 0; i < G_N_ELEMENTS (prefixes); i++) {
    if (g_str_has_prefix (name, prefixes[i]))
      name += strlen (prefixes[i]);
  }
  for (guint i = 0; i < G_N_ELEMENTS (ends); i++) {
    if (!g_str_has_suffix (name, ends[i].end))
      continue;
    *module = g_strndup (name, strlen (name) - strlen (ends[i].end));
    *part = ends[i].part;
    return TRUE;
  }
  return FALSE;
}

/* Files the tensor under its slot; *matched is FALSE when there is none. */
static gboolean
place (Reader *r, const FluxTensor *t, gboolean *matched, GError **error)
{
  g_autofree char *module = NULL;
  gpointer index;
  Found *found;
  Part part;

  *matched = FALSE;
  if (!reject_foreign (r, t->name, error))
    return FALSE;
  if (!split_name (t->name, &module, &part) ||
      (index = g_hash_table_lookup (r->by_name, module)) == NULL)
    return TRUE;
  *matched = TRUE;
  found = &r->found[GPOINTER_TO_UINT (index) - 1];
  if (found->parts[part] != NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' has both '%s' and '%s', which are the same part of one module.", r->path,
        found->parts[part]->name, t->name);
    return FALSE;
  }
  found->parts[part] = t;
  return TRUE;
}

static gboolean
place_all (Reader *r, GError **error)
{
  g_autoptr (GString) strangers = g_string_new (NULL);
  guint n = flux_safetensors_get_n_tensors (r->file), unmatched = 0;

  for (guint i = 0; i < n; i++) {
    const FluxTensor *t = flux_safetensors_get_nth (r->file, i);
    gboolean matched;
    if (!place (r, t, &matched, error))
      return FALSE;
    if (!matched && unmatched++ < NAMED)
      g_string_append_printf (
          strangers, "%s'%s'", strangers->len > 0 ? ", " : "", t->name);
  }
  if (unmatched == 0)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "%u of the %u tensors in '%s' fit no layer of this transformer: %s%s; the adapter "
      "was made for another model or is not a diffusers/PEFT LoRA.",
      unmatched, n, r->path, strangers->str, unmatched > NAMED ? ", ..." : "");
  return FALSE;
}

/* ---- shapes and values ---- */

static gboolean
check_tensor (Reader *r, const FluxTensor *t, gint64 rows, gint64 cols, GError **error)
{
  if (t->n_dims == 2 && t->dims[0] == rows && t->dims[1] == cols)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "Tensor '%s' of '%s' does not have the shape [%" G_GINT64_FORMAT
      ", %" G_GINT64_FORMAT "] that this transformer needs.",
      t->name, r->path, rows, cols);
  return FALSE;
}

static gboolean
read_alpha (Reader *r, const FluxTensor *t, float *alpha, GError **error)
{
  if (t->n_elements != 1) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "Tensor '%s' of '%s' must hold one number.", t->name, r->path);
    return FALSE;
  }
  if (!flux_tensor_to_f32 (t, alpha, error))
    return FALSE;
  if (isfinite (*alpha))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC,
      "Tensor '%s' of '%s' is not a finite number.", t->name, r->path);
  return FALSE;
}

static gboolean
check_slot (
    Reader *r, guint slot, FluxLoraAlpha *config, int *rank, float *alpha, GError **error)
{
  const FluxTensor *const *parts = r->found[slot].parts;
  const FluxTensor *a = parts[PART_A], *b = parts[PART_B];
  const FluxLoraSlot *s = &r->slots[slot];

  *rank = 0;
  if (a == NULL && b == NULL && parts[PART_ALPHA] == NULL)
    return TRUE;
  if (a == NULL || b == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' has only a part of the module '%s': its lora_%c.weight is missing.",
        r->path, s->name, a == NULL ? 'A' : 'B');
    return FALSE;
  }
  if (a->n_dims != 2 || a->dims[0] < 1 || a->dims[0] > MAX_RANK) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "Tensor '%s' of '%s' must be [rank, features] with a rank of 1 to %d.", a->name,
        r->path, MAX_RANK);
    return FALSE;
  }
  *rank = (int)a->dims[0];
  if (b->n_dims == 2 && b->dims[0] == s->n && b->dims[1] != *rank) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The ranks of '%s' and '%s' in '%s' differ: %d and %" G_GINT64_FORMAT ".",
        a->name, b->name, r->path, *rank, b->dims[1]);
    return FALSE;
  }
  if (!check_tensor (r, a, *rank, s->k, error) ||
      !check_tensor (r, b, s->n, *rank, error))
    return FALSE;
  *alpha = flux_lora_alpha_of (config, s->name, *rank);
  return parts[PART_ALPHA] == NULL || read_alpha (r, parts[PART_ALPHA], alpha, error);
}

static gboolean
read_values (Reader *r, FluxLora *lora, GError **error)
{
  g_autofree float *values = g_malloc0 (MAX (lora->n_flat, 1) * sizeof (float));
  int status;

  for (guint i = 0; i < lora->n_tensors; i++) {
    const FluxLoraTensor *t = &lora->tensors[i];
    const FluxTensor *stored = r->found[t->slot].parts[t->is_b ? PART_B : PART_A];
    float *v = values + t->offset;
    if (!flux_tensor_to_f32 (stored, v, error))
      return FALSE;
    for (gsize j = 0; j < t->n_elements; j++) {
      if (isfinite (v[j]))
        continue;
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC,
          "Tensor '%s' of '%s' contains NaN or Inf; the adapter is broken.", stored->name,
          r->path);
      return FALSE;
    }
  }
  status = fx_upload (
      lora->backend, lora->parameters.base, values, lora->n_flat * sizeof (float));
  if (status != FX_OK)
    flux_error_from_fx (error, status, r->path);
  return status == FX_OK;
}

static FluxLora *
read_lora (Reader *r, const FluxConfig *c, fx_backend *b, gboolean with_gradients,
    GError **error)
{
  g_autoptr (FluxLoraAlpha) config = flux_lora_alpha_read (r->file, error);
  g_autofree int *ranks = g_new0 (int, r->n_slots);
  g_autofree float *alphas = g_new0 (float, r->n_slots);
  g_autoptr (FluxLora) lora = NULL;

  if (config == NULL || !place_all (r, error))
    return NULL;
  for (guint i = 0; i < r->n_slots; i++) {
    if (!check_slot (r, i, config, &ranks[i], &alphas[i], error))
      return NULL;
  }
  lora = flux_lora_build (c, b, ranks, alphas, with_gradients, error);
  if (lora == NULL)
    return NULL;
  if (lora->n_tensors == 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' holds no LoRA module at all.", r->path);
    return NULL;
  }
  return read_values (r, lora, error) ? g_steal_pointer (&lora) : NULL;
}

FluxLora *
flux_lora_load (const FluxConfig *c, fx_backend *b, const char *path,
    gboolean with_gradients, GError **error)
{
  g_autoptr (FluxSafetensors) file = flux_safetensors_open (path, error);
  Reader r = {.file = file};
  FluxLora *lora;

  if (file == NULL)
    return NULL;
  r.path = flux_safetensors_get_path (file);
  r.slots = flux_lora_slots (c, &r.n_slots);
  r.found = g_new0 (Found, r.n_slots);
  r.by_name = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < r.n_slots; i++)
    g_hash_table_insert (r.by_name, r.slots[i].name, GUINT_TO_POINTER (i + 1));
  lora = read_lora (&r, c, b, with_gradients, error);
  g_hash_table_unref (r.by_name);
  g_free (r.found);
  g_free (r.slots);
  return lora;
}
