/* flux/adapters/read.c: reads adapters of every layout that names.c knows.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <string.h>

#include "flux/adapters/alpha.h"
#include "flux/adapters/names.h"
#include "flux/error.h"
#include "flux/transformer/lora-private.h"

enum { MAX_RANK = 4096, NAMED = 3 /* tensors left out that are spelled out */ };

/* A module of the file. */
typedef struct {
  const FluxTensor *parts[FLUX_PART_EXTRA];
  int rank;
  float alpha;
  gboolean sparse; /* fused from modules with an A of their own: B is block-diagonal */
  gboolean idle[FLUX_FUSED_MAX]; /* changes nothing of this slot */
} Found;

typedef struct {
  FluxSafetensors *file;
  const char *path;
  gboolean strict;
  FluxLoraSlot *slots;
  guint n_slots;
  FluxAdapterNames *names;
  Found *found; /* [modules] */
  guint *owner; /* [n_slots] module + 1 */
  FluxLoraReport report;
} Reader;

/* ---- names ---- */

/* Pieces of names of what is no plain LoRA. */
static const struct {
  const char *part, *kind;
} others[] = {{"dora_scale", "DoRA"}, {"magnitude_vector", "DoRA"}, {".hada_", "LyCORIS"},
    {".lokr_", "LyCORIS"}, {".lora_mid.", "LyCORIS"}, {".glora_", "LyCORIS"},
    {".oft_", "LyCORIS"}, {"_oft.", "LyCORIS"}, {".boft_", "LyCORIS"}};

static gboolean
reject_others (Reader *r, const char *name, GError **error)
{
  for (guint i = 0; i < G_N_ELEMENTS (others); i++) {
    if (strstr (name, others[i].part) == NULL)
      continue;
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "'%s' is a %s adapter, which is not supported: it has '%s'; convert it to a "
        "plain LoRA first.",
        r->path, others[i].kind, name);
    return FALSE;
  }
  return TRUE;
}

static gboolean
is_of_text_encoder (const char *name)
{
  static const char *const prefixes[] = {
      "text_encoder", "lora_te", "text_model.", "conditioner."};

  for (guint i = 0; i < G_N_ELEMENTS (prefixes); i++) {
    if (g_str_has_prefix (name, prefixes[i]))
      return TRUE;
  }
  return FALSE;
}

static gboolean
read_f32 (Reader *r, const FluxTensor *t, float *out, GError **error)
{
  if (!flux_tensor_to_f32 (t, out, error))
    return FALSE;
  for (gsize i = 0; i < t->n_elements; i++) {
    if (isfinite (out[i]))
      continue;
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NUMERIC,
        "Tensor '%s' of '%s' contains NaN or Inf; the adapter is broken.", t->name,
        r->path);
    return FALSE;
  }
  return TRUE;
}

static gboolean
all_zero (const float *v, gsize n)
{
  for (gsize i = 0; i < n; i++) {
    if (v[i] != 0)
      return FALSE;
  }
  return TRUE;
}

/* A bias or difference that is all zero, as some tools write them, changes nothing. */
static gboolean
take_extra (Reader *r, const FluxTensor *t, gboolean *matched, GError **error)
{
  g_autofree float *values = g_new (float, MAX (t->n_elements, 1));

  if (!read_f32 (r, t, values, error))
    return FALSE;
  *matched = all_zero (values, t->n_elements);
  return TRUE;
}

/* Files the tensor under its module; *matched is FALSE when it fits none. */
static gboolean
place (Reader *r, const FluxTensor *t, gboolean *matched, GError **error)
{
  const char *format;
  FluxAdapterPart part;
  Found *found;
  guint module;

  *matched = FALSE;
  if (!reject_others (r, t->name, error))
    return FALSE;
  if (!flux_adapter_names_find (r->names, t->name, &module, &part, &format))
    return TRUE;
  if (part == FLUX_PART_EXTRA)
    return take_extra (r, t, matched, error);
  *matched = TRUE;
  if (r->report.format == NULL)
    r->report.format = format;
  found = &r->found[module];
  if (found->parts[part] != NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' has both '%s' and '%s', which are the same part of one module.", r->path,
        found->parts[part]->name, t->name);
    return FALSE;
  }
  found->parts[part] = t;
  return TRUE;
}

/* What the tensors that fit nowhere are, and what to do about them. */
static void
set_strangers_error (Reader *r, gboolean text, gboolean norms, GError **error)
{
  const char *what =
      "the adapter was made for another model or by a tool whose layout is "
      "not known";

  if (text)
    what = "some adapt a text encoder, which is not supported";
  else if (norms)
    what = "some replace weights of the model, as FLUX control adapters do, which is not "
           "supported";
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "%u of the %u tensors in '%s' fit no layer of this transformer: %s; %s. Set "
      "strict=false to go on without them.",
      r->report.n_left_out, r->report.n_tensors, r->path, r->report.left_out, what);
}

static gboolean
place_all (Reader *r, GError **error)
{
  g_autoptr (GString) strangers = g_string_new (NULL);
  guint n = flux_safetensors_get_n_tensors (r->file), unmatched = 0;
  gboolean text = FALSE, norms = FALSE;

  for (guint i = 0; i < n; i++) {
    const FluxTensor *t = flux_safetensors_get_nth (r->file, i);
    gboolean matched;

    if (!place (r, t, &matched, error))
      return FALSE;
    if (matched)
      continue;
    text = text || is_of_text_encoder (t->name);
    norms = norms || strstr (t->name, "_norm.scale") != NULL ||
            strstr (t->name, "attn.norm_") != NULL;
    if (unmatched++ < NAMED)
      g_string_append_printf (
          strangers, "%s'%s'", strangers->len > 0 ? ", " : "", t->name);
  }
  r->report.n_tensors = n;
  r->report.n_left_out = unmatched;
  if (unmatched == 0)
    return TRUE;
  if (unmatched > NAMED)
    g_string_append (strangers, ", ...");
  r->report.left_out = g_strdup (strangers->str);
  if (!r->strict)
    return TRUE;
  set_strangers_error (r, text, norms, error);
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

/* Whose layer is it? Two modules cannot share one. */
static gboolean
own_slots (Reader *r, guint module, GError **error)
{
  const FluxAdapterModule *m = flux_adapter_names_get (r->names, module);

  for (guint i = 0; i < m->n_slots; i++) {
    const guint other = r->owner[m->slots[i]];

    if (other != 0) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
          "'%s' has both '%s' and '%s', which are for one layer ('%s').", r->path,
          r->found[other - 1].parts[FLUX_PART_A]->name,
          r->found[module].parts[FLUX_PART_A]->name, r->slots[m->slots[i]].name);
      return FALSE;
    }
    r->owner[m->slots[i]] = module + 1;
  }
  return TRUE;
}

static gboolean
check_halves (Reader *r, guint module, GError **error)
{
  const FluxAdapterModule *m = flux_adapter_names_get (r->names, module);
  Found *f = &r->found[module];
  const FluxTensor *a = f->parts[FLUX_PART_A], *b = f->parts[FLUX_PART_B];
  gint64 rows = 0;

  if (a == NULL || b == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' has only a part of the module '%s': its %s is missing.", r->path, m->name,
        a == NULL ? "lora_A.weight (lora_down)" : "lora_B.weight (lora_up)");
    return FALSE;
  }
  if (a->n_dims != 2 || a->dims[0] < 1 || a->dims[0] > MAX_RANK * (gint64)m->n_slots) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "Tensor '%s' of '%s' must be [rank, features] with a rank of 1 to %d.", a->name,
        r->path, MAX_RANK * (int)m->n_slots);
    return FALSE;
  }
  f->rank = (int)a->dims[0];
  for (guint i = 0; i < m->n_slots; i++)
    rows += r->slots[m->slots[i]].n;
  if (b->n_dims == 2 && b->dims[0] == rows && b->dims[1] != f->rank) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The ranks of '%s' and '%s' in '%s' differ: %d and %" G_GINT64_FORMAT ".",
        a->name, b->name, r->path, f->rank, b->dims[1]);
    return FALSE;
  }
  return check_tensor (r, a, f->rank, r->slots[m->slots[0]].k, error) &&
         check_tensor (r, b, rows, f->rank, error);
}

/* Are the rows [first, first + n) of b [.., rank] zero but for the columns [from, to)? */
static gboolean
zero_outside (const float *b, int rank, gint64 first, gint64 n, int from, int to)
{
  for (gint64 i = first; i < first + n; i++) {
    const float *row = b + i * rank;

    if (!all_zero (row, from) || !all_zero (row + to, rank - to))
      return FALSE;
  }
  return TRUE;
}

/* kohya makes a module on a fused layer of several by putting their A one under the other
 * and their B into the diagonal; split_qkv and its conversion script do the same. */
static gboolean
look_into_fused (Reader *r, guint module, GError **error)
{
  const FluxAdapterModule *m = flux_adapter_names_get (r->names, module);
  Found *f = &r->found[module];
  const FluxTensor *t = f->parts[FLUX_PART_B];
  const int part = f->rank / (int)m->n_slots;
  g_autofree float *b = g_new (float, t->n_elements);
  gboolean any = FALSE;
  gint64 first = 0;

  if (!read_f32 (r, t, b, error))
    return FALSE;
  f->sparse = f->rank % (int)m->n_slots == 0;
  for (guint i = 0; i < m->n_slots; i++) {
    const gint64 n = r->slots[m->slots[i]].n;

    f->sparse = f->sparse &&
                zero_outside (b, f->rank, first, n, (int)i * part, (int)(i + 1) * part);
    f->idle[i] = all_zero (b + first * f->rank, (gsize)(n * f->rank));
    any = any || !f->idle[i];
    first += n;
  }
  if (!any) /* an adapter that has not learnt yet */
    memset (f->idle, 0, sizeof f->idle);
  return TRUE;
}

static gboolean
check_module (Reader *r, guint module, FluxLoraAlpha *config, GError **error)
{
  const FluxAdapterModule *m = flux_adapter_names_get (r->names, module);
  Found *f = &r->found[module];

  if (f->parts[FLUX_PART_A] == NULL && f->parts[FLUX_PART_B] == NULL &&
      f->parts[FLUX_PART_ALPHA] == NULL)
    return TRUE;
  if (!check_halves (r, module, error) || !own_slots (r, module, error))
    return FALSE;
  f->alpha = flux_lora_alpha_of (config, m->name, f->rank);
  if (f->parts[FLUX_PART_ALPHA] != NULL &&
      !read_alpha (r, f->parts[FLUX_PART_ALPHA], &f->alpha, error))
    return FALSE;
  return m->n_slots == 1 || look_into_fused (r, module, error);
}

static int
rank_of (const Found *f, const FluxAdapterModule *m)
{
  return f->sparse ? f->rank / (int)m->n_slots : f->rank;
}

static void
list_ranks (Reader *r, int *ranks, float *alphas)
{
  for (guint i = 0; i < flux_adapter_names_count (r->names); i++) {
    const FluxAdapterModule *m = flux_adapter_names_get (r->names, i);
    const Found *f = &r->found[i];

    for (guint j = 0; f->rank > 0 && j < m->n_slots; j++) {
      if (f->idle[j])
        continue;
      ranks[m->slots[j]] = rank_of (f, m);
      /* alpha / rank stays. */
      alphas[m->slots[j]] = f->sparse ? f->alpha / (float)m->n_slots : f->alpha;
      r->report.n_layers++;
    }
  }
}

/* Where slot's rows begin in its module, and which of its parts it is. */
static guint
locate (Reader *r, const FluxAdapterModule *m, guint slot, gint64 *row)
{
  guint part = 0;

  for (*row = 0; m->slots[part] != slot; part++)
    *row += r->slots[m->slots[part]].n;
  return part;
}

/* One tensor of the adapter from the half of the module that it lies in. */
static gboolean
fill_tensor (Reader *r, const FluxLoraTensor *t, float *out, GError **error)
{
  const guint module = r->owner[t->slot] - 1;
  const FluxAdapterModule *m = flux_adapter_names_get (r->names, module);
  const Found *f = &r->found[module];
  const FluxTensor *stored = f->parts[t->is_b ? FLUX_PART_B : FLUX_PART_A];
  g_autofree float *values = g_new (float, stored->n_elements);
  gint64 row, column = 0;
  const guint part = locate (r, m, t->slot, &row);

  if (!read_f32 (r, stored, values, error))
    return FALSE;
  if (!t->is_b)
    row = 0;
  if (f->sparse && t->is_b)
    column = (gint64)part * rank_of (f, m);
  else if (f->sparse)
    row = (gint64)part * rank_of (f, m);
  for (gint64 i = 0; i < t->rows; i++) {
    const gint64 from = m->swapped && t->is_b ? (i + t->rows / 2) % t->rows : row + i;

    memcpy (out + i * t->cols, values + from * stored->dims[1] + column,
        (gsize)t->cols * sizeof (float));
  }
  return TRUE;
}

static gboolean
fill (Reader *r, FluxLora *lora, GError **error)
{
  g_autofree float *values = g_malloc0 (MAX (lora->n_flat, 1) * sizeof (float));
  int status;

  for (guint i = 0; i < lora->n_tensors; i++) {
    if (!fill_tensor (r, &lora->tensors[i], values + lora->tensors[i].offset, error))
      return FALSE;
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
  g_autofree int *ranks = g_new0 (int, MAX (r->n_slots, 1));
  g_autofree float *alphas = g_new0 (float, MAX (r->n_slots, 1));
  g_autoptr (FluxLora) lora = NULL;

  if (config == NULL || !place_all (r, error))
    return NULL;
  for (guint i = 0; i < flux_adapter_names_count (r->names); i++) {
    if (!check_module (r, i, config, error))
      return NULL;
  }
  list_ranks (r, ranks, alphas);
  if (r->report.n_layers == 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' holds no LoRA module for this transformer at all.", r->path);
    return NULL;
  }
  lora = flux_lora_build (c, b, ranks, alphas, with_gradients, error);
  if (lora == NULL || !fill (r, lora, error))
    return NULL;
  return g_steal_pointer (&lora);
}

FluxLora *
flux_lora_read (const FluxConfig *c, fx_backend *b, const char *path, gboolean strict,
    gboolean with_gradients, FluxLoraReport *report, GError **error)
{
  g_autoptr (FluxSafetensors) file = flux_safetensors_open (path, error);
  Reader r = {.file = file, .strict = strict};
  FluxLora *lora;

  if (file == NULL)
    return NULL;
  r.path = flux_safetensors_get_path (file);
  r.slots = flux_lora_slots (c, &r.n_slots);
  r.names = flux_adapter_names_new (c);
  r.found = g_new0 (Found, MAX (flux_adapter_names_count (r.names), 1));
  r.owner = g_new0 (guint, MAX (r.n_slots, 1));
  lora = read_lora (&r, c, b, with_gradients, error);
  if (lora != NULL && report != NULL)
    *report = r.report;
  else
    flux_lora_report_clear (&r.report);
  flux_adapter_names_free (r.names);
  g_free (r.found);
  g_free (r.owner);
  g_free (r.slots);
  return lora;
}

FluxLora *
flux_lora_load (const FluxConfig *c, fx_backend *b, const char *path,
    gboolean with_gradients, GError **error)
{
  return flux_lora_read (c, b, path, TRUE, with_gradients, NULL, error);
}

void
flux_lora_report_clear (FluxLoraReport *report)
{
  g_clear_pointer (&report->left_out, g_free);
}
